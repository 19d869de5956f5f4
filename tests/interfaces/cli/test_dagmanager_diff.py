"""`qmtl service dagmanager diff` on an embedded log: what it tells, and that nothing but the question is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from qmtl.bootstrap import open_log
from qmtl.engine.log.port import Record
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.wire.keys import is_reserved
from qmtl.interfaces.cli import session
from tests.interfaces.cli.running import assert_one_screen, call
from tests.replay.logs import commit, row
from tests.services.graphs import crossing, strategy, submission, text

ASKED = {"dag.diff.requests", "dag.diff.chunks", "dag.diff.streams", "dag.diff.acks", "dag.admin.log"}
GRAPH = ("dag.nodes", "dag.queues", "dag.edges", "dag.sentinels", "dag.strategies", "dag.diffs", "dag.tasks")


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A log with a world, and a strategy in a file."""
    (tmp_path / "dag.json").write_bytes(text(strategy(crossing())))
    assert call(capsys, "world", "create", "w1", "--log", address(tmp_path)).code == 0
    return tmp_path


def address(place: Path) -> str:
    return f"embedded:{place / 'log'}"


def diff(place: Path, *more: str) -> list[str]:
    file = str(place / "dag.json")
    return ["service", "dagmanager", "diff", "--file", file, "--log", address(place), *more]


def graph(place: Path) -> dict[str, list[Any]]:
    with session.client(address(place)) as client:
        return {name: client.view(name).rows() for name in GRAPH}


def records(place: Path) -> dict[str, list[Record]]:
    """All that is on the log, by topic, but the markers of transactions and buckets."""
    log = open_log(address(place), read_only=True)
    try:
        return {
            name: [one for one in read_all(log, all_partitions(log, name)) if not is_reserved(one.key)]
            for name in log.topics()
        }
    finally:
        log.close()


def assert_only_asked(before: dict[str, list[Record]], after: dict[str, list[Record]]) -> None:
    """There are the topics that there were, and none of them has anything new but those of questions and answers."""
    assert list(after) == list(before)
    assert {name for name in after if after[name] != before[name]} <= ASKED


