"""When a run's process is started, asked to end, killed, started again and given up: from what happened and when, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from signal import SIGTERM
from typing import Final, TypeAlias, assert_never

from blake3 import blake3

HOPELESS: Final = (2, 5, 12)
"""Exit codes of a command line that can't be read, of a strategy that is none, and of one that has come to the end of its bars with a node in
state error: what is said again ends again so, whatever the policy."""

ENDED_BY_TERM: Final = (0, -SIGTERM, 128 + SIGTERM)
"""How a process ends that was asked to: by itself, or by the signal where it had not come as far as to catch it."""

NOT_STARTED: Final = 71
"""Stands for the exit code of a process that could not be made: EX_OSERR of sysexits.h."""

_SPREAD: Final = 4
"""A wait is cut by up to this part of it."""


class Restart(Enum):
    """After which end of its process a run is started again."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Terms:
    """How a run is kept going.

    Attributes:
        backoff_ms: the wait before the first restart; each further one within the window doubles it.
        backoff_max_ms: the longest wait.
        max_restarts: within `window_ms`; a run that needs one more is given up.
        grace_ms: from SIGTERM to SIGKILL. A run that waits for an answer hears it only then, after 30 s where nobody says otherwise.
    """

    restart: Restart = Restart.ON_FAILURE
    backoff_ms: int = 1_000
    backoff_max_ms: int = 60_000
    max_restarts: int = 5
    window_ms: int = 600_000
    grace_ms: int = 35_000


class Phase(Enum):
    """What a run does now."""

    WAITING = "waiting"
    """There is no process; one is started when the time has come."""

    RUNNING = "running"

    STOPPING = "stopping"
    """Its process was asked to end."""

    KILLING = "killing"
    """Its process did not end in its grace."""

    ENDED = "ended"
    """By itself, with exit code 0."""

    STOPPED = "stopped"
    """As it was asked to."""

    FAILED = "failed"
    """With another exit code, and is not started again; or it had to be killed."""

    GIVEN_UP = "given_up"
    """It needed more restarts than it may have, or can't be helped by one."""


LIVE: Final = frozenset({Phase.RUNNING, Phase.STOPPING, Phase.KILLING})
"""There is a process."""

AT_REST: Final = frozenset({Phase.ENDED, Phase.STOPPED, Phase.FAILED, Phase.GIVEN_UP})
"""There is none, and none comes unless somebody asks for it."""

BAD_ENDS: Final = frozenset({Phase.FAILED, Phase.GIVEN_UP})


@dataclass(frozen=True, slots=True)
class RunState:
    """Where a run is. Instants are milliseconds of one clock that never goes back.

    Attributes:
        due_ms: when it is started (waiting) or killed (stopping); None where nothing is to come by time alone.
        restarts: when it went down and was to be started again, within the window; ascending.
        restarted: how often that was in all.
        started_ms: when its process, or the last one, was started.
        last_exit: exit code of the last process; negative for a signal.
        again: once it has stopped it is started anew.
    """

    phase: Phase
    due_ms: int | None
    restarts: tuple[int, ...] = ()
    restarted: int = 0
    started_ms: int | None = None
    last_exit: int | None = None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Due:
    """Nothing but time has passed."""


@dataclass(frozen=True, slots=True)
class Started:
    """A process was made."""


@dataclass(frozen=True, slots=True)
class Exited:
    """Its process is gone, or could not be made (`NOT_STARTED`).

    Attributes:
        code: negative for the signal that it died of.
    """

    code: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """It is to end."""


@dataclass(frozen=True, slots=True)
class StartAsked:
    """It is to run: a process that is there stays, a run that waits or is over starts now."""


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """It is to run in a new process."""


Happened: TypeAlias = Due | Started | Exited | StopAsked | StartAsked | RestartAsked


class Act(Enum):
    """What is to be done with the process now."""

    NOTHING = "nothing"
    START = "start"
    TERMINATE = "terminate"
    KILL = "kill"


def begun(at_ms: int) -> RunState:
    """A run that is to be started at once."""
    return RunState(Phase.WAITING, at_ms)


