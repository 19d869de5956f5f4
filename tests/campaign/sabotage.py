"""Bugs of an engine, planted into a worker process by name, to see that the campaign finds them."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException

from qmtl.engine import fold, recovery, task, transaction, watermark, worker
from qmtl.engine.log import kafka, kafka_calls
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import OutcomeUnknown, TransactionAborted

# Patches reach into the engine on purpose: everything in here is Any.
_kafka: Any = kafka
_calls: Any = kafka_calls
_fold: Any = fold
_task: Any = task
_worker: Any = worker
_recovery: Any = recovery
_transaction: Any = transaction
_watermark: Any = watermark
_table: Any = Table

FED: Final = frozenset({"c.items", "c.bars"})
"""The topics that nothing but a reader of inputs reads: all others are restored too."""

REJOIN_S: Final = 5.0
"""A member that lost its place has it again within this, as soon as the others have noticed."""

LONG_S: Final = 1.0
"""A batch that takes longer is one during which an engine asks its group."""


def offsets_before_apply() -> None:
    """A batch's positions are committed before the batch is worked on."""
    step = _task.Task.step

    def early(self: Any, writer: Any, fence: Any, timeout_s: float) -> Any:
        poll = self._reader.poll

        def polled(most: int, wait_s: float) -> Any:
            batch = poll(most, wait_s)
            if batch:
                writer.begin()
                ends = {TopicPartition(one.topic, one.partition): one.offset + 1 for one in batch}
                writer.commit(ends, self.group, fence)
            return batch

        self._reader.poll = polled
        try:
            return step(self, writer, fence, timeout_s)
        finally:
            del self._reader.poll

    _task.Task.step = early
    # Such an engine believes the group's positions, and checks them against nothing.
    opened = _task.Task.open

    def believing(self: Any, *how: Any) -> None:
        mine = self._is_mine_alone
        self._is_mine_alone = lambda name: False
        opened(self, *how)
        self._is_mine_alone = mine
        committed = self._log.committed(self.group, self._wheres())
        self._positions.update(committed)
        self._reader.assign(
            {where: self._positions[where] for where in self._reader.positions() if where in self._positions}
        )

    _task.Task.open = believing


def last_for_next() -> None:
    """The position of the last record is committed, and not the next one."""
    sort_in = _task.Task._sort_in

    def sorted_in(self: Any, batch: Any) -> None:
        sort_in(self, batch)
        for record in batch:
            where = TopicPartition(record.topic, record.partition)
            if self._merge.buffer(where) is None:
                self._positions[where] = record.offset

    _task.Task._sort_in = sorted_in


def no_fence() -> None:
    """Positions are committed by the group's name alone, as if nobody could have taken the tasks meanwhile."""
    strangers: dict[str, Any] = {}

    def fence(self: Any) -> Any:
        settings = self._campaign_settings
        group = settings["group.id"]
        if group not in strangers:
            strangers[group] = Consumer(
                {"bootstrap.servers": settings["bootstrap.servers"], "group.id": group}
            )
        return strangers[group].consumer_group_metadata()

    made = _kafka.KafkaMembership.__init__

    def make(self: Any, log: Any, group: str, member: str, anchor: str) -> None:
        made(self, log, group, member, anchor)
        self._campaign_settings = {"bootstrap.servers": log.bootstrap, "group.id": log.namespace + group}

    _kafka.KafkaMembership.__init__ = make
    _kafka.KafkaMembership.fence = fence


