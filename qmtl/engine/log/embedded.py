"""The log in one directory: a rocksdict database in which one write batch is one transaction.

It keeps Kafka's rules where they can be observed: offsets have gaps (each transaction spends one offset per partition
for its marker), positions are committed together with records, a newer writer fences an older one with the same id,
compaction keeps order and offsets. One process holds it; others may look through `open_secondary`.

Layout of keys: `m<name>` facts of the log; `t<topic>` its id, partitions and configuration; `e<id,partition>` the end
offset; `b<id,partition>` the begin offset; `g<group>\\0<topic>\\0<partition>` a committed position; `r<id,partition,offset>`
a record.
"""

from __future__ import annotations

import logging
import os
import shutil
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from blake3 import blake3
from rocksdict import WriteBatch, WriteOptions

from qmtl.engine.failpoint import entering, passing
from qmtl.engine.log import embedded_topics
from qmtl.engine.log.embedded_cleaning import outlived, superseded
from qmtl.engine.log.embedded_directory import open_database, view_directory
from qmtl.engine.log.embedded_membership import EmbeddedMembership
from qmtl.engine.log.embedded_reached import Reached
from qmtl.engine.log.embedded_topics import EmbeddedTopic
from qmtl.engine.log.embedded_writer import EmbeddedWriter, Sent
from qmtl.engine.log.port import (
    Columns,
    Group,
    GroupState,
    Incarnation,
    Positions,
    Record,
    TopicDescription,
    TopicPartition,
    TopicStanding,
    columns_of,
    described,
    partitions_of,
    require_same,
    standings,
)
from qmtl.engine.log.rocks import damage_after, has_room, is_damage, is_full
from qmtl.foundation.common.errors import (
    DiskFull,
    LogError,
    LogUnreachable,
    OffsetGone,
    UnknownTopic,
)
from qmtl.foundation.wire.topics import Cleanup, TopicSpec

FORMAT: Final = "1"
_SLOT: Final = struct.Struct(">II")
_OFFSET: Final = struct.Struct(">Q")
_HEAD: Final = struct.Struct(">q?I")  # timestamp ms, has a value, key length
_IDLE_STEP_S: Final = 0.005
CLEAN_EVERY_MS: Final = 3_600_000