def step(name: str, terms: Terms, state: RunState, happened: Happened, at_ms: int) -> tuple[RunState, Act]:
    """What becomes of a run.

    Args:
        name: of the run; spreads the waits of runs that went down together.
        at_ms: now; never before what was told before.
    """
    match happened:
        case Due():
            return _due(state, at_ms)
        case Started():
            if state.phase is not Phase.WAITING:
                return state, Act.NOTHING
            return replace(state, phase=Phase.RUNNING, due_ms=None, started_ms=at_ms), Act.NOTHING
        case Exited(code):
            return _exited(name, terms, replace(state, last_exit=code), code, at_ms), Act.NOTHING
        case StopAsked():
            return _stop(terms, state, at_ms, again=False)
        case RestartAsked() if state.phase in LIVE:
            return _stop(terms, state, at_ms, again=True)
        case StartAsked() if state.phase in LIVE:
            return replace(state, again=state.phase is not Phase.RUNNING), Act.NOTHING
        case RestartAsked() | StartAsked():
            return _anew(state, at_ms), Act.NOTHING
        case _:
            assert_never(happened)


def wait_ms(name: str, terms: Terms, before: int) -> int:
    """How long a run that went down waits for its restart.

    Up to a quarter is cut off, by a digest of its name and of how often it was: the same each time, and another one for each run, so that those that
    a broker took down do not come back at one instant.

    Args:
        before: its restarts within the window until now.
    """
    whole = min(terms.backoff_max_ms, terms.backoff_ms << min(before, 40))
    digest = blake3(f"{name}\n{before}".encode()).digest(length=8)
    return whole - int.from_bytes(digest) % (whole // _SPREAD + 1)


def least_ms(terms: Terms) -> int:
    """The shortest time in which a run that ends at once needs one more restart than it may have; a window below that would never give it up."""
    waits = [min(terms.backoff_max_ms, terms.backoff_ms << min(one, 40)) for one in range(terms.max_restarts)]
    return sum(waits)


def ends_badly(states: Sequence[RunState]) -> bool:
    """Whether one of them did not end as it should have."""
    return any(one.phase in BAD_ENDS for one in states)


def _due(state: RunState, at_ms: int) -> tuple[RunState, Act]:
    if state.due_ms is None or at_ms < state.due_ms:
        return state, Act.NOTHING
    if state.phase is Phase.WAITING:
        return state, Act.START
    return replace(state, phase=Phase.KILLING, due_ms=None), Act.KILL


def _stop(terms: Terms, state: RunState, at_ms: int, *, again: bool) -> tuple[RunState, Act]:
    if state.phase is Phase.WAITING:
        return replace(state, phase=Phase.STOPPED, due_ms=None, again=False), Act.NOTHING
    if state.phase is Phase.RUNNING:
        due_ms = at_ms + terms.grace_ms
        return replace(state, phase=Phase.STOPPING, due_ms=due_ms, again=again), Act.TERMINATE
    if state.phase in LIVE:
        return replace(state, again=again), Act.NOTHING
    return state, Act.NOTHING


def _anew(state: RunState, at_ms: int) -> RunState:
    return replace(state, phase=Phase.WAITING, due_ms=at_ms, restarts=(), again=False)


def _exited(name: str, terms: Terms, state: RunState, code: int, at_ms: int) -> RunState:
    if state.phase in AT_REST:
        return state
    if state.phase in (Phase.STOPPING, Phase.KILLING):
        if state.again:
            return _anew(state, at_ms)
        well = state.phase is Phase.STOPPING and code in ENDED_BY_TERM
        return replace(state, phase=Phase.STOPPED if well else Phase.FAILED, due_ms=None)
    if code in HOPELESS:
        return replace(state, phase=Phase.GIVEN_UP, due_ms=None)
    if terms.restart is Restart.NEVER or (terms.restart is Restart.ON_FAILURE and code == 0):
        return replace(state, phase=Phase.FAILED if code else Phase.ENDED, due_ms=None)
    recent = tuple(one for one in state.restarts if one > at_ms - terms.window_ms)
    if len(recent) >= terms.max_restarts:
        return replace(state, phase=Phase.GIVEN_UP, due_ms=None, restarts=recent)
    due_ms = at_ms + wait_ms(name, terms, len(recent))
    return replace(
        state, phase=Phase.WAITING, due_ms=due_ms, restarts=(*recent, at_ms), restarted=state.restarted + 1
    )
