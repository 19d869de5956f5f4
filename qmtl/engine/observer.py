"""What a worker tells whoever watches it: one call per step, batch or transaction, never one per record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, Protocol

from qmtl.engine.log.port import Positions, TopicPartition
from qmtl.engine.watermark import Wait
from qmtl.foundation.common.errors import (
    Fenced,
    LogUnreachable,
    OutcomeUnknown,
    RecoveryStalled,
    TransactionAborted,
    UnstableOffsets,
)


class TaskId(NamedTuple):
    """One task: the name of its processor, and the partition of the anchor topic that it is."""

    processor: str
    number: int


class Outcome(Enum):
    """How a transaction ended."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    UNKNOWN = "unknown"
    FENCED = "fenced"
    FAILED = "failed"
    """An error that stops the task, or the worker; the transaction was aborted."""


def outcome_of(error: BaseException) -> Outcome:
    """What an error means for the transaction in which it came."""
    match error:
        case TransactionAborted() | LogUnreachable() | RecoveryStalled() | UnstableOffsets():
            return Outcome.ABORTED
        case OutcomeUnknown():
            return Outcome.UNKNOWN
        case Fenced():
            return Outcome.FENCED
        case _:
            return Outcome.FAILED


class StallKind(Enum):
    """Why a restore stands still or can't begin, or a task is kept closed."""

    OPEN_TRANSACTION = "open_transaction"
    SILENT_LOG = "silent_log"
    """All that is wanted is committed, and the log does not give it."""

    STORE_HELD = "store_held"
    """Another process has not closed the task's store yet."""

    STORE_ERROR = "store_error"
    """The system refuses to open, read or write the task's store."""

    FAILED_TRANSACTIONS = "failed_transactions"
    """The task was opened, and its transactions failed again and again at the same records."""

    REFUSED = "refused"
    """The task is kept closed until somebody has ended the cause."""


@dataclass(frozen=True, slots=True)
class Stall:
    """A restore that stands still.

    Attributes:
        what: the partitions with where they stand, and the cause.
        remedy: what ends it.
        seconds: since the last progress.
    """

    kind: StallKind
    what: str
    remedy: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Commit:
    """What a committed transaction contained. Of one that did not commit nothing is told: its records come again.

    Attributes:
        records: data records that the processor was given, late ones too; dead letters, tombstones and markers not.
        outputs: everything that was appended to the log, with markers and stamps.
        rows: rows that changed in the local store.
        late: records whose bucket was closed already.
        dead: letters by the code of their cause, late records not among them; one that the processor itself wrote is about a
            record that counts in `records` too.
        buckets: how many buckets were closed.
        seconds: from the first append to the end of the write to the local store.
        topics: of `records`, those of inputs that are not read by bucket, by topic.
    """

    records: int
    outputs: int
    rows: int
    late: int
    dead: Mapping[str, int]
    buckets: int
    seconds: float
    topics: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """Where a task stands between two transactions.

    Attributes:
        committed: per input partition what the last committed transaction contains, and the next one begins with.
        reached: the same, or how far was read where nothing that was read still waits: past markers of transactions,
            aborted records and stamps, which a committed position stays in front of.
        bucketed: the input partitions that are taken bucket by bucket, with the length of their own buckets, ms; 0: as the task's.
        buckets: the last closed buckets, oldest first, epoch ms; empty before the first, and for a task that has none.
        held: how many records were read and wait for their bucket.
        paused: input partitions that are not read, as they are too far ahead of the others.
        waits: what the next bucket waits for; nothing where it is complete, or where no input has closed one.
        resident_bytes: of what its processor remembers of its rows; None where it does not say.
    """

    committed: Positions
    reached: Positions
    bucketed: Mapping[TopicPartition, int] = field(default_factory=dict)
    buckets: tuple[int, ...] = ()
    held: int = 0
    paused: frozenset[TopicPartition] = field(default_factory=frozenset)
    waits: tuple[Wait, ...] = ()
    resident_bytes: int | None = None


class Observer(Protocol):
    """Told by the worker's own thread; whatever it does there delays the worker, and an error of it stops the worker."""

    def polled(self, processor: str, tasks: Collection[int]) -> None:
        """The worker took part in its group and owns these tasks: once per step."""

    def opening(self, task: TaskId) -> None:
        """A task begins to restore its tables: at its start, and again after a transaction that did not commit."""

    def restoring(self, task: TaskId, done: int, total: int) -> None:
        """So many of the offsets that were missing from the local store have been read: with 0 at the beginning, and whenever
        there is progress, which ends a stall."""

    def stalled(self, task: TaskId, stall: Stall) -> None:
        """The restore has made no progress for a second: told again each second as long as that lasts; and after each attempt
        to open the task that came to nothing for it."""

    def opened(self, task: TaskId) -> None:
        """Everything is restored; the task runs."""

    def closed(self, task: TaskId) -> None:
        """The task is no longer this worker's, or is about to be opened anew."""

    def read(self, task: TaskId, records: int) -> None:
        """A batch was read; after a transaction that did not commit the same records are read again."""

    def paused(self, task: TaskId, partitions: Collection[TopicPartition]) -> None:
        """These partitions are no longer read until the others have caught up: told once each time that it begins."""

    def expired(self, task: TaskId, topic: str) -> None:
        """A bucket of a table was read when its cleaner may have taken versions of it already."""

    def committed(self, task: TaskId, commit: Commit) -> None:
        """A transaction is on the log and in the local store."""

    def ended(self, task: TaskId, outcome: Outcome) -> None:
        """A transaction, or the opening of the task, ended otherwise."""

    def stepped(self, task: TaskId, look: Callable[[], Look]) -> None:
        """A step is done and nothing is in flight; `look` may be called now, not later."""


class Nobody:
    """Watches nothing."""

    def polled(self, processor: str, tasks: Collection[int]) -> None: ...

    def opening(self, task: TaskId) -> None: ...

    def restoring(self, task: TaskId, done: int, total: int) -> None: ...

    def stalled(self, task: TaskId, stall: Stall) -> None: ...

    def opened(self, task: TaskId) -> None: ...

    def closed(self, task: TaskId) -> None: ...

    def read(self, task: TaskId, records: int) -> None: ...

    def paused(self, task: TaskId, partitions: Collection[TopicPartition]) -> None: ...

    def expired(self, task: TaskId, topic: str) -> None: ...

    def committed(self, task: TaskId, commit: Commit) -> None: ...

    def ended(self, task: TaskId, outcome: Outcome) -> None: ...

    def stepped(self, task: TaskId, look: Callable[[], Look]) -> None: ...


NOBODY = Nobody()