def fresh_fence() -> None:
    """The proof of membership is taken when a transaction is committed, by a member that takes part in its group until then.

    Today's worker asks its group nothing between reading a batch and committing it, and the client joins nothing by itself:
    taken late, the proof alone is the same one, or that of no member, which the broker refuses. Only together with the
    asking is it what it is in other engines: a proof of the next generation, for work of the last one.
    """
    commit = _kafka.KafkaWriter.commit
    poll = _kafka.KafkaMembership.poll
    fence = _kafka.KafkaMembership.fence

    class Later:
        def __init__(self, membership: Any) -> None:
            self.membership, self.since = membership, time.monotonic()

        def taken(self) -> Any:
            member, begun = self.membership, time.monotonic()
            if (
                begun - self.since > LONG_S
            ):  # time enough to notice what has become of its place, and to get another
                while not noted(member) or time.monotonic() < begun + LONG_S:
                    if time.monotonic() > begun + REJOIN_S:
                        break
            return fence(member)

    def noted(member: Any) -> Any:
        found = poll(member, 0.05)
        member._campaign_gone = getattr(member, "_campaign_gone", frozenset()) | member._gone
        return found

    def told(self: Any, timeout_s: float = 0.0) -> Any:
        gone: Any = getattr(self, "_campaign_gone", frozenset())
        self._campaign_gone = frozenset()
        return poll(self, timeout_s) - gone

    _kafka.KafkaMembership.poll = told
    _kafka.KafkaMembership.fence = lambda self: Later(self)

    def late(self: Any, positions: Any, group: str, found: Any) -> Any:
        return commit(self, positions, group, found.taken() if isinstance(found, Later) else found)

    _kafka.KafkaWriter.commit = late


def producer_reused() -> None:
    """What the client calls abortable is aborted, and the same producer goes on, though the broker has not said a word."""
    classify = _calls.classify

    def believing(error: KafkaException, writer: str) -> None:
        problem = error.args[0]
        if problem.txn_requires_abort() and problem.code() not in _calls.FENCED:
            raise TransactionAborted(problem.str()) from None
        classify(error, writer)

    _calls.classify = believing
    _kafka.Caller.call = lambda self, call, timeout_s: call()


def unknown_is_done() -> None:
    """A commit that timed out is taken for one that was done."""
    commit = _kafka.KafkaWriter.commit

    def done(self: Any, positions: Any, group: str, fence: Any) -> Any:
        ends = self._log.end_offsets(list(self._tracked)) if self._tracked else {}
        try:
            return commit(self, positions, group, fence)
        except OutcomeUnknown:
            renewed = type(self)(self._log, self._id)
            self._producer, self._produce = renewed._producer, renewed._produce
            self._caller, self._open = renewed._caller, False
            return {where: ends[where] for where in self._tracked}

    _kafka.KafkaWriter.commit = done


def aborted_is_done() -> None:
    """A commit that was refused is taken for one that was done."""
    commit = _kafka.KafkaWriter.commit

    def done(self: Any, positions: Any, group: str, fence: Any) -> Any:
        ends = self._log.end_offsets(list(self._tracked)) if self._tracked else {}
        try:
            return commit(self, positions, group, fence)
        except TransactionAborted:
            return {where: ends[where] for where in self._tracked}

    _kafka.KafkaWriter.commit = done


def store_before_commit() -> None:
    """The store is written before the transaction is committed."""
    commit = _task.Task._commit

    def early(self: Any, run: Any, writer: Any, fence: Any) -> None:
        rows = [row for one in self._tables.values() for row in one.changes()]
        if self._store.checkpoint.tables:
            self._store.write(rows, self._store.checkpoint)
        commit(self, run, writer, fence)

    _task.Task._commit = early


def stage_kept_on_abort() -> None:
    """A task goes on after an abort with what it had staged."""
    _table.rollback = lambda self: None

    def kept(self: Any, number: int) -> None:
        found = self._tasks.get(number)
        if found is not None:
            found.open()

    _worker.Worker._drop = kept


def restore_to_stable() -> None:
    """A restore ends at the last stable offset, and believes that this is all."""
    restore = _recovery.restore

    class Stable:
        def __init__(self, log: Any) -> None:
            self._log = log

        def __getattr__(self, name: str) -> Any:
            return getattr(self._log, "stable_offsets" if name == "end_offsets" else name)

    def bounded(log: Any, *arguments: Any, **named: Any) -> Any:
        return restore(Stable(log), *arguments, **named)

    _task.restore = bounded


def revoked_stays() -> None:
    """A task that the group has given to another worker runs on."""
    poll = _kafka.KafkaMembership.poll

    def grown(self: Any, timeout_s: float = 0.0) -> frozenset[int]:
        self._ever = getattr(self, "_ever", frozenset()) | poll(self, timeout_s)
        found: frozenset[int] = self._ever
        return found

    _kafka.KafkaMembership.poll = grown


