"""The state directory of a manager: one manager has it at a time, and by it others see how its runs stand and ask something of them."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Final

from qmtl.foundation.common.errors import RunsHeld, UsageError
from qmtl.interfaces.execution.plan import NAME
from qmtl.interfaces.execution.policy import AT_REST, Phase
from qmtl.interfaces.execution.supervisor import Standing

STATUS: Final = "status.json"
LOCK: Final = "lock"
ASKED: Final = "asked"
FORMAT: Final = 1
MAX_STATUS: Final = 16_777_216
_MAX_ASKED: Final = 16

_PATIENCE_S: Final = 1.0
"""A look at the lock (`is_held`) has it for a moment, too."""


class Asked(Enum):
    """What can be asked of a run."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How a run stands, as others see it. Times are epoch milliseconds of the manager's machine.

    Attributes:
        pid: None where there is no process.
        started_ms: when its process, or the last one, was started.
        due_ms: when it is started again, or killed.
        restarts: how often it was started again by itself since the manager began.
        last_exit: negative for a signal.
        asked: how often something was asked of it.
    """

    run: str
    strategy: str
    world: str
    log: str
    phase: Phase
    pid: int | None
    started_ms: int | None
    due_ms: int | None
    restarts: int
    last_exit: int | None
    asked: int


@dataclass(frozen=True, slots=True)
class Status:
    """How the runs of a manager stand.

    Attributes:
        manager: its process id.
        written_ms: when it said so.
    """

    manager: int
    file: str
    written_ms: int
    runs: tuple[RunStatus, ...]


def statuses(standings: Sequence[Standing], ahead_ms: int) -> tuple[RunStatus, ...]:
    """How runs stand.

    Args:
        ahead_ms: by how much the wall clock is ahead of the clock of the policy.
    """
    return tuple(
        RunStatus(
            one.spec.name,
            one.spec.strategy,
            one.spec.world,
            one.spec.log,
            one.state.phase,
            one.pid,
            _wall(one.state.started_ms, ahead_ms),
            _wall(one.state.due_ms, ahead_ms),
            one.state.restarted,
            one.state.last_exit,
            one.asked,
        )
        for one in standings
    )


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Has the directory for itself; what was asked of an earlier manager is forgotten.

    Raises:
        RunsHeld: another manager has it.
        UsageError: it can't be made or written.
    """
    try:
        (directory / ASKED).mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("ab")
    except OSError as error:
        raise UsageError(
            f"--state-dir was {str(directory)!r}, which can't be written: {error.strerror}.",
            "Name another directory.",
        ) from None
    with lock:
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise RunsHeld(
                    f"--state-dir was {str(directory)!r}, which another execution manager has.",
                    "Stop that one, or give this one a directory of its own.",
                )
            time.sleep(_PATIENCE_S / 50)
        for _ in taken(directory):
            pass
        yield


def is_held(directory: Path) -> bool:
    """Whether a manager has the directory now."""
    try:
        with (directory / LOCK).open("rb") as lock:
            return not _locked(lock.fileno(), fcntl.LOCK_SH)
    except OSError:
        return False


def write(directory: Path, status: Status) -> None:
    """Says how the runs stand: whoever reads sees this or what was said before, never a part.

    Raises:
        OSError: no room, no right.
    """
    _put(directory / STATUS, json.dumps({"format": FORMAT, **_plain(status)}).encode())


def read(directory: Path) -> Status:
    """What was said last.

    Raises:
        UsageError: no manager ever had this directory, or a file of another version or hand lies there.
    """
    path = directory / STATUS
    try:
        with path.open("rb") as source:
            data = source.read(MAX_STATUS + 1)
    except OSError as error:
        raise UsageError(
            f"--state-dir was {str(directory)!r}, in which no execution manager has said anything: {error.strerror}.",
            "Name the directory that `qmtl execution run` was given.",
        ) from None
    try:
        found = json.loads(data if len(data) <= MAX_STATUS else b"")
        if found["format"] != FORMAT:
            raise ValueError("format")
        runs = tuple(RunStatus(**{**one, "phase": Phase(one["phase"])}) for one in found["runs"])
        return Status(int(found["manager"]), str(found["file"]), int(found["written_ms"]), runs)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"{path} is no status that this version writes.", "Start the execution manager of this version."
        ) from None


def ask(directory: Path, run: str, what: Asked) -> None:
    """Asks something of a run; what was asked of it before and not taken yet is forgotten.

    Raises:
        UsageError: the directory can't be written.
    """
    try:
        _put(directory / ASKED / run, what.value.encode())
    except OSError as error:
        raise UsageError(
            f"--state-dir was {str(directory)!r}, which can't be written: {error.strerror}.",
            "Say it as the user who runs the execution manager.",
        ) from None


def is_done(what: Asked, before: RunStatus, now: RunStatus) -> bool:
    """Whether what was asked has come about.

    Args:
        before: how the run stood when it was asked.
    """
    if what is Asked.STOP:
        return now.phase in AT_REST
    if what is Asked.START and now.phase is Phase.RUNNING:
        return True
    return now.asked > before.asked and now.phase not in (Phase.STOPPING, Phase.KILLING)


def taken(directory: Path) -> Iterator[tuple[str, Asked]]:
    """What is asked, by name; each is told once. What is no question of ours is taken away."""
    place = directory / ASKED
    with suppress(OSError):
        for name in sorted(os.listdir(place)):
            if NAME.fullmatch(name) is None:
                continue
            with suppress(OSError, ValueError):
                with (place / name).open("rb") as source:
                    data = source.read(_MAX_ASKED)
                (place / name).unlink()
                yield name, Asked(data.decode())


def _put(path: Path, data: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_bytes(data)
    beside.replace(path)


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _wall(at_ms: int | None, ahead_ms: int) -> int | None:
    return None if at_ms is None else at_ms + ahead_ms


def _plain(status: Status) -> Mapping[str, Any]:
    runs = [{**asdict(one), "phase": one.phase.value} for one in status.runs]
    return {"manager": status.manager, "file": status.file, "written_ms": status.written_ms, "runs": runs}
