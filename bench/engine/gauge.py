"""Starts a process, and looks from outside how far its group has committed, what it costs and when it is done."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

ROOT: Final = Path(__file__).parents[2]
LOOK_S: Final = 0.03
PATIENCE_S: Final = 120.0
"""How long a process may make no progress."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Failed(Exception):
    """A process ended, or stood still, before its work was done; its last words are in the text."""


class Child:
    """A process under measurement, in a session of its own; it is ended by its id."""

    def __init__(self, command: Sequence[str], name: str) -> None:
        self.name = name
        self.words = tempfile.TemporaryFile("w+")  # noqa: SIM115 # closed by whoever ends the process
        self.out = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=self.out,
            stderr=self.words,
            start_new_session=True,
        )

    def facts(self) -> list[dict[str, Any]]:
        """What it has told so far."""
        return [json.loads(line) for line in _whole_lines(self.out) if line.startswith("{")]

    def require_alive(self) -> None:
        """Raises: Failed: it has ended."""
        if self.process.poll() is not None:
            raise Failed(f"{self.name} ended with code {self.process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        return "\n".join(_whole_lines(self.words)[-8:])

    def cpu_s(self) -> float:
        """Processor seconds so far, its own and the system's for it."""
        parts = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / _TICKS

    def rss_mb(self) -> float:
        """Resident memory now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE / 1e6

    def finish(self, seconds: float = PATIENCE_S) -> list[dict[str, Any]]:
        """Wait for its end; what it told.

        Raises:
            Failed: it didn't end in time, or not well.
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} was not done after {seconds:g} s: {self.last_words()}") from None
        if self.process.returncode != 0:
            raise Failed(f"{self.name} ended with code {self.process.returncode}: {self.last_words()}")
        return self.facts()

    def stop(self) -> list[dict[str, Any]]:
        """SIGTERM, patience, SIGKILL; what it told."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(15.0)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.facts()

    def kill(self) -> None:
        """SIGKILL."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _whole_lines(file: IO[str]) -> list[str]:
    """What lies in a file that another process goes on writing, read without moving the position that both share."""
    number = file.fileno()
    return (
        os.pread(number, os.fstat(number).st_size, 0)
        .decode(errors="replace")
        .rpartition("\n")[0]
        .splitlines()
    )


@contextmanager
def started(command: Sequence[str], name: str) -> Iterator[Child]:
    """A process that is gone when the context is left, however it is left."""
    child = Child(command, name)
    try:
        yield child
    finally:
        child.kill()
        child.words.close()
        child.out.close()


def role(name: str, **told: object) -> list[str]:
    """The command of one of our own roles (`bench.engine.child`)."""
    return [sys.executable, "-m", "bench.engine.child", json.dumps({"role": name, **told})]


class Committed:
    """How far a group has committed, by a client that never joins it."""

    def __init__(self, bootstrap: str, group: str, topic: str, partitions: int) -> None:
        self._asker: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "log_level": 0,
                "isolation.level": "read_uncommitted",
            }
        )
        self._places = [KafkaPartition(topic, number) for number in range(partitions)]

    def total(self) -> int:
        """The sum of the committed offsets over all partitions; 0 while the group is not there yet."""
        try:
            found = self._asker.committed(self._places, timeout=10.0)
        except KafkaException:
            return 0
        return sum(max(place.offset, 0) for place in found)

    def close(self) -> None:
        self._asker.close()


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a process.

    Attributes:
        at_s: seconds since its start.
        committed: offsets committed, summed over partitions.
    """

    at_s: float
    committed: int
    cpu_s: float
    rss_mb: float


@dataclass(slots=True)
class Course:
    """How a run went, as looks in order; only those at which something new was committed, and the last."""

    looks: list[Look] = field(default_factory=list)

    def rate(self) -> float:
        """Records a second between the first and the last commit that were seen."""
        first, last = self.looks[0], self.looks[-1]
        if last.at_s == first.at_s:
            return last.committed / last.at_s
        return (last.committed - first.committed) / (last.at_s - first.at_s)

    def figures(self, records: int) -> dict[str, float]:
        """Rates, processor time and memory of the run."""
        last = self.looks[-1]
        return {
            "records_per_s": self.rate(),
            "records_per_s_with_start": records / last.at_s,
            "cpu_s": last.cpu_s,
            "peak_rss_mb": max(look.rss_mb for look in self.looks),
        }


def follow(
    child: Child, committed: Committed, goal: int, tell: Callable[[Look], None] = lambda look: None
) -> Course:
    """Look at a process until its group has committed `goal` offsets.

    Raises:
        Failed: it ended, or made no progress for `PATIENCE_S`.
    """
    course, known, deadline = Course(), 0, time.monotonic() + PATIENCE_S
    while known < goal:
        total = committed.total()
        now = time.perf_counter()
        if total > known:
            known, deadline = total, time.monotonic() + PATIENCE_S
            course.looks.append(Look(now - child.started, total, child.cpu_s(), child.rss_mb()))
            tell(course.looks[-1])
        elif time.monotonic() > deadline:
            raise Failed(f"{child.name} stood still at {known} of {goal}: {child.last_words()}")
        child.require_alive()
        time.sleep(LOOK_S)
    return course


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of the line of least squares."""
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    return (
        sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0
    )
