"""A task: one processor on one partition of its anchor, from reading to the local store, one transaction at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qmtl.engine.failpoint import passing
from qmtl.engine.log.port import Fence, Log, Positions, Record, TopicPartition, Writer, partitions_of
from qmtl.engine.processor import Arrival, Bucket, Input, Processor
from qmtl.engine.recovery import Progress, restore
from qmtl.engine.store import Checkpoint, Store
from qmtl.engine.table import Table
from qmtl.engine.transaction import MARKERS_KEPT, Transaction
from qmtl.engine.watermark import Merge, Ready
from qmtl.foundation.common.errors import InvalidTopology, StampMismatch, UnknownTopic, WireError
from qmtl.foundation.contracts.control import GENESIS_MS, CloseMarker, DeadLetter
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import Keys, encode_key, is_marker, is_stamp
from qmtl.foundation.wire.topics import TopicSpec, topic

POLL_RECORDS: Final = 4000
COMMIT_INTERVAL_MS: Final = 50.0
LATE: Final = "QMTL-LATE"


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
    """

    state_dir: Path
    poll_records: int = POLL_RECORDS
    commit_records: int | None = None
    commit_interval_ms: float = COMMIT_INTERVAL_MS

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
        self._log = log
        self._codec = codec
        self._settings = settings
        self._store = Store(settings.state_dir / f"{processor.name}-{number}", log.log_id)
        self._reader = log.reader()
        self._inputs: tuple[Input, ...] = ()
        self._positions: dict[TopicPartition, int] = {}
        self._free: list[Arrival] = []
        self._fresh = False
        self._open_order = self._in_order = False
        self._pinned: dict[TopicPartition, int] = {}
        described = log.describe(processor.anchor)
        if described is None:
            raise UnknownTopic(f"the log has no topic {processor.anchor!r}.", "Create the topics first.")
        self._tasks = described.partitions
        if found := contradictions(processor, self._tasks):
            self._reader.close()
            self._store.close()
            raise InvalidTopology(
                f"{processor.name}: {'; '.join(found)}.", "Change its inputs, tables or closes."
            )
        look_back = {
            one.topic: one.lag for one in processor.inputs() if one.lag and one.topic in processor.tables
        }
        self._tables = {
            name: Table(self._spec(name), number, self._store, codec, look_back.get(name, 0))
            for name in processor.tables
        }
        self._merge = Merge(recorded=recorded)
        self._dead: list[DeadLetter] = []
        self._markers: dict[bytes, object] = {}
        self._keys = Keys()
        self._allowed: dict[str, tuple[type, ...]] = {}

    # ---- opening ------------------------------------------------------------------------------------------------

    def open(self, progress: Progress | None = None) -> None:
        """Restore the tables and continue where the last transaction ended; safe to repeat after any failure.

        Raises:
            RecoveryStalled, LogRegressed, StampMismatch: see `restore`.
        """
        for table in self._tables.values():
            table.rollback()
        self._free, self._dead = [], []
        # Positions first, then the tables: what commits in between is then in the tables and read again, never missed.
        committed = self._committed(self.processor.inputs())
        if self._tables:
            restored = restore(self._log, self._store, self._tables, self._codec, progress=progress)
            self._positions, self._fresh = dict(restored.positions), restored.fresh
            self._merge = Merge(restored.buckets, self._tables, recorded=self._recorded)
        else:
            self._positions, self._fresh = dict(committed), False
            self._merge = Merge(recorded=self._recorded)
        self._pinned = dict(self._positions)
        self.processor.restore(self._tables)
        committed = self._committed(self.processor.inputs())
        for where, offset in sorted(committed.items()):
            if self._tables and self._positions.get(where) != offset and self._is_mine_alone(where.topic):
                raise StampMismatch(
                    f"{self.processor.name}[{self.number}]: its tables contain {where} up to {self._positions.get(where)},"
                    f" its group has committed {offset}.",
                    "Somebody reset the offsets or edited a table; reset both or neither.",
                )
        self._inputs = ()
        self._configure(reading={})

    def _committed(self, inputs: Sequence[Input]) -> Positions:
        wheres = [where for one in inputs if one.topic not in self._tables for where in self._partitions(one)]
        return self._log.committed(self.group, wheres)

    def _is_mine_alone(self, topic_name: str) -> bool:
        return self._tasks == 1 or not any(
            one.topic == topic_name and one.broadcast for one in self.processor.inputs()
        )

    def _partitions(self, one: Input) -> list[TopicPartition]:
        if not one.broadcast:
            return [TopicPartition(one.topic, self.number)]
        return partitions_of(one.topic, self._spec(one.topic).partitions)

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
        self._inputs = inputs
        self._allowed = {one.topic: self._spec(one.topic).messages for one in inputs}
        reads = sum(len(self._partitions(one)) for one in inputs if one.topic not in self._tables)
        self._open_order = reads > 1 and any(not one.bucketed or one.joins for one in inputs)
        # One free partition has one order; of several, the order within a step is known when its last record is.
        self._in_order = reads == 1 and not any(one.bucketed for one in inputs)
        wheres = [where for one in inputs if one.topic not in self._tables for where in self._partitions(one)]
        begin = self._log.begin_offsets(wheres)
        for where in wheres:
            self._positions.setdefault(where, begin[where])
        self._merge.configure(
            [
                (
                    one,
                    [] if one.topic in self._tables else self._partitions(one),
                    self._spec(one.topic).compacted,
                )
                for one in inputs
                if one.bucketed
            ],
            cut_off=[where for where in wheres if 0 < begin[where] == self._positions[where]],
            # What has given a bucket before is waited for again after a restart.
            joined={where.topic for where in wheres if self._positions[where] > begin[where]},
        )
        at = self._reader.positions() if reading is None else reading
        self._reader.assign({where: at.get(where, self._positions[where]) for where in wheres})

    # ---- one cycle ------------------------------------------------------------------------------------------------

    def step(self, writer: Writer, fence: Fence | None, timeout_s: float) -> bool:
        """Take in records, and run everything that is ready in one transaction; says whether there was anything.

        Args:
            fence: the proof of membership, taken before anything was read. Whoever calls takes no part in the group meanwhile.
            timeout_s: how long to wait for the first record.

        Raises:
            TransactionAborted, OutcomeUnknown, Fenced: see `Writer.commit`; `open` again before the next step.
        """
        self._markers.clear()
        run: Transaction | None = None
        taken, until = 0, 0.0
        try:
            while True:
                batch = self._take_in(self._settings.room - taken, 0.0 if taken else timeout_s)
                if batch and not taken:
                    until = time.monotonic() + self._settings.commit_interval_ms / 1e3
                taken += len(batch)
                ready = self._merge.take()
                if self._in_order and self._has_work(ready):
                    run = run or self._begin(writer)
                    self._handle(run)
                if not batch or ready is not None or taken >= self._settings.room or self._recorded:
                    break
                if time.monotonic() >= until:
                    break
            if run is None:
                if not self._has_work(ready):
                    return taken > 0
                run = self._begin(writer)
            self._run(run, ready)
            run.stamp()
        except BaseException:
            writer.abort()
            raise
        self._commit(run, writer, fence)
        return True

    def _take_in(self, room: int, timeout_s: float) -> list[Record]:
        """Read once, and put each record where it belongs."""
        self._reader.pause(self._merge.full())
        batch = self._reader.poll(min(room, self._settings.poll_records), timeout_s)
        passing("after_poll")
        self._sort_in(batch)
        if batch and not self._recorded:
            self._wake()
        passing("after_decode")
        return batch

    def _has_work(self, ready: Ready | None) -> bool:
        return bool(self._free or self._dead or self._fresh) or ready is not None

    def _begin(self, writer: Writer) -> Transaction:
        run = Transaction(
            writer,
            self._codec,
            self.processor.name,
            self.number,
            self._tables,
            self._merge.buckets,
            self.processor.topics,
            self._keys,
        )
        run.positions.update(self._positions)
        if self._fresh:
            # A reader that looks back before the first bucket finds this marker, and not nothing for ever.
            run.close(GENESIS_MS, self.processor.closes(), self._tasks)
            run.buckets = ()
            self._fresh = False
        return run

    def _wake(self) -> None:
        """Let sources join that somebody feeds by now: which of them a poll brings first must not decide a bucket."""
        asleep = self._merge.asleep()
        if asleep:
            # Up to the high watermark: of a transaction over several topics, one may show its records before the other.
            ends = self._log.end_offsets(asleep)
            self._merge.join({where.topic for where in asleep if ends[where] > self._positions[where]})

    def _sort_in(self, batch: Sequence[Record]) -> None:
        """Put each record where it belongs; most are data of a free input, and come in runs of one partition."""
        where: TopicPartition | None = None
        free, decode, position = self._free.append, self._codec.decode, 0
        allowed: tuple[type, ...] = ()
        for record in batch:
            topic_name, partition, offset, key, value, _ = record
            if where is None or where.partition != partition or where.topic != topic_name:
                if where is not None:
                    self._positions[where] = position
                here = TopicPartition(topic_name, partition)
                where = here if self._merge.buffer(here) is None else None
                allowed = self._allowed[topic_name]
            if where is None or value is None or key[:1] == b"\x00":
                self._offer(record)
                position = offset + 1
                continue
            position = offset + 1
            try:
                message = decode(value)
                if type(message) in allowed and type(message) is not CloseMarker:
                    free(tuple.__new__(Arrival, (topic_name, partition, offset, message)))
                    continue
            except WireError:
                pass
            self._offer(record)  # it says what is wrong
        if where is not None:
            self._positions[where] = position

    def _offer(self, record: Record) -> None:
        where = TopicPartition(record.topic, record.partition)
        buffer = self._merge.buffer(where)
        if buffer is None:
            self._positions[where] = record.offset + 1
        if is_stamp(record.key):
            return
        found = self._read(record)
        if buffer is None:
            if isinstance(found, DeadLetter):
                self._dead.append(found)
            elif isinstance(found, Arrival):
                self._free.append(found)
        elif isinstance(found, CloseMarker):
            buffer.close(found, record.offset)
        elif not is_marker(record.key):
            buffer.add(found, record.key, record.value)
        elif isinstance(found, DeadLetter):
            buffer.refuse(found)

    def _read(self, record: Record) -> Arrival | CloseMarker | DeadLetter | None:
        """What a record says; None is a tombstone."""
        if record.value is None:
            return None
        marker = is_marker(record.key)
        try:
            message = self._decode(record.value, marker=marker)
            if marker != isinstance(message, CloseMarker):
                raise WireError(f"a {type(message).__name__} came under the key of something else.")
            if isinstance(message, CloseMarker):
                return message
            if type(message) not in self._allowed[record.topic]:
                raise WireError(f"{record.topic} carries no {type(message).__name__}.")
        except WireError as error:
            return DeadLetter(
                self.processor.name,
                record.topic,
                error.code,
                error.what,
                record.key,
                record.value,
                record.partition,
                record.offset,
            )
        return Arrival(record.topic, record.partition, record.offset, message)

    def _decode(self, value: bytes, *, marker: bool) -> object:
        """The message of a value; the partitions of a topic close a bucket with equal bytes, which are read once."""
        if not marker:
            return self._codec.decode(value)
        known = self._markers.get(value)
        if known is None:
            known = self._markers[value] = self._codec.decode(value)
        return known

    def _handle(self, run: Transaction) -> None:
        """Handle what came from free inputs."""
        for letter in self._dead:
            run.emit("dead.letters", letter)
        if not self._in_order:
            order = {one.topic: index for index, one in enumerate(self._inputs)}
            self._free.sort(key=lambda one: (order[one.topic], one.partition, one.offset))
        for arrival in self._free:
            self.processor.on_record(run, arrival)
        self._free, self._dead = [], []
        run.positions.update(self._positions)

    def _run(self, run: Transaction, ready: Ready | None) -> None:
        taken = len(self._free)
        self._handle(run)
        while ready is not None:
            run.positions.update(ready.positions)
            last = run.buckets[-1] if run.buckets else GENESIS_MS
            for letter in ready.dead:
                run.emit("dead.letters", letter)
            for arrival in ready.late:
                self._emit_late(run, arrival, last)
            if ready.bucket_ms > last:
                bucket = Bucket(ready.bucket_ms, ready.arrivals, ready.cuts, not run.buckets)
                self.processor.on_bucket(run, bucket)
                run.close(ready.bucket_ms, self.processor.closes(), self._tasks)
                self._merge.closed(run.buckets)
            taken += 1 + len(ready.late) + sum(map(len, ready.arrivals.values()))
            ready = self._merge.take() if taken < self._settings.poll_records else None
        self.processor.flush(run)
        run.seal()
        if self._open_order:
            run.pin({where: at for where, at in run.positions.items() if self._pinned.get(where) != at})
        passing("after_apply")

    def _emit_late(self, run: Transaction, arrival: Arrival, last: int) -> None:
        key = encode_key(self._spec(arrival.topic).key_of(arrival.message))
        cause = f"its bucket was closed already; the last one was {last}"
        value = self._codec.encode(arrival.message)
        run.emit(
            "dead.letters",
            DeadLetter(
                self.processor.name, arrival.topic, LATE, cause, key, value, arrival.partition, arrival.offset
            ),
        )

    def _commit(self, run: Transaction, writer: Writer, fence: Fence | None) -> None:
        passing("after_produce")
        changes = [row for table in self._tables.values() for row in table.changes()]
        passing("before_commit")
        tracked = writer.commit(run.positions, self.group, fence)
        passing("after_commit")
        if self._tables:
            tables = {where: offset + 1 for where, offset in tracked.items()}
            checkpoint = Checkpoint(self._log.log_id, tables, run.positions, run.buckets, self._log.now_ms())
            passing("before_store_write")
            self._store.write(changes, checkpoint)
            passing("after_store_write")
        for table in self._tables.values():
            table.committed()
        self._positions = run.positions
        self._pinned = dict(run.positions)
        self._configure()

    @property
    def positions(self) -> Positions:
        """The next offset of every input, as of the last transaction."""
        return dict(self._positions)

    @property
    def buckets(self) -> tuple[int, ...]:
        """The last closed buckets, oldest first."""
        return self._merge.buckets

    def close(self) -> None:
        self._reader.close()
        self._store.close()


def contradictions(processor: Processor, tasks: int) -> list[str]:
    """What of a processor can't work, whatever it reads: it would go wrong at its first restart only."""
    out = []
    closed = {spec.name for spec in processor.closes()}
    for one in processor.inputs():
        if one.lag > MARKERS_KEPT:
            out.append(f"{one.topic} is read {one.lag} buckets late, and {MARKERS_KEPT} are kept")
        if one.lag and not one.bucketed:
            out.append(f"{one.topic} is read late, but not by bucket")
        if one.bucketed and not processor.tables:
            out.append(f"{one.topic} is read by bucket, and no table keeps which buckets are closed")
        if one.topic in processor.tables and (not one.lag or one.topic not in closed):
            out.append(f"{one.topic} is its own: it can be read late only, and has to be closed")
        if one.broadcast and tasks > 1 and not processor.tables:
            out.append(f"{one.topic} is read by {tasks} tasks, and no table keeps how far each has come")
    return out
