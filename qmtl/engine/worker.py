"""A worker: a member of one processor's group that opens, runs and closes the tasks it is given."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from qmtl.engine.log.port import Fence, Log, Membership, Writer
from qmtl.engine.observer import Stall, StallKind, TaskId, outcome_of
from qmtl.engine.processor import Processor
from qmtl.engine.refusal import is_refusal, note_refusal
from qmtl.engine.repeats import Repeats
from qmtl.engine.task import Task, TaskSettings
from qmtl.foundation.common.errors import (
    DiskFull,
    Fenced,
    HandlerBroken,
    LogError,
    LogUnreachable,
    MembershipLost,
    OutcomeUnknown,
    QmtlError,
    RecoveryStalled,
    StoreUnavailable,
    TaskRevoked,
    TransactionAborted,
    UnknownTopic,
    UnstableOffsets,
)
from qmtl.foundation.wire.codec import Codec

IDLE_S: Final = 0.02
FULL_WAIT_S: Final = 1.0
"""A task that found the disk full is opened again after this."""
STALL_S: Final = 2.0
"""A task that can't be opened keeps the others of its worker waiting no longer than this at a time, to begin with: a log that gives
nothing may be far away, and is given half of the time for which it was waited."""
LONGEST_WAIT_S: Final = 30.0
"""Between two attempts to open it; the first waits last a second, two, four … One that is refused waits as long from the first on."""

_log = logging.getLogger(__name__)


class _Stopped(Exception):
    """Whoever runs the worker wants it to end while a task is restored."""


def _never() -> bool:
    return False


@dataclass(slots=True)
class _Opening:
    """A task that is mine and not open: the last attempt came to a standstill whose cause may end, or was refused.

    Attributes:
        task: None before it could be made.
        since: when the first attempt of those began that came to nothing, by the worker's clock.
        waits_s: how long it waits for the next one, which comes at `until`.
        patience_s: how long the next one may come to nothing.
        left: how few offsets an attempt has left to restore, at best.
    """

    task: Task | None = None
    since: float = math.inf
    waits_s: float = 0.0
    until: float = 0.0
    patience_s: float = STALL_S
    left: float = math.inf


class Worker:
    """Runs the tasks of one processor in one slot. Not thread-safe.

    A task whose positions the log can't tell, or whose tables it does not give, or whose store can't be used now, waits by itself,
    and one that is refused is kept closed by itself; the others go on.

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
        self._membership: Membership | None = self._join()
        self._writer: Writer | None = None
        self._tasks: dict[int, Task] = {}
        self._opening: dict[int, _Opening] = {}
        self._repeats = Repeats()
        self._mine: frozenset[int] = frozenset()
        self._fence: Fence | None = None
        self._refused: list[QmtlError] = []
        self._until = _never
        self._full_until = 0.0
        self._closed = False

    def claim(self) -> None:
        """Take the slot before the first step, so that what forbids it is told at once.

        Raises:
            MissingRight: the cluster does not let this client write under the slot's transactional id.
            Fenced: another worker has taken the slot.
        """
        with suppress(OutcomeUnknown):  # the first step asks again
            self._the_writer()

    @property
    def tasks(self) -> Mapping[int, Task]:
        """The tasks that are open here now, by number."""
        return self._tasks

    def step(self, timeout_s: float = 0.0) -> bool:
        """As `serve`, for a run in which nobody ends the cause of a refusal.

        Raises:
            QmtlError: a task is refused. It is kept closed by itself; the next step goes on with the others.
            Others as `serve`.
        """
        busy = self.serve(timeout_s)
        if self._refused:
            raise self._refused[0]
        return busy

    def serve(self, timeout_s: float = 0.0, until: Callable[[], bool] = _never) -> bool:
        """One round over all tasks; says whether any of them did something.

        A task that is refused is told of to the observer, kept closed, and tried again after `LONGEST_WAIT_S`: an operator may
        have ended the cause meanwhile.

        Args:
            timeout_s: how long the round may wait: for records, in equal parts by task; without a task, for one.
            until: asked again and again while a task is restored, which is given up once it says so; the store keeps what was
                restored so far.

        Raises:
            Fenced: another worker has taken the slot.
            MissingRight: the cluster does not let this client write.
            InvariantBroken, InvalidTopology, and whatever is no `QmtlError`: a bug.
        """
        self._refused.clear()
        self._until = until
        try:
            self._the_writer()  # before any task opens: it ends what a dead predecessor left open on the tables
            mine = self._the_membership().poll(0.0 if self._tasks else timeout_s)
        except (OutcomeUnknown, LogUnreachable):
            return True  # nobody knows whether the slot is taken: it is asked for again
        except MembershipLost as error:
            self._rejoin(error)
            return True
        self._settings.observer.polled(self.name, mine)
        for number in sorted((self._tasks.keys() | self._opening.keys()) - mine):
            self._drop(number)
            self._repeats.forget(number)
        self._fence = self._the_membership().fence()
        busy = False
        self._mine = mine
        for number in sorted(mine):
            if number in self._tasks:
                task = self._tasks[number]
            elif number not in self._mine or self._settings.clock() < self._opens_at(number):
                continue
            else:
                found = self._open(number)
                if found is None:
                    return True  # what is mine is asked anew
                task = found
                self._repeats.stands(number, task)
            try:
                writer = self._the_writer()
            except (OutcomeUnknown, LogUnreachable):
                return True  # the one before was let go of; as at the beginning of a round
            try:
                busy |= task.step(writer, self._fence, timeout_s / len(mine))
                self._repeats.stands(number, task)
                self._settings.observer.stepped(task.id, task.look)
            except DiskFull as error:
                self._wait_for_room(number, error)
            # These two, as two further down, where a task begins again at a record that it can't use.
            except MembershipLost as error:
                self._rejoin(error)
                return True
            except _Stopped:
                self._drop(number)
            except StoreUnavailable as error:
                self._settings.observer.ended(TaskId(self.name, number), outcome_of(error))
                self._drop(number)
                self._begin(number)
                self._wait_by_itself(number, self._settings.clock(), error)
                busy = True
            except (
                TransactionAborted,
                OutcomeUnknown,
                LogUnreachable,
                UnstableOffsets,
                RecoveryStalled,
            ) as error:
                self._settings.observer.ended(TaskId(self.name, number), outcome_of(error))
                _log.info("task %s of %s is opened again: %s", number, self.name, error.what)
                # The task is opened anew at the next step, and reads the batch again from the committed positions.
                self._drop(number)
                if isinstance(error, OutcomeUnknown):
                    self._discard_writer()  # the next one first ends whatever this one left open
                self._wait_if_repeated(number, error)
                busy = True
            except BaseException as error:
                self._settings.observer.ended(TaskId(self.name, number), outcome_of(error))
                self._drop(number)
                if not is_refusal(error):
                    raise
                self._discard_writer()  # whatever became of the transaction: the next one first ends what is left of it
                self._begin(number)
                self._keep_closed(number, self._settings.clock(), error)
                busy = True
        return busy

    def _rejoin(self, error: MembershipLost) -> None:
        """Take part anew at the next step, unless another worker has the slot: two that take it from each other in turn serve nobody."""
        _log.info("%s joins its group again: %s", self._id, error.what)
        self._drop_all()
        try:
            self._the_writer().prove()
        except (TransactionAborted, OutcomeUnknown, LogUnreachable, UnknownTopic):
            self._discard_writer()
        self._leave()

    def _open(self, number: int) -> Task | None:
        """Open a task; None where it has to be tried again, or is no longer mine."""
        observer, began = self._settings.observer, self._settings.clock()
        try:
            one = self._opening.get(number) or self._begin(number)
            if one.task is None:
                settings = replace(self._settings, on_restore=partial(self._restored, number))
                one.task = Task(self._log, self._make(), number, self._codec, settings)
            task = one.task
            task.open(lambda: self._stay(number), one.patience_s)
        except (UnstableOffsets, RecoveryStalled, LogUnreachable) as error:
            self._wait_by_itself(number, began, error)
            return None
        except StoreUnavailable as error:
            one = self._opening[number]
            if one.task is not None:
                one.task.close()
                one.task = None  # the next attempt makes one with a store that is opened anew
            self._wait_by_itself(number, began, error)
            return None
        except DiskFull as error:
            self._wait_for_room(number, error)
            return None
        except (TransactionAborted, OutcomeUnknown) as error:
            observer.ended(TaskId(self.name, number), outcome_of(error))
            self._drop(number)
            if not isinstance(error, TaskRevoked):
                self._wait_if_repeated(number, error)
            return None
        except MembershipLost as error:
            self._rejoin(error)
            return None
        except _Stopped:
            self._drop(number)
            return None
        except BaseException as error:
            if (
                self._opening[number].since == math.inf
            ):  # the first attempt: of further ones nothing more is told
                observer.ended(TaskId(self.name, number), outcome_of(error))
            if is_refusal(error):
                self._keep_closed(number, began, error)
                return None
            self._drop(number)
            raise
        self._tasks[number] = task
        self._opening.pop(number)
        self._note(number, None)
        observer.opened(task.id)
        return task

    def _begin(self, number: int) -> _Opening:
        one = self._opening[number] = _Opening()
        self._note(number, None)  # one that was killed may have left its own
        self._settings.observer.opening(TaskId(self.name, number))
        return one

    def _restored(self, number: int, label: str, done: int, total: int) -> None:
        one = self._opening.get(number)
        if one is not None and total - done < one.left:
            if one.left != math.inf:  # it gets on: the next attempt comes soon
                one.waits_s, one.since = 0.0, math.inf
            one.left = total - done
        if self._settings.on_restore is not None:
            self._settings.on_restore(label, done, total)

    def _stay(self, number: int) -> None:
        """Take part in the group while a task is restored, which may take longer than the group waits for a silent member.

        Raises:
            _Stopped: the worker is to end.
            TaskRevoked: the task is another's by now.
            MembershipLost: as `Membership.poll`.
        """
        if self._until():
            raise _Stopped
        mine = self._mine = self._the_membership().poll(0.0)
        self._fence = self._the_membership().fence()  # a long restore may live through several generations
        self._settings.observer.polled(self.name, mine)
        for other in sorted((self._tasks.keys() | self._opening.keys()) - mine - {number}):
            self._drop(other)
        if number not in mine:
            raise TaskRevoked(
                f"task {number} of {self.name} was given to another worker while it was restored."
            )

    def _wait_if_repeated(self, number: int, error: LogError) -> None:
        """Keep a task that fails at one place again and again for a later attempt; one that may just have had bad luck comes at once."""
        repeat = self._repeats.failed(number, error, self._settings.clock())
        if repeat is not None:
            self._begin(number).waits_s = repeat.waited_s
            self._wait_by_itself(number, repeat.since, repeat.error)

    def _wait_for_room(self, number: int, error: DiskFull) -> None:
        """Close a task that found no room on the disk, and open none before a while."""
        self._drop(number)
        self._full_until = self._settings.clock() + FULL_WAIT_S
        _log.warning("task %s of %s is closed: %s", number, self.name, error)

    def _wait_by_itself(
        self,
        number: int,
        began: float,
        error: UnstableOffsets | RecoveryStalled | LogUnreachable | TransactionAborted,
    ) -> None:
        """Keep a task that can't be opened, or whose transactions fail, for a later attempt, and tell why."""
        one = self._opening[number]
        one.waits_s = min(LONGEST_WAIT_S, max(1.0, 2 * one.waits_s))
        if error.cause == StallKind.SILENT_LOG.value:
            one.patience_s = max(one.patience_s, one.waits_s / 2)
        self._tell(one, number, began, StallKind(error.cause), error)

    def _keep_closed(self, number: int, began: float, error: QmtlError) -> None:
        """Let go of all that a refused task holds, so that an operator can decide about it, and try it again later."""
        one = self._opening[number]
        if one.task is not None:
            one.task.close()
            one.task = None
        self._refused.append(error)
        self._note(number, error)
        # Each attempt with a handler that is broken would make letters of as many records as may fail in a row.
        one.waits_s = math.inf if isinstance(error, HandlerBroken) else LONGEST_WAIT_S
        self._tell(one, number, began, StallKind.REFUSED, error)

    def _tell(self, one: _Opening, number: int, began: float, kind: StallKind, error: QmtlError) -> None:
        now = self._settings.clock()
        one.since = min(one.since, began)
        one.until = now + one.waits_s
        what = f"[{error.code}] {error.what}" if kind is StallKind.REFUSED else error.what
        self._settings.observer.stalled(
            TaskId(self.name, number), Stall(kind, what, error.remedy, now - one.since)
        )
        again = "not tried again" if one.waits_s == math.inf else f"the next attempt is in {one.waits_s:g} s"
        _log.warning("task %s of %s does not run, %s: %s", number, self.name, again, error)

    def _note(self, number: int, error: QmtlError | None) -> None:
        note_refusal(self._settings.state_dir, TaskId(self.name, number), error)

    def _opens_at(self, number: int) -> float:
        """The time before which a task that is not open yet is not opened."""
        known = self._opening.get(number)
        return self._full_until if known is None else max(self._full_until, known.until)

    def _drop(self, number: int) -> None:
        opening = self._opening.pop(number, None)
        task = self._tasks.pop(number, None) if opening is None else opening.task
        if task is not None:
            task.close()
        if opening is not None:
            self._note(number, None)
        if task is not None or opening is not None:
            self._settings.observer.closed(TaskId(self.name, number))

    def _drop_all(self) -> None:
        for number in sorted(self._tasks.keys() | self._opening.keys()):
            self._drop(number)

    def _the_membership(self) -> Membership:
        if self._membership is None:
            self._membership = self._join()
        return self._membership

    def _leave(self) -> None:
        if self._membership is not None:
            self._membership.close()
            self._membership = None

    def _the_writer(self) -> Writer:
        if self._writer is None:
            self._writer = self._log.writer(self._id)
        return self._writer

    def _discard_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def close(self) -> None:
        """Leave: stores are closed, nothing is in flight between steps. Once is enough, twice does no harm."""
        if self._closed:
            return
        self._closed = True
        self._drop_all()
        self._discard_writer()
        self._leave()


def collect_seldom() -> None:
    """Have this process look for cyclic garbage less often.

    A transaction makes ten thousands of objects that live as long as it does and are in no cycle: looking through them after every
    700 allocations, as the interpreter does by default, takes a tenth of a worker's time. What was imported is never looked at again.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(workers: Sequence[Worker], until: Callable[[], bool]) -> None:
    """Have all workers serve in turn until `until` says so; when none had anything to do, a round waits `IDLE_S` in all.

    Args:
        until: asked between two rounds, and again and again while a task is restored.

    Raises:
        Whatever ends one of them, see `Worker.serve`.
    """
    busy = True
    while not until():
        wait_s = 0.0 if busy or not workers else IDLE_S / len(workers)
        busy = False
        for worker in workers:
            busy |= worker.serve(wait_s, until)


__all__ = ["Fenced", "Worker", "collect_seldom", "run"]
