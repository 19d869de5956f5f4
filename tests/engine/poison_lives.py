"""Lives of a worker on an embedded log, one after the other, each in a process that is born without an import.

They are forked from a server that has loaded everything and never opened a database: a process that has can't be forked, as its
database's threads stay behind.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event, Semaphore, Thread
from typing import Final, NamedTuple

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.processor import Arrival, Bucket, Step
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import CrashLoop
from tests.contract.driving import until
from tests.engine.poison_toys import DEADLY, DEADLY_CODEC, Column, Ledger
from tests.engine.toys import X

FAILED: Final = 99
"""How a life ends that neither died nor did what it should."""

PATIENCE_S: Final = 60.0

LARGE: Final = 66
"""An amount for which there may be too little memory."""

_BIRTHS = multiprocessing.get_context("forkserver")
_BIRTHS.set_forkserver_preload(["tests.engine.poison_lives"])

Make = Callable[[], Ledger | Column]


class Crowded(Column):
    """Dies of three records in one bucket, whichever they are, and of no one alone."""

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        if len(bucket.arrivals[X.name]) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        super().on_bucket(step, bucket)


class Slow(Ledger):
    """Takes its time at every record, so that a death at any time meets one.

    Attributes:
        begun: released at each record.
    """

    begun = Semaphore(0)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        super().on_record(step, arrival)
        self.begun.release()
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass


class Hanging(Ledger):
    """Comes to no end with a deadly record, and says so.

    Args:
        hung: a file that is made when it hangs.
    """

    def __init__(self, hung: Path) -> None:
        super().__init__()
        self._hung = hung

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.message.amount == DEADLY:
            self._hung.touch()
            Event().wait()
        super().on_record(step, arrival)


class Greedy(Ledger):
    """Wants more memory for a large amount than the operating system gives its process."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.message.amount == LARGE:
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
            bytearray(2 << 30)
        super().on_record(step, arrival)


def watched(place: Path, poll: int) -> int:
    """One life of a worker that may hang, under somebody who kills it when it does; returns as `live`."""
    hung = place / "hung"
    life = _BIRTHS.Process(target=_live, args=(place, partial(Hanging, hung), poll, None))
    life.start()
    until(lambda: hung.exists() or life.exitcode is not None, PATIENCE_S)
    if hung.exists():
        hung.unlink()
        life.kill()
    life.join(PATIENCE_S)
    assert life.exitcode is not None
    return life.exitcode


class Death(NamedTuple):
    """So many records after the birth, and then so many seconds."""

    records: int
    seconds: float


def live(place: Path, make: Make, poll: int = 4000, death: Death | None = None) -> int:
    """One life, until nothing is left to do or so long; returns its exit code, below 0 the signal that it died of."""
    life = _BIRTHS.Process(target=_live, args=(place, make, poll, death))
    life.start()
    life.join(PATIENCE_S)
    assert life.exitcode is not None, "a life goes on and on"
    return life.exitcode


def _live(place: Path, make: Make, poll: int, death: Death | None) -> None:
    try:
        if death is not None:
            Thread(target=_kill_me, args=(death,), daemon=True).start()
        log = EmbeddedLog(place / "log")
        worker = Worker(log, make, DEADLY_CODEC, TaskSettings(place / "state", poll))
        idle = 0
        while idle < 3:
            idle = 0 if worker.step() else idle + 1
        worker.close()
        log.close()
        os._exit(0)
    except CrashLoop:
        os._exit(CrashLoop.exit_code)
    except BaseException:
        os._exit(FAILED)


def _kill_me(death: Death) -> None:
    for _ in range(death.records):
        Slow.begun.acquire()
    time.sleep(death.seconds)  # the hour of its death, which nothing that it waits for brings about
    os.kill(os.getpid(), signal.SIGKILL)
