"""A log whose commits fail when they are told to: a double of the world outside, where brokers and networks do so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.embedded_writer import EmbeddedWriter
from qmtl.engine.log.port import Fence, Positions, TopicPartition
from qmtl.foundation.common.errors import OutcomeUnknown, TransactionAborted


class Fault(Enum):
    """What becomes of a commit."""

    NONE = "it succeeds"
    ABORTED = "it is aborted, and says so"
    ABORTED_AFTER = "it says that it was aborted, but everything became visible"
    UNKNOWN_BEFORE = "its outcome is unknown, and nothing became visible"
    UNKNOWN_AFTER = "its outcome is unknown, and everything became visible"


class FaultyLog(EmbeddedLog):
    """An embedded log that meets the faults of a plan, one per commit, and none after its end.

    Attributes:
        writers: how many writers were made so far.
    """

    def __init__(self, directory: Path, plan: Iterator[Fault]) -> None:
        super().__init__(directory)
        self.plan = plan
        self.writers = 0

    def writer(self, transactional_id: str) -> EmbeddedWriter:
        epoch = self.epochs[transactional_id] = self.epochs.get(transactional_id, 0) + 1
        self.writers += 1
        if not transactional_id.startswith("qmtl."):
            return EmbeddedWriter(self, transactional_id, epoch)
        return FaultyWriter(self, transactional_id, epoch)


class FaultyWriter(EmbeddedWriter):
    """A writer of such a log; dead for good once an outcome is unknown."""

    def __init__(self, log: FaultyLog, transactional_id: str, epoch: int) -> None:
        super().__init__(log, transactional_id, epoch)
        self._faulty = log
        self._dead = False

    def begin(self) -> None:
        assert not self._dead, (
            "a writer was used again although nobody knew what had become of its transaction"
        )
        super().begin()

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        fault = next(self._faulty.plan, Fault.NONE)
        match fault:
            case Fault.NONE:
                pass
            case Fault.ABORTED:
                self.abort()
                raise TransactionAborted("planned")
            case Fault.ABORTED_AFTER:
                super().commit(positions, group, fence)
                raise TransactionAborted("planned, after it was written")
            case Fault.UNKNOWN_BEFORE:
                self._dead = True
                raise OutcomeUnknown("planned")
            case Fault.UNKNOWN_AFTER:
                self._dead = True
                super().commit(positions, group, fence)
                raise OutcomeUnknown("planned, after it was written")
        return super().commit(positions, group, fence)
