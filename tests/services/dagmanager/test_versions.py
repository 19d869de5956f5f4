"""Given a strategy with versions, when traffic is moved, then who has what, who is told, and what is left to go back to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from qmtl.foundation.common.errors import CommandRefused, RolloutActive
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    DagCommand,
    DagOutcome,
    DagSubmission,
    RedoDiff,
    ReportTopicCreated,
    RetireStrategy,
    RollBack,
    SentinelStatus,
    SetTrafficWeight,
    StrategyStatus,
    VersionSentinel,
)
from qmtl.services.dagmanager import graph
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import crossing, strategy, submission, target, text

NOON_MS = 1_700_000_000_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.tick(NOON_MS)
    yield made
    made.close()


def publish(
    desk: Desk, slow: int, *, weight: int = FULL_WEIGHT, strategy_id: str = "s1", at: int = 0
) -> VersionSentinel:
    """Publish a strategy that differs by its slow average, and make its topics."""
    one = submission(strategy(crossing(3, slow), strategy_id, version=f"v{slow}"))
    name = f"{one.submission_id}-{at}"
    desk.send(DagSubmission(name, "w1", one.dag_json, NOON_MS, weight, execution_domain="live"))
    desk.report_all()
    outcome = desk.table("dag.diffs").get(name)
    assert outcome.accepted, outcome.detail
    found: VersionSentinel = desk.table("dag.sentinels").get(outcome.sentinel_id)
    return found


def shares(desk: Desk, strategy_id: str = "s1") -> dict[str, int]:
    """The traffic of each version, as whoever computes sees it."""
    row = desk.table("dag.strategies").get("w1", strategy_id)
    canary = row.canary.traffic_weight if row.canary is not None else 0
    out = {row.version: FULL_WEIGHT - canary}
    return out | ({row.canary.version: canary} if row.canary is not None else {})


def status(desk: Desk) -> dict[str, SentinelStatus]:
    return {row.version: row.status for row in desk.rows("dag.sentinels")}


def command(desk: Desk, message: DagCommand) -> Any:
    desk.send(message)
    return desk.table("dag.outcomes").get(message.command_id)


# ---- a canary ------------------------------------------------------------------------------------------------------


def test_a_canary_has_its_part_and_is_stepped_up_to_all(desk: Desk) -> None:
    publish(desk, 8)
    canary = publish(desk, 21, weight=1000)
    assert shares(desk) == {"v8": 9000, "v21": 1000}
    for weight in (5000, FULL_WEIGHT):
        outcome = command(desk, SetTrafficWeight(f"to-{weight}", canary.sentinel_id, weight, NOON_MS))
        assert (outcome.accepted, outcome.code) == (True, "")
        left = FULL_WEIGHT - weight
        assert shares(desk) == ({"v8": left} if left else {}) | {"v21": weight}
    assert status(desk) == {"v8": SentinelStatus.RETIRED, "v21": SentinelStatus.ACTIVE}
    told = [(one.version, one.traffic_weight) for one in desk.told("sentinel_weight")]
    steps = [("v8", 10_000), ("v8", 9000), ("v21", 1000), ("v8", 5000), ("v21", 5000)]
    assert told == [*steps, ("v21", 10_000), ("v8", 0)]
    assert len({one.etag for one in desk.told("sentinel_weight")}) == len(told)


def test_the_plan_has_the_nodes_of_both_and_each_keeps_its_signals(desk: Desk) -> None:
    stable = publish(desk, 8)
    canary = publish(desk, 21, weight=1000)
    row = desk.table("dag.strategies").get("w1", "s1")
    ids = [one.node_id for one in row.nodes]
    assert set(ids) == {*stable.node_ids, *canary.node_ids}
    assert len(set(ids)) == len(ids) == 8
    assert (row.signals, row.canary.signals) == (stable.signals, canary.signals)


@pytest.mark.parametrize("weight", [0, FULL_WEIGHT])
def test_the_weight_of_the_stable_one_is_what_the_canary_leaves(desk: Desk, weight: int) -> None:
    stable = publish(desk, 8)
    publish(desk, 21, weight=1000)
    command(desk, SetTrafficWeight("c", stable.sentinel_id, weight, NOON_MS))
    assert shares(desk) == {"v8" if weight else "v21": FULL_WEIGHT}


def test_a_first_version_has_all_whatever_it_asked_for(desk: Desk) -> None:
    publish(desk, 8, weight=1000)
    assert shares(desk) == {"v8": FULL_WEIGHT}


def test_a_second_canary_is_refused_and_a_full_version_takes_the_place_of_both(desk: Desk) -> None:
    publish(desk, 8)
    publish(desk, 21, weight=1000)
    one = submission(strategy(crossing(3, 30), version="v30"))
    desk.send(DagSubmission("third", "w1", one.dag_json, NOON_MS, 2000, execution_domain="live"))
    outcome = desk.table("dag.diffs").get("third")
    assert (outcome.accepted, outcome.code) == (False, RolloutActive.code)
    assert "w1:s1:v21:" in outcome.detail
    publish(desk, 30)
    assert shares(desk) == {"v30": FULL_WEIGHT}
    assert status(desk)["v8"] is status(desk)["v21"] is SentinelStatus.RETIRED


@pytest.mark.parametrize("weight", [0, -1, FULL_WEIGHT + 1])
def test_a_submission_with_a_weight_that_is_none_is_refused(desk: Desk, weight: int) -> None:
    one = submission(strategy(crossing()))
    desk.send(DagSubmission("odd", "w1", one.dag_json, NOON_MS, weight, execution_domain="live"))
    outcome = desk.table("dag.diffs").get("odd")
    assert (outcome.accepted, outcome.code) == (False, "QMTL-500")
    assert "weight_bp" in outcome.detail
    assert desk.rows("dag.nodes") == []


def test_what_the_graph_refuses_and_what_the_message_lacks_is_told_at_once(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = {"path": "s3://models/one", "checksum": "blake3:" + "1" * 64, "size": 7}
    publish(desk, 8)
    using = [one | ({"artifacts": ["m"]} if one["name"] == "slow" else {}) for one in crossing(3, 21)]
    canary = strategy(using, version="v21") | {"artifacts": [file | {"name": "m"}]}
    desk.send(DagSubmission("canary", "w1", text(canary), NOON_MS, 1000, execution_domain="live"))
    desk.report_all()
    before = desk.all_rows()

    def refusals(nodes: list[Any], weight: int) -> list[str]:
        asked = strategy(nodes, version="v30") | {"artifacts": [file | {"size": 8}]}
        one = DagSubmission(f"odd-{weight}", "w1", text(asked), NOON_MS, weight, execution_domain="live")
        desk.send(one)
        found: DagOutcome = desk.table("dag.diffs").get(one.submission_id)
        assert not found.accepted
        now = desk.all_rows()
        assert {name for name in now if now[name] != before[name]} == {"dag.diffs"}
        return [" ".join(line.split(" ")[:2]) for line in found.detail.splitlines()]

    monkeypatch.setattr("qmtl.services.dagmanager.submission.MAX_TAGGED", 0)
    of_graph = refusals(crossing(3, 30), 2000)
    monkeypatch.undo()
    assert of_graph[:2] == ["[QMTL-510] weight_bp", "[QMTL-500] artifacts[0].size"]
    assert set(of_graph[2:]) == {"[QMTL-511] nodes"}
    assert refusals([*crossing(3, 30), target(source="nobody")], 0)[0] == "[QMTL-500] weight_bp"
    assert len(refusals([*crossing(3, 30), target(source="nobody")], -1)) > 1


# ---- back, and out ---------------------------------------------------------------------------------------------------


def test_a_rollback_is_one_row_and_needs_no_topic(desk: Desk) -> None:
    first = publish(desk, 8)
    publish(desk, 21)
    tasks, rows = desk.rows("dag.tasks"), desk.rows("dag.queues")
    outcome = command(desk, RollBack("back", first.sentinel_id, NOON_MS))
    assert outcome.accepted
    assert shares(desk) == {"v8": FULL_WEIGHT}
    assert status(desk) == {"v8": SentinelStatus.ACTIVE, "v21": SentinelStatus.RETIRED}
    assert (desk.rows("dag.tasks"), desk.rows("dag.queues")) == (tasks, rows)


def test_a_version_that_waits_for_its_topics_leaves_the_traffic_to_the_one_before(desk: Desk) -> None:
    publish(desk, 8)
    one = submission(strategy(crossing(3, 21), version="v21"))
    desk.send(DagSubmission("next", "w1", one.dag_json, NOON_MS, execution_domain="live"))
    assert shares(desk) == {"v8": FULL_WEIGHT}
    assert status(desk) == {"v8": SentinelStatus.ACTIVE, "v21": SentinelStatus.PENDING}
    desk.report_all()
    assert shares(desk) == {"v21": FULL_WEIGHT}


def test_the_newest_submission_wins_in_whatever_order_the_topics_come(desk: Desk) -> None:
    publish(desk, 8)
    for slow in (21, 30):
        one = submission(strategy(crossing(3, slow), version=f"v{slow}"))
        desk.send(DagSubmission(f"to-{slow}", "w1", one.dag_json, NOON_MS, execution_domain="live"))
    for row in reversed(desk.rows("dag.tasks")):
        desk.send(ReportTopicCreated(row.topic, True, "", ""))
    assert shares(desk) == {"v30": FULL_WEIGHT}
    assert status(desk)["v21"] is SentinelStatus.RETIRED


def test_a_strategy_that_is_taken_out_has_no_nodes_and_can_be_published_again(desk: Desk) -> None:
    publish(desk, 8)
    assert command(desk, RetireStrategy("out", "w1", "s1", NOON_MS)).accepted
    row = desk.table("dag.strategies").get("w1", "s1")
    assert (row.status, row.nodes, row.signals) == (StrategyStatus.RETIRED, (), ())
    assert status(desk) == {"v8": SentinelStatus.RETIRED}
    publish(desk, 8, at=1)
    assert shares(desk) == {"v8": FULL_WEIGHT}


@pytest.mark.parametrize(("known", "now"), [("_CODE", "blake3:" + "1" * 64), ("COMPAT", "qmtl.sma.v2")])
def test_a_version_done_anew_has_the_code_and_the_formats_of_today_and_takes_over_once_its_topics_are_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, known: str, now: str
) -> None:
    before = publish(desk, 8)
    newer = {**getattr(graph, known), "sma": now}
    monkeypatch.setattr(graph, known, newer)  # a release in which the average, or what it writes, is another
    outcome = command(desk, RedoDiff("hotfix", before.sentinel_id, "v8-hotfix", NOON_MS))
    assert outcome.accepted
    assert "4 new nodes" in outcome.detail
    assert shares(desk) == {"v8": FULL_WEIGHT}
    desk.report_all()
    assert shares(desk) == {"v8-hotfix": FULL_WEIGHT}
    row = desk.table("dag.strategies").get("w1", "s1")
    assert sum(one.topic.endswith("_v8-hotfix") for one in row.nodes) == 4
    assert [one.name for one in row.nodes] == ["price", "fast", "slow", "cross", "target"]


def test_a_version_done_anew_with_the_same_code_shares_all_nodes(desk: Desk) -> None:
    before = publish(desk, 8)
    command(desk, RedoDiff("again", before.sentinel_id, "v9", NOON_MS))
    row = desk.table("dag.strategies").get("w1", "s1")
    assert (row.version, [one.node_id for one in row.nodes]) == ("v9", list(before.node_ids))


# ---- the newest word wins ------------------------------------------------------------------------------------------


def announce(desk: Desk, slow: int, name: str, weight: int = FULL_WEIGHT) -> str:
    """Publish a strategy without making its topics; returns the version's id."""
    one = submission(strategy(crossing(3, slow), version=f"v{slow}"))
    desk.send(DagSubmission(name, "w1", one.dag_json, NOON_MS, weight, execution_domain="live"))
    outcome = desk.table("dag.diffs").get(name)
    assert outcome.accepted, outcome.detail
    found: str = outcome.sentinel_id
    return found


