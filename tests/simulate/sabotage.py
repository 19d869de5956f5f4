"""Bugs as people make them in engines like this one, each a switch; the simulator has to find every one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from qmtl.engine import recovery, task, worker
from qmtl.engine.fold import Fold
from qmtl.engine.log.port import Columns, Fence, Log, Positions, Record, TopicPartition, Writer
from qmtl.engine.processor import Processor
from qmtl.engine.silence import Silence
from qmtl.engine.simulate.log import SimulatedLog, SimulatedReader
from qmtl.engine.store import Cause
from qmtl.engine.stored import Checkpoint, Reading
from qmtl.engine.table import Table, Versions
from qmtl.engine.task import Task
from qmtl.engine.transaction import Transaction
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import MembershipLost
from qmtl.foundation.wire.topics import TopicSpec

Plant = Callable[[pytest.MonkeyPatch], None]


def commit_before_apply(patch: pytest.MonkeyPatch) -> None:
    """The positions of a batch go in a transaction of their own, before what they say was done."""
    run, step = Task._run, Task.step
    fences: dict[Task, Fence | None] = {}

    def stepping(self: Task, writer: Writer, fence: Fence | None, timeout_s: float) -> bool:
        fences[self] = fence
        return step(self, writer, fence, timeout_s)

    def running(self: Task, one: Transaction) -> None:
        ready = self._first = self._first or self._merge.take()
        one._writer.commit(
            {**self._places.positions, **(ready.positions if ready else {})}, self.group, fences[self]
        )
        one._writer.begin()
        run(self, one)

    patch.setattr(Task, "step", stepping)
    patch.setattr(Task, "_run", running)


def last_instead_of_next(patch: pytest.MonkeyPatch) -> None:
    """The position of the last record is committed, and not the one after it."""
    sort_in = Task._sort_in

    def sorting(self: Task, batch: Sequence[Record]) -> None:
        sort_in(self, batch)
        for record in batch:
            where = TopicPartition(record.topic, record.partition)
            if self._merge.buffer(where) is None:
                self._places.positions[where] = record.offset

    patch.setattr(Task, "_sort_in", sorting)


def store_before_commit(patch: pytest.MonkeyPatch) -> None:
    """The local store is written before the transaction commits."""
    commit = Task._commit

    def committing(self: Task, run: Transaction, writer: Writer, fence: Fence | None) -> int:
        wheres = [TopicPartition(name, self.number) for name in self._tables]
        changes = [row for table in self._tables.values() for row in table.changes()]
        ends = self._log.end_offsets(wheres)
        self._store.write(
            changes, Checkpoint(self._log.log_id, ends, run.positions, run.buckets, self._log.now_ms())
        )
        return commit(self, run, writer, fence)

    patch.setattr(Task, "_commit", committing)


def producer_reused(patch: pytest.MonkeyPatch) -> None:
    """A producer goes on after an outcome that nobody knows."""
    patch.setattr(Worker, "_discard_writer", lambda self: None)


def fence_taken_fresh(patch: pytest.MonkeyPatch) -> None:
    """A worker takes part in its group while a batch is worked on, and commits with the proof of that moment."""
    step, wake, commit = Worker.step, Silence.wake, Task._commit
    stepping: list[Worker] = []

    def stepped(self: Worker, timeout_s: float = 0.0) -> bool:
        stepping.append(self)
        try:
            return step(self, timeout_s)
        finally:
            stepping.pop()

    def woken(self: Silence, read: Positions) -> None:
        with suppress(MembershipLost):
            for _ in range(3):
                stepping[-1]._the_membership().poll()
        wake(self, read)

    def committed(self: Task, run: Transaction, writer: Writer, fence: Fence | None) -> int:
        with suppress(MembershipLost):
            stepping[-1]._the_membership().poll()
        return commit(self, run, writer, stepping[-1]._the_membership().fence())

    patch.setattr(Worker, "step", stepped)
    patch.setattr(Silence, "wake", woken)
    patch.setattr(Task, "_commit", committed)


def stage_kept_on_abort(patch: pytest.MonkeyPatch) -> None:
    """A task goes on after an abort with the rows that the aborted transaction had changed."""
    kept: dict[tuple[Log, int], Task] = {}

    def dropped(self: Worker, number: int) -> None:
        one = self._tasks.pop(number, None)
        if one is None:
            return
        if self._log.process.runs:  # type: ignore[attr-defined] # the simulated log's
            kept[self._log, number] = one
        else:
            one.close()

    def made(log: Log, processor: Processor, number: int, *rest: Any) -> Task:
        return kept.pop((log, number), None) or Task(log, processor, number, *rest)

    close = Worker.close

    def closed(self: Worker) -> None:
        for key in [key for key in kept if key[0] is self._log]:
            kept.pop(key).close()
        close(self)

    patch.setattr(Worker, "_drop", dropped)
    patch.setattr(worker, "Task", made)
    patch.setattr(Worker, "close", closed)
    patch.setattr(Table, "rollback", lambda self: None)


def restore_to_stable(patch: pytest.MonkeyPatch) -> None:
    """A restore believes that the last stable offset is the end."""
    restore = recovery.restore

    class Short(SimulatedLog):
        def end_offsets(self, partitions: Any) -> Positions:
            return self.stable_offsets(partitions)

    def restored(log: SimulatedLog, *rest: Any, **more: Any) -> Any:
        return restore(Short(log.cluster, log.process), *rest, **more)

    patch.setattr(task, "restore", restored)


def tombstones_ignored(patch: pytest.MonkeyPatch) -> None:
    """A restore skips what was deleted."""
    directly = Fold.directly

    def folded(self: Fold, batch: Any, found: Columns) -> int:
        rows = [row for row in zip(found.keys, found.values, strict=True) if row[1] is not None]
        if not rows:
            return 0
        return directly(
            self, batch, found._replace(keys=[key for key, _ in rows], values=[one for _, one in rows])
        )

    patch.setattr(Fold, "directly", folded)


def no_marker_for_an_empty_bucket(patch: pytest.MonkeyPatch) -> None:
    """A bucket in which nothing was given out is not closed."""
    close = Transaction.close

    def closed(self: Transaction, bucket_ms: int, closes: Sequence[TopicSpec], tasks: int) -> None:
        written = {where.topic for where in self._cuts}
        full = [spec for spec in closes if spec.compacted or spec.name in written or not bucket_ms]
        close(self, bucket_ms, full, tasks)

    patch.setattr(Transaction, "close", closed)


def read_at_t(patch: pytest.MonkeyPatch) -> None:
    """A delayed edge reads the newest rows, and not those of the bucket before."""

    def cut(self: Table, versions: Versions, bucket_ms: int) -> Any:
        return versions[-1].message(self._codec) if versions else None

    patch.setattr(Table, "_cut", cut)


def old_stores_topped_up(patch: pytest.MonkeyPatch) -> None:
    """A store older than the tombstones is brought up to date instead of thrown away."""
    unusable = recovery._Restore._unusable

    def usable(self: recovery._Restore) -> tuple[Cause, str] | None:
        why = unusable(self)
        return None if why is not None and why[0] is Cause.TOO_OLD else why

    patch.setattr(recovery._Restore, "_unusable", usable)


def half_a_restore_believed(patch: pytest.MonkeyPatch) -> None:
    """A restore that broke off goes on behind its rows, without the positions that it had read."""
    patch.setattr(Fold, "reading", lambda self, offset: Reading(offset, (), None))


def uncommitted_read(patch: pytest.MonkeyPatch) -> None:
    """A reader sees what is not committed, and what never will be."""
    read = SimulatedReader._read

    def reading(self: SimulatedReader, max_records: int) -> list[Record]:
        partitions = [self._log.cluster.partition(where) for where in self._positions]
        out: list[Record] = []
        for one in partitions:
            if one.where in self._paused:
                continue
            position = self._positions[one.where]
            found = [entry for entry in one._entries if entry.offset >= position and not entry.control]
            out += [one._record(entry) for entry in found][:max_records]
            self._positions[one.where] = one.end
        return out or read(self, max_records)

    patch.setattr(SimulatedReader, "_read", reading)


def positions_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Outputs are committed, the positions of the inputs are not."""
    commit = Task._commit

    def committing(self: Task, run: Transaction, writer: Writer, fence: Fence | None) -> int:
        class Deaf:
            def commit(
                self, positions: Positions, group: str, fence: Fence | None
            ) -> Mapping[TopicPartition, int]:
                return writer.commit({}, group, fence)

        return commit(self, run, Deaf(), fence)  # type: ignore[arg-type] # all that a commit asks for

    patch.setattr(Task, "_commit", committing)


SABOTAGE: Mapping[str, tuple[Plant, str, int]] = {
    "commit before apply": (commit_before_apply, "toys", 30),
    "last position instead of the next": (last_instead_of_next, "toys", 5),
    "store written before the commit": (store_before_commit, "counters", 10),
    "producer reused after an unknown outcome": (producer_reused, "toys", 40),
    "fence taken fresh at the commit": (fence_taken_fresh, "counters", 40),
    "stage kept on abort": (stage_kept_on_abort, "counters", 20),
    "restore up to the last stable offset": (restore_to_stable, "counters", 60),
    "tombstones ignored in a restore": (tombstones_ignored, "counters", 10),
    "no marker for an empty bucket": (no_marker_for_an_empty_bucket, "toys", 5),
    "read at t instead of t-1": (read_at_t, "late", 5),
    "old stores topped up": (old_stores_topped_up, "counters", 150),
    "half a restore believed": (half_a_restore_believed, "counters", 60),
    "uncommitted records read": (uncommitted_read, "toys", 10),
    "positions not committed": (positions_forgotten, "toys", 5),
}
"""Per bug: its switch, the scenario that meets it, and in how many seeds it has to be found."""
