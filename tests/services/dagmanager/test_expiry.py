"""Rows that nobody needs go a time after that, and not before; what was decided can't be decided again once it is forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from math import log2
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.contracts.dag import (
    AdminAct,
    CollectGarbage,
    ComputeNode,
    DagCommandOutcome,
    DagOutcome,
    DagSubmission,
    Queue,
    RemoveTopic,
    ReportTopicRemoved,
    RetireStrategy,
    SentinelStatus,
    TopicClass,
    VersionSentinel,
)
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.contracts.release import StartRelease
from qmtl.foundation.contracts.retention import SetRetention
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager import expiry, naming
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import content_of
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.test_admission import squatter
from tests.services.dagmanager.test_indexes import Touches
from tests.services.graphs import Node, crossing, price, sma, strategy, tag_query, target, text

NOON_MS = 1_700_000_000_000
PLAIN = [price(), sma("fast", 3), target(source="fast")]
FILE = {"path": "s3://models/one", "checksum": "blake3:" + "1" * 64, "size": 7}
UNUSED = FILE | {"checksum": "blake3:" + "2" * 64}


def day(number: float) -> int:
    return NOON_MS + round(number * DAY_MS)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.tick(NOON_MS)
    yield made
    made.close()


def publish(
    desk: Desk, name: str, nodes: list[Node] = PLAIN, version: str = "v1", owner: str = "s1", **more: Any
) -> None:
    data = text(strategy(nodes, owner, version=version) | more)
    desk.send(DagSubmission(name, "w1", data, desk.closed_ms, execution_domain="live"))
    desk.report_all()


def retire(desk: Desk, name: str, owner: str = "s1") -> None:
    desk.send(RetireStrategy(name, "w1", owner, desk.closed_ms))


def nodes_of(desk: Desk) -> dict[str, int | None]:
    """Since when nobody needs each node, by its type."""
    return {row.node_type: row.unneeded_since_ms for row in desk.rows("dag.nodes")}


def forget(desk: Desk, name: str) -> None:
    """Take the strategy out, and let all time pass that its topics and versions have; nobody needs its nodes from now on."""
    retire(desk, name)
    desk.tick(desk.closed_ms + DAY_MS)
    desk.archive_all()
    desk.tick(desk.closed_ms + 210 * DAY_MS)
    desk.remove_all()
    desk.tick(desk.closed_ms + 1)
    assert (desk.rows("dag.sentinels"), desk.rows("dag.queues")) == ([], [])


def told(desk: Desk) -> dict[str, int]:
    """Rows that went, by table, as the admin log has it."""
    found: dict[str, int] = {}
    for one in desk.told("dag.admin.log"):
        if one.act is AdminAct.EXPIRED:
            found[one.subject] = found.get(one.subject, 0) + int(one.detail)
    return found


# ---- nodes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [False, True])
def test_a_node_goes_thirty_days_after_the_last_version_and_queue_that_had_it(
    desk: Desk, restarts: bool
) -> None:
    publish(desk, "one", [*PLAIN, tag_query(tags=("nobody",))])
    forget(desk, "out")
    since_ms = desk.closed_ms
    assert nodes_of(desk) == dict.fromkeys(("price", "sma", "position_target", "tag_query"), since_ms)
    for left_ms, count in ((1, 4), (0, 0)):
        if restarts:
            desk.again()
        desk.tick(since_ms + 30 * DAY_MS - left_ms)
        assert len(desk.rows("dag.nodes")) == count
    assert told(desk)["dag.nodes"] == 4
    assert desk.rows("dag.edges") == []
    before = desk.memory()
    desk.again()
    assert desk.memory() == before


def test_a_node_that_is_needed_again_begins_its_time_anew(desk: Desk) -> None:
    publish(desk, "one")
    forget(desk, "out")
    desk.tick(desk.closed_ms + 29 * DAY_MS)
    publish(desk, "again")
    assert set(nodes_of(desk).values()) == {None}
    forget(desk, "out-again")
    since_ms = desk.closed_ms
    desk.tick(since_ms + 30 * DAY_MS - 1)
    assert set(nodes_of(desk).values()) == {since_ms}
    desk.tick(since_ms + 30 * DAY_MS)
    assert nodes_of(desk) == {}


@pytest.mark.parametrize("restarts", [False, True])
def test_a_node_stays_as_long_as_another_one_has_its_id_because_of_it(desk: Desk, restarts: bool) -> None:
    """Else the first id would be free one day, and the same content would get it beside the one that it has."""
    plain = next(one.node for one in admit(text(strategy(PLAIN)), NOON_MS).nodes if one.name == "fast")
    taken = squatter(plain)
    desk.table("dag.nodes").put(taken)
    desk.again()
    publish(desk, "one")
    (mine,) = [row.node_id for row in desk.rows("dag.nodes") if content_of(row) == content_of(plain)]
    assert mine != taken.node_id
    for number in (1, 32, 90):
        if restarts:
            desk.again()
        desk.tick(day(number))
    publish(desk, "again", version="v2")
    assert mine in desk.table("dag.diffs").get("again").reused_nodes
    forget(desk, "out")
    assert taken.node_id in {row.node_id for row in desk.rows("dag.nodes")}
    desk.tick(desk.closed_ms + 30 * DAY_MS)
    assert desk.rows("dag.nodes") == []
    before = desk.memory()
    desk.again()
    assert desk.memory() == before


@pytest.mark.parametrize("status", SentinelStatus)
def test_a_version_keeps_its_nodes_whatever_became_of_it(desk: Desk, status: SentinelStatus) -> None:
    """One to which one can go back, and one that failed and can be deployed anew, are judged by the rows of their nodes."""
    publish(desk, "one")
    (version,) = desk.rows("dag.sentinels")
    forget(desk, "out")
    desk.table("dag.sentinels").put(replace(version, status=status, retired_at_ms=day(1_000)))
    for row in desk.rows("dag.nodes"):
        desk.table("dag.nodes").put(replace(row, unneeded_since_ms=None))
    desk.again()
    desk.tick(desk.closed_ms + 1)
    desk.tick(desk.closed_ms + 100 * DAY_MS)
    assert set(nodes_of(desk).values()) == {None}
    assert len(nodes_of(desk)) == 3


def test_a_queue_that_can_not_be_removed_keeps_its_node_and_all_that_this_one_reads(desk: Desk) -> None:
    publish(desk, "one")
    (stuck,) = [row.topic for row in desk.rows("dag.queues") if row.topic_class is TopicClass.INDICATOR][:1]
    kind = next(row.node_type for row in desk.rows("dag.nodes") if row.node_id == node_of(desk, stuck))
    reads = {"sma": {"price"}, "position_target": {"price", "sma"}}[kind]
    (version,) = desk.rows("dag.sentinels")
    desk.table("dag.sentinels").put(replace(version, status=SentinelStatus.FAILED))
    desk.table("dag.strategies").delete("w1", "s1")
    desk.again()
    for days in (1, 211, 212, 300, 1_000):
        desk.tick(day(days))
        for task in desk.rows("dag.tasks"):
            if isinstance(task, RemoveTopic):
                is_stuck = task.topic == stuck
                desk.send(ReportTopicRemoved(task.topic, not is_stuck, "QMTL-903" if is_stuck else "", ""))
    assert desk.rows("dag.sentinels") == []
    assert [row.topic for row in desk.rows("dag.queues")] == [stuck]
    found = nodes_of(desk)
    assert found.keys() == {kind, *reads}
    assert found[kind] is None
    assert all(found[one] is not None for one in reads)
    desk.tick(day(1_100))
    desk.remove_all()
    desk.tick(day(1_101))
    desk.tick(day(1_131) - 1)
    assert nodes_of(desk).keys() == {kind, *reads}
    desk.tick(day(1_131))  # what it reads goes with it: its time was over long ago
    assert nodes_of(desk) == {}


def node_of(desk: Desk, topic: str) -> str:
    return str(desk.table("dag.queues").get(topic).node_id)


def test_at_a_tick_no_more_go_than_a_batch_and_the_rest_with_the_next_ones(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    averages = [sma(f"n{at}", 2 + at) for at in range(7)]
    publish(desk, "one", [price(), *averages, target(source="n0")])
    monkeypatch.setattr(expiry, "BATCH", 4)
    forget(desk, "out")
    desk.tick(desk.closed_ms + 1)
    desk.tick(desk.closed_ms + 1)
    assert None not in {row.unneeded_since_ms for row in desk.rows("dag.nodes")}
    since_ms = desk.closed_ms
    left = []
    for minute in range(4):
        desk.tick(since_ms + 30 * DAY_MS + minute)
        left.append(len(desk.rows("dag.nodes")))
    assert left == [5, 1, 0, 0]


# ---- names of topics ---------------------------------------------------------------------------------------------------


def test_a_node_that_comes_again_after_its_row_went_has_topics_of_other_names(desk: Desk) -> None:
    seen: set[str] = set()
    for turn in range(1, 4):
        publish(desk, f"in-{turn}")
        topics = {row.topic for row in desk.rows("dag.queues")}
        assert not topics & seen
        assert all(topic.endswith(f"_v{turn}") for topic in topics)
        assert {row.generation for row in desk.rows("dag.nodes")} == {turn}
        seen |= topics
        forget(desk, f"out-{turn}")
        desk.tick(desk.closed_ms + 30 * DAY_MS)
        assert desk.rows("dag.nodes") == []
        assert {(len(row.prefix), row.generation) for row in desk.rows("dag.lives")} == {(3, turn + 1)}
        if turn == 2:
            desk.again()


def test_what_is_left_of_nodes_is_no_more_than_there_are_prefixes(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And another node with the same prefix, which might have had a topic of the same name, begins behind them."""
    monkeypatch.setattr(naming, "LIFE_PREFIX", 0)
    publish(desk, "one")
    forget(desk, "out")
    desk.tick(desk.closed_ms + 30 * DAY_MS)
    (left,) = desk.rows("dag.lives")
    assert left.generation == 2
    publish(desk, "other", crossing(5, 8))
    assert {row.generation for row in desk.rows("dag.nodes")} == {2}
    assert all(row.topic.endswith("_v1_v2") for row in desk.rows("dag.queues"))