Word: TypeAlias = Callable[[Desk, str], object]
"""What may be said of an active version."""


def roll_back(desk: Desk, sentinel_id: str) -> object:
    return command(desk, RollBack("word", sentinel_id, NOON_MS))


def give_all(desk: Desk, sentinel_id: str) -> object:
    return command(desk, SetTrafficWeight("word", sentinel_id, FULL_WEIGHT, NOON_MS))


def publish_again(desk: Desk, sentinel_id: str) -> object:
    slow = int(desk.table("dag.sentinels").get(sentinel_id).version.removeprefix("v"))
    return announce(desk, slow, "word")


@pytest.mark.parametrize("word", [roll_back, give_all, publish_again])
@pytest.mark.parametrize("chosen", ["stable", "stable with a canary", "canary"])
def test_an_active_version_that_is_to_have_all_has_it_and_what_is_on_its_way_comes_no_more(
    desk: Desk, word: Word, chosen: str
) -> None:
    stable = publish(desk, 8)
    canary = publish(desk, 21, weight=1000) if "canary" in chosen else None
    mine = canary if chosen == "canary" and canary is not None else stable
    announce(desk, 30, "next")
    word(desk, mine.sentinel_id)
    assert shares(desk) == {mine.version: FULL_WEIGHT}
    desk.report_all()
    assert shares(desk) == {mine.version: FULL_WEIGHT}
    left = {name for name, now in status(desk).items() if now is not SentinelStatus.RETIRED}
    assert left == {mine.version}


