"""A worker: a member of one processor's group that opens, runs and closes the tasks it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qmtl.engine.log.port import Log, Membership, Writer
from qmtl.engine.processor import Processor
from qmtl.engine.task import Task, TaskSettings
from qmtl.foundation.common.errors import Fenced, MembershipLost, OutcomeUnknown, TransactionAborted
from qmtl.foundation.wire.codec import Codec

IDLE_S: Final = 0.02


class Worker:
    """Runs the tasks of one processor in one slot. Not thread-safe.

    Args:
        make: gives a new processor for a task, with its own derived memory.
        slot: names the transactional id and the group member; a second worker in the same slot takes the slot over.
    """

    def __init__(
        self, log: Log, make: Callable[[], Processor], codec: Codec, settings: TaskSettings, slot: str = "0"
    ) -> None:
        self._log = log
        self._make = make
        self._codec = codec
        self._settings = settings
        prototype = make()
        self.name = prototype.name
        self._id = f"qmtl.{self.name}.{slot}"
        self._join: Callable[[], Membership] = lambda: log.membership(
            f"qmtl.{self.name}", self._id, prototype.anchor
        )
        self._membership = self._join()
        self._writer: Writer | None = None
        self._tasks: dict[int, Task] = {}

    @property
    def tasks(self) -> Mapping[int, Task]:
        """The tasks that are open here now, by number."""
        return self._tasks

    def step(self, timeout_s: float = 0.0) -> bool:
        """One round over all tasks; says whether any of them did something.

        Args:
            timeout_s: how long each task may wait for records; without a task, how long to wait for one.

        Raises:
            Fenced: another worker has taken the slot.
        """
        try:
            self._the_writer()  # before any task opens: it ends what a dead predecessor left open on the tables
            mine = self._membership.poll(0.0 if self._tasks else timeout_s)
        except OutcomeUnknown:
            return True  # nobody knows whether the slot is taken: it is asked for again
        except MembershipLost:
            self._rejoin()
            return True
        for number in sorted(self._tasks.keys() - mine):
            self._tasks.pop(number).close()
        fence = self._membership.fence()
        busy = False
        for number in sorted(mine):
            try:
                task = self._tasks.get(number) or self._open(number)
                busy |= task.step(self._the_writer(), fence, timeout_s)
            except (TransactionAborted, OutcomeUnknown) as error:
                # The task is opened anew at the next step, and reads the batch again from the committed positions.
                self._drop(number)
                if isinstance(error, OutcomeUnknown):
                    self._discard_writer()  # the next one first ends whatever this one left open
                busy = True
            except BaseException:
                self._drop(number)
                raise
        return busy

    def _rejoin(self) -> None:
        """Take part anew, unless another worker has the slot: two that take it from each other in turn serve nobody."""
        for number in sorted(self._tasks):
            self._drop(number)
        try:
            self._the_writer().prove()
        except (TransactionAborted, OutcomeUnknown):
            self._discard_writer()
        self._membership.close()
        self._membership = self._join()

    def _open(self, number: int) -> Task:
        task = self._tasks[number] = Task(self._log, self._make(), number, self._codec, self._settings)
        task.open()
        return task

    def _drop(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.close()

    def _the_writer(self) -> Writer:
        if self._writer is None:
            self._writer = self._log.writer(self._id)
        return self._writer

    def _discard_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Leave: stores are closed, nothing is in flight between steps."""
        for number in sorted(self._tasks):
            self._tasks.pop(number).close()
        self._discard_writer()
        self._membership.close()


def run(workers: Sequence[Worker], until: Callable[[], bool]) -> None:
    """Step all workers in turn until `until` says so; waits a little whenever none had anything to do."""
    while not until():
        busy = False
        for worker in workers:
            busy |= worker.step()
        if not busy and workers:
            workers[0].step(IDLE_S)


__all__ = ["Fenced", "Worker", "run"]
