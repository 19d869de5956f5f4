"""The laws of the DAG Manager: one decision per submission, one node per content, one topic per node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import DagTooLarge
from qmtl.foundation.contracts.context import SetComputeContext
from qmtl.foundation.contracts.dag import (
    DagSubmission,
    Queue,
    QueueUpdated,
    Relation,
    ReportTopicCreated,
    RetireStrategy,
    SentinelStatus,
    StrategyStatus,
    TopicClass,
)
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.foundation.wire.keys import encode_key, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.processor import DagManager
from qmtl.services.dagmanager.raw import MAX_BYTES
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0, cross, crossing, price, sma, strategy, submission, tag_query, target


@contextmanager
def a_desk() -> Iterator[Desk]:
    with TemporaryDirectory() as name:
        made = Desk(Path(name))
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as made:
        yield made


GOOD = [
    submission(strategy(crossing(3, 8))),
    submission(strategy(crossing(3, 21), "s2")),
    submission(strategy(crossing(3, 8), "s1"), "w2"),
    submission(strategy(crossing(5, 8), "s1", version="v2")),
]
BAD = [
    submission(strategy([price(), sma("a", 3, "b"), sma("b", 3, "a"), target(source="a")])),
    submission(b"no json"),
]


# ---- one decision per submission ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([*GOOD, *BAD]), min_size=1, max_size=6), st.data())
def test_a_submission_sent_twice_decides_nothing_more(sent: list[DagSubmission], data: st.DataObject) -> None:
    once = list(dict.fromkeys(sent))
    again = list(once)
    for one in data.draw(st.lists(st.sampled_from(once), max_size=4)):
        again.insert(data.draw(st.integers(again.index(one) + 1, len(again))), one)
    with a_desk() as plain, a_desk() as repeated:
        plain.send(*once)
        repeated.send(*again)
        assert plain.all_rows() == repeated.all_rows()
        assert plain.emitted == repeated.emitted


def test_a_repetition_after_deployment_leaves_the_strategy_ready(desk: Desk) -> None:
    desk.send(GOOD[0])
    desk.report_all()
    before, emitted = desk.all_rows(), list(desk.emitted)
    desk.send(GOOD[0])
    assert desk.all_rows() == before
    assert desk.emitted == emitted


@pytest.mark.parametrize("bad, code", [(BAD[0], "QMTL-502"), (BAD[1], "QMTL-500")])
def test_a_refusal_is_an_outcome_with_its_note_and_nothing_else(
    desk: Desk, bad: DagSubmission, code: str
) -> None:
    desk.send(bad)
    (outcome,) = desk.rows("dag.diffs")
    assert (outcome.submission_id, outcome.accepted, outcome.code) == (bad.submission_id, False, code)
    assert outcome.detail
    assert {name for name, rows in desk.all_rows().items() if rows} == {"dag.diffs"}
    assert {topic for topic, _ in desk.emitted} == {"dag.admin.log"}


def chain(size: int) -> DagSubmission:
    """A strategy of so many averages, each of the one before, in as few bytes as may be."""
    averages = [sma(f"n{at}", 2, f"n{at - 1}") for at in range(1, size)]
    nodes = [price("n0"), *averages, target(source=f"n{size - 1}")]
    return submission(
        strategy([{key: value for key, value in one.items() if key != "tags"} for one in nodes], "long")
    )


def test_a_chain_within_all_bounds_whose_plan_no_row_holds_is_refused_and_the_next_is_handled(
    desk: Desk,
) -> None:
    long = chain(6_500)
    assert len(long.dag_json) < MAX_BYTES
    desk.send(long)
    (outcome,) = desk.rows("dag.diffs")
    assert (outcome.submission_id, outcome.accepted, outcome.code) == (
        long.submission_id,
        False,
        DagTooLarge.code,
    )
    assert "nodes" in outcome.detail
    assert str(MAX_VALUE_BYTES) in outcome.detail
    assert {name for name, rows in desk.all_rows().items() if rows} == {"dag.diffs"}
    desk.send(long, GOOD[0])
    assert desk.table("dag.diffs").get(GOOD[0].submission_id).accepted


def test_the_dag_manager_outlives_a_plan_that_no_row_holds(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    log.ensure_topics(CATALOGUE)
    writer = log.writer("people")
    writer.begin()
    for one in (chain(6_500), GOOD[0]):
        writer.append("dag.submissions", 0, encode_key((one.submission_id,)), codec.encode(one))
    writer.commit({}, "", None)
    for _ in range(2):
        worker = Worker(log, DagManager, codec, TaskSettings(tmp_path / "state"))
        while worker.step():
            pass
        worker.close()
    told = [one for one in read_all(log, all_partitions(log, "dag.diffs")) if not is_reserved(one.key)]
    assert [codec.decode(one.value or b"").code for one in told] == [DagTooLarge.code, ""]
    assert not list(read_all(log, all_partitions(log, "dead.letters")))
    log.close()


# ---- one node per content ------------------------------------------------------------------------------------------


def test_a_second_strategy_reuses_the_nodes_that_exist_with_their_topics(desk: Desk) -> None:
    desk.send(GOOD[0])
    desk.report_all()
    first = desk.table("dag.strategies").get("w1", "s1")
    asked = desk.rows("dag.tasks")
    desk.send(GOOD[1])
    desk.report_all()
    second = desk.table("dag.strategies").get("w1", "s2")
    outcome = desk.table("dag.diffs").get(GOOD[1].submission_id)
    shared = {"price", "fast"}
    for name in shared:
        (one,) = [node for node in first.nodes if node.name == name]
        (other,) = [node for node in second.nodes if node.name == name]
        assert (other.node_id, other.topic, other.partitions) == (one.node_id, one.topic, one.partitions)
    assert {node.name for node in second.nodes if node.reused} == shared
    assert not any(node.reused for node in first.nodes)
    assert set(outcome.reused_nodes) == {node.node_id for node in first.nodes if node.name in shared}
    assert set(outcome.new_nodes) == {node.node_id for node in second.nodes if node.name not in shared}
    assert len(desk.rows("dag.tasks")) == len(asked) + 3
    assert len(desk.rows("dag.nodes")) == len(desk.rows("dag.queues")) == 8


def test_where_worlds_share_the_same_strategy_in_another_one_needs_no_new_node_and_is_ready_at_once(
    desk: Desk,
) -> None:
    desk.send(SetComputeContext("share", "", "live", T0, shared_worlds=True), GOOD[0])
    desk.report_all()
    desk.send(GOOD[2])
    outcome = desk.table("dag.diffs").get(GOOD[2].submission_id)
    assert (outcome.new_nodes, len(outcome.reused_nodes)) == ((), 5)
    assert desk.table("dag.strategies").get("w2", "s1").status is StrategyStatus.READY
    assert len(desk.rows("dag.sentinels")) == 2


def test_a_node_is_written_once_and_keeps_its_first_tags_and_time(desk: Desk) -> None:
    desk.send(GOOD[0])
    before = desk.rows("dag.nodes")
    retagged = [{**one, "tags": ["other"]} for one in crossing(3, 8)]
    desk.send(submission(strategy(retagged, "s3"), at_ms=T0 + 1))
    assert desk.rows("dag.nodes") == before


def test_every_node_emits_to_one_topic_and_every_version_has_the_nodes_that_it_brought(desk: Desk) -> None:
    desk.send(*GOOD)
    edges = desk.rows("dag.edges")
    emits = {edge.source: edge.target for edge in edges if edge.relation is Relation.EMITS}
    assert emits == {queue.node_id: queue.topic for queue in desk.rows("dag.queues")}
    assert set(emits) == {node.node_id for node in desk.rows("dag.nodes")}
    for sentinel in desk.rows("dag.sentinels"):
        has = {edge.target for edge in edges if edge.source == sentinel.sentinel_id}
        brought = {node.node_id for node in desk.rows("dag.nodes") if node.owner == sentinel.sentinel_id}
        assert has == brought <= set(sentinel.node_ids)


def test_upload_order_gives_the_same_version_of_a_strategy(desk: Desk) -> None:
    desk.send(submission(strategy(crossing())))
    desk.send(submission(strategy(list(reversed(crossing())))))
    assert len(desk.rows("dag.sentinels")) == 1
    assert len(desk.rows("dag.diffs")) == 2


# ---- names -----------------------------------------------------------------------------------------------------------


def test_a_name_that_another_node_has_grows_by_two_characters(desk: Desk) -> None:
    with a_desk() as other:
        other.send(GOOD[0])
        (known,) = [row for row in other.rows("dag.queues") if "_price_" in row.topic]
    taken = replace(known, node_id="blake3:" + "f" * 64)
    desk.table("dag.queues").put(taken)
    desk.again()
    desk.send(GOOD[0])
    (grown,) = [row for row in desk.rows("dag.queues") if row.node_id == known.node_id]
    digest = known.node_id.removeprefix("blake3:")
    assert known.topic == f"btc-usd_price_{digest[:8]}_v1"
    assert grown.topic == f"btc-usd_price_{digest[:10]}_v1"
    assert desk.table("dag.queues").get(taken.topic) == taken


def test_a_topic_is_named_by_what_its_sources_read_and_one_that_is_there_keeps_its_name(desk: Desk) -> None:
    """Whatever the tags are, and whichever nodes were there before."""
    desk.send(submission(strategy(crossing(symbols=["ETH-USD", "BTC-USD"]))))
    first = [row.topic for row in desk.rows("dag.queues")]
    assert {one.split("_")[0] for one in first} == {"btc-usd"}
    named = replace(desk.rows("dag.queues")[0], topic="crypto_sma_01234567_v0")
    desk.table("dag.queues").delete(first[0])
    desk.table("dag.queues").put(named)
    desk.again()
    more = sma("third", 13, tags=["average"])
    ask = tag_query("ask", ["sma"], own_tags=["basket"])
    desk.send(submission(strategy([*crossing(symbols=["ETH-USD", "BTC-USD"]), more, ask], version="v2")))
    topics = {row.topic for row in desk.rows("dag.queues")}
    assert {*first[1:], named.topic} <= topics
    (new,) = [one for one in topics - {*first, named.topic} if "_sma_" in one]
    (asking,) = [one for one in topics if "_tag-query_" in one]
    assert (new.split("_")[0], asking.split("_")[0]) == ("btc-usd", "basket")


def test_sources_get_the_topics_of_raw_data_and_the_others_those_of_indicators(desk: Desk) -> None:
    desk.send(GOOD[0])
    queues: list[Queue] = desk.rows("dag.queues")
    kinds = {row.topic.split("_")[1]: (row.topic_class, row.partitions, row.ready) for row in queues}
    assert kinds == {
        "price": (TopicClass.RAW, 3, False),
        "sma": (TopicClass.INDICATOR, 1, False),
        "cross": (TopicClass.INDICATOR, 1, False),
        "position-target": (TopicClass.INDICATOR, 1, False),
    }
    tasks = desk.rows("dag.tasks")
    assert {row.topic for row in tasks} == {row.topic for row in queues}
    assert {row.topic_class: (row.partitions, row.replication, row.config) for row in tasks} == {
        TopicClass.RAW: (3, 3, {"cleanup.policy": "delete", "retention.ms": "604800000"}),
        TopicClass.INDICATOR: (1, 2, {"cleanup.policy": "delete", "retention.ms": "2592000000"}),
    }


# ---- topics come, or do not -------------------------------------------------------------------------------------------


def made(topic: str) -> ReportTopicCreated:
    return ReportTopicCreated(topic, True, "", "")


def test_a_strategy_is_ready_when_its_last_topic_is_there_in_whatever_order_they_come(desk: Desk) -> None:
    nodes = [price(), sma("fast", 3), target(source="fast")]
    sent = submission(strategy(nodes))
    ends = []
    with a_desk() as first:
        first.send(sent)
        topics = [row.topic for row in first.rows("dag.tasks")]
    for order in permutations(topics):
        with a_desk() as one:
            one.send(sent)
            for topic in order[:-1]:
                one.send(made(topic))
                (sentinel,) = one.rows("dag.sentinels")
                assert sentinel.status is SentinelStatus.PENDING
                assert one.rows("dag.strategies") == []
            one.send(made(order[-1]))
            assert one.table("dag.strategies").get("w1", "s1").status is StrategyStatus.READY
            ends.append((one.all_rows(), {message.queues for message in one.told("queue")}))
    assert len(ends) == 6
    assert all(end == ends[0] for end in ends)


def test_a_deployment_tells_the_full_set_of_queues_per_tags_and_interval(desk: Desk) -> None:
    desk.send(GOOD[0])
    desk.report_all()
    told: dict[tuple[str, ...], QueueUpdated] = {message.tags: message for message in desk.told("queue")}
    tagged = [row for row in desk.rows("dag.queues") if row.tags]
    topics: dict[tuple[str, ...], list[str]] = {row.tags: [] for row in tagged}
    for row in tagged:
        topics[row.tags].append(row.topic)
    assert {tags: list(message.queues) for tags, message in told.items()} == topics
    sma_told = told["crypto", "sma"]
    assert (sma_told.type, sma_told.etag, sma_told.ts) == (
        "QueueUpdated",
        "q:crypto.sma:60:2",
        "1970-01-01T00:00:00Z",
    )
    assert len({message.etag for message in desk.told("queue")}) == len(desk.told("queue"))


def test_a_topic_that_could_not_be_made_fails_the_strategies_that_wait_for_it_and_no_other(
    desk: Desk,
) -> None:
    desk.send(GOOD[0])
    desk.report_all()
    desk.send(GOOD[1], submission(strategy([price(), sma("fast", 3), target(source="fast")], "s3")))
    ids = {one.name: one.node.node_id for one in admit(GOOD[1].dag_json, 0).nodes}
    slow = next(row.topic for row in desk.rows("dag.queues") if row.node_id == ids["slow"])
    desk.send(ReportTopicCreated(slow, False, "QMTL-303", "another configuration"))
    status = {row.strategy_id: row.status for row in desk.rows("dag.sentinels")}
    assert status == {
        "s1": SentinelStatus.ACTIVE,
        "s2": SentinelStatus.FAILED,
        "s3": SentinelStatus.PENDING,
    }
    desk.report_all()
    status = {row.strategy_id: row.status for row in desk.rows("dag.sentinels")}
    assert (status["s2"], status["s3"]) == (SentinelStatus.FAILED, SentinelStatus.ACTIVE)
    assert {row.strategy_id for row in desk.rows("dag.strategies")} == {"s1", "s3"}


@pytest.mark.parametrize("created", [True, False])
def test_a_report_that_comes_again_or_of_an_unknown_topic_changes_nothing(desk: Desk, created: bool) -> None:
    desk.send(GOOD[0])
    desk.report_all()
    before, emitted = desk.all_rows(), list(desk.emitted)
    for topic in (desk.rows("dag.tasks")[0].topic, "nobody_asked_00000000_v1"):
        desk.send(ReportTopicCreated(topic, created, "", ""))
    assert desk.all_rows() == before
    assert desk.emitted == emitted


def test_a_new_version_replaces_the_plan_and_keeps_the_versions_before_it(desk: Desk) -> None:
    desk.send(GOOD[0])
    desk.report_all()
    desk.send(GOOD[3])
    assert desk.table("dag.strategies").get("w1", "s1").version == "v1"
    desk.report_all()
    row = desk.table("dag.strategies").get("w1", "s1")
    assert (row.version, row.submission_id) == ("v2", GOOD[3].submission_id)
    assert {one.version for one in desk.rows("dag.sentinels")} == {"v1", "v2"}


def test_one_node_under_two_names_is_planned_twice_and_made_once(desk: Desk) -> None:
    nodes = [price(), sma("a", 3), sma("b", 3), cross(fast="a", slow="b"), target()]
    desk.send(submission(strategy(nodes)))
    desk.report_all()
    assert [node.name for node in desk.table("dag.strategies").get("w1", "s1").nodes][:3] == [
        "price",
        "a",
        "b",
    ]
    assert len(desk.rows("dag.nodes")) == 4


@pytest.mark.parametrize("at_ms", [-(2**62), 2**62])
def test_an_impossible_instant_stops_nobody(desk: Desk, at_ms: int) -> None:
    desk.send(replace(GOOD[0], submitted_at_ms=at_ms))
    desk.report_all()
    desk.send(RetireStrategy("out", "w1", "s1", at_ms))
    assert desk.table("dag.outcomes").get("out").accepted
    assert desk.told("queue")
