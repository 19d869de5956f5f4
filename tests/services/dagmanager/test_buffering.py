"""A schema that changes compatibly: the node stays who it is, its topic is noted as mixed, and made anew after a week."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
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
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeDeployment, NodeValue
from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.foundation.wire.versions import schema_dir, stored_versions
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE
from qmtl.services.dagmanager import kinds
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.diffing import difference
from qmtl.services.dagmanager.garbage import BATCH
from qmtl.services.dagmanager.kinds import SCHEMA, SCHEMAS
from qmtl.services.dagmanager.prescan import Prescan
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import T0, crossing, price, sma, strategy, submission, target, text

OTHER, THIRD = "blake3:" + "1" * 64, "blake3:" + "2" * 64
NOON_MS = 1_700_000_000_000 // DAY_MS * DAY_MS
TAGGED = {"cross": ["crypto", "cross"]}


def message(name: str = "s1", version: str = "v1", said: Mapping[str, str] | None = None) -> dict[str, Any]:
    """A strategy whose only node of the type `cross` has tags.

    Args:
        said: the schemas' hashes that its author says, by the names of the nodes.
    """
    more = {node: {"schema_hash": one} for node, one in (said or {}).items()}
    tags = {node: {"tags": tags} for node, tags in TAGGED.items()}
    nodes = [one | tags.get(one["name"], {}) | more.get(one["name"], {}) for one in crossing(3, 8)]
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
    made.send(submission(message()))
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

SAID = st.fixed_dictionaries(
    {},
    optional={one["name"]: st.sampled_from(sorted(SCHEMAS[one["node_type"]])) for one in message()["nodes"]},
)
"""What authors with any version of QMTL may say of a graph."""


@given(SAID, st.permutations(range(5)))
@settings(max_examples=10, deadline=None)
def test_a_node_has_the_schema_of_the_code_whatever_its_author_says(
    said: dict[str, str], order: list[int]
) -> None:
    sent = message(said=said)
    data = text(sent | {"nodes": [sent["nodes"][at] for at in order]})
    found, plain = admit(data, T0), admit(text(message()), T0)
    assert found == Prescan().admit(data, T0)
    assert {one.name: one for one in found.nodes} == {one.name: one for one in plain.nodes}
    assert {one.schema_hash for one in found.nodes} == {SCHEMA[one.node.node_type] for one in found.nodes}
    assert {one.node.schema_hash for one in found.nodes} == {one.schema_hash for one in found.nodes}
    assert found.commit_hash == plain.commit_hash


def test_the_schema_of_a_node_is_that_of_what_it_emits() -> None:
    found = {one.name: one.node.schema_hash for one in admit(text(message()), T0).nodes}
    assert found["fast"] == found["cross"] == schema_hash(avro_schema(NodeValue))
    assert len({found["price"], found["fast"], found["target"]}) == 3


def test_what_the_code_writes_is_the_last_of_the_stored_versions_of_each_type() -> None:
    """So an author may say it, and the versions before."""
    for name, builtin in BUILTINS.items():
        written = Bar if name == SOURCE else builtin.output
        stored = [schema_hash(one) for _, one in stored_versions(schema_dir(), written.__name__)]
        assert SCHEMA[name] == stored[-1]
        assert SCHEMAS[name] == set(stored)


@pytest.mark.parametrize("wrong", ["1" * 64, "blake3:" + "1" * 128, "blake3:" + "A" * 64, "", 7, OTHER])
def test_what_is_no_schema_of_a_nodes_messages_is_refused(wrong: Any) -> None:
    for memo in (Prescan(), None):
        with pytest.raises(InvalidDag) as caught:
            (memo.admit if memo else admit)(text(message(said={"cross": wrong})), T0)
        assert [one.path for one in caught.value.reasons] == ["nodes[3].schema_hash"]


@given(st.lists(st.tuples(st.sampled_from(["s1", "s2"]), SAID, st.booleans()), min_size=2, max_size=5))
@settings(max_examples=4, deadline=None)
def test_no_author_makes_a_node_buffering(sent: list[tuple[str, dict[str, str], bool]]) -> None:
    with TemporaryDirectory() as folder:
        desk = a_desk(Path(folder))
        rows = desk.rows("dag.nodes")
        for at, (name, said, is_wrong) in enumerate(sent):
            made_up = {"slow": OTHER} if is_wrong else {}
            one = submission(message(name, f"v{at}", said | made_up))
            desk.send(one)
            outcome = desk.table("dag.diffs").get(one.submission_id)
            assert (outcome.accepted, outcome.buffering_nodes) == (not is_wrong, ())
            assert desk.rows("dag.nodes") == rows
        desk.close()


# ---- buffering -----------------------------------------------------------------------------------------------------


def test_after_an_upgrade_a_node_that_writes_otherwise_is_reused_in_buffering_mode(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(desk)
    known = node(desk, "cross")
    desk.upgrade({"cross": OTHER})
    assert node(desk, "cross") == known  # until somebody submits it
    again = submission(message("s2", said={"cross": min(SCHEMAS["cross"])}))
    with monkeypatch.context() as code:
        code.setitem(kinds.SCHEMA, "cross", OTHER)
        draft = difference(desk._manager._catalogue, DiffRequest("r", "s2", again.dag_json, T0))
    desk.send(again)
    assert node(desk, "cross") == replace(known, schema_hash=OTHER, buffering_since_ms=NOON_MS)
    outcome = desk.table("dag.diffs").get(again.submission_id)
    assert outcome.buffering_nodes == (known.node_id,)
    assert set(outcome.reused_nodes) >= {known.node_id}
    assert [one.name for one in draft.nodes if one.origin is NodeOrigin.BUFFERING] == ["cross"]
    assert planned(desk) == before
    told = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.BUFFERED]
    assert [(one.node_id, one.cause) for one in told] == [(known.node_id, again.submission_id)]


def test_a_second_change_keeps_the_older_instant(desk: Desk) -> None:
    known = node(desk, "cross")
    for days, other in enumerate((OTHER, THIRD, known.schema_hash)):
        desk.upgrade({"cross": other})
        desk.send(submission(message(version=f"v{days + 2}")))
        assert node(desk, "cross") == replace(known, schema_hash=other, buffering_since_ms=NOON_MS)
        desk.tick(NOON_MS + (days + 1) * DAY_MS)


def test_a_node_without_a_topic_or_a_known_schema_has_nothing_to_buffer(desk: Desk, tmp_path: Path) -> None:
    desk.table("dag.nodes").put(replace(node(desk, "fast"), schema_hash=""))
    desk.again()
    made = [price(), sma("fast", 3), sma("new", 21), target(source="new")]
    desk.send(submission(strategy(made[:1] + made[2:], "s2")))
    desk.upgrade({"sma": OTHER})
    desk.send(submission(strategy(made, "s2")))
    rows = {row.period: row.schema_hash for row in desk.rows("dag.nodes") if row.node_type == "sma"}
    assert rows == {3: OTHER, 21: OTHER, 8: SCHEMA["sma"]}
    assert [row.node_id for row in desk.rows("dag.nodes") if row.buffering_since_ms is not None] == []


def test_before_the_first_tick_time_is_not_known(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.send(submission(message()))
    desk.report_all()
    desk.upgrade({"cross": OTHER})
    desk.send(replace(submission(message("s2")), submitted_at_ms=NOON_MS * 2))
    assert node(desk, "cross").buffering_since_ms == 0
    desk.tick(NOON_MS)
    assert node(desk, "cross").buffering_since_ms == NOON_MS
    assert QueueRole.NEXT not in queues(desk, "cross")
    desk.close()


# ---- made anew -----------------------------------------------------------------------------------------------------


def after_a_week(desk: Desk, changed: str = "cross") -> None:
    """With the only node of a type, whose schema an upgrade has changed at noon."""
    desk.upgrade({changed: OTHER})
    desk.send(submission(message("s3")))
    desk.tick(NOON_MS + 7 * DAY_MS - 1)
    assert QueueRole.NEXT not in queues(desk, changed)
    desk.tick(NOON_MS + 7 * DAY_MS)


def test_after_a_week_a_node_gets_its_next_topic_in_every_plan(desk: Desk) -> None:
    desk.send(submission(message("s2")))
    old, before = queues(desk, "cross")[QueueRole.CURRENT], planned(desk)
    after_a_week(desk)
    assert planned(desk) == before  # it is not there yet
    desk.report_all()
    assert planned(desk) == before
    assert node(desk, "cross").buffering_since_ms == NOON_MS
    desk.tick(NOON_MS + 8 * DAY_MS)
    found = queues(desk, "cross")
    new = found[QueueRole.CURRENT]
    assert new.topic == f"{old.topic}_v2"
    assert replace(new, topic=old.topic, created_at_ms=old.created_at_ms, role=old.role) == old
    assert found[QueueRole.FORMER].topic == old.topic
    assert node(desk, "cross").buffering_since_ms is None
    for one in ("s1", "s2"):
        assert planned(desk, one) == before | {"cross": new.topic}
    newest = desk.told("queue")[-1]
    assert old.topic not in newest.queues
    assert new.topic in newest.queues
    desk.tick(NOON_MS + 80 * DAY_MS)
    assert planned(desk) == before | {"cross": new.topic}
    assert [row.topic for row in desk.rows("dag.queues") if row.topic.endswith("_v2")] == [new.topic]
    assert all(row.role is not QueueRole.NEXT for row in desk.rows("dag.queues"))


def test_the_old_topic_goes_once_nobody_has_a_plan_with_it(desk: Desk) -> None:
    old = planned(desk)["cross"]
    for shard in (0, 1):
        desk.send(NodeDeployment(shard, desk.table("dag.strategies").get("w1", "s1")))
    after_a_week(desk)
    desk.report_all()
    desk.tick(NOON_MS + 8 * DAY_MS)
    desk.send(NodeDeployment(0, desk.table("dag.strategies").get("w1", "s1")))
    desk.again()
    desk.tick(NOON_MS + 80 * DAY_MS)
    assert not desk.table("dag.queues").get(old).removing  # one shard has not heard of it
    desk.send(NodeDeployment(1, desk.table("dag.strategies").get("w1", "s1")))
    desk.tick(NOON_MS + 81 * DAY_MS)
    assert [row.topic for row in desk.rows("dag.tasks") if isinstance(row, RemoveTopic)] == [old]
    generation = node(desk, "cross").generation
    desk.remove_all()
    assert node(desk, "cross").generation == generation == 2
    assert queues(desk, "cross").keys() == {QueueRole.CURRENT}


def test_a_source_keeps_its_topic_and_is_of_one_schema_after_a_week(desk: Desk) -> None:
    before = planned(desk)
    after_a_week(desk, "price")
    assert node(desk, "price").buffering_since_ms is None
    assert queues(desk, "price").keys() == {QueueRole.CURRENT}
    assert planned(desk) == before


def test_what_nobody_holds_is_not_made_anew_and_what_is_removed_is_not_old(desk: Desk) -> None:
    desk.upgrade({"cross": OTHER})
    desk.send(
        submission(message("s2")), RetireStrategy("c2", "w1", "s2", T0), RetireStrategy("c1", "w1", "s1", T0)
    )
    desk.tick(NOON_MS + 7 * DAY_MS)
    desk.tick(NOON_MS + 8 * DAY_MS)
    assert queues(desk, "cross").keys() == {QueueRole.CURRENT}
    desk.archive_all()
    desk.tick(NOON_MS + 230 * DAY_MS)
    desk.remove_all()
    assert node(desk, "cross").buffering_since_ms is None
    assert not queues(desk, "cross")


def test_a_topic_that_could_not_be_made_is_asked_for_a_day_later(desk: Desk) -> None:
    after_a_week(desk)
    coming = queues(desk, "cross")[QueueRole.NEXT]
    desk.send(ReportTopicCreated(coming.topic, False, "QMTL-901", "no room"))
    desk.tick(NOON_MS + 8 * DAY_MS - 1)
    assert queues(desk, "cross")[QueueRole.NEXT] == coming
    desk.tick(NOON_MS + 8 * DAY_MS)
    assert queues(desk, "cross")[QueueRole.NEXT] == replace(coming, created_at_ms=NOON_MS + 8 * DAY_MS)
    assert all(row.status.value == "active" for row in desk.rows("dag.sentinels"))


def test_a_tick_asks_for_a_batch_at_most(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.tick(NOON_MS)
    many = [sma(f"m{at}", at + 1) for at in range(BATCH + 10)]
    for at, schema in enumerate((SCHEMA["sma"], OTHER)):
        desk.upgrade({"sma": schema})
        desk.send(submission(strategy([price(), *many, target(source="m0")], version=f"v{at}")))
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


RELEASES: tuple[dict[str, str], ...] = ({}, dict.fromkeys(("sma", "cross"), OTHER))


@given(
    st.lists(
        st.tuples(st.sampled_from(["s1", "s2"]), st.sampled_from(RELEASES), st.sampled_from([0, 1, 7, 40])),
        min_size=1,
        max_size=6,
    ),
    st.sets(st.integers(0, 30)),
)
@settings(max_examples=8, deadline=None)
def test_a_restart_between_any_two_steps_changes_nothing(
    life: list[tuple[str, dict[str, str], int]], restarts: set[int]
) -> None:
    def lived(again: set[int]) -> tuple[Any, ...]:
        with TemporaryDirectory() as folder:
            desk, now_ms, count = a_desk(Path(folder)), NOON_MS, 0
            for at, (name, schemas, days) in enumerate(life):
                now_ms += days * DAY_MS
                desk.upgrade(schemas)
                sent = submission(message(name, f"v{at}"))
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
