"""Given a tag query, when those that answer it come and go, then its row names them at once, and never more than a row holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    DagOutcome,
    DagSubmission,
    RedoDiff,
    ReportTopicCreated,
    RetireStrategy,
    StrategyVersion,
)
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import DAY_MS, topic
from qmtl.services.dagmanager import answers, submission
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import Node, price, sma, strategy, tag_query, target, text

NOON_MS = 1_700_000_000_000


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.tick(NOON_MS)
    yield made
    made.close()


@pytest.fixture
def two_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (answers, submission):
        monkeypatch.setattr(module, "MAX_ANSWERS", 2)


def publish(
    desk: Desk, name: str, nodes: Sequence[Node], version: str = "v1", weight: int = FULL_WEIGHT
) -> DagOutcome:
    data = text(strategy(nodes, name, version=version))
    given = f"{name}-{version}-{len(desk.rows('dag.diffs'))}"
    desk.send(DagSubmission(given, "w1", data, NOON_MS, weight, execution_domain="live"))
    desk.report_all()
    outcome: DagOutcome = desk.table("dag.diffs").get(given)
    return outcome


def come(desk: Desk, period: int) -> str:
    """A strategy whose average has the tag; returns the average's id."""
    average = sma("mean", period, tags=["alpha"])
    outcome = publish(desk, f"s{period}", [price(), average, target(source="mean")])
    assert outcome.accepted, outcome.detail
    found: str = desk.table("dag.sentinels").get(outcome.sentinel_id).node_ids[1]
    return found


def go(desk: Desk, period: int) -> None:
    desk.send(RetireStrategy(f"{period}-{len(desk.rows('dag.outcomes'))}", "w1", f"s{period}", NOON_MS))


ASKS = [tag_query(tags=("alpha",)), target(source="asked")]
ASKS_ELSE = [tag_query(tags=("alpha",), aggregate="max"), target(source="asked")]


def row_of(desk: Desk, name: str = "asks") -> StrategyVersion:
    found: StrategyVersion = desk.table("dag.strategies").get("w1", name)
    return found


def answering(desk: Desk) -> set[str]:
    (query,) = (one for one in row_of(desk).nodes if one.node_type == "tag_query")
    assert set(query.dependencies) <= {one.node_id for one in row_of(desk).found}
    return set(query.dependencies)


def crowds(desk: Desk) -> int:
    return sum(one.act is AdminAct.CROWDED for one in desk.told("dag.admin.log"))


def written(desk: Desk) -> list[Any]:
    """The strategies whose rows a transaction writes."""
    spec = topic("dag.strategies")
    keys = {encode_key(spec.key_of(one)): one.strategy_id for one in desk.rows("dag.strategies")}
    return [keys[key] for keys_ in desk.seal() for key in keys_ if key in keys]


def test_a_row_is_written_where_an_answer_comes_or_goes_and_nowhere_else(desk: Desk) -> None:
    first = come(desk, 1)
    publish(desk, "asks", ASKS)
    assert answering(desk) == {first}
    publish(desk, "other", [price(), sma("mean", 9), target(source="mean")])
    written(desk)
    publish(desk, "other", [price(), sma("mean", 8), target(source="mean")], "v2")
    assert written(desk) == ["other"]
    second = come(desk, 2)
    assert sorted(written(desk)) == ["asks", "s2"]
    assert answering(desk) == {first, second}
    go(desk, 1)
    assert sorted(written(desk)) == ["asks", "s1"]
    assert answering(desk) == {second}


def test_a_query_and_what_is_computed_from_one_answer_none(desk: Desk) -> None:
    first = come(desk, 1)
    after = sma("after", 3, "asked", tags=["alpha"])
    ends = target(source="after", tags=["alpha"])
    assert publish(desk, "asks", [tag_query(tags=("alpha",), own_tags=["alpha"]), after, ends]).accepted
    assert answering(desk) == {first}
    desk.again()
    second = come(desk, 2)
    assert answering(desk) == {first, second}


def test_what_waits_for_its_topic_answers_nothing_yet(desk: Desk) -> None:
    publish(desk, "asks", ASKS)
    data = text(strategy([price(), sma("mean", 3, tags=["alpha"]), target(source="mean")], "late"))
    desk.send(DagSubmission("late", "w1", data, NOON_MS, execution_domain="live"))
    assert answering(desk) == set()
    desk.report_all()
    assert len(answering(desk)) == 1


