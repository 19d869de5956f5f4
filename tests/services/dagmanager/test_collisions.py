"""Given topics of others that look like those of nodes, when a strategy is published, then its nodes get the next names, and theirs alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.names import look
from qmtl.foundation.contracts.dag import (
    AdminAct,
    CreateTopic,
    QueueRole,
    RemoveTopic,
    ReportTopicCreated,
    RetireStrategy,
    SentinelStatus,
)
from qmtl.foundation.wire.topics import DAY_MS
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.outside import Cluster, Office, there
from tests.services.graphs import price, sma, strategy, submission, target

NOON_MS = 1_700_000_000_000
NODES = [price(), sma("fast", 3), target(source="fast")]
ONE = submission(strategy(NODES))
OUT = RetireStrategy("out", "w1", "s1", NOON_MS)
OTHER = "blake3:" + "1" * 64


@contextmanager
def a_desk() -> Iterator[Desk]:
    with TemporaryDirectory() as folder:
        made = Desk(Path(folder))
        made.tick(NOON_MS)
        yield made
        made.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as made:
        yield made


def foreign(name: str) -> str:
    """A topic that brokers take for the same."""
    return name.upper().replace("_", ".")


def numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_v{number}"


def work(desk: Desk, cluster: Cluster, *, restarts: bool = False) -> None:
    """The topic admin does what it is asked, until nothing is left to do."""
    done: set[Any] = set()
    while tasks := [row for row in desk.rows("dag.tasks") if row.topic not in done]:
        done |= {row.topic for row in tasks}
        for report in Office(cluster).do(*tasks):
            desk.send(report)
            if restarts:
                desk.again()


def present(desk: Desk) -> dict[str, str]:
    rows = desk.rows("dag.queues")
    return {row.node_id: row.topic for row in rows if row.role is QueueRole.CURRENT}


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=3, max_size=3), st.booleans())
@example([1, 0, 2], True)
def test_a_node_gets_the_first_of_its_names_that_nobody_elses_topic_looks_like(
    counts: list[int], restarts: bool
) -> None:
    with a_desk() as desk:
        desk.send(ONE)
        first = present(desk)
        taken = dict(zip(first, counts, strict=True))
        others = {
            foreign(numbered(first[node_id], at + 1))
            for node_id, count in taken.items()
            for at in range(count)
        }
        cluster = Cluster({name: there(name) for name in others})
        work(desk, cluster, restarts=restarts)
        wanted = {node_id: numbered(name, taken[node_id] + 1) for node_id, name in first.items()}
        assert present(desk) == wanted
        assert desk.rows("dag.sentinels")[0].status is SentinelStatus.ACTIVE
        row = desk.table("dag.strategies").get("w1", "s1")
        assert {one.node_id: one.topic for one in row.nodes} == wanted
        assert cluster.topics.keys() == others | set(wanted.values())
        assert {row.node_id: row.generation for row in desk.rows("dag.nodes")} == {
            node_id: count + 1 for node_id, count in taken.items()
        }
        tasks = [row.topic for row in desk.rows("dag.tasks") if isinstance(row, CreateTopic)]
        assert set(tasks) == set(wanted.values())
        refused = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.NOT_CREATED]
        assert {look(one.subject) for one in refused} == set(map(look, others))


def test_a_name_that_was_refused_is_never_asked_for_again(desk: Desk) -> None:
    """Also where nobody waits for it any more when it is refused, and whoever is restarted."""
    desk.send(ONE)
    first = present(desk)
    desk.send(OUT)
    cluster = Cluster({foreign(name): there(foreign(name)) for name in first.values()})
    work(desk, cluster)
    assert (desk.rows("dag.queues"), desk.rows("dag.tasks")) == ([], [])
    assert [edge for edge in desk.rows("dag.edges") if edge.relation.value == "EMITS"] == []
    desk.again()
    desk.send(submission(strategy(NODES, version="v9")))
    assert not {look(name) for name in present(desk).values()} & set(map(look, first.values()))
    work(desk, cluster)
    assert desk.table("dag.strategies").get("w1", "s1").version == "v9"
    assert all(name.endswith("_v9_v2") for name in present(desk).values())


def test_another_reason_fails_the_version_and_its_name_is_asked_for_again(desk: Desk) -> None:
    desk.send(ONE)
    first = present(desk)
    desk.send(*(ReportTopicCreated(name, False, "QMTL-323", "policy") for name in first.values()))
    assert desk.rows("dag.sentinels")[0].status is SentinelStatus.FAILED
    assert present(desk) == first
    assert {row.generation for row in desk.rows("dag.nodes")} == {1}


def test_the_next_topic_of_a_node_that_is_buffering_gets_the_name_after_too(desk: Desk) -> None:
    desk.send(ONE)
    cluster = Cluster()
    work(desk, cluster)
    desk.upgrade({"sma": OTHER})
    desk.send(submission(strategy(NODES, "s2")))
    work(desk, cluster)
    (node,) = (row for row in desk.rows("dag.nodes") if row.buffering_since_ms is not None)
    name = present(desk)[node.node_id]
    cluster.topics[foreign(f"{name}_v2")] = there(foreign(f"{name}_v2"))
    for minute in range(3):
        desk.tick(NOON_MS + 7 * DAY_MS + minute * 60_000)
        work(desk, cluster)
    assert present(desk)[node.node_id] == f"{name}_v3"
    assert foreign(f"{name}_v2") in cluster.topics


def test_what_looks_like_a_refused_name_is_not_collected(desk: Desk) -> None:
    desk.send(ONE)
    first = present(desk)
    cluster = Cluster({foreign(name): there(foreign(name)) for name in first.values()})
    work(desk, cluster)
    desk.send(OUT)
    desk.tick(NOON_MS + DAY_MS)
    desk.archive_all()
    desk.tick(NOON_MS + 300 * DAY_MS)
    asked = {row.topic for row in desk.rows("dag.tasks") if isinstance(row, RemoveTopic)}
    assert asked == {f"{name}_v2" for name in first.values()}


def test_a_topic_of_the_same_name_that_is_not_as_asked_for_is_never_removed(desk: Desk) -> None:
    """It may be somebody else's, with their records. Once it is gone the name is free again."""
    desk.send(ONE)
    first = present(desk)
    others = {name: there(name, partitions=7) for name in first.values()}
    cluster = Cluster(dict(others))
    work(desk, cluster)
    assert desk.rows("dag.sentinels")[0].status is SentinelStatus.FAILED
    desk.again()
    for days in (1, 300, 301):
        desk.tick(NOON_MS + days * DAY_MS)
        work(desk, cluster)
    assert cluster.topics == others
    assert (desk.rows("dag.queues"), desk.rows("dag.tasks")) == ([], [])
    cluster.topics.clear()
    desk.send(replace(ONE, submission_id="again", submitted_at_ms=desk.closed_ms))
    work(desk, cluster)
    assert present(desk) == first
    assert desk.rows("dag.sentinels")[0].status is SentinelStatus.ACTIVE
