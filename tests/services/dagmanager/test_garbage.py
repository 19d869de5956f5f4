"""Given queues that nobody has any more, when time passes by the clock's ticks, then each goes after its time, and not before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.canonical import blake3_hex
from qmtl.foundation.contracts.dag import (
    AdminAct,
    CollectGarbage,
    DagSubmission,
    Queue,
    Relation,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    RetireStrategy,
    RollBack,
    SentinelStatus,
    TopicClass,
    VersionSentinel,
)
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager import garbage
from qmtl.services.dagmanager.garbage import BATCH, FRESH_MS, LONGEST_PAUSE_MS
from tests.services.dagmanager.desk import Desk
from tests.services.graphs import crossing, price, sma, strategy, submission, target

NOON_MS = 1_700_000_000_000
OUT = RetireStrategy("out", "w1", "s1", NOON_MS)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.tick(NOON_MS)
    yield made
    made.close()


def publish(desk: Desk, name: str = "first") -> list[Queue]:
    one = submission(strategy(crossing(3, 8)))
    desk.send(DagSubmission(name, "w1", one.dag_json, desk.closed_ms, execution_domain="live"))
    desk.report_all()
    return desk.rows("dag.queues")


def day(number: float) -> int:
    return NOON_MS + round(number * DAY_MS)


def removals(desk: Desk) -> dict[str, bool]:
    """What is to be removed, and whether it is archived first."""
    return {row.topic: row.archive for row in desk.rows("dag.tasks") if isinstance(row, RemoveTopic)}


# ---- when --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, stays_days, archive",
    [(TopicClass.RAW, 8, False), (TopicClass.INDICATOR, 33, False), (TopicClass.TRADE_EXEC, 120, True)],
)
def test_a_queue_of_no_version_stays_as_long_as_its_class_says(
    desk: Desk, kind: TopicClass, stays_days: int, archive: bool
) -> None:
    """A version of which a topic could not be made has the others made in vain."""
    one = submission(strategy([price(), sma("fast", 3), target(source="fast")]))
    desk.send(one)
    last = max(row.topic for row in desk.rows("dag.tasks"))
    desk.send(*(ReportTopicCreated(row.topic, row.topic != last, "", "") for row in desk.rows("dag.tasks")))
    (version,) = desk.rows("dag.sentinels")
    assert version.status is SentinelStatus.FAILED
    mine = next(row for row in desk.rows("dag.queues") if row.topic != last)
    desk.table("dag.queues").put(replace(mine, topic_class=kind))
    desk.again()
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(1 + stays_days) - 1)
    assert mine.topic not in removals(desk)
    desk.tick(day(1 + stays_days))
    assert removals(desk)[mine.topic] is archive


def test_a_queue_that_one_can_go_back_to_stays_longer_and_is_archived(desk: Desk) -> None:
    queues = publish(desk)
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(211) - 1)
    assert removals(desk) == {}
    desk.tick(day(211))
    assert removals(desk) == {row.topic: True for row in queues}
    desk.remove_all()
    assert (desk.rows("dag.queues"), desk.rows("dag.tasks")) == ([], [])
    assert len(desk.rows("dag.sentinels")) == 1
    desk.tick(day(211) + 60_000)
    assert (desk.rows("dag.sentinels"), desk.rows("dag.edges")) == ([], [])
    assert len(desk.rows("dag.nodes")) == len(queues)  # they have their own time from now on


def test_what_a_message_says_of_time_is_not_believed(desk: Desk) -> None:
    publish(desk)
    desk.send(replace(OUT, issued_at_ms=0), CollectGarbage("now", "", day(10_000)))
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(200))
    assert removals(desk) == {}


def test_a_queue_that_is_needed_again_begins_anew(desk: Desk) -> None:
    publish(desk)
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(200))
    publish(desk, "again")
    desk.send(replace(OUT, command_id="out-again", issued_at_ms=day(200)))
    desk.tick(day(220))
    desk.archive_all()
    assert removals(desk) == {}
    desk.tick(day(431))
    assert removals(desk) != {}


def test_what_another_strategy_has_stays(desk: Desk) -> None:
    publish(desk)
    one = submission(strategy([price(), sma("fast", 3), target(source="fast")], "s2"))
    desk.send(one)
    desk.report_all()
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(300))
    kept = {node for row in desk.rows("dag.sentinels") if row.strategy_id == "s2" for node in row.node_ids}
    removed = {row.node_id for row in desk.rows("dag.queues") if row.removing}
    assert removed
    assert not removed & kept


def test_a_strategy_lets_its_nodes_go_once_however_often_it_is_taken_out(desk: Desk) -> None:
    def references() -> Counter[str]:
        return Counter({row.node_id: desk.references(row.node_id) for row in desk.rows("dag.nodes")})

    publish(desk)
    desk.send(submission(strategy([price(), sma("fast", 3), target(source="fast")], "s2")))
    desk.report_all()
    (mine,) = [set(row.node_ids) for row in desk.rows("dag.sentinels") if row.strategy_id == "s1"]
    before = references()
    assert {before[node_id] for node_id in mine} == {1, 2}
    desk.send(OUT)
    assert before - references() == Counter(mine)
    left = desk.all_rows() | {"dag.outcomes": []}
    for _ in range(2):
        desk.send(OUT, replace(OUT, command_id="out-again"))
        assert (desk.all_rows() | {"dag.outcomes": []}, before - references()) == (left, Counter(mine))
        desk.again()
    assert [(row.command_id, row.code) for row in desk.rows("dag.outcomes")] == [
        ("out", ""),
        ("out-again", "QMTL-602"),
    ]


def test_what_a_worker_still_computes_stays_until_it_has_heard(desk: Desk) -> None:
    publish(desk)
    row = desk.table("dag.strategies").get("w1", "s1")
    desk.send(NodeDeployment(2, row), OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(500))
    assert removals(desk) == {}
    desk.send(NodeDeployment(2, desk.table("dag.strategies").get("w1", "s1")))
    desk.tick(day(501))
    desk.archive_all()
    assert len(removals(desk)) == 5


# ---- how ---------------------------------------------------------------------------------------------------------------


def test_at_a_tick_no_more_go_than_a_batch(desk: Desk) -> None:
    averages = [sma(f"n{at}", 2 + at) for at in range(2 * BATCH)]
    desk.send(submission(strategy([price(), *averages, target(source="n0")])))
    desk.report_all()
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    for count in (BATCH, 2 * BATCH, 2 * BATCH + 2):
        desk.tick(day(300) + count)
        assert len(removals(desk)) == count


def test_while_the_brokers_are_busy_half_as_many_go(desk: Desk) -> None:
    averages = [sma(f"n{at}", 2 + at) for at in range(4 * BATCH)]
    desk.send(submission(strategy([price(), *averages, target(source="n0")])))
    desk.report_all()
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(300))
    for load, batch in ((80, BATCH), (81, BATCH // 2), (100, BATCH // 2), (0, BATCH)):
        done = min(removals(desk))
        desk.send(ReportTopicRemoved(done, True, "", "", broker_load_percent=load))
        before = len(removals(desk))
        desk.again()
        desk.tick(desk.closed_ms + 60_000)
        assert len(removals(desk)) - before == batch


@pytest.mark.parametrize(
    "load, age_ms, batch",
    [
        (0, FRESH_MS + 1, 4),  # nobody measures it
        (1, FRESH_MS, 4),
        (1, FRESH_MS + 1, 2),
        (80, FRESH_MS + 1, 2),
        (81, FRESH_MS, 2),
        (81, 200 * DAY_MS, 2),
    ],
)
def test_a_figure_that_is_old_says_nothing_and_half_as_many_go_until_the_next_one(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, load: int, age_ms: int, batch: int
) -> None:
    monkeypatch.setattr(garbage, "BATCH", 4)
    averages = [sma(f"n{at}", 2 + at) for at in range(14)]
    desk.send(submission(strategy([price(), *averages, target(source="n0")])))
    desk.report_all()
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(300))
    assert len(removals(desk)) == 4
    desk.send(ReportTopicRemoved(min(removals(desk)), True, "", "", broker_load_percent=load))
    desk.again()
    desk.tick(day(300) + age_ms)
    assert len(removals(desk)) == 3 + batch
    desk.send(ReportTopicRemoved(min(removals(desk)), True, "", "", broker_load_percent=min(load, 80)))
    desk.tick(day(300) + age_ms + 60_000)
    assert len(removals(desk)) == 3 + batch - 1 + 4


def test_a_removal_that_failed_is_tried_again(desk: Desk) -> None:
    (topic, *_) = (row.topic for row in publish(desk))
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(300))
    desk.send(ReportTopicRemoved(topic, False, "QMTL-903", "the store does not answer"))
    assert topic not in removals(desk)
    assert desk.table("dag.queues").get(topic).ready
    desk.tick(day(300) + 60_000)
    assert topic in removals(desk)


# ---- what can't be removed -----------------------------------------------------------------------------------------------

MINUTE_MS = 60_000
COUNT = 8


def answer(desk: Desk, stuck: frozenset[str]) -> None:
    """The topic admin does what it is asked, where it can."""
    for topic in removals(desk):
        code = "QMTL-904" if topic in stuck else ""
        desk.send(ReportTopicRemoved(topic, topic not in stuck, code, ""))


def tries(desk: Desk, topic: str) -> list[int]:
    """The minutes of day 300 at which a topic was condemned."""
    entries = [one for one in desk.told("dag.admin.log") if one.subject == topic]
    return [(one.at_ms - day(300)) // MINUTE_MS for one in entries if one.act is AdminAct.CONDEMNED]


@settings(max_examples=12, deadline=None)
@given(st.frozensets(st.integers(0, COUNT - 1)), st.booleans())
@example(frozenset(range(COUNT - 1)), True)
def test_whatever_cannot_be_removed_all_else_goes_and_one_day_that_too(
    places: frozenset[int], restarts: bool
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(garbage, "BATCH", 2)
        desk = Desk(Path(folder))
        desk.tick(NOON_MS)
        averages = [sma(f"n{at}", 2 + at) for at in range(COUNT - 2)]
        desk.send(submission(strategy([price(), *averages, target(source="n0")])))
        desk.report_all()
        topics = sorted(row.topic for row in desk.rows("dag.queues"))
        stuck = frozenset(topics[place] for place in places)
        desk.send(OUT)
        desk.tick(day(1))
        desk.archive_all()
        for minute in range(COUNT // 2):
            desk.tick(day(300) + minute * MINUTE_MS)
            answer(desk, stuck)
            if restarts:
                desk.again()
        assert {row.topic for row in desk.rows("dag.queues")} == stuck
        for _ in range(COUNT // 2):
            desk.tick(desk.closed_ms + LONGEST_PAUSE_MS)
            answer(desk, frozenset())
        assert desk.rows("dag.queues") == []
        desk.close()


def test_what_cannot_be_removed_is_tried_after_growing_pauses_whoever_was_restarted(desk: Desk) -> None:
    """So that the admin log, which is kept for good, does not grow with the ticks."""
    (topic, *_) = topics = [row.topic for row in publish(desk)]
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    for minute in range(40):
        desk.tick(day(300) + minute * MINUTE_MS)
        answer(desk, frozenset(topics))
        if minute % 3 == 0:
            desk.again()
    assert tries(desk, topic) == [0, 1, 3, 7, 15, 31]
    for days in range(0, 60, 4):
        desk.tick(day(301 + days))
        answer(desk, frozenset(topics))
    pauses = [after - before for before, after in pairwise(tries(desk, topic))]
    assert max(pauses) * MINUTE_MS < LONGEST_PAUSE_MS + 4 * DAY_MS


def test_a_command_tries_at_once_what_could_not_be_removed_the_last_times(desk: Desk) -> None:
    topics = frozenset(row.topic for row in publish(desk))
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    for minute in range(20):
        desk.tick(day(300) + minute * MINUTE_MS)
        answer(desk, topics)
    assert removals(desk) == {}
    desk.send(CollectGarbage("now", "", day(300)))
    assert removals(desk).keys() == topics


def test_a_queue_that_was_needed_again_begins_anew_with_the_pauses(desk: Desk) -> None:
    topics = frozenset(row.topic for row in publish(desk))
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    for minute in range(20):
        desk.tick(day(300) + minute * MINUTE_MS)
        answer(desk, topics)
    publish(desk, "again")
    assert all((row.spared, row.spared_at_ms) == (0, None) for row in desk.rows("dag.queues"))


def test_a_version_that_comes_back_while_its_topics_go_gets_new_ones(desk: Desk) -> None:
    queues = publish(desk)
    (first,) = desk.rows("dag.sentinels")
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(300))
    desk.send(RollBack("back", first.sentinel_id, day(300)))
    assert desk.table("dag.strategies").get("w1", "s1").nodes == ()
    desk.remove_all()
    assert {row.topic for row in desk.rows("dag.tasks")} == {f"{row.topic}_v2" for row in queues}
    desk.report_all()
    row = desk.table("dag.strategies").get("w1", "s1")
    assert {one.topic for one in row.nodes} == {f"{row.topic}_v2" for row in queues}
    assert desk.rows("dag.sentinels")[0].status is SentinelStatus.ACTIVE


def test_garbage_can_be_collected_by_command_and_of_one_version_alone(desk: Desk) -> None:
    publish(desk)
    desk.send(submission(strategy(crossing(5, 21), "s2", version="v2")))
    desk.report_all()
    desk.send(OUT, RetireStrategy("out-too", "w1", "s2", NOON_MS))
    desk.tick(day(1))
    desk.archive_all()
    for queue in desk.rows("dag.queues"):  # as if the tick that is due had not come yet
        desk.table("dag.queues").put(replace(queue, orphaned_at_ms=NOON_MS - 300 * DAY_MS))
    desk.again()
    desk.send(CollectGarbage("one", "v2", NOON_MS))
    assert desk.table("dag.outcomes").get("one").detail == "5 queues are being removed"
    nodes = {node for row in desk.rows("dag.sentinels") if row.version == "v2" for node in row.node_ids}
    assert {row.node_id for row in desk.rows("dag.queues") if row.removing} == nodes
    desk.send(CollectGarbage("all", "", NOON_MS))
    assert all(row.removing for row in desk.rows("dag.queues"))
    desk.send(CollectGarbage("none", "v9", NOON_MS))
    assert not desk.table("dag.outcomes").get("none").accepted


def test_who_reads_queues_hears_that_they_are_gone(desk: Desk) -> None:
    publish(desk)
    desk.send(OUT)
    assert {one.tags: one.queues for one in desk.told("queue")} == {
        ("crypto", "price"): (),
        ("crypto", "sma"): (),
    }
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(300))
    topics = set(removals(desk))
    desk.remove_all()
    gone = [one for one in desk.told("queue") if one.type == "QueueCollected"]
    assert {(one.topic, one.action) for one in gone} == {(topic, "archive") for topic in topics}
    acts = [one.act for one in desk.told("dag.admin.log") if one.subject in topics]
    assert acts.count(AdminAct.REMOVED) == acts.count(AdminAct.CONDEMNED) == acts.count(AdminAct.CREATED) == 5


@pytest.mark.parametrize("restarted", [False, True])
def test_what_a_tick_writes_comes_in_one_order_whoever_was_restarted(desk: Desk, restarted: bool) -> None:
    for name in ("s3", "s1", "s2"):
        desk.send(submission(strategy(crossing(3, 8), name)))
    desk.report_all()
    desk.send(*(RetireStrategy(name, "w1", name, NOON_MS) for name in ("s2", "s3", "s1")))
    if restarted:
        desk.again()
    assert [one.strategy_id for one in desk._manager._catalogue.versions()] == ["s1", "s2", "s3"]


# ---- versions that are forgotten -------------------------------------------------------------------------------------


def test_of_a_forgotten_version_the_audit_has_what_it_takes_to_publish_it_again(desk: Desk) -> None:
    publish(desk)
    (version,) = desk.rows("dag.sentinels")
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    (version,) = desk.rows("dag.sentinels")
    desk.tick(day(211))
    assert [one for one in desk.told("dag.admin.log") if one.act is AdminAct.FORGOTTEN] == []
    desk.remove_all()
    desk.tick(day(211) + 60_000)
    assert desk.rows("dag.sentinels") == []
    (told,) = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.FORGOTTEN]
    assert (told.subject, told.digest) == (version.sentinel_id, blake3_hex(codec.encode(version)))
    named = (version.version, "s1", "w1", version.commit_hash, "submission first")
    assert all(one in told.detail for one in named)
    publish(desk, "again")  # what was submitted as that
    (again,) = desk.rows("dag.sentinels")
    same = replace(
        version,
        created_at_ms=again.created_at_ms,
        status=SentinelStatus.ACTIVE,
        submission_id="again",
        active_since_ms=again.active_since_ms,
        retired_at_ms=None,
        was_stable=False,
    )
    assert again == same


# ---- versions that failed ----------------------------------------------------------------------------------------------


def failed(desk: Desk, slow: int) -> VersionSentinel:
    """A version of which a topic could not be made."""
    one = submission(strategy(crossing(3, slow), version="v2"))
    desk.send(DagSubmission(f"failed-{slow}", "w1", one.dag_json, NOON_MS, execution_domain="live"))
    desk.send(
        *(ReportTopicCreated(row.topic, False, "QMTL-902", "no room") for row in desk.rows("dag.tasks"))
    )
    found: VersionSentinel
    (found,) = [row for row in desk.rows("dag.sentinels") if row.submission_id == f"failed-{slow}"]
    assert found.status is SentinelStatus.FAILED
    return found


def test_a_version_that_failed_is_forgotten_as_one_that_is_retired(desk: Desk) -> None:
    publish(desk)
    kept = {row.sentinel_id for row in desk.rows("dag.sentinels")}
    gone = failed(desk, 21)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(100))
    desk.send(OUT)  # what shares nodes with it is kept for longer
    desk.tick(day(211) - 1)
    assert gone.sentinel_id in {row.sentinel_id for row in desk.rows("dag.sentinels")}
    desk.tick(day(211))
    assert {row.sentinel_id for row in desk.rows("dag.sentinels")} == kept
    assert {row.source for row in desk.rows("dag.edges") if row.relation is Relation.HAS} == kept
    assert gone.sentinel_id not in desk.memory()["_versions"]
    before = desk.memory()
    desk.again()
    assert desk.memory() == before


def test_a_version_that_failed_and_comes_again_is_no_longer_over(desk: Desk) -> None:
    gone = failed(desk, 21)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(200))
    one = submission(strategy(crossing(3, 21), version="v2"))
    desk.send(DagSubmission("again", "w1", one.dag_json, day(200), execution_domain="live"))
    desk.tick(day(400))
    assert desk.table("dag.sentinels").get(gone.sentinel_id).status is SentinelStatus.PENDING


def test_a_label_means_the_version_that_one_can_have_before_those_that_failed(desk: Desk) -> None:
    first, second = failed(desk, 21), failed(desk, 34)
    desk.send(RollBack("none", "v2", NOON_MS))
    detail = desk.table("dag.outcomes").get("none").detail
    assert all(one.sentinel_id in detail for one in (first, second))
    one = submission(strategy(crossing(5, 8), version="v2"))
    desk.send(DagSubmission("good", "w1", one.dag_json, NOON_MS, execution_domain="live"))
    desk.report_all()
    mine = desk.table("dag.diffs").get("good").sentinel_id
    desk.send(OUT, RollBack("back", "v2", NOON_MS))
    assert desk.table("dag.outcomes").get("back").accepted
    assert desk.table("dag.sentinels").get(mine).status is SentinelStatus.ACTIVE