class EmbeddedLog:
    """A log in a directory, held by this process.

    Args:
        directory: made if missing.
        clock_ms: gives the time that is written beside each record; only retention and compaction read it.
        sync: wait for the disk at each commit. Without it a commit survives the death of the process, not of the machine.

    Raises:
        LogLocked: another process holds the directory.
        LogUnreachable: it can't be opened, or transactions that were confirmed are missing.
        LogError: its list of topics is damaged.
        DiskFull: there is no room for a new one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock_ms: Callable[[], int] | None = None,
        sync: bool = False,
        read_only: bool = False,
    ) -> None:
        self.directory = directory
        self.now_ms = clock_ms if clock_ms is not None else lambda: int(time.time() * 1000)
        self.read_only = read_only
        self._closed, self._full = False, False
        self._write_options = WriteOptions()
        self._write_options.sync = self._sync = sync
        self._open()
        self._topics: dict[str, EmbeddedTopic] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._begins: dict[TopicPartition, int] = {}
        self.epochs: dict[str, int] = {}
        try:
            self._load_identity()
            self._load_catalogue()
        except (LogError, DiskFull):
            self.close()
            raise

    def _open(self) -> None:
        self._db = open_database(self.directory, self.read_only)
        if not self.read_only:
            self._reached = Reached(self.directory, self._db.latest_sequence_number(), self._sync)

    # ---- identity and topics ----------------------------------------------------------------------------------

    def _load_identity(self) -> None:
        found = self._get(b"mformat")
        if found is None and not self.read_only:
            fresh = blake3(f"{self.directory.resolve()}\0{os.getpid()}\0{self.now_ms()}".encode()).hexdigest(
                16
            )
            batch = WriteBatch(raw_mode=True)
            batch.put(b"mformat", FORMAT.encode())
            batch.put(b"mid", f"embedded-{fresh}".encode())
            self._put(batch)
        elif found is not None and found.decode() != FORMAT:
            raise LogUnreachable(
                f"the embedded log in {self.directory} has format {found.decode()!r}; this version reads {FORMAT!r}.",
                "Use the version that wrote it, or another --state-dir.",
            )
        self.log_id = (self._get(b"mid") or b"embedded-empty").decode()

    def _load_catalogue(self) -> None:
        self._topics.clear()
        for key, value in self._scan(b"t"):
            found = embedded_topics.read(self.log_id, key, value)
            self._topics[found.name] = found
            for where in partitions_of(found.name, found.partitions):
                self._load_bounds(where)

    def _load_bounds(self, where: TopicPartition) -> None:
        slot = self._slot(where)
        self._ends[where] = _number(self._get(b"e" + slot))
        self._begins[where] = _number(self._get(b"b" + slot))

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        self._ready()
        fresh: dict[str, TopicDescription] = {}
        for spec in specs:
            known = self._topics.get(spec.name) or fresh.get(spec.name)
            if known is None:
                fresh[spec.name] = described(spec)
            else:
                require_same(described(spec), known.partitions, known.config)
        self._make(list(fresh.values()))

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        self._ready()
        self._make(
            [one for one in {one.name: one for one in wanted}.values() if one.name not in self._topics]
        )
        return {}

    def _make(self, wanted: Sequence[TopicDescription]) -> None:
        if not wanted:
            return
        free = self._last_number() + 1
        made = [embedded_topics.make(self.log_id, free + at, one) for at, one in enumerate(wanted)]
        batch = WriteBatch(raw_mode=True)
        for one in made:
            embedded_topics.enter(batch, one)
        self._refuse_rows_from(free)
        self._put(batch)
        for one in made:
            self._topics[one.name] = one
            for where in partitions_of(one.name, one.partitions):
                self._ends[where] = self._begins[where] = 0

    def _last_number(self) -> int:
        listed = max((known.number for known in self._topics.values()), default=0)
        return max(listed, _number(self._get(embedded_topics.NUMBERS)))

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        self._ready()
        gone = [self._topics[name] for name in sorted(set(names)) if name in self._topics]
        if gone:
            batch = WriteBatch(raw_mode=True)
            positions = [key for key, _ in self._scan(b"g")]
            for one in gone:
                embedded_topics.strike(batch, one, positions)
            batch.put(embedded_topics.NUMBERS, _OFFSET.pack(self._last_number()))
            self._put(batch)
        for one in gone:
            del self._topics[one.name]
            for where in partitions_of(one.name, one.partitions):
                del self._ends[where], self._begins[where]
        return {}

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        self._look()
        return standings(names, {name: known.describe() for name, known in self._topics.items()})

    def _refuse_rows_from(self, number: int) -> None:
        """A new topic would take what lies there for its own."""
        for kind in (b"b", b"e", b"r"):
            if next(self._scan(kind, kind + _SLOT.pack(number, 0)), None) is not None:
                raise self._damaged("it has records of a topic that it does not list")

    def describe(self, topic: str) -> TopicDescription | None:
        self._look()
        known = self._topics.get(topic)
        return None if known is None else known.describe()

    def incarnations(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        self._look()
        out = {}
        for name in topics:
            known = self._topics.get(name)
            if known is None:
                raise UnknownTopic(f"the log has no topic {name!r}.", "Create it first.")
            out[name] = Incarnation(known.id, known.partitions)
        return out

    def topics(self) -> list[str]:
        self._look()
        return sorted(self._topics)

    def _slot(self, where: TopicPartition) -> bytes:
        known = self._topics.get(where.topic)
        if known is None or not 0 <= where.partition < known.partitions:
            raise UnknownTopic(
                f"the log has no partition {where.partition} of topic {where.topic!r}.", "Create it first."
            )
        return _SLOT.pack(known.number, where.partition)

    # ---- offsets ----------------------------------------------------------------------------------------------

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        self._look()
        return {where: self.bounds(where)[0] for where in partitions}

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        self._look()
        return {where: self.bounds(where)[1] for where in partitions}

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return self.end_offsets(partitions)  # nothing uncommitted is ever in the log

    def bounds(self, where: TopicPartition) -> tuple[int, int]:
        """Begin and end of a partition, as last seen."""
        self._slot(where)
        return self._begins[where], self._ends[where]

    def offsets_at_time(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Positions:
        out = {}
        for where in partitions:
            out[where] = self.end_offsets([where])[where]
            for record in self.read(where, 0):
                if record.timestamp_ms >= timestamp_ms:
                    out[where] = record.offset
                    break
        return out

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        self._look()
        self._ready()
        found = ((where, self._get(embedded_topics.position_key(group, where))) for where in partitions)
        return {where: _number(value) for where, value in found if value is not None}

    def members(self, group: str) -> Group:
        """Nobody knows: the one process that runs everything keeps no record of it on the log."""
        return Group(GroupState.UNKNOWN)

    # ---- records ----------------------------------------------------------------------------------------------

    def read(self, where: TopicPartition, offset: int) -> Iterator[Record]:
        """The records of a partition from an offset on, in order."""
        prefix = b"r" + self._slot(where)
        for key, value in self._scan(prefix, prefix + _OFFSET.pack(offset)):
            stamp, has_value, length = _HEAD.unpack_from(value)
            body = _HEAD.size + length
            yield Record(
                where.topic,
                where.partition,
                _OFFSET.unpack_from(key, len(prefix))[0],
                value[_HEAD.size : body],
                value[body:] if has_value else None,
                stamp,
            )

    def _scan(self, prefix: bytes, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        last = start or prefix
        for key, value in self._db.items(from_key=last):
            if not key.startswith(prefix):
                return
            last = key
            yield key, value
        if (damage := damage_after(self._db, last)) is not None:
            raise self._damaged(damage)

    def _get(self, key: bytes) -> bytes | None:
        try:
            found: bytes | None = self._db.get(key)
        except Exception as error:  # rocksdict raises bare Exception
            if is_damage(str(error)):
                raise self._damaged(str(error)) from None
            raise
        return found

    def _damaged(self, damage: str) -> LogError:
        return LogError(
            f"the embedded log in {self.directory} is damaged: {damage}.",
            "Bring its directory back from a copy.",
        )

    def write(self, sent: Iterable[Sent], positions: Positions, group: str) -> dict[TopicPartition, int]:
        """One transaction: these records, these positions, in one batch. Returns the last tracked offsets."""
        self._ready()
        batch = WriteBatch(raw_mode=True)
        tracked: dict[TopicPartition, int] = {}
        ends: dict[TopicPartition, int] = {}
        now = self.now_ms()
        put, offset_of = batch.put, _OFFSET.pack
        for one in sent:
            where, prefix, begin = one.where, b"r" + self._slot(one.where), self._ends[one.where]
            heads: dict[int, bytes] = {}  # keys of a partition have few lengths
            for offset, key, value in zip(count(begin), one.keys, one.values, strict=False):
                size = len(key)
                if value is None:
                    put(prefix + offset_of(offset), _HEAD.pack(now, False, size) + key)
                    continue
                head = heads.get(size)
                if head is None:
                    head = heads[size] = _HEAD.pack(now, True, size)
                put(prefix + offset_of(offset), head + key + value)
            if one.tracked is not None:
                tracked[where] = begin + one.tracked
            # The transaction's marker takes an offset too, as on Kafka.
            ends[where] = end = begin + len(one.keys) + 1
            batch.put(b"e" + prefix[1:], _OFFSET.pack(end))
        for where, offset in positions.items():
            if where.topic in self._topics:  # of one that was deleted meanwhile they are nobody's
                batch.put(embedded_topics.position_key(group, where), _OFFSET.pack(offset))
        passing("after_flush")
        passing("inside_commit")
        entering("commit_sent")
        self._put(batch)
        self._ends.update(ends)
        return tracked

    def _put(self, batch: WriteBatch) -> None:
        try:
            self._db.write(batch, self._write_options)
            self._reached.note(self._db.latest_sequence_number())
        except Exception as error:  # rocksdict raises bare Exception, so its text is all there is to tell by
            if is_full(error):
                # A late error leaves the batch whole in the log; what did not fit is cut off. Opening it again shows which.
                self._full = True
                raise DiskFull(
                    f"the embedded log in {self.directory} could not be written: {error}.",
                    "Make room; what was not committed is done again.",
                ) from None
            raise

    def _ready(self) -> None:
        """What the log holds is known again, before offsets are taken or positions told."""
        if self._full:
            self._open_again()

    def _open_again(self) -> None:
        """RocksDB takes nothing more once a write has failed, until it is opened anew."""
        if not has_room(self.directory):
            raise DiskFull(f"the embedded log in {self.directory} has no room yet.", "Make room.")
        with suppress(Exception):  # rocksdict raises bare Exception; what was not written is gone
            self._db.close()
        self._reached.close()
        self._open()
        self._load_catalogue()
        self._full = False

    def reader(self) -> EmbeddedReader:
        return EmbeddedReader(self)

    def writer(self, transactional_id: str) -> EmbeddedWriter:
        epoch = self.epochs.get(transactional_id, 0) + 1
        self.epochs[transactional_id] = epoch
        return EmbeddedWriter(self, transactional_id, epoch)

    def membership(self, group: str, member: str, anchor: str) -> EmbeddedMembership:
        known = self._topics.get(anchor)
        if known is None:
            raise UnknownTopic(f"the log has no topic {anchor!r}.", "Create the topics first.")
        return EmbeddedMembership(frozenset(range(known.partitions)))

    # ---- housekeeping -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        if self.read_only:
            self.refresh()

    def refresh(self) -> None:
        """Catch up with the process that writes (read-only secondary)."""
        self._db.try_catch_up_with_primary()
        self._load_identity()
        self._load_catalogue()

    def clean_if_due(self) -> int:
        """`clean`, if the last time was more than `CLEAN_EVERY_MS` ago; returns how many records went.

        A full disk is a warning here: it keeps nobody from reading, and who writes is told.
        """
        if self.now_ms() - _number(self._get(b"mcleaned")) < CLEAN_EVERY_MS or not self._topics:
            return 0
        try:
            return self.clean()
        except DiskFull as error:
            logging.getLogger(__name__).warning("the embedded log is not cleaned: %s", error)
            return 0

    def clean(self, names: Collection[str] | None = None) -> int:
        """Compact compacted topics and drop what retention allows, of all topics or these; returns how many records went.

        Raises:
            DiskFull: it is due again; what went before is gone.
        """
        self._ready()
        now, gone = self.now_ms(), 0
        chosen = [one for one in self._topics.values() if names is None or one.name in names]
        for known in sorted(chosen, key=lambda one: one.number):
            for partition in range(known.partitions):
                where = TopicPartition(known.name, partition)
                compacted = known.config["cleanup.policy"] == Cleanup.COMPACT.value
                gone += self._compact(where, known, now) if compacted else self._retain(where, known, now)
        if names is None:
            done = WriteBatch(raw_mode=True)
            done.put(b"mcleaned", _OFFSET.pack(now))
            self._put(done)
        return gone

    def _compact(self, where: TopicPartition, known: EmbeddedTopic, now: int) -> int:
        closed_before = now - int(known.config["min.compaction.lag.ms"])
        tombstones_before = now - int(known.config["delete.retention.ms"])
        doomed = superseded(self.read(where, 0), closed_before, tombstones_before)
        self._delete(where, doomed)
        return len(doomed)

    def _retain(self, where: TopicPartition, known: EmbeddedTopic, now: int) -> int:
        retention = int(known.config["retention.ms"])
        if retention < 0:
            return 0
        doomed = outlived(self.read(where, 0), now - retention)
        self._delete(where, doomed, begin=doomed[-1] + 1 if doomed else None)
        return len(doomed)

    def _delete(self, where: TopicPartition, offsets: Sequence[int], begin: int | None = None) -> None:
        if not offsets:
            return
        slot = self._slot(where)
        batch = WriteBatch(raw_mode=True)
        for offset in offsets:
            batch.delete(b"r" + slot + _OFFSET.pack(offset))
        if begin is not None:
            batch.put(b"b" + slot, _OFFSET.pack(begin))
        self._put(batch)
        if begin is not None:
            self._begins[where] = begin

    @property
    def closed(self) -> bool:
        """Whether it has let go of its directory."""
        return self._closed

    def close(self) -> None:
        """Let go of the directory; a second time does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._db.close()
        except Exception as error:  # rocksdict raises bare Exception
            if not is_full(error):  # without room it can't end tidily, and the next start mends it
                raise
        if self.read_only:
            shutil.rmtree(view_directory(self.directory), ignore_errors=True)
        else:
            self._reached.close()


