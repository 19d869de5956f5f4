"""The benchmark of the DAG Manager on a few nodes: it runs, fast and slow agree, and gives a result of the known shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.dag import admission, asking, diffs, run, standing, through
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.prescan import Prescan

SIZES = admission.Sizes(50, (50, 100), 2, 1)


def test_it_gives_a_ratio_for_each_share_and_each_size(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    few = ["--nodes", "50", "--known", "100", "50", "--rounds", "2", "--slow", "1"]
    run.main([*few, "--per-s", "0", "--out", str(out)])
    found = json.loads(out.read_text())
    assert {"date", "machine", "versions", "nodes", "rounds"} < set(found)
    assert list(found["admission"]) == ["100", "50"]
    for size in ("50", "100"):
        row = found["admission"][size]
        assert set(row) == {*admission.SHARES, "memo_bytes"}
        assert all(row[share]["slow_to_fast"] > 0 for share in admission.SHARES)
        assert found[f"diff_p95_ms_at_{size}"] == found["diffs"][size]["none"]["decide_ms"]["p95"] > 0
    assert set(found["scaling"]) == set(admission.SHARES)
    assert found["scaling"]["most"]["p50_ms"].keys() == {"50", "100"}
    assert 0 < found["tables_mb"] < found["started_mb"]
    assert found["start_s_at_100"] > 0
    assert not {"diff_p95_ms_broker", "process_mb", "broker"} & set(found)


def test_a_graph_and_what_is_asked_of_it_are_as_large_as_they_are_said_to_be(tmp_path: Path) -> None:
    found = diffs.measure(tmp_path, SIZES)
    for size in ("50", "100"):
        row = found[size]
        assert [row[share]["nodes"] for share in admission.SHARES] == [50, 50, 50]
        assert {how: one["code"] for how, one in row["refused"].items()} == {
            how: code for how, (_, code) in asking.refused(50).items()
        }
        assert all(0 < one["ms"]["least"] <= one["ms"]["p95"] for one in row["refused"].values())
    assert "10_KiB" in found["50"]  # a graph of fifty nodes has none of 500 KiB
    assert "500_KiB" not in found["100"]
    assert 9_000 < found["100"]["10_KiB"]["message_bytes"] < 11_500


def test_requests_are_about_as_long_as_is_asked_for() -> None:
    many = asking.Asking(1_000, 1_000)
    for length in admission.Sizes().texts:
        request = many.long(length)
        assert request is not None
        assert 0.95 * length < len(request.dag_json) < 1.05 * length
    assert asking.Asking(10, 50).long(500 << 10) is None


@pytest.mark.broker
def test_it_tells_what_somebody_waits_who_asks_through_a_broker(kafka_bootstrap: str, tmp_path: Path) -> None:
    rate = through.Rate(20, 0.5, 0.1, (240 << 10,), 1)
    found = through.through(kafka_bootstrap, tmp_path, 400, 1_200, rate)
    assert (found["requests"], found["known"]) == (10, 1_200)
    assert 0 < found["ms"]["least"] <= found["ms"]["p95"]
    assert found["by_length"]["240_KiB"]["nodes"] > 1_000  # more chunks than may be out at a time
    assert 0 < found["restored_mb"] <= found["process_mb"]


def test_it_tells_what_a_submission_and_a_start_take_by_the_size_of_the_graph(tmp_path: Path) -> None:
    found = standing.measure(tmp_path, SIZES)
    assert list(found) == ["50", "100", "flat"]
    for size in ("50", "100"):
        row = found[size]
        assert set(row) == {*admission.SHARES, "queues", "start_s", "starts_s", "tables_mb", "process_mb"}
        assert row["queues"] == 2 * int(size)
        assert all(row[share]["cpu_ms"]["p95"] > 0 for share in admission.SHARES)
        assert row["start_s"] > 0
    assert set(found["flat"]) == set(admission.SHARES)


def test_its_messages_are_as_large_as_it_says_and_plainly_sound() -> None:
    data = admission.message(range(200))
    assert 210_000 < len(data) < 240_000
    graph = Prescan().plain(data, 0)
    assert graph == admit(data, 0)
    assert len({one.node.node_id for one in admit(data, 0).nodes}) == 1_000
