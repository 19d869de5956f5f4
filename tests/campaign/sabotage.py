"""Bugs of an engine, planted into a worker process by name, to see that the campaign finds them.

A bug is a function in the place of one of the engine's, of the same type (`instead_of`): one that does not fit the engine any
more is refused by the type checker, or where it is planted.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Final, NoReturn, ParamSpec, TypeVar, cast

from confluent_kafka import Consumer, KafkaException

from qmtl.engine import recovery, task
from qmtl.engine.fold import Fold
from qmtl.engine.log import kafka
from qmtl.engine.log.kafka import KafkaLog, KafkaReader, KafkaWriter
from qmtl.engine.log.kafka_caller import Caller
from qmtl.engine.log.kafka_calls import FENCED, classify
from qmtl.engine.log.kafka_membership import KafkaMembership
from qmtl.engine.log.port import Columns, Fence, Log, Positions, Reader, Record, TopicPartition, Writer
from qmtl.engine.recovery import KeepAlive, Restored
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.engine.task import Task
from qmtl.engine.transaction import MARKERS_KEPT, Transaction
from qmtl.engine.watermark import Merge, Ready
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import OutcomeUnknown, TransactionAborted
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.topics import TopicSpec

P = ParamSpec("P")
R = TypeVar("R")

FED: Final = frozenset({"c.items", "c.bars"})
"""The topics that nothing but a reader of inputs reads: all others are restored too."""

REJOIN_S: Final = 5.0
"""A member that lost its place has it again within this, as soon as the others have noticed."""

LONG_S: Final = 1.0
"""A batch that takes longer is one during which an engine asks its group."""


def instead_of(
    old: Callable[P, R], known_to: ModuleType | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Plant a function in the place of one of the engine's.

    Args:
        known_to: the module that calls it, where this is not the one that has it.

    Raises:
        AttributeError: it is not there, or something else is.
    """
    path = cast(Any, old).__qualname__.split(".")
    place: Any = known_to or sys.modules[old.__module__]
    for name in path[:-1]:
        place = getattr(place, name)

    def plant(new: Callable[P, R]) -> Callable[P, R]:
        if getattr(place, path[-1]) is not old:
            raise AttributeError(f"{place.__name__}.{path[-1]} is not {old}")
        setattr(place, path[-1], new)
        return new

    return plant


def offsets_before_apply() -> None:
    """A batch's positions are committed before the batch is worked on."""
    step, opened = Task.step, Task.open

    class Early:
        """Such an engine's reader."""

        def __init__(self, reader: Reader, group: str, writer: Writer, fence: Fence | None) -> None:
            self._reader, self._group, self._writer, self._fence = reader, group, writer, fence

        def __getattr__(self, name: str) -> Any:
            return getattr(self._reader, name)

        def poll(self, max_records: int, timeout_s: float) -> list[Record]:
            batch = self._reader.poll(max_records, timeout_s)
            if batch:
                self._writer.begin()
                ends = {TopicPartition(one.topic, one.partition): one.offset + 1 for one in batch}
                self._writer.commit(ends, self._group, self._fence)
            return batch

    @instead_of(Task.step)
    def early(self: Task, writer: Writer, fence: Fence | None, timeout_s: float) -> bool:
        reader = self._reader
        self._reader = cast(Reader, Early(reader, self.group, writer, fence))
        try:
            return step(self, writer, fence, timeout_s)
        finally:
            self._reader = reader

    # It believes the group's positions, and checks them against nothing.
    @instead_of(Task._is_mine_alone)
    def unchecked(self: Task, topic_name: str) -> bool:
        return False

    @instead_of(Task.open)
    def believing(self: Task, keep_alive: KeepAlive | None = None, stall_s: float = recovery.STALL_S) -> None:
        opened(self, keep_alive, stall_s)
        found = self._places.positions
        found.update(self._log.committed(self.group, self._wheres()))
        self._reader.assign({where: found[where] for where in self._reader.positions() if where in found})


