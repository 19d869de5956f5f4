"""Runs every scenario under many seeds of faults, as `make campaign-simulate` does.

One line per failure with its seed, then what was reached and what never was. `--seed N --scenario NAME` runs one again and
prints the shortest schedule that breaks the same law. Ends with 1 where a law broke or a fault was never met.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from qmtl.engine.simulate.coverage import Coverage
from qmtl.engine.simulate.explore import Explorer, Failure
from qmtl.engine.simulate.scenario import Scenario
from tests.simulate.scenarios import counters, late, toys
from tests.simulate.system import system

SCENARIOS: Final[Mapping[str, Callable[[int], Scenario]]] = {
    "toys": toys,
    "counters": counters,
    "late-1": partial(late, 1),
    "late-2": partial(late, 2),
    "system": lambda variation: system(1 + variation % 2),
}
"""By name; each makes a scenario from the number of a variation of its input."""

PER_VARIATION: Final = 250
"""Seeds that share an input, and the run without faults that they are held against."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="make campaign-simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=500, help="how many per scenario (500)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument("--acts", type=int, default=120, help="acts per schedule (120)")
    parser.add_argument("--scenario", choices=SCENARIOS, action="append", help="only this one; repeatable")
    parser.add_argument("--seed", type=int, help="run one seed again, and cut its schedule down")
    given = parser.parse_args(arguments)
    names = given.scenario or list(SCENARIOS)
    if given.seed is not None:
        return sum(_again(name, given.seed, given.acts) for name in names)
    coverage, failures = Coverage(), []
    for name in names:
        begun = time.monotonic()
        broken = _campaign(name, range(given.first, given.first + given.seeds), given.acts, coverage)
        failures += broken
        took = time.monotonic() - begun
        print(f"{name}: {given.seeds} seeds, {len(broken)} failures, {took:.1f} s", flush=True)
    print("\n".join(coverage.lines()))
    for failure in failures:
        print(
            f"FAILED --scenario {failure.scenario} --seed {failure.seed}: {failure.law}: {failure.what[:300]}"
        )
    return int(bool(failures) or bool(coverage.never() and not given.scenario))


def _explorer(name: str, seed: int, acts: int) -> Explorer:
    return Explorer(SCENARIOS[name](seed // PER_VARIATION), acts)


def _campaign(name: str, seeds: range, acts: int, coverage: Coverage) -> list[Failure]:
    failures: list[Failure] = []
    for start in range(seeds.start, seeds.stop, PER_VARIATION):
        first = start - start % PER_VARIATION
        mine = range(start, min(first + PER_VARIATION, seeds.stop))
        found = _explorer(name, start, acts).run(mine, stop_at=len(mine) + 1)
        coverage.add(found.coverage)
        failures += [Failure(name, one.seed, one.law, one.what, one.schedule) for one in found.failures]
        for one in found.failures:
            print(f"FAILED {name}, seed {one.seed}: {one.law}: {one.what[:300]}", flush=True)
    return failures


def _again(name: str, seed: int, acts: int) -> int:
    explorer = _explorer(name, seed, acts)
    found = explorer.run([seed])
    if not found.failures:
        print(f"{name}, seed {seed}: every law holds")
        return 0
    print(explorer.shrunk(found.failures[0]))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
