"""SIGKILL at any moment, and the same command again: the run ends as if nothing had happened.

A slice; `make campaign-kills` kills as often as it is asked to.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.failpoint import POINTS
from qmtl.interfaces.feeding import BUCKETS_PER_PUSH
from tests.flow.campaign import AT_A_TIME, campaign, place_on
from tests.flow.driving import Result, embedded, run_demo, write_bars
from tests.flow.kills import Trial, killed_at_points, summary

SEED = 20_261_125
"""Of it the first kills of a run on Kafka meet it after it has opened its log."""

RECORDS = 60
"""Records per batch, few enough that every point is passed many times."""

PASSAGES = {"inside_restore": (1, 3), "after_restore": (1, 4)}
"""Which passages of a point end the process; others are passed in every cycle of every task."""

LATER = 45
ON_KAFKA = ("before_store_write", "inside_restore")
"""The points of a run on Kafka, where every start costs seconds: the one where the log is ahead of the store, and one of recovery;
of a run on the embedded log, every third of the others. Toys die at each of them in tests/engine, and `make campaign-engine` takes its time for all."""

ELSEWHERE = tuple(point for point in POINTS if point not in ON_KAFKA)[2::3]


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[list[Trial]], dict[str, Any]]:
    """Sums trials up, for the test and for its report."""

    def told(trials: list[Trial]) -> dict[str, Any]:
        found = summary(trials)
        record_property("kills", json.dumps(found))
        print(json.dumps(found))
        return found

    return told


Tell = Callable[[list[Trial]], dict[str, Any]]


def test_random_kills_of_runs_on_the_embedded_log_change_nothing(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result, tell: Tell
) -> None:
    found = tell(campaign(None, tmp_path, bars, undisturbed, 5, SEED))
    assert found["kills"] >= 5
    assert found["wrong"] == []


def test_random_kills_of_runs_on_kafka_change_nothing(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result, kafka_bootstrap: str, tell: Tell
) -> None:
    found = tell(campaign(kafka_bootstrap, tmp_path, bars, undisturbed, 2, SEED))
    assert found["kills"] >= 2
    assert found["wrong"] == []


def test_kills_of_single_workers_on_kafka_change_nothing(
    tmp_path: Path, bars: dict[str, Path], undisturbed: Result, kafka_bootstrap: str, tell: Tell
) -> None:
    found = tell(campaign(kafka_bootstrap, tmp_path, bars, undisturbed, 1, SEED, workers=True))
    assert found["kills"] >= 1
    assert found["wrong"] == []


def test_a_feed_that_dies_between_its_transactions_goes_on_where_the_last_one_ended(
    tmp_path: Path, tell: Tell
) -> None:
    bars = write_bars(tmp_path / "bars", 3 * BUCKETS_PER_PUSH - 200)
    undisturbed = run_demo(embedded(tmp_path / "plain", bars))
    # Up to the deployment, and then commit by commit.
    points = ["inside_commit:32", *["inside_commit:2"] * 4]
    trial = killed_at_points(embedded(tmp_path / "killed", bars), undisturbed, points, RECORDS)
    found = tell([trial])
    assert found["wrong"] == []
    assert found["kills"] == len(points)
    assert found["phases"]["feeding"] >= 2


@pytest.mark.parametrize("kind", ["embedded", pytest.param("kafka", marks=pytest.mark.broker)])
def test_a_death_at_every_point_of_a_cycle_changes_nothing(
    tmp_path: Path,
    bars: dict[str, Path],
    undisturbed: Result,
    kind: str,
    request: pytest.FixtureRequest,
    tell: Tell,
) -> None:
    bootstrap = None if kind == "embedded" else str(request.getfixturevalue("kafka_bootstrap"))
    chosen, usual = (ELSEWHERE if bootstrap is None else ON_KAFKA), (LATER,)

    def run(name: str) -> Trial:
        with place_on(bootstrap, tmp_path / name, bars) as place:
            points = [f"{name}:{passage}" for passage in PASSAGES.get(name, usual)]
            if name in PASSAGES:
                points.insert(0, f"after_commit:{LATER}")
            return killed_at_points(place, undisturbed, points, RECORDS)

    with ThreadPoolExecutor(AT_A_TIME[kind]) as pool:
        trials = list(pool.map(run, chosen))
    found = tell(trials)
    assert found["wrong"] == []
    reached = {str(kill["at"]).split(":")[0] for trial in trials for kill in trial.kills}
    assert reached >= set(chosen)
    recovering = PASSAGES.keys() & set(chosen)
    assert found["kills"] == len(usual) * (len(chosen) - len(recovering)) + 3 * len(recovering)
