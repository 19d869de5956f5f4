"""Rebuilds every table of every processor from the log, by the code that recovery runs, and compares it with the live store.

A live store is true for its checkpoint, so the log is taken to end there: the comparison is exact while workers run. Where there is
no live store, the log is folded up to its end, and what the tables say of the inputs is compared with the committed positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from qmtl.engine.log.port import (
    Log,
    Positions,
    TopicPartition,
)
from qmtl.engine.processor import Processor
from qmtl.engine.recovery import restore
from qmtl.engine.store import Store
from qmtl.engine.store_view import StoreView
from qmtl.engine.stored import Checkpoint
from qmtl.engine.table import Table, unframe
from qmtl.engine.view import all_partitions
from qmtl.foundation.common.errors import LogRegressed, QmtlError
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec, topic

Clock = Callable[[], float]
Progress = Callable[[str, int, int], None]
"""Called with the task, the offsets restored so far, and how many there are."""


class Against(Enum):
    """What a rebuilt task was compared with."""

    STORE = "live store"
    NOTHING = "no live store"
    OTHER_LOG = "no live store of this log"
    OUTDATED = "no recent live store"


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing of a table, or of a task where `table` is empty, that is not as it should be.

    Attributes:
        key: the row's key; None where no single row is meant.
        live, rebuilt: the newest value on each side; None where the row is missing.
    """

    table: str
    what: str
    key: bytes | None = None
    live: bytes | None = None
    rebuilt: bytes | None = None


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table of one task.

    Attributes:
        rows: of the rebuilt table.
        equal: rows that are the same on both sides; None where there was no other side.
        seconds: its rebuilding shared evenly among the tables of the task, and its own comparison.
    """

    table: str
    rows: int
    equal: int | None
    seconds: float
    difference: Difference | None = None


@dataclass(frozen=True, slots=True)
class TaskReport:
    """One task of one processor.

    Attributes:
        records: read from the log.
        difference: what is wrong with the task as a whole: positions or buckets.
    """

    processor: str
    task: int
    against: Against
    records: int
    tables: tuple[TableReport, ...]
    difference: Difference | None = None

    @property
    def differences(self) -> list[Difference]:
        """What was found, the task's own first."""
        found = [self.difference, *(one.difference for one in self.tables)]
        return [one for one in found if one is not None]


def verify(
    log: Log,
    codec: Codec,
    makers: Iterable[Callable[[], Processor]],
    tasks_dir: Path,
    scratch: Path,
    clock: Clock,
    progress: Progress | None = None,
) -> Iterator[TaskReport]:
    """One report per task of every processor that owns tables.

    Args:
        makers: give a new processor each.
        tasks_dir: the live stores lie in `<processor>-<task>` below it.
        scratch: an empty directory, in which the tables are rebuilt.
        clock: seconds, for `TableReport.seconds` alone.

    Raises:
        LogRegressed: a live store contains more than the log has.
        RecoveryStalled, StampMismatch: the log does not fold; see `qmtl.engine.recovery`.
    """
    for make in makers:
        prototype = make()
        if not prototype.tables:
            continue
        for where in all_partitions(log, prototype.anchor):
            name = f"{prototype.name}-{where.partition}"
            run = _Run(log, codec, make(), where.partition, scratch / name, clock, progress)
            yield run.report(tasks_dir / name)


