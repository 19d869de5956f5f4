"""Runs a scenario under many seeds, cuts a failing schedule down, and says what was reached."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qmtl.engine.simulate.coverage import Coverage
from qmtl.engine.simulate.scenario import Scenario
from qmtl.engine.simulate.schedule import Schedule, Shape, make_schedule, shrink
from qmtl.engine.simulate.trace import Trace
from qmtl.engine.simulate.world import LawBroken, World

MEMORY: Final = Path("/dev/shm")
"""Where stores lie if the machine has it: they need no disk."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule that breaks a law.

    Attributes:
        seed: the schedule's; None for one that was written by hand.
    """

    scenario: str
    seed: int | None
    law: str
    what: str
    schedule: Schedule

    def __str__(self) -> str:
        acts = "\n".join(f"  {act!r}," for act in self.schedule)
        return f"{self.scenario}, seed {self.seed}: {self.law}: {self.what}\nafter\n{acts}"


@dataclass(slots=True)
class Findings:
    """What a campaign found.

    Attributes:
        seeds: how many were run.
    """

    seeds: int = 0
    failures: list[Failure] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)


class Explorer:
    """Runs one scenario again and again, always against the same run without faults.

    Args:
        acts: how many acts a schedule has, about.
        asked: what else has to hold at the end of a run, whose seed it is told; raises where it doesn't.

    Attributes:
        calm: the world in which nothing went wrong, at its end.

    Raises:
        LawBroken: it goes wrong without any fault.
    """

    def __init__(
        self, scenario: Scenario, acts: int = 120, asked: Callable[[World, int | None], None] | None = None
    ) -> None:
        self.scenario = scenario
        self.shape = Shape(len(scenario.slots), len(scenario.people), acts)
        self._asked = asked
        with _room() as place:
            self.calm = World(scenario, place)
            self.calm.play(())
        self._ask(self.calm, None)
        self.expected: Trace = self.calm.trace

    def _ask(self, world: World, seed: int | None) -> None:
        if self._asked is None:
            return
        try:
            self._asked(world, seed)
        except Exception as error:
            raise LawBroken("law", f"{type(error).__name__}: {error}") from error

    def schedule(self, seed: int) -> Schedule:
        """The schedule of a seed."""
        return make_schedule(seed, self.shape)

    def play(self, schedule: Schedule) -> World:
        """Run one schedule.

        Raises:
            LawBroken: what it shows.
        """
        world, broken = self._played(schedule)
        if broken is not None:
            raise broken
        return world

    def _played(self, schedule: Schedule, seed: int | None = None) -> tuple[World, LawBroken | None]:
        with _room() as place:
            world = World(self.scenario, place, self.expected)
            try:
                world.play(schedule)
                self._ask(world, seed)
            except LawBroken as error:
                return world, error
            return world, None

    def run(
        self,
        seeds: Iterable[int],
        *,
        stop_at: int = 1,
        told: Callable[[int, Failure | None], None] | None = None,
    ) -> Findings:
        """Run the schedules of these seeds; ends early after `stop_at` failures.

        Args:
            told: called after each seed.
        """
        found = Findings()
        for seed in seeds:
            schedule = self.schedule(seed)
            world, broken = self._played(schedule, seed)
            found.seeds += 1
            found.coverage.add(world.coverage)
            failure = None
            if broken is not None:
                failure = Failure(self.scenario.name, seed, broken.law, broken.what, schedule)
                found.failures.append(failure)
            if told is not None:
                told(seed, failure)
            if len(found.failures) >= stop_at:
                break
        return found

    def shrunk(self, failure: Failure, *, tries: int = 300) -> Failure:
        """The same failure, of the same law, with as few acts as can be found."""

        def fails(schedule: Schedule) -> bool:
            broken = self._played(schedule)[1]
            return broken is not None and broken.law == failure.law

        schedule = shrink(failure.schedule, fails, tries=tries)
        broken = self._played(schedule)[1]
        what = failure.what if broken is None else broken.what
        return Failure(failure.scenario, failure.seed, failure.law, what, schedule)


@contextmanager
def _room() -> Iterator[Path]:
    """A directory that is gone afterwards."""
    where = str(MEMORY) if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="qmtl-simulate-", dir=where) as found:
        yield Path(found)
