"""The benchmark of the DAG Manager on a few nodes: it runs, fast and slow agree, and gives a result of the known shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.dag import admission, diffs, run, standing
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.prescan import Prescan


def test_it_gives_a_ratio_for_each_share_and_each_size(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    few = ["--nodes", "20", "--known", "60", "20", "--rounds", "2", "--slow", "1"]
    run.main([*few, "--per-s", "0", "--out", str(out)])
    found = json.loads(out.read_text())
    assert {"date", "machine", "versions", "nodes", "rounds"} < set(found)
    assert list(found["admission"]) == ["20", "60"]
    for one in found["admission"].values():
        assert set(one) == {"all", "most", "none", "memo_bytes"}
        assert all(one[share]["slow_to_fast"] > 0 for share in admission.SHARES)
    assert found["diff_p95_ms_at_60"] == found["diffs"]["60"]["decide_ms"]["p95"] > 0
    assert found["diffs"]["flat"] > 0
    assert "diff_p95_ms_broker" not in found


@pytest.mark.broker
def test_it_tells_what_somebody_waits_who_asks_through_a_broker(kafka_bootstrap: str, tmp_path: Path) -> None:
    found = diffs.through(kafka_bootstrap, tmp_path, nodes=20, known=40, per_s=20, seconds=0.5)
    assert (found["requests"], found["known"]) == (10, 40)
    assert 0 < found["ms"]["least"] <= found["ms"]["p95"]


def test_it_tells_what_a_submission_and_a_start_take_by_the_size_of_the_graph(tmp_path: Path) -> None:
    found = standing.measure(tmp_path, admission.Sizes(20, (20, 60), 2, 1))
    assert list(found) == ["20", "60", "flat"]
    for size in ("20", "60"):
        assert set(found[size]) == {"all", "most", "start_s", "start_mb", "process_mb"}
        assert all(found[size][share]["cpu_ms"]["p95"] > 0 for share in standing.SHARES)
        assert found[size]["start_s"] > 0
    assert set(found["flat"]) == set(standing.SHARES)


def test_its_messages_are_as_large_as_it_says_and_plainly_sound() -> None:
    data = admission.message(range(200))
    assert 210_000 < len(data) < 240_000
    graph = Prescan().plain(data, 0)
    assert graph == admit(data, 0)
    assert len({one.node.node_id for one in admit(data, 0).nodes}) == 1_000
