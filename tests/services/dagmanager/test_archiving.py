"""Given queues of which nothing may be lost, when nobody has them any more, then they are archived before retention takes anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from qmtl.foundation.contracts.dag import (
    AdminAct,
    CollectGarbage,
    DagSubmission,
    Queue,
    QueueCollected,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    RetireStrategy,
    SentinelStatus,
    TopicClass,
)
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.contracts.retention import ArchiveTopic, ReportTopicArchived, TopicArchive
from qmtl.foundation.wire.topics import DAY_MS, topic
from qmtl.services.dagmanager import garbage
from qmtl.services.dagmanager.garbage import BATCH, LONGEST_PAUSE_MS, URGENT_PAUSE_MS
from tests.services.dagmanager.desk import MINUTE_MS, Desk
from tests.services.graphs import crossing, price, sma, strategy, submission, target

NOON_MS = 1_700_000_000_000
OUT = RetireStrategy("out", "w1", "s1", NOON_MS)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    made.tick(NOON_MS)
    yield made
    made.close()


def day(number: float) -> int:
    return NOON_MS + round(number * DAY_MS)


def publish(desk: Desk, name: str = "first") -> list[Queue]:
    one = submission(strategy(crossing(3, 8)))
    desk.send(DagSubmission(name, "w1", one.dag_json, desk.closed_ms, execution_domain="live"))
    desk.report_all()
    return desk.rows("dag.queues")


def asked(desk: Desk) -> dict[str, int]:
    """What is to be archived, and how often that was asked for."""
    return {row.topic: row.number for row in desk.rows("dag.tasks") if isinstance(row, ArchiveTopic)}


def removals(desk: Desk) -> dict[str, TopicArchive | None]:
    """What is to be removed, and the archive that has to be there."""
    return {row.topic: row.archived for row in desk.rows("dag.tasks") if isinstance(row, RemoveTopic)}


def archived(topic: str, number: int = 1, url: str = "at/1", records: int = 3) -> ReportTopicArchived:
    return ReportTopicArchived(topic, number, True, "", "", url, records, f"of {url}")


def lines(desk: Desk, topic: str, *acts: AdminAct) -> list[tuple[str, str]]:
    """What the audit says of a topic."""
    found = [one for one in desk.told("dag.admin.log") if one.subject == topic and one.act in acts]
    return [(one.detail, one.digest) for one in found]


# ---- when --------------------------------------------------------------------------------------------------------------


def test_a_queue_to_which_one_can_go_back_is_archived_with_the_tick_that_finds_it_an_orphan(
    desk: Desk,
) -> None:
    topics = {row.topic for row in publish(desk)}
    desk.tick(day(1))
    desk.send(OUT)
    assert asked(desk) == {}
    desk.tick(day(1) + MINUTE_MS)
    assert asked(desk) == dict.fromkeys(topics, 1)
    before = desk.all_rows()
    desk.again()
    desk.tick(day(1) + 2 * MINUTE_MS)
    assert desk.all_rows() == before, "what was asked for is not asked for again, whoever was restarted"
    (first, *_) = sorted(topics)
    desk.send(archived(first, records=7))
    row = desk.table("dag.queues").get(first)
    assert row.archive == TopicArchive(day(1) + 2 * MINUTE_MS, "at/1", "of at/1", 7)
    assert not row.archiving
    assert asked(desk).keys() == topics - {first}
    assert lines(desk, first, AdminAct.ARCHIVED) == [("7 records at at/1", "of at/1")]
    desk.send(archived(first, url="at/2"))  # it comes again
    assert desk.table("dag.queues").get(first) == row


@pytest.mark.parametrize("kind", TopicClass)
def test_of_a_version_that_failed_only_queues_of_orders_are_archived(desk: Desk, kind: TopicClass) -> None:
    one = submission(strategy([price(), sma("fast", 3), target(source="fast")]))
    desk.send(one)
    last = max(row.topic for row in desk.rows("dag.tasks"))
    desk.send(*(ReportTopicCreated(row.topic, row.topic != last, "", "") for row in desk.rows("dag.tasks")))
    mine = next(row for row in desk.rows("dag.queues") if row.topic != last)
    for row in desk.rows("dag.queues"):
        desk.table("dag.queues").put(replace(row, topic_class=kind))
    desk.again()
    desk.tick(day(1))
    assert (mine.topic in asked(desk)) is (kind is TopicClass.TRADE_EXEC)


def test_what_a_worker_still_computes_is_archived_once_it_has_heard(desk: Desk) -> None:
    publish(desk)
    row = desk.table("dag.strategies").get("w1", "s1")
    desk.send(NodeDeployment(2, row), OUT)
    for days in (1, 100):
        desk.tick(day(days))
        desk.send(CollectGarbage(f"now-{days}", "", NOON_MS))
        assert asked(desk) == {}
    desk.send(NodeDeployment(2, desk.table("dag.strategies").get("w1", "s1")))
    desk.tick(day(101))
    assert len(asked(desk)) == 5


def test_what_turns_out_to_be_computed_still_is_archived_anew_when_that_is_over(desk: Desk) -> None:
    publish(desk)
    row = desk.table("dag.strategies").get("w1", "s1")
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.send(NodeDeployment(2, row))  # a shard that was away for a day tells of itself
    desk.tick(day(2))
    assert all(row.archive is None for row in desk.rows("dag.queues"))
    assert asked(desk) == {}
    desk.send(NodeDeployment(2, desk.table("dag.strategies").get("w1", "s1")))
    desk.tick(day(3))
    assert set(asked(desk).values()) == {2}


def test_at_a_tick_no_more_are_archived_than_a_batch_and_half_of_it_while_the_brokers_are_busy(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BATCH // 2 < BATCH
    monkeypatch.setattr(garbage, "BATCH", 4)
    averages = [sma(f"n{at}", 2 + at) for at in range(14)]
    desk.send(submission(strategy([price(), *averages, target(source="n0")])))
    desk.report_all()
    topics = sorted(row.topic for row in desk.rows("dag.queues"))
    desk.send(OUT)
    desk.tick(day(1))
    assert sorted(asked(desk)) == topics[:4]
    for load, count in ((80, 8), (81, 10), (0, 14)):
        desk.send(replace(archived(min(asked(desk))), broker_load_percent=load))
        desk.again()
        desk.tick(desk.closed_ms + MINUTE_MS)
        assert sorted([row.topic for row in desk.rows("dag.queues") if row.archivals]) == topics[:count]


# ---- what goes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_kept", [True, False])
def test_of_a_topic_that_went_everybody_hears_whether_it_is_archived(desk: Desk, is_kept: bool) -> None:
    """The event as the DAG Manager gives it, to the last field."""
    if is_kept:
        publish(desk)
        desk.send(OUT)
    else:
        desk.send(submission(strategy(crossing(3, 8))))
        *made, last = [row.topic for row in desk.rows("dag.tasks")]
        desk.send(*(ReportTopicCreated(one, True, "", "") for one in made))
        desk.send(ReportTopicCreated(last, False, "QMTL-902", "no room"))
        assert desk.rows("dag.sentinels")[0].status is SentinelStatus.FAILED
    queue = next(row for row in desk.rows("dag.queues") if row.tags and row.ready)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(220))
    desk.remove_all()
    (told,) = [
        one for one in desk.told("queue") if isinstance(one, QueueCollected) and one.topic == queue.topic
    ]
    action = "archive" if is_kept else "delete"
    ts = "2024-06-21T22:13:20Z"
    assert told == QueueCollected(
        "QueueCollected", queue.topic, queue.tags, 60, action, f"gc:{queue.topic}:{action}", ts
    )
    assert topic("queue").key_of(told) == (len(queue.tags), *queue.tags, 60)
    where = f"at/{queue.topic}" if is_kept else "delete"
    assert lines(desk, queue.topic, AdminAct.REMOVED) == [(where, "of it" if is_kept else "")]
    assert lines(desk, queue.topic, AdminAct.CONDEMNED) == [(action, "")]


def test_without_an_archive_store_nothing_goes_and_with_one_that_comes_later_it_does(desk: Desk) -> None:
    """Asked again at least once a day, for as long as retention has not taken all; then once a week, so that the audit does not grow."""
    (first, *_) = queues = publish(desk)
    desk.send(OUT)
    tries = []
    for hours in range(24, 24 * 300, 3):
        desk.tick(day(hours / 24))
        for name, number in asked(desk).items():
            desk.send(ReportTopicArchived(name, number, False, "QMTL-326", "there is none"))
            if name == first.topic:
                tries.append(desk.closed_ms)
    assert removals(desk) == {}
    kept_until_ms = day(1) + first.retention_ms
    pauses = [(after - before, before < kept_until_ms) for before, after in pairwise(tries)]
    assert max(pause for pause, is_urgent in pauses if is_urgent) <= URGENT_PAUSE_MS + 3 * 3_600_000
    assert max(pause for pause, is_urgent in pauses if not is_urgent) == 7 * DAY_MS
    told = lines(desk, first.topic, AdminAct.NOT_ARCHIVED)
    assert told == [("[QMTL-326] there is none", "")] * len(tries)
    desk.send(CollectGarbage("now", "", desk.closed_ms))
    assert desk.table("dag.outcomes").get("now").detail == "0 queues are being removed, 5 are being archived"
    desk.archive_all()
    desk.tick(desk.closed_ms + LONGEST_PAUSE_MS)
    assert removals(desk).keys() == {row.topic for row in queues}


def test_what_was_written_behind_its_archive_is_archived_again_before_it_goes(desk: Desk) -> None:
    (name, *_) = [row.topic for row in publish(desk)]
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(220))
    assert removals(desk)[name] == desk.table("dag.queues").get(name).archive
    desk.send(ReportTopicRemoved(name, False, "QMTL-905", "longer"))
    row = desk.table("dag.queues").get(name)
    assert (row.removing, row.archive, row.spared) == (False, None, 1)
    desk.tick(day(220) + MINUTE_MS)
    assert asked(desk) == {name: 2}
    desk.send(archived(name, 2, "at/2"))
    desk.tick(day(220) + 2 * MINUTE_MS)
    found = removals(desk)[name]
    assert found is not None
    assert found.url == "at/2"
    desk.send(ReportTopicRemoved(name, True, "", "", "at/2", 3, "of at/2"))
    assert lines(desk, name, AdminAct.REMOVED) == [("at/2", "of at/2")]
    assert len(lines(desk, name, AdminAct.ARCHIVED)) == 2


def test_what_somebody_goes_on_writing_stays_and_is_tried_after_growing_pauses(desk: Desk) -> None:
    topics = [row.topic for row in publish(desk)]
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    tries = 0
    for minute in range(200):
        desk.tick(day(220) + minute * MINUTE_MS)
        for name in removals(desk):
            desk.send(ReportTopicRemoved(name, False, "QMTL-905", "longer"))
            tries += name == topics[0]
        for name, number in asked(desk).items():
            desk.send(archived(name, number))
    assert 5 <= tries <= 8
    assert {row.topic for row in desk.rows("dag.queues")} == set(topics)


@pytest.mark.parametrize("code", ["QMTL-904", "QMTL-326", "QMTL-901"])
def test_what_does_not_go_for_another_reason_keeps_its_archive(desk: Desk, code: str) -> None:
    (name, *_) = [row.topic for row in publish(desk)]
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    desk.tick(day(220))
    before = removals(desk)[name]
    desk.send(ReportTopicRemoved(name, False, code, "no"))
    desk.tick(day(220) + MINUTE_MS)
    assert removals(desk)[name] == before
    assert asked(desk) == {}


# ---- what is used again --------------------------------------------------------------------------------------------------


def test_what_is_used_again_forgets_its_archive_and_is_archived_anew_after_that(desk: Desk) -> None:
    (name, *_) = topics = [row.topic for row in publish(desk)]
    desk.send(OUT)
    desk.tick(day(1))
    desk.archive_all()
    publish(desk, "again")
    assert all(row.archive is None for row in desk.rows("dag.queues"))
    desk.tick(day(2))
    desk.send(replace(OUT, command_id="out-again"))
    desk.tick(day(3))
    assert asked(desk) == dict.fromkeys(topics, 2)
    desk.tick(day(300))
    assert removals(desk) == {}, "the first archive is of what it was before"
    desk.send(archived(name, 2, "at/2"))
    assert desk.table("dag.queues").get(name).archive.url == "at/2"
    urls = [detail for detail, _ in lines(desk, name, AdminAct.ARCHIVED)]
    assert urls == [f"3 records at at/{name}", "3 records at at/2"], "the audit names both"


def test_what_is_told_of_an_archive_that_was_asked_for_before_it_was_used_again_counts_for_nothing(
    desk: Desk,
) -> None:
    """Between two ticks, even: a command looks for orphans as a tick does."""
    (name, *_) = [row.topic for row in publish(desk)]
    desk.send(OUT, CollectGarbage("now", "", NOON_MS))
    assert asked(desk)[name] == 1
    publish(desk, "again")
    assert (asked(desk), desk.table("dag.queues").get(name).archiving) == ({}, False)
    desk.send(replace(OUT, command_id="out-again"), CollectGarbage("now-again", "", NOON_MS))
    assert asked(desk)[name] == 2
    before = desk.all_rows()
    desk.send(archived(name, 1))
    assert desk.all_rows() == before
    desk.send(archived(name, 2, "at/2"))
    assert desk.table("dag.queues").get(name).archive.url == "at/2"


# ---- by command ------------------------------------------------------------------------------------------------------------


def test_by_command_queues_of_one_version_are_archived_and_of_one_that_failed_they_are_removed(
    desk: Desk,
) -> None:
    publish(desk)
    desk.send(OUT)
    one = submission(strategy([price(symbols=("X",)), sma("fast", 4), target(source="fast")], version="v2"))
    desk.send(DagSubmission("failed", "w1", one.dag_json, NOON_MS, execution_domain="live"))
    *made, last = [row.topic for row in desk.rows("dag.tasks")]
    desk.send(*(ReportTopicCreated(name, True, "", "") for name in made))
    desk.send(ReportTopicCreated(last, False, "QMTL-902", "no room"))
    versions = {row.version: row for row in desk.rows("dag.sentinels")}
    assert versions["v2"].status is SentinelStatus.FAILED
    desk.send(CollectGarbage("kept", "v1", NOON_MS))
    assert desk.table("dag.outcomes").get("kept").detail == "0 queues are being removed, 5 are being archived"
    assert {desk.table("dag.queues").get(name).node_id for name in asked(desk)} == {*versions["v1"].node_ids}
    for queue in desk.rows("dag.queues"):  # as if the tick that is due had not come yet
        desk.table("dag.queues").put(replace(queue, orphaned_at_ms=NOON_MS - 300 * DAY_MS))
    desk.again()
    for number, text in enumerate(("v2", versions["v2"].sentinel_id)):
        desk.send(CollectGarbage(f"failed-{number}", text, NOON_MS))
        assert desk.table("dag.outcomes").get(f"failed-{number}").accepted
    gone = {desk.table("dag.queues").get(name).node_id for name in removals(desk)}
    assert gone == set(versions["v2"].node_ids) - set(versions["v1"].node_ids)
    assert set(removals(desk).values()) == {None}
    desk.send(CollectGarbage("none", "v9", NOON_MS))
    assert "retired or failed" in desk.table("dag.outcomes").get("none").detail
