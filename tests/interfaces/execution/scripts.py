"""Runs that are tiny programs, and a supervisor that is driven round by round."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from qmtl.interfaces.execution.events import ManagerEvent, RunStarted
from qmtl.interfaces.execution.plan import RunSpec
from qmtl.interfaces.execution.policy import Phase, Restart, Terms
from qmtl.interfaces.execution.supervisor import Supervisor

PATIENCE_S = 60.0
QUICK = Terms(Restart.ON_FAILURE, 10, 10, 3, 60_000, 30_000)

ENDS_WHEN_ASKED = (
    "import signal,sys; signal.signal(15, lambda *_: sys.exit(0)); print('ready', flush=True); signal.pause()"
)
IGNORES = (
    "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True)\nwhile True: signal.pause()"
)


def spec(
    name: str, program: str, terms: Terms = QUICK, directory: Path = Path("/"), log: str = ""
) -> RunSpec:
    """A run whose words are a program."""
    return RunSpec(name, (program,), name, "w1", log, directory, Path(log) if log else None, terms)


def as_python(one: RunSpec) -> Sequence[str]:
    return (sys.executable, "-I", "-S", "-c", *one.words)


@dataclass
class Driven:
    """A supervisor and what it told."""

    supervisor: Supervisor
    events: list[ManagerEvent] = field(default_factory=list)
    lines: list[tuple[str, bytes]] = field(default_factory=list)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, (self.events, self.lines)
            self.supervisor.round(0.02)

    def phase(self, run: str) -> Phase:
        (found,) = (one.state.phase for one in self.supervisor.standings() if one.spec.name == run)
        return found

    def pid(self, run: str) -> int:
        (found,) = (one.pid for one in self.supervisor.standings() if one.spec.name == run)
        assert found is not None
        return found

    def said(self, run: str) -> list[bytes]:
        return [line for name, line in self.lines if name == run]

    def starts(self, run: str) -> int:
        return sum(isinstance(one, RunStarted) and one.run == run for one in self.events)

    def ready(self, run: str, times: int = 1) -> None:
        """Waits until so many processes of the run have said that they are."""
        self.until(lambda: self.said(run).count(b"ready") >= times)


@contextmanager
def supervised(*runs: RunSpec) -> Iterator[Driven]:
    events: list[ManagerEvent] = []
    lines: list[tuple[str, bytes]] = []
    supervisor = Supervisor(
        runs,
        as_python,
        events.append,
        lambda run, line: lines.append((run, line)),
        lambda: time.monotonic_ns() // 1_000_000,
    )
    try:
        yield Driven(supervisor, events, lines)
    finally:
        supervisor.close()


def is_there(pid: int) -> bool:
    """Whether a process is, and is not a zombie alone."""
    if not Path("/proc/self/stat").exists():
        with suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        return False
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")