def last_for_next() -> None:
    """The position of the last record is committed, and not the next one."""
    sort_in = Task._sort_in

    @instead_of(Task._sort_in)
    def sorted_in(self: Task, batch: Sequence[Record]) -> None:
        sort_in(self, batch)
        for record in batch:
            where = TopicPartition(record.topic, record.partition)
            if self._merge.buffer(where) is None:
                self._places.positions[where] = record.offset


def no_fence() -> None:
    """Positions are committed by the group's name alone, as if nobody could have taken the tasks meanwhile."""
    strangers: dict[str, Consumer] = {}
    groups: dict[KafkaMembership, tuple[str, str]] = {}
    made = KafkaMembership.__init__

    @instead_of(KafkaMembership.__init__)
    def make(self: KafkaMembership, log: KafkaLog, group: str, member: str, anchor: str) -> None:
        made(self, log, group, member, anchor)
        groups[self] = (log.bootstrap, log.namespace + group)

    @instead_of(KafkaMembership.fence)
    def fence(self: KafkaMembership) -> Fence | None:
        bootstrap, group = groups[self]
        if group not in strangers:
            strangers[group] = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        return cast(Fence, strangers[group].consumer_group_metadata())


def fresh_fence() -> None:
    """The proof of membership is taken when a transaction is committed, by a member that takes part in its group until then.

    Today's worker asks its group nothing between reading a batch and committing it, and the client joins nothing by itself:
    taken late, the proof alone is the same one, or that of no member, which the broker refuses. Only together with the
    asking is it what it is in other engines: a proof of the next generation, for work of the last one.
    """
    commit, poll, fence = KafkaWriter.commit, KafkaMembership.poll, KafkaMembership.fence
    gone: dict[KafkaMembership, frozenset[int]] = defaultdict(frozenset)

    def noted(member: KafkaMembership) -> frozenset[int]:
        found = poll(member, 0.05)
        gone[member] |= member._gone
        return found

    class Later:
        def __init__(self, membership: KafkaMembership) -> None:
            self.membership, self.since = membership, time.monotonic()

        def taken(self) -> Fence | None:
            begun = time.monotonic()
            if (
                begun - self.since > LONG_S
            ):  # time enough to notice what has become of its place, and to get another
                while not noted(self.membership) or time.monotonic() < begun + LONG_S:
                    if time.monotonic() > begun + REJOIN_S:
                        break
            return fence(self.membership)

    @instead_of(KafkaMembership.poll)
    def told(self: KafkaMembership, timeout_s: float = 0.0) -> frozenset[int]:
        return poll(self, timeout_s) - gone.pop(self, frozenset())

    @instead_of(KafkaMembership.fence)
    def later(self: KafkaMembership) -> Fence | None:
        return Later(self)

    @instead_of(KafkaWriter.commit)
    def late(
        self: KafkaWriter, positions: Positions, group: str, fence: Fence | None
    ) -> Mapping[TopicPartition, int]:
        return commit(self, positions, group, fence.taken() if isinstance(fence, Later) else fence)


def producer_reused() -> None:
    """What the client calls abortable is aborted, and the same producer goes on, though the broker has not said a word."""

    @instead_of(classify)
    def believing(error: KafkaException, writer: str) -> NoReturn:
        problem = error.args[0]
        if problem.txn_requires_abort() and problem.code() not in FENCED:
            raise TransactionAborted(problem.str()) from None
        classify(error, writer)

    @instead_of(Caller.call)
    def directly(self: Caller, call: Callable[[], Any], timeout_s: float) -> None:
        call()


def unknown_is_done() -> None:
    """A commit that timed out is taken for one that was done."""
    commit = KafkaWriter.commit

    @instead_of(KafkaWriter.commit)
    def done(
        self: KafkaWriter, positions: Positions, group: str, fence: Fence | None
    ) -> Mapping[TopicPartition, int]:
        ends = self._log.end_offsets(list(self._tracked)) if self._tracked else {}
        try:
            return commit(self, positions, group, fence)
        except OutcomeUnknown:
            renewed = KafkaWriter(self._log, self._id)
            self._producer, self._produce = renewed._producer, renewed._produce
            self._caller, self._open = renewed._caller, False
            return {where: ends[where] for where in self._tracked}