def test_a_prefix_is_a_part_of_every_name() -> None:
    """Else two nodes with topics of one name could have two."""
    assert naming.LIFE_PREFIX <= naming.SHORT_HASH


# ---- artifacts ---------------------------------------------------------------------------------------------------------


def test_an_artifact_goes_thirty_days_after_the_last_node_that_used_it(desk: Desk) -> None:
    nodes = [price(), sma("fast", 3, artifacts=[FILE["checksum"]]), target(source="fast")]
    publish(desk, "one", nodes, artifacts=[FILE, UNUSED])
    desk.tick(day(1))
    desk.tick(day(31))
    (used,) = desk.rows("dag.artifacts")
    assert (used.checksum, used.unneeded_since_ms) == (FILE["checksum"], None)
    forget(desk, "out")
    assert [one.source for one in desk.rows("dag.edges")] == [FILE["checksum"]]
    desk.tick(desk.closed_ms + 30 * DAY_MS)
    assert (desk.rows("dag.nodes"), desk.rows("dag.edges")) == ([], [])
    desk.tick(desk.closed_ms + 1)
    since_ms = desk.closed_ms
    desk.tick(since_ms + 30 * DAY_MS - 1)
    assert [row.unneeded_since_ms for row in desk.rows("dag.artifacts")] == [since_ms]
    publish(desk, "again", artifacts=[FILE])  # it is said again, and used by nobody
    desk.tick(desk.closed_ms + DAY_MS)
    assert [row.unneeded_since_ms for row in desk.rows("dag.artifacts")] == [desk.closed_ms]
    before = desk.memory()
    desk.again()
    assert desk.memory() == before
    desk.tick(desk.closed_ms + 30 * DAY_MS)
    assert desk.rows("dag.artifacts") == []
    assert told(desk)["dag.artifacts"] == 2