@dataclass(slots=True)
class _Run:
    """The verification of one task."""

    log: Log
    codec: Codec
    processor: Processor
    task: int
    scratch: Path
    clock: Clock
    progress: Progress | None

    def report(self, directory: Path) -> TaskReport:
        wheres = self._wheres()
        live = StoreView(directory, self.scratch / "view") if StoreView.exists(directory) else None
        try:
            _look_again(self.log, wheres)  # the store was opened first; the log is to be at least as new
            known = None if live is None else live.checkpoint
            against = self._against(known, wheres)
            if live is None or known is None or against is not Against.STORE:
                return self._fold(against, self.log.end_offsets(wheres))
            return self._compare(live, known)
        finally:
            if live is not None:
                live.close()

    def _wheres(self) -> list[TopicPartition]:
        return [TopicPartition(name, self.task) for name in self.processor.tables]

    def _against(self, known: Checkpoint | None, wheres: Sequence[TopicPartition]) -> Against:
        if known is None or not known.tables:
            return Against.NOTHING
        if known.log_id != self.log.log_id:
            return Against.OTHER_LOG
        ends = self.log.end_offsets(wheres)
        for where in wheres:
            if known.tables.get(where, 0) > ends[where]:
                raise LogRegressed(
                    f"{where.topic}[{where.partition}] ends at {ends[where]}, but the store {self.processor.name}-{self.task}"
                    f" contains it up to {known.tables[where]}.",
                    "The topic was truncated or made anew. If that is intended, delete the store.",
                )
        stable = self.log.stable_offsets(wheres)
        lag_ms = min(topic(where.topic).min_compaction_lag_ms for where in wheres)
        behind = any(
            known.tables.get(where, 0) + 1 < stable[where] for where in wheres
        )  # + 1: the transaction's own marker
        if behind and self.log.now_ms() - known.written_at_ms > lag_ms:
            return Against.OUTDATED  # compaction may have taken versions that the store still shows
        return Against.STORE

    # ---- with a live store ------------------------------------------------------------------------------------------

    def _compare(self, live: StoreView, known: Checkpoint) -> TaskReport:
        rebuilt = _Rebuilt(self, {where: known.tables.get(where, 0) for where in self._wheres()})
        try:
            tables = [self._table(name, rebuilt, live) for name in self.processor.tables]
            difference = _positions_differ(known, rebuilt)
            foreign = sorted(set(live.tables()) - set(self.processor.tables))
            if foreign and difference is None:
                what = f"the live store has rows of {foreign[0]}, which is no table of {self.processor.name}"
                difference = Difference(foreign[0], what)
            return TaskReport(
                self.processor.name, self.task, Against.STORE, rebuilt.records, tuple(tables), difference
            )
        finally:
            rebuilt.store.close()

    # ---- without ------------------------------------------------------------------------------------------------------

    def _fold(self, against: Against, ends: Positions) -> TaskReport:
        rebuilt = _Rebuilt(self)
        try:
            tables = [self._table(name, rebuilt, None) for name in self.processor.tables]
            self.processor.restore(rebuilt.tables)
            difference = self._uncommitted(rebuilt, ends)
            return TaskReport(
                self.processor.name, self.task, against, rebuilt.records, tuple(tables), difference
            )
        finally:
            rebuilt.store.close()

    def _uncommitted(self, rebuilt: _Rebuilt, ends: Positions) -> Difference | None:
        """Positions are committed with the tables' stamps in one transaction, so they are equal unless there was another since."""
        committed = self._committed()
        if dict(self.log.end_offsets(self._wheres())) != dict(ends):
            return None
        for where, offset in sorted(committed.items()):
            if rebuilt.positions.get(where) != offset:
                return Difference(
                    "",
                    f"the tables contain {where.topic}[{where.partition}] up to {rebuilt.positions.get(where)},"
                    f" the group has committed {offset}",
                )
        return None

    def _committed(self) -> Positions:
        """Of the inputs that this task reads alone: with several tasks, each commits what it has read of a broadcast."""
        alone = len(all_partitions(self.log, self.processor.anchor)) == 1
        wheres = [
            where
            for one in self.processor.inputs()
            if one.topic not in self.processor.tables and (alone or not one.broadcast)
            for where in all_partitions(self.log, one.topic)
            if one.broadcast or where.partition == self.task
        ]
        return self.log.committed(f"qmtl.{self.processor.name}", wheres)

    # ---- one table ------------------------------------------------------------------------------------------------------

    def _table(self, name: str, rebuilt: _Rebuilt, live: StoreView | None) -> TableReport:
        started = self.clock()
        rows, equal = 0, 0
        first: Difference | None = None
        spec = topic(name)
        both = _merged(rebuilt.rows(name), live.newest(name) if live is not None else None)
        for key, made, stored in both:
            rows += made is not None
            if made == stored:
                equal += 1
                found = self._unsound(spec, key, made) if first is None else None
            elif made is None:
                found = Difference(
                    name, "the live store has a row that the log does not give", key, stored, made
                )
            elif stored is None:
                found = Difference(
                    name, "the log gives a row that the live store does not have", key, stored, made
                )
            else:
                found = Difference(
                    name, "the live store has another value than the log gives", key, stored, made
                )
            first = first or found
        seconds = self.clock() - started + rebuilt.seconds / len(self.processor.tables)
        return TableReport(name, rows, None if live is None else equal, seconds, first)

    def _unsound(self, spec: TopicSpec, key: bytes, value: bytes | None) -> Difference | None:
        """A row that both sides have, but nobody could have put."""
        if value is None:
            return None
        try:
            message = self.codec.decode_as(value, frozenset(spec.messages))
            if encode_key(spec.key_of(message)) == key:
                return None
            what = "a row lies under another key than its message has"
        except QmtlError as problem:
            what = f"a row does not decode ({problem.code})"
        return Difference(spec.name, what, key, value, value)