def aborted_is_done() -> None:
    """A commit that was refused is taken for one that was done."""
    commit = KafkaWriter.commit

    @instead_of(KafkaWriter.commit)
    def done(
        self: KafkaWriter, positions: Positions, group: str, fence: Fence | None
    ) -> Mapping[TopicPartition, int]:
        ends = self._log.end_offsets(list(self._tracked)) if self._tracked else {}
        try:
            return commit(self, positions, group, fence)
        except TransactionAborted:
            return {where: ends[where] for where in self._tracked}


def store_before_commit() -> None:
    """The store is written before the transaction is committed."""
    commit = Task._commit

    @instead_of(Task._commit)
    def early(self: Task, run: Transaction, writer: Writer, fence: Fence | None) -> int:
        rows = [row for one in self._tables.values() for row in one.changes()]
        if self._store.checkpoint.tables:
            self._store.write(rows, self._store.checkpoint)
        return commit(self, run, writer, fence)


def stage_kept_on_abort() -> None:
    """A task goes on after an abort with what it had staged."""

    @instead_of(Table.rollback)
    def nothing(self: Table) -> None:
        """Everything stays."""

    @instead_of(Worker._drop)
    def kept(self: Worker, number: int) -> None:
        found = self._tasks.get(number)
        if found is not None:
            found.open()


def restore_to_stable() -> None:
    """A restore ends at the last stable offset, and believes that this is all."""
    restore = recovery.restore

    class Stable:
        def __init__(self, log: Log) -> None:
            self._log = log

        def __getattr__(self, name: str) -> Any:
            return getattr(self._log, "stable_offsets" if name == "end_offsets" else name)

    @instead_of(restore, known_to=task)
    def bounded(log: Log, store: Store, tables: Mapping[str, Table], codec: Codec, **named: Any) -> Restored:
        return restore(cast(Log, Stable(log)), store, tables, codec, **named)


def revoked_stays() -> None:
    """A task that the group has given to another worker runs on."""
    poll = KafkaMembership.poll
    ever: dict[KafkaMembership, frozenset[int]] = defaultdict(frozenset)

    @instead_of(KafkaMembership.poll)
    def grown(self: KafkaMembership, timeout_s: float = 0.0) -> frozenset[int]:
        ever[self] |= poll(self, timeout_s)
        return ever[self]


def resumed_before_seek() -> None:
    """After a transaction that failed the reader goes on where it has been, and not where the last commit was."""
    poll, assign = KafkaReader.poll, KafkaReader.assign
    furthest: dict[TopicPartition, int] = {}

    @instead_of(KafkaReader.poll)
    def noted(self: KafkaReader, max_records: int, timeout_s: float) -> list[Record]:
        found = poll(self, max_records, timeout_s)
        for one in found:
            where = TopicPartition(one.topic, one.partition)
            furthest[where] = max(furthest.get(where, 0), one.offset + 1)
        return found

    @instead_of(KafkaReader.assign)
    def assigned(self: KafkaReader, positions: Positions) -> None:
        ahead = {where: max(at, furthest.get(where, 0)) for where, at in positions.items()}
        assign(self, {where: ahead[where] if where.topic in FED else at for where, at in positions.items()})


def _open_to_all(settings: dict[str, Any]) -> Consumer:
    return Consumer({**settings, "isolation.level": "read_uncommitted"})


def uncommitted_read() -> None:
    """Readers take records of transactions that are open or aborted."""
    cast(Any, kafka).Consumer = _open_to_all


