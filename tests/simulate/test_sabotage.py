"""Does the simulator bite? Each planted bug is found within a stated number of seeds; the test says in how many."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from qmtl.engine.simulate.explore import Explorer
from tests.simulate.sabotage import SABOTAGE
from tests.simulate.scenarios import counters, late, toys

SCENARIOS = {"toys": toys, "counters": counters, "late": lambda: late(2)}


@cache
def explorer(scenario: str) -> Explorer:
    """What comes out without faults is computed before any bug is planted."""
    return Explorer(SCENARIOS[scenario]())


@pytest.mark.parametrize("bug", SABOTAGE)
def test_a_planted_bug_is_found(
    bug: str, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    plant, scenario, within = SABOTAGE[bug]
    explored = explorer(scenario)
    plant(monkeypatch)
    found = explored.run(range(within))
    assert found.failures, f"{bug} was not found in {within} seeds"
    record_property("seeds", found.seeds)
    print(f"{bug}: found in {found.seeds} of {within} seeds, by {found.failures[0].law!r}")


def test_a_failing_schedule_becomes_short_and_fails_by_the_same_law(monkeypatch: pytest.MonkeyPatch) -> None:
    plant, scenario, within = SABOTAGE["producer reused after an unknown outcome"]
    explored = explorer(scenario)
    plant(monkeypatch)
    failure = explored.run(range(within)).failures[0]
    short = explored.shrunk(failure)
    assert len(short.schedule) <= 8 < len(failure.schedule)
    assert short.law == failure.law
    monkeypatch.undo()
    explored.play(short.schedule)  # the engine as it is has nothing to fear from it