class EmbeddedReader:
    """Reads what is committed, which is all there is."""

    def __init__(self, log: EmbeddedLog) -> None:
        self._log = log
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        self._turn = 0

    def assign(self, positions: Positions) -> None:
        self._log.begin_offsets(positions)
        self._positions = dict(sorted(positions.items()))
        self._paused = frozenset()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused = frozenset(partitions)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        deadline = time.monotonic() + timeout_s
        while True:
            if self._log.read_only:
                self._log.refresh()
            out, has_moved = self._read(max_records)
            # Whoever has come past the last marker has nothing to wait for: it may be what its caller reads up to.
            if has_moved or time.monotonic() >= deadline:
                return out
            time.sleep(min(_IDLE_STEP_S, max(0.0, deadline - time.monotonic())))

    def _read(self, max_records: int) -> tuple[list[Record], bool]:
        """What is there, and whether the reader has come further, be it past markers alone."""
        out: list[Record] = []
        has_moved = False
        waiting = [where for where in self._positions if where not in self._paused]
        self._turn += 1
        turn = self._turn % len(waiting) if waiting else 0
        for where in waiting[turn:] + waiting[:turn]:  # nobody is always first
            begin, end = self._log.bounds(where)
            position = self._positions[where]
            if position > end:
                raise OffsetGone(
                    f"position {position} of {where} lies past the end {end}: the log is shorter than it was."
                )
            if position < begin:
                raise OffsetGone(f"position {position} of {where} lies before the first record that is kept.")
            if position == end:
                continue
            before = len(out)
            for record in self._log.read(where, position):
                if len(out) == max_records or record.offset >= end:
                    break
                out.append(record)
            if len(out) == max_records:
                if len(out) > before:
                    self._positions[where] = out[-1].offset + 1
                    has_moved = True
                break
            self._positions[where] = end
            has_moved = True
        return out, has_moved

    def poll_columns(self, max_records: int, timeout_s: float, ends: Positions) -> list[Columns]:
        return columns_of(self.poll(max_records, timeout_s), ends)

    def positions(self) -> Positions:
        return dict(self._positions)

    def close(self) -> None:
        self._positions = {}


def _number(value: bytes | None) -> int:
    return 0 if value is None else int(_OFFSET.unpack(value)[0])