@pytest.mark.usefixtures("two_at_most")
def test_a_query_with_too_many_answers_is_refused_and_one_that_gets_them_keeps_those_it_had(
    desk: Desk,
) -> None:
    had = {come(desk, 1), come(desk, 2)}
    assert publish(desk, "asks", ASKS).accepted
    before = row_of(desk)
    for period in (3, 4):
        come(desk, period)
        desk.again()
        assert answering(desk) == had
        assert crowds(desk) == 1
        assert row_of(desk).crowded == (before.nodes[0].node_id,)
    refused = publish(desk, "more", ASKS)
    assert (refused.accepted, refused.code) == (False, "QMTL-511")
    assert "to which 4 nodes answer" in refused.detail
    go(desk, 1)
    assert answering(desk) == had  # nobody's any more, and still the last set that there was
    go(desk, 2)
    assert (answering(desk) & had, row_of(desk).crowded) == (set(), ())
    come(desk, 5)
    assert crowds(desk) == 2


@pytest.mark.usefixtures("two_at_most")
def test_a_version_that_takes_over_among_too_many_has_the_answers_of_its_strategys_row_or_none(
    desk: Desk,
) -> None:
    had = {come(desk, 1), come(desk, 2)}
    publish(desk, "asks", ASKS)
    waits = DagSubmission("waits", "w1", text(strategy(ASKS_ELSE, "waits")), NOON_MS, execution_domain="live")
    desk.send(waits)
    newer = [ASKS[0], target(source="asked", share=0.2)]
    desk.send(
        DagSubmission(
            "v2", "w1", text(strategy(newer, "asks", version="v2")), NOON_MS, execution_domain="live"
        )
    )
    data = text(strategy([price(), sma("mean", 3, tags=["alpha"]), target(source="mean")], "s3"))
    desk.send(DagSubmission("s3", "w1", data, NOON_MS, execution_domain="live"))
    (third,) = (one for one in desk.rows("dag.sentinels") if one.strategy_id == "s3")
    for task in desk.rows("dag.tasks"):
        if desk.table("dag.queues").get(task.topic).node_id in third.node_ids:
            desk.send(ReportTopicCreated(task.topic, True, "", ""))
    desk.report_all()
    assert answering(desk) == had
    assert (row_of(desk, "waits").nodes[0].dependencies, row_of(desk, "waits").found) == ((), ())
    assert row_of(desk, "waits").crowded == (row_of(desk, "waits").nodes[0].node_id,)
    assert row_of(desk).version == "v2"
    assert crowds(desk) == 2  # of each strategy once, however often its row is written
    desk.send(RedoDiff("again", row_of(desk).sentinel_id, "v3", NOON_MS))
    assert "QMTL-511" in desk.table("dag.outcomes").get("again").detail  # as if it were published today


def test_a_query_whose_answers_are_too_long_for_a_row_keeps_those_it_had_and_none_is_begun(
    desk: Desk,
) -> None:
    had: set[str] = set()
    for at in range(4):
        if at == 3:
            assert publish(desk, "asks", ASKS).accepted
            had = answering(desk)
        long = [f"S{at}-{number}-{'x' * 190}" for number in range(1_500)]
        source = price(symbols=long, tags=["alpha"])
        assert publish(desk, f"long{at}", [source, target(source="price")]).accepted
    assert len(had) == 3
    assert answering(desk) == had
    assert crowds(desk) == 1
    refused = publish(desk, "more", ASKS_ELSE)
    assert (refused.accepted, refused.code) == (False, "QMTL-501")


def test_a_topic_that_a_slow_shard_still_reads_for_a_query_is_not_collected(desk: Desk) -> None:
    node_id = come(desk, 1)
    publish(desk, "asks", ASKS)
    desk.send(NodeDeployment(3, row_of(desk)))
    go(desk, 1)
    assert answering(desk) == set()
    for days in (1, 400):
        desk.tick(NOON_MS + days * DAY_MS)
    assert [one.removing for one in desk.rows("dag.queues") if one.node_id == node_id] == [False]
    desk.send(NodeDeployment(3, row_of(desk)))
    desk.tick(NOON_MS + 401 * DAY_MS)
    desk.archive_all()
    assert [one.removing for one in desk.rows("dag.queues") if one.node_id == node_id] == [True]