def test_from_a_diff_over_a_publication_to_a_diff(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    live = ("--world", "w1", "--domain", "live", "--json")
    shown = call(capsys, "service", "dagmanager", "context", "show", "--log", address(place))
    assert "No context was said" in shown.out
    before = records(place)
    (told,) = call(capsys, *diff(place, *live)).lines()
    assert_only_asked(before, records(place))
    assert {one["origin"] for one in told["nodes"]} == {"new"}
    assert (told["strategy_id"], told["version"], told["safe_mode"], told["may_reuse"]) == (
        "s1",
        "v1",
        "",
        True,
    )
    assert call(capsys, *publish(place)).code == 6  # no context was said, and it says none
    published = call(capsys, *publish(place, "--domain", "live"))
    (made,) = published.lines()
    assert made["sentinel_id"] == told["sentinel_id"]
    assert {one["name"]: one["topic"] for one in made["nodes"]} == {
        one["name"]: one["topic"] for one in told["nodes"]
    }
    (again,) = call(capsys, *diff(place, *live)).lines()
    before = records(place)  # by now the DAG Manager has heard of who computes what was published
    assert call(capsys, *diff(place, *live)).code == 0
    assert_only_asked(before, records(place))
    assert again["request_id"] != told["request_id"]
    assert [{**one, "origin": "new"} for one in again["nodes"]] == told["nodes"]
    assert {one["origin"] for one in again["nodes"]} == {"reused"}
    for nothing_said in (diff(place, "--world", "w1", "--json"), publish(place)):  # the log's is meant
        (told,) = call(capsys, *nothing_said).lines()
        assert told["sentinel_id"] == made["sentinel_id"]


def publish(place: Path, *more: str) -> list[str]:
    file = str(place / "dag.json")
    return ["dag", "publish", file, "--world", "w1", "--log", address(place), "--json", *more]


def test_what_is_published_for_a_backtest_of_no_state_of_the_data_is_not_deployed_and_is_once_it_names_one(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = call(capsys, *publish(place, "--domain", "backtest"))
    assert refused.code == 6
    assert "safe mode (missing_as_of)" in refused.err
    assert {name for name, rows in graph(place).items() if rows} == {"dag.diffs"}
    data = ("--domain", "backtest", "--as-of", "commit-1", "--partition", "p", "--fingerprint", "f")
    (made,) = call(capsys, *publish(place, *data)).lines()
    assert {one.sentinel_id for one in graph(place)["dag.strategies"]} == {made["sentinel_id"]}
    (told,) = call(capsys, *diff(place, "--world", "w1", *data, "--json")).lines()
    assert (told["sentinel_id"], told["safe_mode"]) == (made["sentinel_id"], "")
    (told,) = call(capsys, *diff(place, "--world", "w1", *data[:6], "--json")).lines()
    assert told["safe_mode"] == "other_context"


def test_without_a_world_the_one_of_the_logs_context_is_meant_and_where_there_is_none_it_is_safe_mode(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("QMTL_LOG", address(place))
    spelled = ("service", "dagmanager", "diff", "--file", "dag.json")
    for more in ((), ("--domain", "live")):
        shown = call(capsys, *spelled, *more)
        assert (shown.code, "--world WORLD" in shown.err) == (0, True)
        assert shown.out.splitlines()[-1].startswith("safe mode (decision_unavailable)")
    (made,) = call(capsys, *publish(place, "--domain", "live")).lines()
    shown = call(capsys, *spelled, "--json")
    (told,) = shown.lines()
    assert (shown.err, told["world_id"], told["safe_mode"]) == ("", "w1", "")
    assert told["sentinel_id"] == made["sentinel_id"]
    assert {one["origin"] for one in told["nodes"]} == {"reused"}


def test_what_waits_for_the_dag_manager_is_decided_by_a_diff_and_gets_no_topics_by_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = submission(strategy(crossing(5, 13), "s2"))
    log = open_log(address(place))
    commit(log, [row("dag.submissions", waiting)])
    log.close()
    before = records(place)
    assert call(capsys, *diff(place, "--world", "w1")).code == 0
    after = records(place)
    assert list(after) == list(before)
    decided = {"dag.context", "dag.edges", *GRAPH}
    assert {name for name in after if after[name] != before[name]} <= ASKED | decided
    assert [one.submission_id for one in graph(place)["dag.diffs"]] == [waiting.submission_id]
    assert len(graph(place)["dag.queues"]) == 5
    assert not any(one.ready for one in graph(place)["dag.queues"])


LOOKS: Final = (
    ("ping",),
    ("queue-stats",),
    ("queues", "--tag", "sma"),
    ("sentinels",),
    ("edges", "--from", "x"),
    ("history",),
    ("audit",),
    ("audit", "--otlp"),
    ("context", "show"),
    ("retention", "show"),
    ("release", "show"),
    ("diff", "--file", "dag.json"),
)


@pytest.mark.parametrize("look", LOOKS, ids=" ".join)
def test_a_log_that_nobody_has_begun_is_not_begun_by_who_only_asks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, look: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dag.json").write_bytes(text(strategy(crossing())))
    verb = ("service", "dagmanager", *look, "--log", "embedded:log")
    assert_one_screen(call(capsys, *verb), "QMTL-301", 3)
    assert not Path("log").exists()
    open_log("embedded:log").close()
    assert_one_screen(
        call(capsys, *verb), "QMTL-328", 3, says=["0 are there", "qmtl service dagmanager init"]
    )
    log = open_log("embedded:log", read_only=True)
    assert log.topics() == []
    log.close()
    assert call(capsys, "service", "dagmanager", "init", "--log", "embedded:log").code == 0
    assert "QMTL-328" not in call(capsys, *verb).err


def test_a_diff_makes_no_topic_that_a_newer_version_adds(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(address(place))
    log.delete_topics(["late.records"])
    log.close()
    before = records(place)
    assert_one_screen(call(capsys, *diff(place, "--world", "w1")), "QMTL-328", 3, says=["'late.records'"])
    assert records(place) == before
    assert call(capsys, "service", "dagmanager", "sentinels", "--log", address(place)).code == 0


def test_the_page_has_a_line_for_each_node_and_says_what_is_safe(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = call(capsys, *diff(place, "--world", "w1"))
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.startswith("strategy s1 v1: 5 of 5 nodes get a new topic\n")
    assert all(
        f"\n {name} " in shown.out or f"\n{name} " in shown.out for name in ("price", "fast", "target")
    )
    assert shown.out.splitlines()[-1].startswith("safe mode (decision_unavailable)")
    asked = call(capsys, *diff(place, "--world", "w1", "--domain", "backtest", "--as-of", "commit-1"))
    assert asked.out.splitlines()[-1].startswith("version w1:s1:v1:")


def test_what_can_not_be_asked_is_one_coded_screen(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_one_screen(
        call(capsys, *diff(place, "--world", "w1", "--domain", "prod")),
        "QMTL-602",
        6,
        says=["execution_domain", "prod"],
    )
    assert_one_screen(call(capsys, *diff(place, "--world", "w2")), "QMTL-601", 6, says=["w2"])
    (place / "dag.json").write_text(json.dumps({**strategy(crossing()), "signals": ["nothing"]}))
    assert_one_screen(call(capsys, *diff(place, "--world", "w1")), "QMTL-504", 5, says=["nothing"])
    (place / "dag.json").unlink()
    assert_one_screen(call(capsys, *diff(place, "--world", "w1")), "QMTL-500", 5, says=["dag.json"])
    assert_one_screen(call(capsys, "service", "dagmanager", "diff"), "QMTL-801", 2, says=["--file"])
