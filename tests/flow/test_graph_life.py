"""A graph's life on a real Kafka, short: `make campaign-dag` has a thousand nodes."""

from __future__ import annotations

from pathlib import Path

from tests.flow import graph_life


def test_whoever_dies_no_topic_is_made_twice_lost_or_taken_from_somebody(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    found = list(graph_life.run(kafka_bootstrap, tmp_path, 50))
    assert [one["step"] for one in found] == [step.__name__ for step in graph_life.STEPS]
    assert all(set(one["kills"]) == set(graph_life.DYING) for one in found)
    assert [one["topics"] for one in found] == [50, 55, 60, 0, 50]
