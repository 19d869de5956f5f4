"""Toys and the whole system under seeds of faults: what comes out is what comes out without them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.failpoint import POINTS
from qmtl.engine.simulate.coverage import KNOWN, Coverage
from qmtl.engine.simulate.explore import Explorer
from qmtl.engine.simulate.scenario import Scenario
from qmtl.engine.simulate.schedule import Pause, Run, Shape, make_schedule, shrink
from qmtl.engine.simulate.world import LawBroken, World
from qmtl.foundation.wire.keys import encode_key, partition_for
from tests.engine.driving import messages, table
from tests.engine.models import counted, late_model, loop_model, totals
from tests.engine.toys import A_OUT, CODEC, COUNTS, ECHO, ITEMS, LATE_OUT
from tests.simulate.scenarios import given_buckets, given_items, late, sources, toys
from tests.simulate.system import system

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 30
COVERED = Coverage()
"""What the runs of this module have reached together."""


@pytest.mark.parametrize(
    "make, seeds",
    [
        (toys, range(40)),
        (lambda: late(1), range(60, 70)),
        (lambda: late(2), range(80, 90)),
        (sources, range(100, 130)),
        (system, range(SEEDS)),
    ],
    ids=[
        "toys",
        "a table read one late",
        "a table read two late",
        "inputs that come and go",
        "all processors",
    ],
)
def test_faults_change_nothing_of_what_comes_out(make: Callable[[], Scenario], seeds: range) -> None:
    explorer = Explorer(make())
    found = explorer.run(seeds)
    COVERED.add(found.coverage)
    assert not found.failures, str(explorer.shrunk(found.failures[0]))
    assert found.seeds == len(seeds)


def test_the_runs_have_reached_every_failpoint_and_fault() -> None:
    if not COVERED.counts:
        pytest.skip("the runs of this module were left out")
    assert COVERED.never() == ()


@pytest.mark.parametrize("seed", range(3))
def test_a_calm_run_gives_what_the_models_say(seed: int) -> None:
    log = Explorer(toys(seed)).calm.log
    items = given_items(seed)
    for partition in range(ITEMS.partitions):
        mine = [item for item in items if place(item.name) == partition]
        assert [one for one in messages(log, ECHO.name) if place(one.name) == partition] == counted(mine)
    assert table(log, COUNTS.name) == {
        encode_key((total.name,)): CODEC.encode(total) for total in totals(items)
    }
    assert messages(log, A_OUT.name) == loop_model(given_buckets(seed), 1)
    for lag in (1, 2):
        assert messages(Explorer(late(lag, seed)).calm.log, LATE_OUT.name) == late_model(
            given_buckets(seed), lag
        )


def place(name: str) -> int:
    return partition_for(encode_key((name,)), ITEMS.partitions)


# ---- schedules ----------------------------------------------------------------------------------------------------


PROGRAM = """
import sys, time
from itertools import count
beat_s = float(sys.argv[1])
if beat_s:
    beats = count(10_000)
    time.monotonic = lambda: next(beats) * beat_s
    time.time = lambda: 1.7e9 + next(beats) * beat_s
from qmtl.engine.simulate.explore import Explorer
from tests.simulate.scenarios import toys
explorer = Explorer(toys())
for seed in (3, 5, 7):
    world = explorer.play(explorer.schedule(seed))
    print(sorted(world.coverage.counts.items()), world.cluster.clock.now_ms)
    for partition in world.cluster.partitions():
        print(partition.where, partition.end, partition.stable, partition.history)
"""


def said(hash_seed: str, beat_s: float) -> str:
    """What runs of three seeds have left behind, said by a process whose clocks go on by so much at every look; 0 leaves them."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(beat_s)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    ).stdout


def test_a_seed_gives_the_same_run_in_another_process_under_another_hash_seed_and_another_clock() -> None:
    alone = said("1", 0.0)
    assert alone != ""
    assert said("2", 1.0) == alone  # every look at the clock is another second
    assert said("3", 1e-9) == alone  # as good as standing still


@given(st.integers(0, 2**32), st.integers(1, 200))
@settings(max_examples=50)
def test_a_schedule_comes_from_its_seed_alone(seed: int, acts: int) -> None:
    shape = Shape(slots=3, sources=2, acts=acts)
    made = make_schedule(seed, shape)
    assert made == make_schedule(seed, shape)
    assert len(made) >= acts
    points = [act.trouble.point for act in made if isinstance(act, Run) and isinstance(act.trouble, Pause)]
    assert set(points) <= set(POINTS)


@given(st.lists(st.integers(0, 60), min_size=1, max_size=4, unique=True))
@settings(max_examples=30)
def test_shrinking_leaves_exactly_the_acts_that_matter(places: list[int]) -> None:
    schedule = tuple(Run(slot) for slot in range(61))
    culprits = {schedule[place] for place in places}
    short = shrink(schedule, lambda one: culprits <= set(one))
    assert set(short) == culprits
    assert len(short) == len(culprits)


def test_people_who_wait_for_ever_are_named(tmp_path: Path) -> None:
    never = replace(toys(), people=(lambda log: iter([lambda: False]),))
    with pytest.raises(LawBroken, match="wait for something that never comes"):
        World(never, tmp_path).play(())


def test_every_name_of_the_blind_spot_report_is_there_once() -> None:
    assert len(set(KNOWN)) == len(KNOWN)
