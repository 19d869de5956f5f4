"""What the engine itself writes: close markers, position stamps, dead letters, late records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

COORDINATE: dict[str, Any] = {"coordinate": True}
"""Field metadata: the field holds places in a log, which differ between logs, and stays out of digests."""

GENESIS_MS = 0
"""The bucket of a genesis marker: closed before the first bucket that anybody computes."""


@dataclass(frozen=True, slots=True)
class InputPosition:
    """The next offset to read of one partition."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class InputTopic:
    """A topic of which a task has positions.

    Attributes:
        id: of the life of the topic that the positions belong to: one that is deleted and made again has another. Empty: not known.
        read: whether it was read in this transaction and is an input after it; of others the position waits in case they come back.
        every_ms: the length of its own buckets; 0: those of the task.
        slept: of a source that is asleep, one past the last record of each partition that is read, in their order, as it was
            when it fell asleep; empty: it is awake.
        cut_off: partitions that begin where retention has come to, as long as no bucket of them was taken.
    """

    topic: str
    id: str
    read: bool
    every_ms: int = 0
    slept: tuple[int, ...] = ()
    cut_off: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseMarker:
    """Every record before this one in its partition belongs to buckets up to `bucket_ms`; its own offset is the watermark.

    Attributes:
        processor: who closes.
        task: which task of it, of `tasks` tasks that write to this partition.
        bucket_ms: the instant at which the bucket closes (exclusive end), epoch ms; 0 is genesis.
        count: data records of this writer in this partition since its previous marker; of a table, the rows that were written.
        digest: BLAKE3 (16 hex) over the keys and values of those records, in order; of a table, over the last values of those
            rows, in the order of their keys. Empty: over no records, or not told.
        config_epoch: a new epoch starts a new sequence of markers.
    """

    processor: str
    task: int
    tasks: int
    bucket_ms: int
    count: int
    digest: str
    config_epoch: int


@dataclass(frozen=True, slots=True)
class TableStamp:
    """What a table of a task ends with.

    Attributes:
        digest: BLAKE3 (16 hex) over the value of the table's last position stamp; empty: it is the one that says this.
    """

    table: str
    digest: str


@dataclass(frozen=True, slots=True)
class PositionStamp:
    """The last record of a transaction in every table that it wrote, and in the first of its task: the input positions that the
    tables contain.

    Attributes:
        buckets: the last closed buckets of the task, oldest first, epoch ms: what a delayed edge counts back in.
        topics: those of the positions, by name; empty: not told.
        tables: what each table of the task ends with; empty: all end with this stamp.
    """

    processor: str
    task: int
    positions: tuple[InputPosition, ...] = field(default=(), metadata=COORDINATE)
    buckets: tuple[int, ...] = ()
    topics: tuple[InputTopic, ...] = field(default=(), metadata=COORDINATE)
    tables: tuple[TableStamp, ...] = field(default=(), metadata=COORDINATE)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, kept with its cause. Everything in it is the same when the log is replayed.

    A record too large for a letter is kept in part: `key` and `value` are then only heads, and the whole lies where the
    coordinates say for as long as that topic keeps it.

    Attributes:
        processor: who could not use it.
        code: of the error, as `qmtl.foundation.common.errors` has it.
        cause: one sentence; addresses in memory are masked.
        key: as it lay in the log, byte for byte.
        value: as it lay in the log, byte for byte.
        task: which task of the processor.
        error_type: the class of the error, with its module, where a handler failed.
        stack_digest: BLAKE3 (16 hex) over that class and the functions on the way to the error; letters of one mistake share it.
        attempts: how often the rule allows the record to be tried before it is a letter.
        key_bytes: the size of the key, where only its head is here.
        value_bytes: the size of the value, where only its head is here.
        digest: BLAKE3 (64 hex) over whole key and value, where only a head is here; see `qmtl.engine.letters`.
    """

    processor: str
    topic: str
    code: str
    cause: str
    key: bytes
    value: bytes | None
    partition: int = field(default=0, metadata=COORDINATE)
    offset: int = field(default=0, metadata=COORDINATE)
    task: int = 0
    error_type: str = ""
    stack_digest: str = ""
    attempts: int = 1
    key_bytes: int | None = None
    value_bytes: int | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class LateRecord:
    """A sound record of a bucket that its reader had closed already; it changed nothing.

    Attributes:
        bucket_ms: the bucket that it came with, epoch ms.
        last_bucket_ms: the last bucket that the reader had closed, epoch ms.
        late_ms: how much older its bucket is than that one.
        key: as it lay in the log; with `value`, `key_bytes`, `value_bytes` and `digest` as in a dead letter.
    """

    processor: str
    topic: str
    bucket_ms: int
    last_bucket_ms: int
    late_ms: int
    key: bytes
    value: bytes | None
    partition: int = field(default=0, metadata=COORDINATE)
    offset: int = field(default=0, metadata=COORDINATE)
    task: int = 0
    key_bytes: int | None = None
    value_bytes: int | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Redriven:
    """Says that the record of a dead letter was written back to its topic; in the same transaction as that record.

    Attributes:
        topic: where the record came from and went to again.
        letter_topic: with `letter_partition` and `letter_offset`, where the letter lies.
        at_ms: when, by the clock of whoever asked for it.
    """

    topic: str
    letter_topic: str
    at_ms: int
    letter_partition: int = field(default=0, metadata=COORDINATE)
    letter_offset: int = field(default=0, metadata=COORDINATE)


@dataclass(frozen=True, slots=True)
class TaskCut:
    """What a task had read when it took a step: the interleaving of its inputs, which no later run could know.

    Within a step the free inputs come first, then the buckets that these positions close. A replay that reads up to the same
    positions before each step gives the same bytes.

    Attributes:
        positions: of the inputs that have moved since the task's last cut.
    """

    processor: str
    task: int
    positions: tuple[InputPosition, ...] = field(default=(), metadata=COORDINATE)


@dataclass(frozen=True, slots=True)
class SchemaText:
    """A schema with which some program writes values of this log. This message itself never changes.

    Attributes:
        fingerprint: CRC-64-AVRO of the schema, 16 hex digits in the order in which values carry it.
        name: the message's.
        text: the Avro schema as JSON.
    """

    fingerprint: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An operator's decision that a task goes on from what the log is now, though the task knew another one.

    Attributes:
        by: who decided.
        reason: why, in the operator's words.
        accepted_at_ms: by the log's clock.
        findings: what of the log was not as the task knew it, a sentence per partition.
    """

    processor: str
    task: int
    by: str
    reason: str
    accepted_at_ms: int
    findings: tuple[str, ...]


Control: TypeAlias = CloseMarker | PositionStamp | TaskCut
