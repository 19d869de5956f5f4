"""What an execution manager tells, each as a value, a line for people and an object for programs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum
from typing import Any, TypeAlias, assert_never

from qmtl.interfaces.execution.plan import Changes
from qmtl.interfaces.execution.policy import Phase


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A process of a run was made.

    Attributes:
        restarts: how often it was started again by itself.
    """

    run: str
    pid: int
    restarts: int


@dataclass(frozen=True, slots=True)
class RunNotStarted:
    """No process could be made; it counts as one that failed.

    Attributes:
        cause: as the system says it.
    """

    run: str
    cause: str


@dataclass(frozen=True, slots=True)
class RunExited:
    """The process of a run is gone.

    Attributes:
        code: negative for the signal that it died of.
        after_ms: how long it ran.
    """

    run: str
    pid: int
    code: int
    after_ms: int


@dataclass(frozen=True, slots=True)
class RunWaits:
    """It is started again when its wait is over."""

    run: str
    wait_ms: int


@dataclass(frozen=True, slots=True)
class RunAsked:
    """Its process was asked to end (SIGTERM).

    Attributes:
        again: another one is started then.
    """

    run: str
    pid: int
    again: bool


@dataclass(frozen=True, slots=True)
class RunKilled:
    """Its process did not end in its grace (SIGKILL)."""

    run: str
    pid: int


@dataclass(frozen=True, slots=True)
class RunRests:
    """It has no process, and none comes by itself.

    Attributes:
        phase: how it ended.
        last_exit: None where it never ran.
    """

    run: str
    phase: Phase
    last_exit: int | None


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The file was read again; what it says holds now."""

    changes: Changes


@dataclass(frozen=True, slots=True)
class ReloadRefused:
    """The file was read again and is faulty: all goes on as before."""

    code: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class StatusLost:
    """How the runs stand could not be said in the state directory; it is tried again and again, and all goes on.

    Attributes:
        cause: as the system says it.
    """

    cause: str


@dataclass(frozen=True, slots=True)
class OutputLost:
    """What a run says can't be written to its file; lines are lost until it can be.

    Attributes:
        cause: as the system says it.
    """

    run: str
    cause: str


ManagerEvent: TypeAlias = (
    RunStarted
    | RunNotStarted
    | RunExited
    | RunWaits
    | RunAsked
    | RunKilled
    | RunRests
    | Reloaded
    | ReloadRefused
    | StatusLost
    | OutputLost
)


def told(event: ManagerEvent) -> str:
    """One line."""
    match event:
        case RunStarted():
            again = f", restart {event.restarts}" if event.restarts else ""
            return f"{event.run} runs as process {event.pid}{again}"
        case RunNotStarted():
            return f"{event.run} could not be started: {event.cause}"
        case RunExited():
            return f"{event.run} {ended(event.code)} after {event.after_ms / 1000:.1f} s"
        case RunWaits():
            return f"{event.run} is started again in {event.wait_ms / 1000:.1f} s"
        case RunAsked():
            return f"{event.run} is asked to end{', to run anew' if event.again else ''}"
        case RunKilled():
            return f"{event.run} did not end in its grace and is killed"
        case RunRests():
            return f"{event.run} {_rest(event)}"
        case Reloaded(found):
            said = [
                f"{word} {' '.join(names)}"
                for word, names in (
                    ("starts", found.started),
                    ("restarts", found.restarted),
                    ("stops", found.stopped),
                )
                if names
            ]
            return f"the file was read again: {', '.join(said) or 'no process changes'}"
        case ReloadRefused():
            return f"the file was read again and is refused, all goes on as before: [{event.code}] {event.what} {event.remedy}"
        case StatusLost():
            return f"how the runs stand can't be written to the state directory: {event.cause}"
        case OutputLost():
            return f"what {event.run} says can't be written, and is lost until it can be: {event.cause}"
        case _:
            assert_never(event)


def ended(code: int) -> str:
    """How a process ended, in words."""
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def as_json(event: ManagerEvent) -> dict[str, Any]:
    """The event as an object: its kind in `event`, and its fields."""
    kind = "".join(f"_{one.lower()}" if one.isupper() else one for one in type(event).__name__)
    found = event.changes if isinstance(event, Reloaded) else event
    return {
        "event": kind.lstrip("_"),
        **{one.name: _plain(getattr(found, one.name)) for one in fields(found)},
    }


def _rest(event: RunRests) -> str:
    match event.phase:
        case Phase.GIVEN_UP:
            how = "" if event.last_exit is None else f", as it {ended(event.last_exit)}"
            return f"is GIVEN UP{how}; `qmtl execution restart {event.run}` tries again"
        case Phase.FAILED:
            return "failed, and is not started again"
        case Phase.STOPPED:
            return "is stopped"
        case _:
            return "is done"


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else list(value) if isinstance(value, tuple) else value
