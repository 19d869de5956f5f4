"""What one transaction of a task contains, in the order in which it reaches the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from qmtl.engine.cut import CutDigest, OpenRows, proof_of
from qmtl.engine.log.port import TopicPartition, Writer
from qmtl.engine.observer import Commit
from qmtl.engine.stamps import digest_of, endings, to_be_stamped
from qmtl.engine.stored import Checkpoint
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import InvalidTopology
from qmtl.foundation.contracts.control import (
    GENESIS_MS,
    CloseMarker,
    DeadLetter,
    InputPosition,
    InputTopic,
    LateRecord,
    PositionStamp,
    TaskCut,
)
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import Keys, marker_key, partition_for, stamp_key
from qmtl.foundation.wire.topics import TopicSpec, getter, topic

CUTS: Final = "task.cuts"
"""Where the cuts of steps are written."""

MARKERS_KEPT: Final = 8
"""Markers of a compacted topic that stay; older ones become tombstones. Delayed edges look back less than this."""


_Row = tuple[str, int, bytes, bytes | None, bool]


class Savepoint(NamedTuple):
    """How far a transaction was that holds its records back."""

    held: int
    staged: Mapping[str, dict[bytes, Any]]
    cuts: Mapping[TopicPartition, CutDigest]


class Transaction:
    """The outputs of one or more records and buckets of one task; it is the `Step` that a processor sees.

    Args:
        dynamic: the topics outside the catalogue; asked anew for each unknown name, as a record may bring new ones.
        config_epoch: of the close markers.
        keys: remembers the keys of outputs from one transaction to the next.
        open_rows: of each marked table, the rows since its last marker; not changed here, see `keep_open_rows`.
        stamps: by table, the digest of the stamp with which it ends so far.
    """

    def __init__(
        self,
        writer: Writer,
        codec: Codec,
        processor: str,
        task: int,
        tables: Mapping[str, Table],
        buckets: Sequence[int],
        dynamic: Callable[[], Mapping[str, TopicSpec]],
        config_epoch: int = 1,
        keys: Keys | None = None,
        open_rows: Mapping[str, OpenRows] | None = None,
        stamps: Mapping[str, str] | None = None,
    ) -> None:
        self._config_epoch = config_epoch
        self._writer = writer
        self._codec = codec
        self._processor = processor
        self._task = task
        self._tables = tables
        self._dynamic = dynamic
        self._cuts: dict[TopicPartition, CutDigest] = {}
        self._rows_before = open_rows or {}
        self._rows: dict[str, OpenRows] = {name: {} for name, table in tables.items() if table.spec.marked}
        self._closed_tables: dict[str, None] = {}
        self._written: dict[str, None] = {}
        self._stamps = dict(stamps or {})
        self._outlets: dict[str, _Outlet] = {}
        self._keys = Keys() if keys is None else keys
        self._encoded: dict[int, tuple[Any, bytes]] = {}
        self._held: list[_Row] | None = None
        self.buckets = tuple(buckets)
        self.positions: dict[TopicPartition, int] = {}
        self.topics: tuple[InputTopic, ...] = ()
        self.records = 0
        self.taken = 0
        self._letters: Counter[str] = Counter()
        self._late = 0
        self._closed = 0
        writer.begin()

    # ---- what a processor does ------------------------------------------------------------------------------------

    @property
    def closed_ms(self) -> int:
        return self.buckets[-1] if self.buckets else GENESIS_MS

    def table(self, topic: str) -> Table:
        return self._tables[topic]

    def emit(self, topic: str, message: Any) -> None:
        outlet = self._outlets.get(topic) or self._outlet(topic)
        if type(message) not in outlet.messages:
            raise InvalidTopology(f"{topic} carries no {type(message).__name__}.")
        if type(message) is DeadLetter:
            self._letters[message.code] += 1
        elif type(message) is LateRecord:
            self._late += 1
        key = self._keys[outlet.key_of(message)]
        partition = outlet.partition
        if partition is None:
            chosen = key if outlet.task_key_of is None else self._keys[outlet.task_key_of(message)]
            partition = partition_for(chosen, outlet.partitions)
        value = self.encode(message)
        if outlet.marked:
            where = TopicPartition(topic, partition)
            cut = self._cuts.get(where)
            if cut is None:
                cut = self._cuts[where] = CutDigest()
            cut.add(key, value)
        self._append(topic, partition, key, value)

    def encode(self, message: Any) -> bytes:
        found = self._encoded.get(id(message))
        if found is not None:
            return found[1]
        data = self._codec.encode(message)
        if self._tables:
            self._encoded[id(message)] = (message, data)  # it stays alive, so that nobody else gets its id
        return data

    def wrote(self, topic: str) -> bool:
        """Whether an event for a topic was added."""
        return topic in self._outlets

    # ---- what the task does -----------------------------------------------------------------------------------------

    def pin(self, moved: Mapping[TopicPartition, int]) -> None:
        """Write down the cut of the inputs that this step has used."""
        cut = TaskCut(self._processor, self._task, as_input_positions(moved))
        self._append(CUTS, 0, stamp_key(self._processor, self._task), self._codec.encode(cut))

    def summary(self, rows: int, seconds: float, topics: Mapping[str, int]) -> Commit:
        """What an observer is told once this is committed, with so many store rows, after so long, of so many records by topic."""
        letters = dict(self._letters)
        return Commit(self.taken, self.records, rows, self._late, letters, self._closed, seconds, topics)

    def seal(self) -> None:
        """Write what is staged in the tables; it belongs to the bucket that is open."""
        open_ms = (self.buckets[-1] if self.buckets else GENESIS_MS) + 1
        for name, table in self._tables.items():
            rows = self._rows.get(name)
            for key, value in table.seal(open_ms, horizon_of(self.buckets, table.look_back), self.encode):
                if rows is not None:
                    rows[key] = value
                self._written[name] = None
                self._append(name, table.partition, key, value)

    def close(self, bucket_ms: int, closes: Sequence[TopicSpec], tasks: int) -> None:
        """Seal the tables and write a marker into every partition that this task writes of the marked topics."""
        self.seal()
        key = marker_key(self._processor, self._task, bucket_ms)
        values: dict[
            tuple[int, str], bytes
        ] = {}  # most buckets of most topics are empty, and close with equal bytes
        forget = (
            marker_key(self._processor, self._task, self.buckets[-MARKERS_KEPT])
            if len(self.buckets) >= MARKERS_KEPT
            else None
        )
        for spec in closes:
            table = self._tables.get(spec.name)
            for partition in (self._task,) if table is not None or spec.by_writer else range(spec.partitions):
                if table is not None:
                    self._written[spec.name] = None
                    proof = proof_of(self._take_open_rows(spec.name))
                else:
                    cut = self._cuts.pop(TopicPartition(spec.name, partition), None)
                    proof = (0, "") if cut is None else (cut.count, cut.hexdigest())
                value = values.get(proof)
                if value is None:
                    marker = CloseMarker(
                        self._processor, self._task, tasks, bucket_ms, *proof, self._config_epoch
                    )
                    value = values[proof] = self._codec.encode(marker)
                self._append(spec.name, partition, key, value)
                if forget is not None and spec.compacted:
                    self._append(spec.name, partition, forget, None)
        self.buckets = (*self.buckets, bucket_ms)[-MARKERS_KEPT:]
        self._closed += bucket_ms > GENESIS_MS

    def _take_open_rows(self, name: str) -> OpenRows:
        """The rows of a table since its last marker; the next one begins without them."""
        rows, self._rows[name] = self._rows[name], {}
        if name not in self._closed_tables:
            self._closed_tables[name] = None
            rows = {**self._rows_before.get(name, {}), **rows}
        return rows

    def keep_open_rows(self, known: dict[str, OpenRows]) -> None:
        """Bring what is known of the rows since the last markers up to this transaction, which was committed."""
        for name, rows in self._rows.items():
            if name in self._closed_tables:
                known[name] = rows
            else:
                known.setdefault(name, {}).update(rows)

    def stamp(self, topics: tuple[InputTopic, ...] = ()) -> None:
        """End what was written of the tables with the input positions that all of them contain now, and what is known of their topics."""
        if self._cuts:
            names = sorted({where.topic for where in self._cuts})
            raise InvalidTopology(f"{self._processor} emitted into {names} outside of a bucket.")
        self.topics, positions = topics, as_input_positions(self.positions)
        stamped = to_be_stamped(self._tables, self._written, self._stamps)
        tables = endings(self._tables, stamped, self._stamps)
        stamp = PositionStamp(self._processor, self._task, positions, self.buckets, topics, tables)
        value = self._codec.encode(stamp)
        key, digest = stamp_key(self._processor, self._task), digest_of(value)
        for name in stamped:
            self._append(name, self._tables[name].partition, key, value, track=True)
            self._stamps[name] = digest

    def checkpoint(
        self, before: Checkpoint, tracked: Mapping[TopicPartition, int], now_ms: int
    ) -> Checkpoint:
        """What a store contains once it has taken in this transaction, which was committed.

        Args:
            tracked: by table partition, the offset of the stamp.
        """
        tables = {**before.tables, **{where: offset + 1 for where, offset in tracked.items()}}
        return Checkpoint(
            before.log_id, tables, self.positions, self.buckets, now_ms, self.topics, self._stamps
        )

    def _append(
        self, name: str, partition: int, key: bytes, value: bytes | None, *, track: bool = False
    ) -> None:
        if self._held is None:
            self._writer.append(name, partition, key, value, track=track)
        else:
            self._held.append((name, partition, key, value, track))
        self.records += 1

    # ---- what can be undone -----------------------------------------------------------------------------------------

    def hold(self) -> None:
        """Keep records back from the writer, which can't forget one of them, until `release`."""
        if self._held is None:
            self._held = []
            for table in self._tables.values():
                table.note(True)

    def prove_rows(self) -> None:
        """Encode what was put since this was asked last, so that whoever put what can't be written learns of it; only while
        records are held back. The bytes are not kept: most rows are put anew by one of the next records.

        Raises:
            InvalidValue, TooLarge, UnknownSchema: see `Codec.encode`.
        """
        for table in self._tables.values():
            for message in table.noted():
                if id(message) not in self._encoded:
                    self._codec.encode(message)

    def savepoint(self) -> Savepoint:
        """Where `undo` goes back to; only while records are held back."""
        staged = {name: table.staged() for name, table in self._tables.items()}
        cuts = {where: cut.copy() for where, cut in self._cuts.items()}
        return Savepoint(len(self._held or ()), staged, cuts)

    def undo(self, before: Savepoint) -> None:
        """Forget the records and staged rows since a savepoint; no bucket may have been closed since."""
        held = self._held or []
        self.records -= len(held) - before.held
        del held[before.held :]
        for name, table in self._tables.items():
            table.unstage(before.staged[name])
        self._cuts = {where: cut.copy() for where, cut in before.cuts.items()}

    def release(self) -> None:
        """Give the writer what was held back."""
        held, self._held = self._held or [], None
        for table in self._tables.values():
            table.note(False)
        for name, partition, key, value, track in held:
            self._writer.append(name, partition, key, value, track=track)

    def _outlet(self, name: str) -> _Outlet:
        if name in self._tables:
            raise InvalidTopology(f"{name} is a table of {self._processor}: put, don't emit.")
        found = self._outlets[name] = _Outlet(self._dynamic().get(name) or topic(name), self._task)
        return found


class _Outlet:
    """What has to be known of a topic for each event that goes there.

    Attributes:
        partition: the one that there is, or that is the task's own; None where the message chooses.
        task_key_of: None where the key chooses the partition too.
    """

    __slots__ = ("key_of", "marked", "messages", "partition", "partitions", "task_key_of")

    def __init__(self, spec: TopicSpec, task: int) -> None:
        self.messages = frozenset(spec.messages)
        self.key_of = getter(spec.key)
        self.task_key_of = None if spec.task_key == spec.key else getter(spec.task_key)
        self.partitions = spec.partitions
        self.partition = task if spec.by_writer else 0 if spec.partitions == 1 else None
        self.marked = spec.marked


def horizon_of(buckets: Sequence[int], look_back: int) -> int:
    """The oldest cut that the next bucket may ask of a table, with the buckets closed so far."""
    return buckets[-look_back] if look_back and len(buckets) >= look_back else GENESIS_MS


def as_input_positions(positions: Mapping[TopicPartition, int]) -> tuple[InputPosition, ...]:
    """Positions in the order of topic and partition."""
    return tuple(
        InputPosition(where.topic, where.partition, offset) for where, offset in sorted(positions.items())
    )
