"""A schema that changes compatibly: the node stays who it is, its topic is noted as mixed, and made anew after a week."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.common.identity import schema_hash
from qmtl.foundation.contracts.dag import (
    AdminAct,
    ComputeNode,
    DagSubmission,
    Queue,
    QueueRole,
    RemoveTopic,
    ReportTopicCreated,
    RetireStrategy,
)
from qmtl.foundation.contracts.diff import DiffRequest, NodeOrigin
from qmtl.foundation.contracts.node import NodeDeployment, NodeValue
from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.diffing import difference
from qmtl.services.dagmanager.garbage import BATCH
from qmtl.services.dagmanager.prescan import Prescan
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0, crossing, price, sma, strategy, submission, target, text

OTHER, THIRD = "blake3:" + "1" * 64, "blake3:" + "2" * 64
NOON_MS = 1_700_000_000_000 // DAY_MS * DAY_MS
CHANGED = ("price", "fast", "slow", "cross", "target")


def message(
    schema: str | None = OTHER, *changed: str, name: str = "s1", version: str = "v1"
) -> dict[str, Any]:
    said = {} if schema is None else {"schema_hash": schema}
    nodes = [one | (said if one["name"] in changed else {}) for one in crossing(3, 8)]
    return strategy(nodes, name, version=version)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = a_desk(tmp_path)
    yield made
    made.close()


def a_desk(directory: Path) -> Desk:
    """With one strategy that is active since noon."""
    made = Desk(directory)
    made.tick(NOON_MS)
    made.send(submission(message(None)))
    made.report_all()
    return made


def node(desk: Desk, name: str) -> ComputeNode:
    found = admit(text(message()), T0)
    (node_id,) = [one.node.node_id for one in found.nodes if one.name == name]
    row: ComputeNode = desk.table("dag.nodes").get(node_id)
    return row


def queues(desk: Desk, name: str) -> dict[QueueRole, Queue]:
    node_id = node(desk, name).node_id
    rows = [row for row in desk.rows("dag.queues") if row.node_id == node_id]
    assert len({row.role for row in rows if row.role is not QueueRole.FORMER}) == len(rows) - len(
        [row for row in rows if row.role is QueueRole.FORMER]
    )
    return {row.role: row for row in rows}


def planned(desk: Desk, name: str = "s1") -> dict[str, str]:
    return {one.name: one.topic for one in desk.table("dag.strategies").get("w1", name).nodes}


# ---- what a schema is to a node ------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([None, OTHER, THIRD]), min_size=5, max_size=5), st.permutations(range(5)))
@settings(max_examples=10, deadline=None)
def test_a_schema_is_no_part_of_any_id(said: list[str | None], order: list[int]) -> None:
    plain = admit(text(message(None)), T0)
    nodes = [
        one | ({} if schema is None else {"schema_hash": schema})
        for one, schema in zip(crossing(3, 8), said, strict=True)
    ]
    data = text(strategy([nodes[at] for at in order]))
    found = admit(data, T0)
    assert found == Prescan().admit(data, T0)
    assert found.commit_hash == plain.commit_hash
    assert {one.name: one.node.node_id for one in found.nodes} == {
        one.name: one.node.node_id for one in plain.nodes
    }
    told = {one.name: one.node.schema_hash for one in found.nodes}
    default = {one.name: one.node.schema_hash for one in plain.nodes}
    for one, schema in zip(nodes, said, strict=True):
        assert told[one["name"]] == (schema or default[one["name"]])


def test_the_schema_of_a_node_is_that_of_what_it_emits() -> None:
    found = {one.name: one.node.schema_hash for one in admit(text(message(None)), T0).nodes}
    assert found["fast"] == found["cross"] == schema_hash(avro_schema(NodeValue))
    assert len({found["price"], found["fast"], found["target"]}) == 3


@pytest.mark.parametrize("wrong", ["1" * 64, "blake3:" + "1" * 128, "blake3:" + "A" * 64, "", 7])
def test_a_schema_of_another_form_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidDag) as caught:
        admit(text(message(wrong, "slow")), T0)
    assert [one.path for one in caught.value.reasons] == ["nodes[2].schema_hash"]


def test_nodes_of_one_content_have_one_schema() -> None:
    nodes = [price(), sma("fast", 3), sma("again", 3, schema_hash=OTHER), target(source="fast")]
    for memo in (Prescan(), None):
        with pytest.raises(InvalidDag) as caught:
            (memo.admit if memo else admit)(text(strategy(nodes)), T0)
        assert [(one.code, one.path) for one in caught.value.reasons] == [
            ("QMTL-505", "nodes[2].schema_hash")
        ]


# ---- buffering -----------------------------------------------------------------------------------------------------


def test_a_node_with_another_schema_is_reused_in_buffering_mode(desk: Desk) -> None:
    before = planned(desk)
    known = node(desk, "slow")
    again = submission(message(OTHER, "slow"))
    draft = difference(desk._manager._catalogue, DiffRequest("r", "s1", again.dag_json, T0))
    desk.send(again)
    assert node(desk, "slow") == replace(known, schema_hash=OTHER, buffering_since_ms=NOON_MS)
    outcome = desk.table("dag.diffs").get(again.submission_id)
    assert outcome.buffering_nodes == (known.node_id,)
    assert set(outcome.reused_nodes) >= {known.node_id}
    assert [one.name for one in draft.nodes if one.origin is NodeOrigin.BUFFERING] == ["slow"]
    assert planned(desk) == before
    told = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.BUFFERED]
    assert [(one.node_id, one.cause) for one in told] == [(known.node_id, again.submission_id)]


def test_a_second_change_keeps_the_older_instant(desk: Desk) -> None:
    desk.send(submission(message(OTHER, "slow")))
    desk.tick(NOON_MS + DAY_MS)
    desk.send(submission(message(None, "slow", version="v2")))
    found = node(desk, "slow")
    assert (found.buffering_since_ms, found.schema_hash) == (NOON_MS, node(desk, "fast").schema_hash)


def test_a_node_without_a_topic_or_a_known_schema_has_nothing_to_buffer(desk: Desk, tmp_path: Path) -> None:
    desk.table("dag.nodes").put(replace(node(desk, "fast"), schema_hash=""))
    desk.again()
    made = submission(strategy([price(), sma("new", 21), target(source="new")], "s2"))
    desk.send(made, submission(message(OTHER, "fast")))
    again = strategy([price(), sma("new", 21, schema_hash=OTHER), target(source="new")], "s2")
    desk.send(submission(again))
    assert node(desk, "fast").schema_hash == OTHER
    assert [row.node_id for row in desk.rows("dag.nodes") if row.buffering_since_ms is not None] == []


def test_before_the_first_tick_time_is_not_known(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.send(submission(message(None)))
    desk.report_all()
    desk.send(replace(submission(message(OTHER, "slow")), submitted_at_ms=NOON_MS * 2))
    assert node(desk, "slow").buffering_since_ms == 0
    desk.tick(NOON_MS)
    assert node(desk, "slow").buffering_since_ms == NOON_MS
    assert QueueRole.NEXT not in queues(desk, "slow")
    desk.close()


# ---- made anew -----------------------------------------------------------------------------------------------------


def after_a_week(desk: Desk, *changed: str) -> None:
    desk.send(submission(message(OTHER, *changed)))
    desk.tick(NOON_MS + 7 * DAY_MS - 1)
    assert QueueRole.NEXT not in queues(desk, changed[0])
    desk.tick(NOON_MS + 7 * DAY_MS)


def test_after_a_week_a_node_gets_its_next_topic_in_every_plan(desk: Desk) -> None:
    desk.send(submission(message(None, name="s2")))
    old, before = queues(desk, "slow")[QueueRole.CURRENT], planned(desk)
    after_a_week(desk, "slow")
    assert planned(desk) == before  # it is not there yet
    desk.report_all()
    assert planned(desk) == before
    assert node(desk, "slow").buffering_since_ms == NOON_MS
    desk.tick(NOON_MS + 8 * DAY_MS)
    found = queues(desk, "slow")
    new = found[QueueRole.CURRENT]
    assert new.topic == f"{old.topic}_v2"
    assert replace(new, topic=old.topic, created_at_ms=old.created_at_ms, role=old.role) == old
    assert found[QueueRole.FORMER].topic == old.topic
    assert node(desk, "slow").buffering_since_ms is None
    for one in ("s1", "s2"):
        assert planned(desk, one) == before | {"slow": new.topic}
    newest = desk.told("queue")[-1]
    assert old.topic not in newest.queues
    assert new.topic in newest.queues
    desk.tick(NOON_MS + 80 * DAY_MS)
    assert planned(desk) == before | {"slow": new.topic}
    assert [row.topic for row in desk.rows("dag.queues") if row.topic.endswith("_v2")] == [new.topic]
    assert all(row.role is not QueueRole.NEXT for row in desk.rows("dag.queues"))


def test_the_old_topic_goes_once_nobody_has_a_plan_with_it(desk: Desk) -> None:
    old = planned(desk)["slow"]
    for shard in (0, 1):
        desk.send(NodeDeployment(shard, desk.table("dag.strategies").get("w1", "s1")))
    after_a_week(desk, "slow")
    desk.report_all()
    desk.tick(NOON_MS + 8 * DAY_MS)
    desk.send(NodeDeployment(0, desk.table("dag.strategies").get("w1", "s1")))
    desk.again()
    desk.tick(NOON_MS + 80 * DAY_MS)
    assert not desk.table("dag.queues").get(old).removing  # one shard has not heard of it
    desk.send(NodeDeployment(1, desk.table("dag.strategies").get("w1", "s1")))
    desk.tick(NOON_MS + 81 * DAY_MS)
    assert [row.topic for row in desk.rows("dag.tasks") if isinstance(row, RemoveTopic)] == [old]
    generation = node(desk, "slow").generation
    desk.remove_all()
    assert node(desk, "slow").generation == generation == 2
    assert queues(desk, "slow").keys() == {QueueRole.CURRENT}


def test_a_source_keeps_its_topic_and_is_of_one_schema_after_a_week(desk: Desk) -> None:
    before = planned(desk)
    after_a_week(desk, "price")
    assert node(desk, "price").buffering_since_ms is None
    assert queues(desk, "price").keys() == {QueueRole.CURRENT}
    assert planned(desk) == before


def test_what_nobody_holds_is_not_made_anew_and_what_is_removed_is_not_old(desk: Desk) -> None:
    desk.send(submission(message(OTHER, "slow")), RetireStrategy("c1", "w1", "s1", T0))
    desk.tick(NOON_MS + 7 * DAY_MS)
    desk.tick(NOON_MS + 8 * DAY_MS)
    assert queues(desk, "slow").keys() == {QueueRole.CURRENT}
    desk.tick(NOON_MS + 230 * DAY_MS)
    desk.remove_all()
    assert node(desk, "slow").buffering_since_ms is None
    assert not queues(desk, "slow")


def test_a_topic_that_could_not_be_made_is_asked_for_a_day_later(desk: Desk) -> None:
    after_a_week(desk, "slow")
    coming = queues(desk, "slow")[QueueRole.NEXT]
    desk.send(ReportTopicCreated(coming.topic, False, "QMTL-901", "no room"))
    desk.tick(NOON_MS + 8 * DAY_MS - 1)
    assert queues(desk, "slow")[QueueRole.NEXT] == coming
    desk.tick(NOON_MS + 8 * DAY_MS)
    assert queues(desk, "slow")[QueueRole.NEXT] == replace(coming, created_at_ms=NOON_MS + 8 * DAY_MS)
    assert all(row.status.value == "active" for row in desk.rows("dag.sentinels"))


def test_a_tick_asks_for_a_batch_at_most(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.tick(NOON_MS)
    for schema in (None, OTHER):
        said = {} if schema is None else {"schema_hash": schema}
        many = [sma(f"m{at}", at + 1, **said) for at in range(BATCH + 10)]
        desk.send(submission(strategy([price(), *many, target(source="m0")])))
        desk.report_all()
    for days, count in ((7, BATCH), (7, BATCH + 10), (7, BATCH + 10)):
        desk.tick(NOON_MS + days * DAY_MS)
        found = [row for row in desk.rows("dag.queues") if row.role is QueueRole.NEXT]
        assert len(found) == count
    desk.close()


# ---- in any order --------------------------------------------------------------------------------------------------

Step = Callable[[Desk], None]


def send(sent: DagSubmission, desk: Desk) -> None:
    desk.send(sent)


HASHES = (None, OTHER)


@given(
    st.lists(
        st.tuples(st.sampled_from(["s1", "s2"]), st.sampled_from(HASHES), st.sampled_from([0, 1, 7, 40])),
        min_size=1,
        max_size=6,
    ),
    st.sets(st.integers(0, 30)),
)
@settings(max_examples=8, deadline=None)
def test_a_restart_between_any_two_steps_changes_nothing(
    life: list[tuple[str, str | None, int]], restarts: set[int]
) -> None:
    def lived(again: set[int]) -> tuple[Any, ...]:
        with TemporaryDirectory() as folder:
            desk, now_ms, count = a_desk(Path(folder)), NOON_MS, 0
            for at, (name, schema, days) in enumerate(life):
                now_ms += days * DAY_MS
                sent = submission(message(schema, "slow", "cross", name=name, version=f"v{at}"))
                steps: list[Step] = [
                    partial(send, sent),
                    Desk.report_all,
                    partial(Desk.tick, bucket_ms=now_ms),
                    Desk.report_all,
                    partial(Desk.tick, bucket_ms=now_ms + 1),
                    Desk.remove_all,
                ]
                for step in steps:
                    count += 1
                    step(desk)
                    if count in again:
                        before = desk.memory()
                        desk.again()
                        assert desk.memory() == before
            made = (desk.all_rows(), desk.emitted)
            desk.close()
            return made

    assert lived(restarts) == lived(set())