@pytest.mark.parametrize("weight", [0, 2000])
def test_a_step_of_a_canary_is_no_word_on_what_is_on_its_way(desk: Desk, weight: int) -> None:
    publish(desk, 8)
    canary = publish(desk, 21, weight=1000)
    announce(desk, 30, "next")
    command(desk, SetTrafficWeight("step", canary.sentinel_id, weight, NOON_MS))
    desk.report_all()
    assert shares(desk) == {"v30": FULL_WEIGHT}


@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("weight", [500, 5000, FULL_WEIGHT])
def test_a_canary_that_is_published_again_gets_the_share_that_is_said_last(
    desk: Desk, ready: bool, weight: int
) -> None:
    publish(desk, 8)
    announce(desk, 21, "first", 1000)
    if ready:
        desk.report_all()
    announce(desk, 21, "again", weight)
    desk.report_all()
    left = FULL_WEIGHT - weight
    assert shares(desk) == ({"v8": left} if left else {}) | {"v21": weight}


# ---- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message, says",
    [
        (SetTrafficWeight("c", "nobody", 1000, NOON_MS), "no version has that id"),
        (SetTrafficWeight("c", "{stable}", -1, NOON_MS), "basis points from 0 to 10000"),
        (SetTrafficWeight("c", "{stable}", FULL_WEIGHT + 1, NOON_MS), "basis points from 0 to 10000"),
        (SetTrafficWeight("c", "{stable}", 0, NOON_MS), "the only one of its strategy"),
        (SetTrafficWeight("c", "{retired}", 1000, NOON_MS), "is retired"),
        (RollBack("c", "nobody", NOON_MS), "no version has that id"),
        (RedoDiff("c", "nobody", "v2", NOON_MS), "no version has that id"),
        (RedoDiff("c", "{stable}", "no such name!", NOON_MS), "QMTL-508"),
        (RetireStrategy("c", "w1", "nobody", NOON_MS), "not deployed"),
        (RetireStrategy("c", "nowhere", "s1", NOON_MS), "not deployed"),
    ],
)
def test_a_command_that_can_not_be_is_refused_and_does_nothing(
    desk: Desk, message: DagCommand, says: str
) -> None:
    retired = publish(desk, 8)
    stable = publish(desk, 21)
    known = {"{stable}": stable.sentinel_id, "{retired}": retired.sentinel_id}
    facts = {name: getattr(message, name) for name in message.__slots__}
    if "sentinel_id" in facts:
        facts["sentinel_id"] = known.get(facts["sentinel_id"], facts["sentinel_id"])
    kept = ("dag.outcomes", "dag.diffs")
    before = {name: rows for name, rows in desk.all_rows().items() if name not in kept}
    outcome = command(desk, type(message)(**facts))
    assert (outcome.accepted, outcome.code) == (False, CommandRefused.code)
    assert says in outcome.detail
    assert {name: rows for name, rows in desk.all_rows().items() if name not in kept} == before
    (entry,) = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.COMMANDED]
    assert entry.subject == "c"
