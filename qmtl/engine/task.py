"""A task: one processor on one partition of its anchor, from reading to the local store, one transaction at a time."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmtl.engine.crash_marks import CrashMarks
from qmtl.engine.cut import OpenRows
from qmtl.engine.entry import finder
from qmtl.engine.failpoint import passing
from qmtl.engine.handling import FAILURES_IN_A_ROW, Again, Handling
from qmtl.engine.incarnation import Finding, Judge, Kind, contradicted, decision, refuse
from qmtl.engine.intake import DEATHS, Intake
from qmtl.engine.log.port import Fence, Log, Positions, Record, TopicPartition, Writer
from qmtl.engine.observer import NOBODY, Look, Observer, TaskId
from qmtl.engine.open_rows import read_open_rows
from qmtl.engine.pace import Pace
from qmtl.engine.places import Places
from qmtl.engine.processor import Arrival, Bucket, Input, Processor, Resident
from qmtl.engine.recovery import STALL_S, KeepAlive, restore
from qmtl.engine.refusal import require_letters
from qmtl.engine.silence import Silence
from qmtl.engine.soundness import require_sound
from qmtl.engine.store import Store, Tell, log_rebuilt
from qmtl.engine.stored import Accepted, TopicFacts
from qmtl.engine.table import Table
from qmtl.engine.transaction import Transaction
from qmtl.engine.watermark import Merge, Ready
from qmtl.foundation.common.errors import (
    LogError,
    PoisonRecord,
    TransactionAborted,
    TransactionError,
    UnknownTopic,
)
from qmtl.foundation.contracts.control import GENESIS_MS, CloseMarker, DeadLetter
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import Keys, is_marker, is_stamp
from qmtl.foundation.wire.topics import TopicSpec, topic

_logger: Final = logging.getLogger(__name__)

POLL_RECORDS: Final = 4000
COMMIT_INTERVAL_MS: Final = 50.0


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """How a task runs; nothing here changes what it decides.

    Attributes:
        state_dir: where the stores lie.
        poll_records: at most this many records are read at once, and no further bucket joins a transaction that has as many.
        commit_records: a transaction takes in at most this many records; None, as many as one reading.
        commit_interval_ms: a transaction takes in nothing more once so much time has passed since its first record. It also
            ends when there is nothing more to read, so that nobody waits for a quiet source, and when a bucket has closed, so
            that the readers of the bucket have it at once. 0 ends it after one reading.
        observer: is told what happens.
        config_epoch: counted up whenever other tasks than before write a partition, so that readers take the new writer.
        on_restore: called while tables are restored, with the task as `trading[0]`, offsets so far, and offsets to restore.
        on_rebuild: called whenever a store is thrown away.
        failures: after more failures of the handlers than this, one after the other, the task stops.
        deaths: so many deaths of a process at one record make it a dead letter.
        clock: seconds that only go forward, from whatever beginning; a simulation gives its own.
    """

    state_dir: Path
    poll_records: int = POLL_RECORDS
    commit_records: int | None = None
    commit_interval_ms: float = COMMIT_INTERVAL_MS
    observer: Observer = NOBODY
    config_epoch: int = 1
    on_restore: Callable[[str, int, int], None] | None = None
    on_rebuild: Tell = log_rebuilt
    failures: int = FAILURES_IN_A_ROW
    deaths: int = DEATHS
    clock: Callable[[], float] = time.monotonic

    @property
    def room(self) -> int:
        """How many records a transaction takes in."""
        return self.poll_records if self.commit_records is None else self.commit_records


class Task:
    """Runs one partition of a processor. Not thread-safe.

    Args:
        recorded: the log ends at the cut of a step that was taken before, and moves on to the next one after each step.
    """

    def __init__(
        self,
        log: Log,
        processor: Processor,
        number: int,
        codec: Codec,
        settings: TaskSettings,
        *,
        recorded: bool = False,
    ) -> None:
        self._recorded = recorded
        self.processor = processor
        self.number = number
        self.group = f"qmtl.{processor.name}"
        self.id = TaskId(processor.name, number)
        self._log, self._codec, self._settings = log, codec, settings
        self.label = f"{processor.name}[{number}]"
        described = log.describe(processor.anchor)
        if described is None:
            raise UnknownTopic(f"the log has no topic {processor.anchor!r}.", "Create the topics first.")
        require_sound(processor, described.partitions)
        stem = settings.state_dir / f"{processor.name}-{number}"
        self._reader = log.reader()
        try:
            self._store = Store(stem, log.log_id, settings.on_rebuild)
        except BaseException:
            self._reader.close()
            raise
        self._inputs: tuple[Input, ...] = ()
        find = finder(log, codec, settings.clock, recorded=recorded)
        self._places, self._free = Places(log, self.label, number, self._spec, find), list[Arrival]()
        self._fresh = self._open_order = self._sorted = self._moved_on = False
        self._first: Ready | None = None
        self._pinned, self._kept_ms = dict[TopicPartition, int](), dict[str, int]()
        self._told_expired, self._paused = set[str](), frozenset[TopicPartition]()
        self._open_rows: dict[str, OpenRows] = {}
        self._tasks = described.partitions
        lags = {one.topic: one.lag for one in processor.inputs() if one.lag and one.topic in processor.tables}
        self._tables = {
            name: Table(self._spec(name), number, self._store, codec, lags.get(name, 0))
            for name in processor.tables
        }
        self._merge = Merge(recorded=recorded)
        self._silence = Silence(log, self._merge, self._places)
        self._dead, self._keys, self._pace = list[DeadLetter](), Keys(), Pace(settings.room)
        self._marks = CrashMarks(stem, log.log_id)
        self._intake = Intake(processor.name, number, codec, self._marks, settings.deaths)
        self._handling = Handling(processor, number, self._tables, self._marks, settings.failures, recorded)

    # ---- opening ------------------------------------------------------------------------------------------------

    def open(self, keep_alive: KeepAlive | None = None, stall_s: float = STALL_S) -> None:
        """Restore the tables and continue where the last transaction ended; safe to repeat after any failure.

        Args:
            keep_alive: called again and again in each restore, until the next `open`; raises where the task is not wanted any more.
            stall_s: how long the log may tell no positions, or give nothing of the tables.

        Raises:
            UnstableOffsets: a transaction that holds positions has not ended.
            LogRegressed, OffsetGone, StampMismatch: the log or the positions are not those that the task knows; it stays
                closed until an operator decides (`accept`).
            RecoveryStalled, StateMismatch, DiskFull: see `restore`.
        """
        self._keep_alive, self._stall_s = keep_alive, stall_s
        self._open(self._refuse, keep_alive, stall_s)

    def accept(
        self, by: str, reason: str, record: Callable[[Sequence[Finding]], None]
    ) -> tuple[Finding, ...]:
        """Rebuild the state from what the log is now, whatever the task knew of it, and go on from there once it is opened.

        Tables are what their topics hold; an input that was made anew, cut off or shortened is read from its beginning; where
        the group's positions are other ones than the tables', the tables are right. If anything changes before the next
        transaction, the decision is void.

        Args:
            record: given what was found, before anything is built anew for it or the decision counts; again where more is.

        Returns: what was found; nothing is decided where nothing was.
        """
        found: list[Finding] = []

        def judge(some: Sequence[Finding]) -> None:
            found.extend(some)
            record(found)

        self._open(judge, None, STALL_S)
        if found:
            wheres = self._wheres()
            committed = self._log.committed(self.group, wheres)
            self._store.accept(
                Accepted(
                    by,
                    reason,
                    {where: self._places.positions[where] for where in wheres},
                    {where: committed.get(where, -1) for where in wheres},
                )
            )
        return tuple(found)

    def _refuse(self, findings: Sequence[Finding]) -> None:
        refuse(findings, self.label, decision(self.processor.name, self.number))

    def _open(self, judge: Judge, keep_alive: KeepAlive | None, stall_s: float) -> None:
        for table in self._tables.values():
            table.rollback()
        self._free, self._dead, self._fresh = [], [], False
        self._marks.idle()
        known, accepted = self._store.topics, self._store.accepted
        own = [TopicPartition(name, self.number) for name in self._tables]
        ends = self._log.end_offsets(own)
        # Positions first, then the tables: what commits in between is then in the tables and read again, never missed.
        committed = self._log.committed(self.group, self._wheres(), stall_s)
        if self._tables:
            restored = restore(
                self._log,
                self._store,
                self._tables,
                self._codec,
                tasks=self._tasks,
                stall_s=stall_s,
                progress=self._tell_progress,
                stalled=lambda stall: self._settings.observer.stalled(self.id, stall),
                keep_alive=keep_alive,
                judge=judge,
                clock=self._settings.clock,
            )
            accepted = None if restored.advanced else accepted
            self._places.restored(restored.positions, restored.topics)
            self._fresh = restored.fresh
            self._merge = Merge(restored.buckets, self._tables, recorded=self._recorded)
        else:
            self._places.restored(committed, ())
            self._merge = Merge(recorded=self._recorded)
        self._silence = Silence(self._log, self._merge, self._places)
        self._open_rows = {
            name: read_open_rows(self._log, TopicPartition(name, self.number), stall_s)
            for name, table in self._tables.items()
            if table.spec.marked
        }
        self.processor.restore(self._tables)
        now = self._log.committed(self.group, self._wheres(), stall_s)
        self._check_inputs(known, accepted, now, lambda found: self._judge(found, judge, own, ends))
        self._pinned = dict(self._places.positions)
        self._inputs = ()
        self._configure(reading={})

    def _judge(
        self, found: Sequence[Finding], judge: Judge, own: Sequence[TopicPartition], ends: Positions
    ) -> None:
        """Have findings judged, unless another member goes on with this task: then nothing is wrong but who works on it."""
        if any(one.kind is Kind.MOVED for one in found) and self._log.end_offsets(own) != ends:
            raise TransactionAborted(f"{self.label} was written by another worker while it was opened here.")
        judge(found)

    def _tell_progress(self, done: int, total: int) -> None:
        self._settings.observer.restoring(self.id, done, total)
        if self._settings.on_restore is not None:
            self._settings.on_restore(self.label, done, total)

    def _check_inputs(
        self, known: Mapping[str, TopicFacts], accepted: Accepted | None, committed: Positions, judge: Judge
    ) -> None:
        """Hold the positions to what the log has, and to what the group has committed."""
        wheres = self._wheres()
        facts = self._places.facts(wheres)
        contradicted(known, facts)
        if accepted is not None and all(
            committed.get(where, -1) == at for where, at in accepted.committed.items()
        ):
            self._places.accepted(accepted.positions)
        else:
            accepted = None
        told = {where: at for where, at in committed.items() if self._is_mine_alone(where.topic)}
        if found := self._places.check(wheres, known, facts, {} if accepted or not self._tables else told):
            judge(found)
            self._places.take(found)
        self._store.know(facts)

    def _wheres(self) -> list[TopicPartition]:
        """The partitions that are read, of inputs that are not the task's own tables."""
        inputs = self.processor.inputs()
        return [
            where for one in inputs if one.topic not in self._tables for where in self._places.partitions(one)
        ]

    def _is_mine_alone(self, topic_name: str) -> bool:
        return self._tasks == 1 or not any(
            one.topic == topic_name and one.broadcast for one in self.processor.inputs()
        )

    def _spec(self, name: str) -> TopicSpec:
        return self.processor.topics().get(name) or topic(name)

    def _configure(self, reading: Positions | None = None) -> None:
        """Follow the inputs of the processor, which may change from one transaction to the next.

        Args:
            reading: how far the reader is; None asks it.
        """
        inputs = self.processor.inputs()
        if inputs == self._inputs:
            return
        require_sound(self.processor, self._tasks)
        before, self._inputs = {one.topic: one.bucketed for one in self._inputs}, inputs
        self._marks.reading(wheres := self._wheres())
        self._open_order = len(wheres) > 1 and any(not one.bucketed or one.joins for one in inputs)
        # One partition comes in its order; the records of several are put in one when the last of a step is here.
        self._sorted = len(wheres) == 1
        self._intake.allow({one.topic: self._spec(one.topic).messages for one in inputs})
        read = [(one, self._spec(one.topic)) for one in inputs if one.topic not in self._tables]
        self._kept_ms = {
            one.topic: spec.min_compaction_lag_ms for one, spec in read if one.bucketed and spec.compacted
        }
        if joined := [where for where in wheres if reading is None and where.topic not in before]:
            facts = self._places.facts(joined)
            contradicted(self._store.topics, facts)
            if found := self._places.check(joined, self._store.topics, facts):
                self._refuse(found)
            self._store.know(facts)
        begin = self._log.begin_offsets(wheres)
        self._places.follow(wheres, begin, {one.topic for one in inputs if one.bucketed})
        self._silence.follow()
        # What was read ahead of an input went with its buffer, if it is taken in another way now.
        same = {one.topic for one in inputs if before.get(one.topic, one.bucketed) == one.bucketed}
        reached = self._places.positions
        self._merge.configure(
            [
                (
                    one,
                    [] if one.topic in self._tables else self._places.partitions(one),
                    self._spec(one.topic).compacted,
                )
                for one in inputs
                if one.bucketed
            ],
            cut_off=[one for one in wheres if self._places.is_cut_off(one) or one.topic not in same],
            # What has given a bucket before is waited for again after a restart.
            joined={where.topic for where in wheres if self._places.has_given(where, begin[where])},
        )
        at = self._reader.positions() if reading is None else reading
        ahead = {where: offset for where, offset in at.items() if where.topic in same}
        self._reader.assign({where: ahead.get(where, reached[where]) for where in wheres})
        self._paused = frozenset()

    def leave_out(self, letter: DeadLetter) -> None:
        """Take a letter for its record when that comes: a run that is repeated can't find out what kills the process."""
        self._intake.leave_out(letter)

    # ---- one cycle ------------------------------------------------------------------------------------------------

    def step(self, writer: Writer, fence: Fence | None, timeout_s: float) -> bool:
        """Read a batch and run everything that is ready in one transaction; says whether there was anything.

        Args:
            fence: the proof of membership, taken before this batch was read.

        Raises:
            TransactionAborted, OutcomeUnknown, Fenced: see `Writer.commit`; `open` again before the next step.
            Others as `open`, where the step begins again.
        """
        self._intake.begin()
        settings, taken, until = self._settings, 0, 0.0
        most = settings.room if self._recorded else self._pace.room
        while True:
            room = min(most - taken, settings.poll_records)
            batch = self._take_in(room, 0.0 if taken else timeout_s)
            if batch and not taken:
                until = settings.clock() + settings.commit_interval_ms / 1e3
            taken += len(batch)
            ready = self._merge.is_ready()
            if not batch or ready or taken >= most or self._recorded or settings.clock() >= until:
                break
        if not (self._free or self._dead or ready or self._fresh):
            self._marks.idle()
            return taken > 0
        began, self._first = settings.clock(), None
        try:
            try:
                run = self._prepare(writer)
            except Again:
                if self._moved_on:
                    self.open(self._keep_alive, self._stall_s)  # the buckets that were taken are read again
                    return True
                run = self._prepare(writer)
        except PoisonRecord as poison:
            self._intake.condemn(poison)
            self.open(self._keep_alive, self._stall_s)  # what is buffered comes again, this one as a letter
            return True
        rows = self._commit(run, writer, fence)
        self._pace.handled(taken, seconds := settings.clock() - began)
        settings.observer.committed(self.id, run.summary(rows, seconds, self._intake.taken))
        self._configure()
        return True

    def _take_in(self, room: int, timeout_s: float) -> Sequence[Record]:
        """Read once, and put each record where it belongs."""
        self._pause()
        batch = self._reader.poll(room, timeout_s)
        passing("after_poll")
        self._settings.observer.read(self.id, len(batch))
        if batch:
            self._marks.batch(batch)
        self._sort_in(batch)
        if not self._recorded:
            if batch or self._merge.is_ready():
                self._silence.wake(self._places.positions)
            self._silence.let_go(self._reader.positions)
        passing("after_decode")
        return batch

    def _pause(self) -> None:
        """Leave unread what is too far ahead."""
        paused = frozenset(self._merge.full())
        if paused != self._paused:
            self._reader.pause(paused)
            if anew := paused - self._paused:
                self._settings.observer.paused(self.id, anew)
            self._paused = paused

    def _prepare(self, writer: Writer) -> Transaction:
        """A transaction with all that is ready; where that fails, nothing of it is left."""
        run = Transaction(
            writer,
            self._codec,
            self.processor.name,
            self.number,
            self._tables,
            self._merge.buckets,
            self.processor.topics,
            self._settings.config_epoch,
            self._keys,
            self._open_rows,
            self._store.checkpoint.stamps,
        )
        run.positions.update(self._places.positions)
        try:
            self._run(run)
            run.stamp(self._places.topics(self.processor.inputs(), run.positions))
        except BaseException as error:
            writer.abort()
            if isinstance(error, Again):
                for table in self._tables.values():
                    table.rollback()
                self.processor.restore(self._tables)
            elif isinstance(error, LogError):
                require_letters(self._log, run, error)
            raise
        return run

    def _sort_in(self, batch: Sequence[Record]) -> None:
        """Put each record where it belongs; most are data of a free input, and come in runs of one partition."""
        begin = 0
        while begin < len(batch):
            topic_name, partition = batch[begin][:2]
            end = begin + 1
            while end < len(batch) and batch[end][1] == partition and batch[end][0] == topic_name:
                end += 1
            where = TopicPartition(topic_name, partition)
            run = batch if end - begin == len(batch) else batch[begin:end]
            if self._merge.buffer(where) is None:
                self._places.positions[where] = run[-1][2] + 1
                self._intake.read_free(run, self._free, self._dead)
            else:
                for record in run:
                    self._offer(record)
            begin = end

    def _offer(self, record: Record) -> None:
        where = TopicPartition(record.topic, record.partition)
        buffer = self._merge.buffer(where)
        if buffer is None or is_stamp(record.key):
            return
        found = self._intake.read(record)
        if isinstance(found, CloseMarker):
            kept_ms = self._kept_ms.get(record.topic)
            if kept_ms is not None:
                self._notice_age(record, kept_ms)
            # Half of the time: clocks differ, and a record waits before it is on the log.
            since_ms = None if kept_ms is None else self._log.now_ms() - kept_ms // 2
            buffer.close(found, record.offset, at_ms=record.timestamp_ms, since_ms=since_ms)
        elif not is_marker(record.key):
            buffer.add(found, record.key, record.value)
        elif isinstance(found, DeadLetter):
            buffer.refuse(found)

    def _notice_age(self, marker: Record, kept_ms: int) -> None:
        """Tell of a bucket of a table whose versions the cleaner may have begun to take; no marker says whether it has."""
        if self._recorded or marker.timestamp_ms + kept_ms >= self._log.now_ms():
            return
        self._settings.observer.expired(self.id, marker.topic)
        if marker.topic not in self._told_expired:
            self._told_expired.add(marker.topic)
            _logger.warning(
                "%s reads buckets of %s that are older than the %d s for which it keeps every version of a row: some may be newer",
                self.label,
                marker.topic,
                kept_ms // 1000,
            )

    def _run(self, run: Transaction) -> None:
        if self._fresh:
            # A reader that looks back before the first bucket finds this marker, and not nothing for ever.
            run.close(GENESIS_MS, self.processor.closes(), self._tasks)
            run.buckets = ()
        free: list[Arrival | DeadLetter] = [*self._free, *self._dead]
        if self._dead or not self._sorted:
            order = {one.topic: index for index, one in enumerate(self._inputs)}
            free.sort(key=lambda one: (order[one.topic], one.partition, one.offset))
        self._moved_on = False
        self._handling.records(run, free)
        taken = run.taken = len(self._free)
        if self._first is None and self._reads_as_before():
            self._first = self._merge.take()  # if all is done again, this one is taken already
        ready = self._first
        while ready is not None:
            run.positions.update(ready.positions)
            last = run.buckets[-1] if run.buckets else GENESIS_MS
            for letter in ready.dead:
                run.emit("dead.letters", letter)
            for arrival in ready.late:  # it closed with the bucket that is ready, and is no part of it
                run.emit("late.records", self._intake.late(arrival, ready.bucket_ms, last))
            if ready.bucket_ms > last:
                bucket = Bucket(ready.bucket_ms, ready.arrivals, ready.cuts, not run.buckets)
                self._handling.bucket(run, bucket)
                run.close(ready.bucket_ms, self.processor.closes(), self._tasks)
                self._merge.closed(run.buckets)
            run.taken += len(ready.late) + sum(map(len, ready.arrivals.values()))
            taken += 1 + len(ready.late) + sum(map(len, ready.arrivals.values()))
            more = taken < self._settings.poll_records and not self._marks.careful
            ready = self._merge.take() if more and self._reads_as_before() else None
            self._moved_on = True
        self._handling.seal(run)
        changed = self.processor.inputs() != self._inputs
        if changed and run.buckets:
            run.positions.update(self._places.entries(self.processor.inputs(), run.buckets[-1]))
        if self._open_order or changed:
            run.pin({where: at for where, at in run.positions.items() if self._pinned.get(where) != at})
        passing("after_apply")

    def _reads_as_before(self) -> bool:  # of a bucket with other inputs, the log is asked first what it holds
        return self._recorded or self.processor.inputs() == self._inputs

    def _commit(self, run: Transaction, writer: Writer, fence: Fence | None) -> int:
        """Commit and write the store; returns how many of its rows changed."""
        passing("after_produce")
        changes = [row for table in self._tables.values() for row in table.changes()]
        passing("before_commit")
        try:
            tracked = writer.commit(self._places.told(run.positions, run.topics), self.group, fence)
        except TransactionError as error:
            require_letters(self._log, run, error)
            raise
        passing("after_commit")
        if self._tables:
            passing("before_store_write")
            self._store.write(changes, run.checkpoint(self._store.checkpoint, tracked, self._log.now_ms()))
            passing("after_store_write")
        for table in self._tables.values():
            table.committed()
        self._places.positions = dict(run.positions)
        self._pinned = dict(run.positions)
        self._intake.committed(run.positions)
        self._marks.committed(run.positions, run.buckets)
        self._free, self._dead, self._fresh = [], [], False
        run.keep_open_rows(self._open_rows)
        return len(changes)

    @property
    def positions(self) -> Positions:
        """The next offset of every input, as of the last transaction."""
        return dict(self._places.positions)

    @property
    def store(self) -> Store:
        """The local store, to look at."""
        return self._store

    @property
    def buckets(self) -> tuple[int, ...]:
        """The last closed buckets, oldest first."""
        return self._merge.buckets

    def look(self) -> Look:
        """Where this task stands; to be asked between two steps."""
        read, waiting = self._reader.positions(), self._merge.waiting()
        committed = {where: self._places.positions[where] for where in self._places.reads}
        reached = {one: at if one in waiting else max(at, read.get(one, at)) for one, at in committed.items()}
        return Look(
            committed,
            reached,
            self._merge.lengths(),
            tuple(bucket for bucket in self.buckets if bucket > GENESIS_MS),
            self._merge.held,
            self._paused,
            self._merge.waits(),
            self.processor.resident_bytes if isinstance(self.processor, Resident) else None,
        )

    def close(self) -> None:
        self._reader.close()
        self._store.close()
        self._marks.close()
