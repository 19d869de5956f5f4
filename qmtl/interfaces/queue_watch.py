"""Which queues carry data, by their tags and interval: seeded from the tables, followed by events, and held to the tables again and again.

The DAG Manager tells of every change at least once, in an event that names the whole set and counts the changes of its key. So an event
that counts no further than what is known of its key says nothing new, whether it came twice, late, or after the tables had told; and one
that is lost is made up for by the next one, or by the next reading of the tables.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, TypeAlias, assert_never

from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.stamps import digest_of, last_stamp
from qmtl.engine.view import BATCH, all_partitions, read_all
from qmtl.foundation.common.errors import InvalidValue, QmtlError, StampMismatch, WireError
from qmtl.foundation.contracts.dag import (
    Queue,
    QueueCollected,
    QueueRole,
    QueueUpdated,
    SentinelStatus,
    TagSet,
    VersionSentinel,
)
from qmtl.foundation.wire.keys import is_reserved, is_stamp
from qmtl.foundation.wire.registry import codec
from qmtl.services.dagmanager.catalogue import is_usable
from qmtl.services.dagmanager.queues import etag_head

RECONCILE_S: Final = 300.0
"""How often the tables are read again where nobody says."""

SETTLED_MS: Final = 60_000
"""A transaction that is so old is to be seen in every topic that it wrote. Kafka ends it in each partition on its own, so of a younger
one the tables may lack what `queue` has."""

TABLES: Final = ("dag.tags", "dag.queues", "dag.sentinels")

_EVENTS: Final = "queue"
_TOLD_THERE: Final = frozenset((QueueUpdated, QueueCollected))
_LOOKS: Final = 100
_LOOK_AGAIN_S: Final = 0.05
_COUNT: Final = re.compile(r"[1-9][0-9]{0,18}")
_MAX_CHANGES: Final = 2**63 - 1


# ---- the data --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class SetKey:
    """What the queues of a set have in common.

    Attributes:
        tags: exactly these, in the order in which the DAG Manager has them.
        interval: in seconds.
    """

    tags: tuple[str, ...]
    interval: int


@dataclass(frozen=True, slots=True)
class Choice:
    """The sets that somebody wants: those with all of these tags, and perhaps others, at an interval in seconds if one is given."""

    tags: frozenset[str]
    interval: int | None = None

    def has(self, key: SetKey) -> bool:
        return self.tags <= set(key.tags) and self.interval in (None, key.interval)


@dataclass(frozen=True, slots=True)
class ReadySet:
    """The queues of a key that carry data: their topics are there, and an active version has their nodes.

    Attributes:
        queues: in the order of their names.
        changes: how many changes of the set this one contains.
    """

    key: SetKey
    queues: tuple[str, ...]
    changes: int

    @property
    def etag(self) -> str:
        return etag_of(self.key, self.changes)


class Cause(Enum):
    """What a change was learnt from."""

    SEEDED = "seeded"
    """The first reading of the tables."""
    EVENT = "event"
    RECONCILED = "reconciled"
    """A later reading of the tables, which differed from what the events had told."""


@dataclass(frozen=True, slots=True)
class SetChanged:
    """A set is another one than before.

    Attributes:
        added, removed: queues in the order of their names; not both are empty.
        etag: of the set as it is now.
    """

    key: SetKey
    added: tuple[str, ...]
    removed: tuple[str, ...]
    etag: str
    cause: Cause


@dataclass(frozen=True, slots=True)
class EventUnread:
    """A record of `queue` that could not be used; what it had to tell comes with the next event of its key, or with the tables.

    Attributes:
        code: of the error.
        what: what was wrong, in a sentence.
    """

    offset: int
    code: str
    what: str


Told: TypeAlias = SetChanged | EventUnread


# ---- the rules -------------------------------------------------------------------------------------------------------


def etag_of(key: SetKey, changes: int) -> str:
    """The etag with which the DAG Manager tells of a set after so many changes."""
    return f"{_etag_head(key)}{changes}"


def changes_in(event: QueueUpdated) -> int:
    """How many changes of its set an event contains, which its etag ends in.

    Raises:
        InvalidValue: the etag is not that of the event's own tags and interval, or ends in no count from 1 to 2**63 - 1 as one writes
            a number.
    """
    key = SetKey(event.tags, event.interval)
    head = _etag_head(key)
    if event.etag.startswith(head):
        count = event.etag.removeprefix(head)
        if _COUNT.fullmatch(count) and int(count) <= _MAX_CHANGES:
            return int(count)
    raise InvalidValue(
        f"the etag of an event was {event.etag[:200]!r}; {etag_of(key, 1)[:200]!r} is one of its tags and its interval, and ends in a"
        f" count of changes from 1 to {_MAX_CHANGES}.",
        "Whoever wrote it is no DAG Manager of this version.",
    )


def _etag_head(key: SetKey) -> str:
    return etag_head(key.tags, key.interval)


@dataclass(frozen=True, slots=True)
class _Held:
    """What is known of a key.

    Attributes:
        round: how many readings of the tables there had been when it was learnt.
    """

    queues: tuple[str, ...]
    changes: int
    round: int


_NOTHING: Final = _Held((), 0, 0)


class ReadySets:
    """The chosen sets as they become others; of each key the last one and its count are all that is kept."""

    def __init__(self, choice: Choice) -> None:
        self._choice = choice
        self._held: dict[SetKey, _Held] = {}
        self._round = 0

    def present(self) -> list[ReadySet]:
        """Those that have a queue, in the order of their keys."""
        return [
            ReadySet(key, held.queues, held.changes)
            for key, held in sorted(self._held.items(), key=lambda item: item[0])
            if held.queues
        ]

    def hear(self, event: QueueUpdated) -> SetChanged | None:
        """Take an event; None where it is of no chosen set or says nothing new.

        Raises:
            InvalidValue: as `changes_in`; nothing has changed.
        """
        key = SetKey(event.tags, event.interval)
        if not self._choice.has(key):
            return None
        changes = changes_in(event)
        if changes <= self._held.get(key, _NOTHING).changes:
            return None
        return self._put(ReadySet(key, event.queues, changes), Cause.EVENT)

    def reconcile(self, tables: Iterable[ReadySet], cause: Cause = Cause.RECONCILED) -> list[SetChanged]:
        """Take what the tables say, in the order of the keys; returns what differed.

        A set that an event has told further than the tables is left alone once, as the tables were read before or with it. What was
        known at the last reading they must contain: if they count less they are other tables, restored ones for instance, and are right.

        Args:
            tables: the chosen sets, read after the last call of this, and one per key.
        """
        found = {one.key: one for one in tables}
        out = []
        for key in sorted(found.keys() | self._held.keys()):
            row = found.get(key, ReadySet(key, (), 0))
            held = self._held.get(key, _NOTHING)
            if held.changes > row.changes and held.round == self._round:
                continue
            if (change := self._put(row, cause)) is not None:
                out.append(change)
            if key not in found:
                del self._held[key]
        self._round += 1
        return out

    def _put(self, now: ReadySet, cause: Cause) -> SetChanged | None:
        before = set(self._held.get(now.key, _NOTHING).queues)
        after = set(now.queues)
        self._held[now.key] = _Held(tuple(sorted(after)), now.changes, self._round)
        if before == after:
            return None
        return SetChanged(
            now.key, tuple(sorted(after - before)), tuple(sorted(before - after)), now.etag, cause
        )


# ---- the tables ------------------------------------------------------------------------------------------------------


def read_ready_sets(log: Log, choice: Choice, wait: Callable[[float], object] = time.sleep) -> list[ReadySet]:
    """The chosen sets as one transaction of the DAG Manager has left its tables, in the order of their keys; empty ones too.

    Args:
        wait: waits so many seconds.

    Raises:
        UnknownTopic: the log has not all of these tables.
        StampMismatch: they never ended with the same transaction, however often they were looked at.
        WireError: a row can't be read.
    """
    tables = _Tables(log)
    for _ in range(_LOOKS):
        tables.read()
        if tables.is_one_cut():
            return tables.ready_sets(choice)
        wait(_LOOK_AGAIN_S)
    raise StampMismatch(
        f"the tables {', '.join(TABLES)} were looked at {_LOOKS} times, and never ended with the same transaction.",
        "Try again; if it stays so, one of them was cut or written by somebody else: restore the topics together.",
    )


class _Tables:
    """Several topics are not read at one moment: the stamps with which transactions end what they write say whether they are of one."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._wheres = [where for name in TABLES for where in all_partitions(log, name)]
        self._next: dict[TopicPartition, int] = {}
        self._rows: dict[str, dict[bytes, bytes]] = {name: {} for name in TABLES}
        self._stamps: dict[str, bytes | None] = {}

    def read(self) -> None:
        """What has been committed since the last time."""
        for record in read_all(self._log, self._wheres, self._next):
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if is_stamp(record.key):
                self._stamps[record.topic] = record.value
            elif is_reserved(record.key):
                continue
            elif record.value is None:
                self._rows[record.topic].pop(record.key, None)
            else:
                self._rows[record.topic][record.key] = record.value

    def is_one_cut(self) -> bool:
        """Whether one transaction was the last of all; a table of which nothing was ever written has no stamp."""
        stamps = {name: data for name, data in self._stamps.items() if data is not None}
        decoded = {name: (data, codec.decode(data)) for name, data in stamps.items()}
        ends = {name: digest_of(stamps[name]) if name in stamps else None for name in TABLES}
        return not stamps or last_stamp(decoded, ends) is not None

    def ready_sets(self, choice: Choice) -> list[ReadySet]:
        versions: list[VersionSentinel] = self._decoded("dag.sentinels")
        carried = {
            node_id for one in versions if one.status is SentinelStatus.ACTIVE for node_id in one.node_ids
        }
        topics: dict[SetKey, list[str]] = {}
        queues: list[Queue] = self._decoded("dag.queues")
        for queue in queues:
            carries = is_usable(queue) and queue.role is QueueRole.CURRENT and queue.node_id in carried
            if queue.tags and carries:
                topics.setdefault(SetKey(queue.tags, queue.interval), []).append(queue.topic)
        rows: list[TagSet] = self._decoded("dag.tags")
        changes = {SetKey(row.tags, row.interval): row.changes for row in rows}
        return [
            ReadySet(key, tuple(sorted(topics.get(key, ()))), changes.get(key, 0))
            for key in sorted(topics.keys() | changes.keys())
            if choice.has(key)
        ]

    def _decoded(self, name: str) -> list[Any]:
        return [codec.decode(value) for value in self._rows[name].values()]


