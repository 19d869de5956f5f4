"""Keeps the processes of runs as the policy says: the one place that makes them, signals them and hears of their end."""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from qmtl.interfaces.execution.events import (
    ManagerEvent,
    Reloaded,
    RunAsked,
    RunExited,
    RunKilled,
    RunNotStarted,
    RunRests,
    RunStarted,
    RunWaits,
)
from qmtl.interfaces.execution.plan import RunSpec, changes
from qmtl.interfaces.execution.policy import (
    AT_REST,
    LIVE,
    NOT_STARTED,
    Act,
    Due,
    Exited,
    Happened,
    Phase,
    RestartAsked,
    RunState,
    StartAsked,
    Started,
    StopAsked,
    begun,
    ends_badly,
    step,
)
from qmtl.interfaces.execution.process import Process

LOOK_S: Final = 0.1
"""So long a round waits at most; who dies is seen as fast."""


@dataclass(slots=True)
class _Kept:
    """A run, and the process that it has."""

    spec: RunSpec
    state: RunState
    process: Process | None = None
    next: RunSpec | None = None
    """What it is to be from its next process on."""
    leaves: bool = False
    """It is in the file no more."""
    asked: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How a run stands.

    Attributes:
        pid: of its process; None where there is none.
        asked: how often somebody asked something of it.
    """

    spec: RunSpec
    state: RunState
    pid: int | None
    asked: int


class Supervisor:
    """The runs of one manager. All of it belongs to one thread, the one in which it was made: a process dies with the thread that started it.

    Args:
        command: the program of a run, by its whole path, and what it is given.
        tell: hears of each event.
        said: hears of each line of a run, by its name.
        now_ms: a clock that never goes back.
    """

    def __init__(
        self,
        runs: Sequence[RunSpec],
        command: Callable[[RunSpec], Sequence[str]],
        tell: Callable[[ManagerEvent], None],
        said: Callable[[str, bytes], None],
        now_ms: Callable[[], int],
    ) -> None:
        self._command = command
        self._tell = tell
        self._said = said
        self._now_ms = now_ms
        self._stopping = False
        self._selector = selectors.DefaultSelector()
        self._kept = {one.name: _Kept(one, begun(now_ms())) for one in runs}

    def standings(self) -> tuple[Standing, ...]:
        """Of each run."""
        return tuple(
            Standing(one.spec, one.state, one.process.pid if one.process else None, one.asked)
            for one in self._kept.values()
        )

    @property
    def is_over(self) -> bool:
        """No run has a process, and none comes: whoever was asked to stop may still be asked to start, unless all were."""
        phases = [one.state.phase for one in self._kept.values()]
        return all(one in AT_REST for one in phases) and (self._stopping or Phase.STOPPED not in phases)

    @property
    def ends_badly(self) -> bool:
        return ends_badly([one.state for one in self._kept.values()])

    # ---- what is asked of it ------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """All runs are to end; none starts any more."""
        self._stopping = True
        for one in self._kept.values():
            self._happens(one, StopAsked())

    def ask(self, run: str, what: StopAsked | StartAsked | RestartAsked) -> None:
        """Somebody asks something of one run; of one that is not there, or while all are to end, nothing comes of it."""
        one = self._kept.get(run)
        if one is not None and not self._stopping and not one.leaves:
            one.asked += 1
            self._happens(one, what)

    def reload(self, runs: Sequence[RunSpec]) -> None:
        """From now on these are the runs. One that is not there any more stops, a new or changed one starts, one that was given up or failed is tried again."""
        if self._stopping:
            return
        found = changes([one.spec for one in self._kept.values() if not one.leaves], runs)
        self._tell(Reloaded(found))
        for name in found.stopped:
            self._kept[name].leaves = True
            self._happens(self._kept[name], StopAsked())
        for spec in runs:
            one = self._kept.get(spec.name)
            if one is None:
                self._kept[spec.name] = _Kept(spec, begun(self._now_ms()))
                continue
            is_other = one.leaves or not one.spec.is_same_process(spec)
            one.leaves = False
            if one.state.phase in LIVE and is_other:
                one.next = spec
            else:
                one.spec, one.next = spec, None
            if is_other or one.state.phase in (Phase.FAILED, Phase.GIVEN_UP):
                self._happens(one, RestartAsked())
        order = {one.name: at for at, one in enumerate(runs)}
        self._kept = dict(sorted(self._kept.items(), key=lambda item: order.get(item[0], len(order))))

    # ---- what goes on -------------------------------------------------------------------------------------------------

    def round(self, wait_s: float = LOOK_S) -> None:
        """Waits for something to be said or to become due, no longer than `wait_s`, and does what is to be done."""
        for key, _ in self._selector.select(self._wait_s(wait_s)):
            name = str(key.data)
            process = self._kept[name].process
            assert process is not None
            self._hear(name, process.lines())
            if process.is_silent:
                self._selector.unregister(process)
        for one in self._kept.values():
            if one.process is not None and (code := one.process.exit_code()) is not None:
                self._gone(one, one.process, code)
        for one in self._kept.values():
            if one.state.phase is not Phase.WAITING or not self._is_held(one):
                self._happens(one, Due())
        for name in [name for name, one in self._kept.items() if one.leaves and one.state.phase in AT_REST]:
            del self._kept[name]

    def close(self) -> None:
        """Kills what is still there."""
        for one in self._kept.values():
            if one.process is not None:
                one.process.kill()
        self._selector.close()

    def _wait_s(self, most_s: float) -> float:
        now = self._now_ms()
        due = [one.state.due_ms for one in self._kept.values() if one.state.due_ms is not None]
        return min([most_s, *(max(one - now, 0) / 1000 for one in due if one > now)])

    def _is_held(self, one: _Kept) -> bool:
        """Whether another run, which is on its way out, still has the embedded log of this one."""
        wanted = (one.next or one.spec).holds
        return wanted is not None and any(
            other is not one and other.process is not None and other.spec.holds == wanted
            for other in self._kept.values()
        )

    def _gone(self, one: _Kept, process: Process, code: int) -> None:
        with suppress(KeyError):
            self._selector.unregister(process)
        self._hear(one.spec.name, process.last_lines())
        one.process = None
        began = one.state.started_ms
        after_ms = 0 if began is None else self._now_ms() - began
        self._tell(RunExited(one.spec.name, process.pid, code, after_ms))
        self._happens(one, Exited(code))

    def _happens(self, one: _Kept, happened: Happened) -> None:
        before, now = one.state, self._now_ms()
        one.state, act = step(one.spec.name, one.spec.terms, before, happened, now)
        name, process = one.spec.name, one.process
        match act:
            case Act.START:
                self._start(one)
            case Act.TERMINATE if process is not None:
                process.terminate()
                self._tell(RunAsked(name, process.pid, one.state.again))
            case Act.KILL if process is not None:
                process.kill()
                self._tell(RunKilled(name, process.pid))
            case _:
                pass
        after = one.state
        if after.phase is Phase.WAITING and isinstance(happened, Exited) and after.due_ms is not None:
            self._tell(RunWaits(name, after.due_ms - now))
        if after.phase in AT_REST and before.phase not in AT_REST:
            self._tell(RunRests(name, after.phase, after.last_exit))

    def _start(self, one: _Kept) -> None:
        if one.next is not None:
            one.spec, one.next = one.next, None
        try:
            process = Process(self._command(one.spec), one.spec.directory)
        except OSError as error:
            self._tell(RunNotStarted(one.spec.name, error.strerror or str(error)))
            self._happens(one, Exited(NOT_STARTED))
            return
        one.process = process
        self._selector.register(process, selectors.EVENT_READ, one.spec.name)
        self._tell(RunStarted(one.spec.name, process.pid, one.state.restarted))
        self._happens(one, Started())

    def _hear(self, name: str, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._said(name, line)