def uncommitted_restored() -> None:
    """A restore takes rows of transactions that were aborted.

    It shows where such rows are the last of their table: those that follow are written from the same input, over them.
    """
    restore = recovery.restore

    @instead_of(restore, known_to=task)
    def careless(log: Log, store: Store, tables: Mapping[str, Table], codec: Codec, **named: Any) -> Restored:
        cast(Any, kafka).Consumer = _open_to_all
        try:
            return restore(log, store, tables, codec, **named)
        finally:
            cast(Any, kafka).Consumer = Consumer


def no_marker_when_empty() -> None:
    """A bucket in which nothing changed is not closed."""
    close = Transaction.close

    @instead_of(Transaction.close)
    def lazy(self: Transaction, bucket_ms: int, closes: Sequence[TopicSpec], tasks: int) -> None:
        before = self.records
        self.seal()
        if bucket_ms and self.records == before:
            self.buckets = (*self.buckets, bucket_ms)[-MARKERS_KEPT:]
            return
        close(self, bucket_ms, closes, tasks)


def tombstones_ignored() -> None:
    """A restore does not remove what was deleted."""
    restore, directly = Table.restore, Fold.directly

    @instead_of(Table.restore)
    def deaf(self: Table, raw: bytes, data: bytes | None, bucket_ms: int, horizon_ms: int) -> None:
        if data is not None:
            restore(self, raw, data, bucket_ms, horizon_ms)

    @instead_of(Fold.directly)
    def deaf_too(self: Fold, batch: Any, found: Columns) -> int:
        rows = [row for row in zip(found.keys, found.values, strict=True) if row[1] is not None]
        if not rows:
            return 0
        return directly(
            self, batch, found._replace(keys=[key for key, _ in rows], values=[value for _, value in rows])
        )


def latest_for_cut() -> None:
    """A delayed edge reads what is newest, and not its cut."""

    @instead_of(Table.at)
    def newest(self: Table, bucket_ms: int, *key: str | int) -> Any:
        return self.get(*key)


def random_id() -> None:
    """The transactional id is another one at each start."""
    writer = KafkaLog.writer
    mine = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @instead_of(KafkaLog.writer)
    def another(self: KafkaLog, transactional_id: str) -> KafkaWriter:
        return writer(self, f"{transactional_id}.{mine}")


def merged_by_arrival() -> None:
    """A bucket is taken as soon as one input has closed it."""

    is_ready, take = Merge.is_ready, Merge.take

    def hastily(merge: Merge, ask: Callable[[Merge], R]) -> R:
        held = merge._buffers
        if any(buffer.closed for buffer in held.values()):
            merge._buffers = {
                where: buffer
                for where, buffer in held.items()
                if buffer.closed or merge._inputs[where.topic].lag == 0
            }
        try:
            return ask(merge)
        finally:
            merge._buffers = held

    @instead_of(Merge.is_ready)
    def hasty(self: Merge) -> bool:
        return hastily(self, is_ready)

    @instead_of(Merge.take)
    def taken(self: Merge) -> Ready | None:
        return hastily(self, take)


SABOTAGES: Final[Mapping[str, Callable[[], None]]] = {
    "offsets-before-apply": offsets_before_apply,
    "last-for-next": last_for_next,
    "no-fence": no_fence,
    "fresh-fence": fresh_fence,
    "producer-reused": producer_reused,
    "unknown-is-done": unknown_is_done,
    "aborted-is-done": aborted_is_done,
    "store-before-commit": store_before_commit,
    "stage-kept-on-abort": stage_kept_on_abort,
    "restore-to-stable": restore_to_stable,
    "revoked-stays": revoked_stays,
    "resumed-before-seek": resumed_before_seek,
    "uncommitted-read": uncommitted_read,
    "uncommitted-restored": uncommitted_restored,
    "no-marker-when-empty": no_marker_when_empty,
    "tombstones-ignored": tombstones_ignored,
    "latest-for-cut": latest_for_cut,
    "merged-by-arrival": merged_by_arrival,
    "random-id": random_id,
}


def commit_sabotage(name: str) -> None:
    """Plant the bug of this name into this process."""
    SABOTAGES[name]()
