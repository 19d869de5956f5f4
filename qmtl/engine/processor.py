"""What a processor is: a pure function over records and tables, with its inputs and outputs said aloud."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from qmtl.engine.table import Table
from qmtl.foundation.wire.topics import TopicSpec


@dataclass(frozen=True, slots=True)
class Input:
    """One topic that a processor reads.

    Attributes:
        bucketed: taken bucket by bucket, at close markers; otherwise record by record as it comes.
        lag: for a bucketed topic, how many of the reader's own buckets late it is read: bucket t sees exactly the cut that
            the close of bucket t-lag defines, with lag 0 the cut of t itself. On an own table this is a delayed edge
            inside the task.
        broadcast: every task reads all partitions, not only its own.
        joins: takes part in the merge only from its first record on (a source that nobody feeds holds nobody up).
        idle_after: a joining topic of which nothing more is written while the inputs that don't join close so many buckets,
            from the one on at which its next is due, falls asleep: it is waited for again from its next record on, and what
            comes for closed buckets is late. 0: it is waited for for ever.
        every_ms: the length of its own buckets, which close at multiples of it; 0: those of the reader. A bucket of the
            reader waits for the newest of them that is due by then, and has the records of those that no bucket before had.
    """

    topic: str
    bucketed: bool = False
    lag: int = 0
    broadcast: bool = False
    joins: bool = False
    idle_after: int = 0
    every_ms: int = 0

    def due_by(self, bucket_ms: int) -> int:
        """The newest of its own buckets that closes with a bucket of the reader or before."""
        return bucket_ms // self.every_ms * self.every_ms if self.every_ms else bucket_ms

    def due_after(self, bucket_ms: int) -> int:
        """The instant from which on it owes a bucket beyond those up to this one."""
        return self.due_by(bucket_ms) + (self.every_ms or 1)


class Arrival(NamedTuple):
    """A decoded record.

    Attributes:
        key: as it lies in the log; nothing is decided by it, a dead letter quotes it.
        value: as it lies in the log, likewise.
    """

    topic: str
    partition: int
    offset: int
    message: Any
    key: bytes = b""
    value: bytes | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    """One closed bucket.

    Attributes:
        bucket_ms: the instant at which it closed.
        arrivals: per input topic its records of this bucket, by partition, then offset.
        cuts: per delayed input the bucket whose cut is to be read; 0 before the first.
        first: nothing was closed before.
    """

    bucket_ms: int
    arrivals: Mapping[str, Sequence[Arrival]]
    cuts: Mapping[str, int] = field(default_factory=dict)
    first: bool = False


class Step(Protocol):
    """What a processor may touch while it handles a record or a bucket."""

    @property
    def closed_ms(self) -> int:
        """The newest bucket that the task has closed; 0 before the first. It is the time for whoever must not believe a sender's."""

    def table(self, topic: str) -> Table:
        """An owned table."""

    def emit(self, topic: str, message: Any) -> None:
        """Add an event to the transaction; key and partition follow from the catalogue."""

    def encode(self, message: Any) -> bytes:
        """The bytes of a message; of the same object again, as of a row that is also an event, the same ones at no cost."""


@runtime_checkable
class Resident(Protocol):
    """A processor that says how much memory it takes for what it remembers of its rows."""

    @property
    def resident_bytes(self) -> int:
        """Bytes, as of the last transaction; reckoned, and cheap to ask for."""


class Processor(Protocol):
    """A stage of the topology. It keeps nothing in memory that `restore` can't make again from its tables."""

    @property
    def name(self) -> str: ...

    @property
    def anchor(self) -> str:
        """The topic whose partitions are the tasks."""

    @property
    def tables(self) -> tuple[str, ...]:
        """Owned tables."""

    @property
    def emits(self) -> tuple[str, ...]:
        """Topics of the catalogue that it adds events to."""

    def inputs(self) -> tuple[Input, ...]:
        """What it reads now; may change while it runs, as nodes come and go."""

    def closes(self) -> tuple[TopicSpec, ...]:
        """The marked topics that get a close marker after each bucket."""

    def topics(self) -> Mapping[str, TopicSpec]:
        """Topics outside the catalogue that it reads, owns or writes now."""

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Make derived memory again from the tables, rows put since the last commit among them: at start, after an abort, and
        after a record that could not be handled."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        """Handle one record of a free input.

        Any error but those of the log, of memory and of the machine sends the record to the dead letters and undoes what it
        had changed. So does a row that it put and that can't be written, if it is found: it is where it is still what is to be
        written when the transaction ends, or where another record of the batch fails, and never where a later one puts the row
        anew before. What must not depend on that, the processor refuses itself, by raising.
        """

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        """Handle one closed bucket.

        Raises:
            PoisonRecord: one of its records can't be used; the bucket is computed again without it. Any other error is a bug.
        """

    def flush(self, step: Step) -> None:
        """Put what is only worth writing once per transaction. Where a batch is handled record by record, because one of it
        fails, it is called after each, and its errors are that record's."""