class _Rebuilt:
    """The tables of one task, restored into an empty store from a log that ends where it is told, or with its last transaction."""

    def __init__(self, run: _Run, ends: Positions | None = None) -> None:
        started = run.clock()
        self.store = Store(run.scratch / "store", run.log.log_id)
        own = run.processor.tables
        look_back = {one.topic: one.lag for one in run.processor.inputs() if one.lag and one.topic in own}
        self.tables = {
            name: Table(topic(name), run.task, self.store, run.codec, look_back.get(name, 0)) for name in own
        }
        label = f"{run.processor.name}[{run.task}]"
        tell = run.progress
        try:
            restored = restore(
                run.log,
                self.store,
                self.tables,
                run.codec,
                until=ends,
                progress=None if tell is None else lambda done, total: tell(label, min(done, total), total),
            )
        except BaseException:
            self.store.close()
            raise
        self.positions = dict(restored.positions)
        self.buckets = restored.buckets
        self.records = restored.records
        self.seconds = run.clock() - started

    def rows(self, table: str) -> Iterator[tuple[bytes, bytes]]:
        """The newest value of every key that has one, in key order."""
        for key, framed in self.store.scan(table):
            versions = unframe(framed)
            if versions and versions[-1].data is not None:
                yield key, versions[-1].data


def _positions_differ(known: Checkpoint, rebuilt: _Rebuilt) -> Difference | None:
    for where in sorted({*known.positions, *rebuilt.positions}):
        live, made = known.positions.get(where), rebuilt.positions.get(where)
        if live != made:
            return Difference(
                "",
                f"the live store contains {where.topic}[{where.partition}] up to {live}, the log's stamps say {made}",
            )
    if known.buckets != rebuilt.buckets:
        return Difference(
            "", f"the live store has closed {list(known.buckets)}, the log says {list(rebuilt.buckets)}"
        )
    return None


def _merged(
    made: Iterator[tuple[bytes, bytes]], stored: Iterator[tuple[bytes, bytes]] | None
) -> Iterator[tuple[bytes, bytes | None, bytes | None]]:
    """Two listings in key order as one: key, rebuilt value, live value. Without the second, the first is both."""
    if stored is None:
        yield from ((key, value, value) for key, value in made)
        return
    left, right = next(made, None), next(stored, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(made, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(stored, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(made, None), next(stored, None)


def _look_again(log: Log, wheres: Sequence[TopicPartition]) -> None:
    """Poll once, which is when a read-only view of a log that somebody writes catches up."""
    reader = log.reader()
    try:
        reader.assign(log.begin_offsets(wheres))
        reader.poll(1, 0.0)
    finally:
        reader.close()