# ---- following -------------------------------------------------------------------------------------------------------


class QueueWatch:
    """Follows the chosen sets on a log. Not thread-safe.

    Where the events are read from is settled before the tables are read, so that nothing is missed between them.

    Args:
        reconcile_s: how long after a reading of the tables they are read again, in seconds of `clock`.
        clock: seconds, from any beginning.
        wait: waits so many seconds.

    Raises:
        UnknownTopic, StampMismatch, WireError: as `read_ready_sets`.

    Attributes:
        seeded: the sets that there were at the beginning, as changes from nothing.
    """

    def __init__(
        self,
        log: Log,
        choice: Choice,
        *,
        reconcile_s: float = RECONCILE_S,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], object] = time.sleep,
    ) -> None:
        self._log = log
        self._choice = choice
        self._every_s = reconcile_s
        self._clock = clock
        self._wait = wait
        self._sets = ReadySets(choice)
        self._wheres = all_partitions(log, _EVENTS)
        self._reader = log.reader()
        try:
            self._reader.assign(self._starts())
            self.seeded: Sequence[SetChanged] = self._sets.reconcile(
                read_ready_sets(log, choice, wait), Cause.SEEDED
            )
        except BaseException:
            self._reader.close()
            raise
        self._due_s = clock() + reconcile_s

    def present(self) -> list[ReadySet]:
        """The sets that have a queue, as far as was told, in the order of their keys."""
        return self._sets.present()

    def poll(self, timeout_s: float) -> list[Told]:
        """What is new: by events, for which it waits so long, or by the tables where it is time to read them.

        Raises:
            LogError: the log did not answer; what was not told is told later.
            WireError: as `read_ready_sets`.
        """
        if self._clock() < self._due_s:
            return self._hear(self._reader.poll(BATCH, timeout_s))
        tables = read_ready_sets(self._log, self._choice, self._wait)
        out = self._hear(self._told_by_now())
        out += self._sets.reconcile(tables)
        self._due_s = self._clock() + self._every_s
        return out

    def close(self) -> None:
        self._reader.close()

    def _starts(self) -> dict[TopicPartition, int]:
        """Before every event of which the tables may not have the change yet; those before have been counted in them."""
        stable = self._log.stable_offsets(self._wheres)
        back = self._log.offsets_at_time(self._wheres, self._log.now_ms() - SETTLED_MS)
        return {where: min(back[where], offset) for where, offset in stable.items()}

    def _told_by_now(self) -> list[Record]:
        """The events that are there: those of all changes in the tables that were read before, so that only what no event told is
        corrected."""
        ends = self._log.stable_offsets(self._wheres)
        out: list[Record] = []
        while any(self._reader.positions().get(where, 0) < end for where, end in ends.items()):
            out += self._reader.poll(BATCH, 0.1)
        return out

    def _hear(self, records: Iterable[Record]) -> list[Told]:
        out: list[Told] = []
        for record in records:
            if record.value is None or is_reserved(record.key):
                continue
            try:
                told: Told | None = self._take(record.value)
            except (WireError, InvalidValue) as problem:
                told = _unread(record, problem)
            if told is not None:
                out.append(told)
        return out

    def _take(self, value: bytes) -> SetChanged | None:
        event: QueueUpdated | QueueCollected = codec.decode_as(value, _TOLD_THERE)
        match event:
            case QueueUpdated():
                return self._sets.hear(event)
            case QueueCollected():
                return None  # it was no more among the ready ones before it went
            case _:
                assert_never(event)


def _unread(record: Record, problem: QmtlError) -> EventUnread:
    return EventUnread(record.offset, problem.code, problem.what)