# ---- what was decided --------------------------------------------------------------------------------------------------


def test_an_old_submission_that_comes_again_is_refused_and_the_newer_version_stays(desk: Desk) -> None:
    publish(desk, "old", version="v1")
    data = text(strategy(PLAIN, "s1", version="v1"))
    old = DagSubmission("old", "w1", data, NOON_MS, execution_domain="live")
    desk.tick(day(1))
    publish(desk, "new", crossing(3, 8), version="v2")
    desk.tick(day(30) - 1)
    before = desk.all_rows()
    desk.send(old)
    assert desk.all_rows() == before
    desk.tick(day(30))
    assert desk.table("dag.diffs").get("old") is None
    before = desk.all_rows()
    desk.send(old)
    refused = desk.table("dag.diffs").get("old")
    assert (refused.accepted, refused.code, refused.decided_ms) == (False, "QMTL-607", day(30))
    after = desk.all_rows()
    after["dag.diffs"].remove(refused)
    assert after == before
    assert desk.table("dag.strategies").get("w1", "s1").version == "v2"
    desk.send(replace(old, submission_id="said-anew", submitted_at_ms=NOON_MS + 1))
    assert desk.table("dag.strategies").get("w1", "s1").version == "v1"


COMMANDS: dict[str, Callable[[str, int], Any]] = {
    "retire": lambda name, at_ms: RetireStrategy(name, "w1", "s1", at_ms),
    "release": lambda name, at_ms: StartRelease(name, "w1", text(strategy(PLAIN, "s2")), at_ms),
    "retention": lambda name, at_ms: SetRetention(name, 7, at_ms),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_an_old_command_that_comes_again_is_refused(desk: Desk, kind: str) -> None:
    publish(desk, "one")
    old = COMMANDS[kind]("old", NOON_MS)
    desk.send(old)
    assert desk.table("dag.outcomes").get("old").accepted
    desk.tick(day(30))
    publish(desk, "again")
    before = desk.all_rows()
    desk.send(old)
    refused = desk.table("dag.outcomes").get("old")
    assert (refused.accepted, refused.code) == (False, "QMTL-607")
    after = desk.all_rows()
    after["dag.outcomes"].remove(refused)
    assert after == before


def test_an_id_is_of_other_content_once_what_was_decided_under_it_is_forgotten(desk: Desk) -> None:
    publish(desk, "one", version="v1")
    desk.send(SetRetention("keep", 30, NOON_MS))
    desk.tick(day(30) - 1)
    before = desk.all_rows()
    publish(desk, "one", version="v2")
    desk.send(SetRetention("keep", 40, desk.closed_ms))
    assert desk.all_rows() == before
    assert [one.subject for one in desk.told("dag.admin.log") if one.act is AdminAct.REPEATED] == [
        "one",
        "keep",
    ]
    desk.tick(day(30))
    desk.send(SetRetention("keep", 40, desk.closed_ms + 1))
    data = text(strategy(PLAIN, "s1", version="v2"))
    desk.send(DagSubmission("one", "w1", data, desk.closed_ms + 1, execution_domain="live"))
    assert desk.table("dag.strategies").get("w1", "s1").version == "v2"
    assert desk.table("dag.outcomes").get("keep").detail != before["dag.outcomes"][0].detail


def test_what_says_a_later_time_than_the_clock_is_remembered_for_as_long_after_that(desk: Desk) -> None:
    """Else it could come again after it was forgotten, and look new."""
    ahead = RetireStrategy("ahead", "w1", "s1", day(10))
    desk.send(ahead)
    desk.tick(day(40) - 1)
    assert desk.table("dag.outcomes").get("ahead") is not None
    desk.tick(day(40))
    assert desk.table("dag.outcomes").get("ahead") is None
    desk.send(ahead)
    assert desk.table("dag.outcomes").get("ahead").code == "QMTL-607"


def test_as_long_as_nothing_is_forgotten_nothing_is_too_old(desk: Desk) -> None:
    desk.tick(day(500))
    desk.send(CollectGarbage("old", "", 0))
    assert desk.table("dag.outcomes").get("old").accepted


def test_rows_that_do_not_say_when_they_were_decided_begin_their_time_with_a_tick(desk: Desk) -> None:
    """Versions that did not keep it have written them."""
    desk.table("dag.diffs").put(DagOutcome("a", "w1", "s1", True, "", ""))
    desk.table("dag.outcomes").put(DagCommandOutcome("b", True, "", ""))
    desk.again()
    desk.tick(day(1))
    desk.tick(day(31) - 1)
    assert {row.decided_ms for name in ("dag.diffs", "dag.outcomes") for row in desk.rows(name)} == {day(1)}
    desk.tick(day(31))
    assert (desk.rows("dag.diffs"), desk.rows("dag.outcomes")) == ([], [])


# ---- how long ----------------------------------------------------------------------------------------------------------


def test_how_long_rows_stay_is_said_on_the_log_and_holds_for_those_that_are_there(desk: Desk) -> None:
    desk.send(CollectGarbage("old", "", NOON_MS), SetRetention("short", 2, NOON_MS))
    assert desk.table("dag.outcomes").get("short").detail == "what nobody needs is kept for 2 days"
    desk.again()
    desk.tick(day(2) - 1)
    assert len(desk.rows("dag.outcomes")) == 2
    desk.tick(day(2))
    assert desk.rows("dag.outcomes") == []
    desk.send(SetRetention("long", 60, day(2)))  # what is forgotten stays so
    desk.send(CollectGarbage("old", "", NOON_MS))
    assert desk.table("dag.outcomes").get("old").code == "QMTL-607"
    desk.tick(day(62) - 1)
    assert len(desk.rows("dag.outcomes")) == 2


@pytest.mark.parametrize("days", [-1, 0, 1, 3_651])
def test_a_time_that_can_not_be_kept_is_refused(desk: Desk, days: int) -> None:
    desk.send(SetRetention("odd", days, NOON_MS))
    found = desk.table("dag.outcomes").get("odd")
    assert (found.accepted, found.code, desk.rows("dag.pace")) == (False, "QMTL-602", [])


def test_by_command_what_is_due_goes_at_once_and_is_told(desk: Desk) -> None:
    publish(desk, "one")
    forget(desk, "out")
    desk.tick(desk.closed_ms + 30 * DAY_MS - 1)
    desk.send(SetRetention("short", 29, desk.closed_ms), CollectGarbage("now", "", desk.closed_ms))
    assert (
        desk.table("dag.outcomes").get("now").detail == "0 queues are being removed, 3 rows of dag.nodes went"
    )
    assert desk.rows("dag.nodes") == []


# ---- readers -----------------------------------------------------------------------------------------------------------


def test_a_reader_that_says_nothing_any_more_goes_with_the_next_tick(desk: Desk) -> None:
    publish(desk, "one")
    desk.send(NodeDeployment(1, desk.table("dag.strategies").get("w1", "s1")))
    retire(desk, "out")
    desk.tick(day(1))
    assert len(desk.rows("dag.readers")) == 1
    desk.send(NodeDeployment(1, desk.table("dag.strategies").get("w1", "s1")))
    desk.again()
    desk.tick(day(2))
    assert desk.rows("dag.readers") == []


# ---- what a tick costs -------------------------------------------------------------------------------------------------

FEW, MANY = 4, 400


def touched(directory: Path, count: int) -> int:
    """How many entries of memory and rows a tick touches at which nothing is due, with so many of everything."""
    desk = Desk(directory / f"{count}")
    for at in range(count):
        live = ComputeNode(f"live {at}", "sma", 60, 3, "c", "s", "{}", ())
        idle = replace(live, node_id=f"idle {at}", unneeded_since_ms=day(at / count))
        read = replace(idle, node_id=f"read {at}")
        reads = replace(idle, node_id=f"reads {at}", dependencies=(read.node_id,))
        for node in (live, idle, read, reads):
            desk.table("dag.nodes").put(node)
        desk.table("dag.queues").put(
            Queue(f"q{at}", live.node_id, TopicClass.INDICATOR, 1, 60, 1, 1, 0, ready=True)
        )
        version = VersionSentinel(f"v{at}", "v1", "c", 0, "w", f"s{at}", (live.node_id,), (live.node_id,))
        desk.table("dag.sentinels").put(version)
        past = replace(version, sentinel_id=f"p{at}", status=SentinelStatus.RETIRED, retired_at_ms=day(1))
        desk.table("dag.sentinels").put(past)
        desk.table("dag.diffs").put(DagOutcome(f"d{at}", "w", "s", True, "", "", decided_ms=day(at / count)))
        desk.table("dag.outcomes").put(DagCommandOutcome(f"c{at}", True, "", "", day(at / count)))
    desk.again()
    touches = Touches()
    for holder in counted(desk):
        for name in names_of(holder):
            setattr(holder, name, touches.counting(getattr(holder, name)))
    gets = 0

    class Counting:
        def __init__(self, table: Any) -> None:
            self._table = table

        def __getattr__(self, name: str) -> Any:
            nonlocal gets
            gets += 1
            return getattr(self._table, name)

    tables: Any = {name: Counting(table) for name, table in desk._tables.items()}
    desk._tables = desk.catalogue._tables = tables
    desk.catalogue.needs.tables = desk.catalogue.outcomes.tables = tables
    desk.tick(day(2))
    desk.close()
    return touches.count + gets


def counted(desk: Desk) -> list[Any]:
    catalogue = desk.catalogue
    lines = [catalogue.past_versions, catalogue.needs.idle_nodes, catalogue.needs.idle_artifacts]
    return [catalogue, catalogue.needs, *lines, *catalogue.outcomes.lines.values()]


def names_of(holder: Any) -> list[str]:
    return [one.name for one in fields(holder)] if is_dataclass(holder) else list(vars(holder))


def test_a_tick_at_which_nothing_is_due_touches_nothing_however_much_there_is(tmp_path: Path) -> None:
    few, many = touched(tmp_path, FEW), touched(tmp_path, MANY)
    assert many - few <= 5 * (log2(MANY / FEW) + 1)  # where what is sorted is searched by halves