def resumed_before_seek() -> None:
    """After a transaction that failed the reader goes on where it has been, and not where the last commit was."""
    poll = _kafka.KafkaReader.poll
    assign = _kafka.KafkaReader.assign
    furthest: dict[TopicPartition, int] = {}

    def noted(self: Any, max_records: int, timeout_s: float) -> Any:
        found = poll(self, max_records, timeout_s)
        for one in found:
            where = TopicPartition(one.topic, one.partition)
            furthest[where] = max(furthest.get(where, 0), one.offset + 1)
        return found

    def assigned(self: Any, positions: Mapping[TopicPartition, int]) -> None:
        assign(
            self,
            {
                where: max(offset, furthest.get(where, 0)) if where.topic in FED else offset
                for where, offset in positions.items()
            },
        )

    _kafka.KafkaReader.poll = noted
    _kafka.KafkaReader.assign = assigned


def uncommitted_read() -> None:
    """Readers take records of transactions that are open or aborted."""
    consumer = _kafka.Consumer

    def open_to_all(settings: dict[str, Any]) -> Any:
        return consumer({**settings, "isolation.level": "read_uncommitted"})

    _kafka.Consumer = open_to_all


def uncommitted_restored() -> None:
    """A restore takes rows of transactions that were aborted.

    It shows where such rows are the last of their table: those that follow are written from the same input, over them.
    """
    restore = _recovery.restore
    consumer = _kafka.Consumer

    def careless(log: Any, *arguments: Any, **named: Any) -> Any:
        _kafka.Consumer = lambda settings: consumer({**settings, "isolation.level": "read_uncommitted"})
        try:
            return restore(log, *arguments, **named)
        finally:
            _kafka.Consumer = consumer

    _task.restore = careless


def no_marker_when_empty() -> None:
    """A bucket in which nothing changed is not closed."""
    close = _transaction.Transaction.close

    def lazy(self: Any, bucket_ms: int, closes: Sequence[Any], tasks: int) -> None:
        before = self.records
        self.seal()
        if bucket_ms and self.records == before:
            self.buckets = (*self.buckets, bucket_ms)[-_transaction.MARKERS_KEPT :]
            return
        close(self, bucket_ms, closes, tasks)

    _transaction.Transaction.close = lazy


def tombstones_ignored() -> None:
    """A restore does not remove what was deleted."""
    restore = _table.restore

    def deaf(self: Any, raw: bytes, data: bytes | None, bucket_ms: int, horizon_ms: int) -> None:
        if data is not None:
            restore(self, raw, data, bucket_ms, horizon_ms)

    directly = _fold.Fold.directly

    def deaf_too(self: Any, batch: Any, found: Any) -> int:
        rows = [row for row in zip(found.keys, found.values, strict=True) if row[1] is not None]
        if not rows:
            return 0
        count: int = directly(
            self, batch, found._replace(keys=[key for key, _ in rows], values=[value for _, value in rows])
        )
        return count

    _table.restore = deaf
    _fold.Fold.directly = deaf_too


def latest_for_cut() -> None:
    """A delayed edge reads what is newest, and not its cut."""
    _table.at = lambda self, bucket_ms, *key: self.get(*key)


def random_id() -> None:
    """The transactional id is another one at each start."""
    writer = _kafka.KafkaLog.writer
    mine = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    _kafka.KafkaLog.writer = lambda self, name: writer(self, f"{name}.{mine}")


def merged_by_arrival() -> None:
    """A bucket is taken as soon as one input has closed it."""
    take = _watermark.Merge.take

    def hasty(self: Any) -> Any:
        held = self._buffers
        if any(buffer.closed for buffer in held.values()):
            self._buffers = {
                where: buffer
                for where, buffer in held.items()
                if buffer.closed or self._inputs[where.topic].lag == 0
            }
        try:
            return take(self)
        finally:
            self._buffers = held

    _watermark.Merge.take = hasty


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
