"""The laws of the topic admin: it reports what it sees, makes nothing twice, and removes only what it may."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from qmtl.engine.log.port import TopicDescription
from qmtl.engine.processor import Arrival
from qmtl.foundation.common.errors import (
    ArchiveAltered,
    LogUnreachable,
    QmtlError,
    StoreUnavailable,
    TopicChanged,
    UnknownTopic,
)
from qmtl.foundation.contracts.dag import (
    CreateTopic,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    TopicTask,
)
from qmtl.foundation.contracts.retention import ReportTopicArchived, TopicArchive
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.services.dagmanager.topic_admin import (
    ROUNDS,
    TURN_S,
    TopicAdmin,
    Trouble,
)
from tests.services.dagmanager.outside import (
    Cluster,
    Office,
    Told,
    Vault,
    create,
    remove,
    store,
    summary,
    there,
)

# ---- making -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Making:
    """What is there, what is asked for, and what is told and made of it."""

    asked: tuple[CreateTopic, ...]
    told: tuple[tuple[str, bool, str], ...]
    made: tuple[str, ...]
    before: tuple[TopicDescription, ...] = ()
    words: tuple[str, ...] = ()
    refuses: frozenset[str] = frozenset()


MAKING = {
    "nothing is there": Making(
        (create("n_a"), create("n_b", 3)), (("n_a", True, ""), ("n_b", True, "")), ("n_a", "n_b")
    ),
    "it is there as it was asked for": Making(
        (create("n_a"), create("n_b")), (("n_a", True, ""), ("n_b", True, "")), ("n_b",), (there("n_a"),)
    ),
    "it has more settings than were asked for": Making(
        (create("n_a"),), (("n_a", True, ""),), (), (there("n_a", config={"segment.bytes": "1000"}),)
    ),
    "it has other partitions": Making(
        (create("n_a", 3),),
        (("n_a", False, "QMTL-303"),),
        (),
        (there("n_a", 2),),
        ("partitions is 2, wanted 3",),
    ),
    "it has another setting": Making(
        (create("n_a"),),
        (("n_a", False, "QMTL-303"),),
        (),
        (there("n_a", config={"retention.ms": "5"}),),
        ("retention.ms is '5'",),
    ),
    "one mismatch keeps nobody else from being made": Making(
        (create("n_a"), create("n_b")),
        (("n_a", False, "QMTL-303"), ("n_b", True, "")),
        ("n_b",),
        (there("n_a", 2),),
    ),
    "another topic looks like it": Making(
        (create("n_a"),), (("n_a", False, "QMTL-322"),), (), (there("N.a"),), ("'N.a'", "'n_a'")
    ),
    "it is there, and another one looks like it": Making(
        (create("n_a"),), (("n_a", True, ""),), (), (there("n-a"), there("n_a"))
    ),
    "two that look alike are asked for": Making(
        (create("n_a"), create("n-a"), create("n.b")),
        (("n_a", True, ""), ("n-a", False, "QMTL-322"), ("n.b", True, "")),
        ("n_a", "n.b"),
        (),
        ("'n_a'",),
    ),
    "the cluster refuses one": Making(
        (create("n_a"), create("n_b")),
        (("n_a", False, "QMTL-323"), ("n_b", True, "")),
        ("n_a", "n_b"),
        refuses=frozenset({"n_a"}),
    ),
    "the one that looks like it is refused": Making(
        (create("n_a"), create("N_a")),
        (("n_a", False, "QMTL-323"), ("N_a", False, "QMTL-322")),
        ("n_a",),
        refuses=frozenset({"n_a"}),
    ),
    "the same is asked for twice": Making(
        (create("n_a"), create("n_b"), create("n_a")), (("n_b", True, ""), ("n_a", True, "")), ("n_b", "n_a")
    ),
}


@pytest.mark.parametrize("case", MAKING.values(), ids=MAKING)
def test_a_topic_is_made_if_it_may_be_and_told_of_as_it_is(case: Making) -> None:
    cluster = Cluster({one.name: one for one in case.before}, refuses=set(case.refuses))
    office = Office(cluster)
    reports = office.do(*case.asked)
    assert tuple(map(summary, reports)) == case.told
    assert tuple(cluster.made()) == case.made
    details = " ".join(report.detail for report in reports)
    assert all(word in details for word in case.words)
    for one in case.before:
        assert cluster.topics[one.name] == one, "what is there stays as it is"
    for report in reports:
        if report.code in ("", "QMTL-303"):
            assert report.topic in cluster.topics
        else:
            assert report.topic not in cluster.topics
    again = office.do(*case.asked)  # whoever repeats it finds the same
    assert list(map(summary, again)) == list(map(summary, reports))


def test_a_topic_gets_the_settings_of_its_task_and_not_those_of_its_class_today() -> None:
    cluster = Cluster()
    task = replace(create("n_a"), replication=2, config={"cleanup.policy": "delete", "retention.ms": "77"})
    Office(cluster).do(task)
    assert cluster.topics["n_a"] == TopicDescription("n_a", 1, 2, task.config)


def test_all_topics_of_a_transaction_are_made_by_one_request() -> None:
    cluster = Cluster()
    names = [f"n_{number}" for number in range(40)]
    reports = Office(cluster).do(*map(create, names))
    assert [summary(one) for one in reports] == [(name, True, "") for name in names]
    assert cluster.requests == [("create", tuple(names))]


# ---- rounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shows_s", [0.1, 0.6, 3.0, 6.0, 11.0])
def test_a_topic_is_told_of_once_it_shows_and_not_before(shows_s: float) -> None:
    cluster = Cluster(shows_s={"n_a": shows_s})
    office = Office(cluster)
    (report,) = office.do(create("n_a"), attempts=5)
    assert summary(report) == ("n_a", True, "")
    assert shows_s <= sum(office.turns) < shows_s + 0.2
    assert max(office.turns) <= TURN_S + 0.1


@pytest.mark.parametrize("kind", ["leaderless", "unseen"])
def test_after_five_rounds_a_topic_that_is_not_ready_is_told_of_as_such(kind: str) -> None:
    cluster = Cluster()
    if kind == "leaderless":
        cluster.leaderless.add("n_a")
    else:
        cluster.shows_s["n_a"] = 1e9
    office = Office(cluster)
    reports = office.do(create("n_a"), create("n_b"), attempts=6)
    assert list(map(summary, reports)) == [("n_a", False, "QMTL-324"), ("n_b", True, "")]
    assert 11.4 <= sum(office.turns) <= 12.0, "0.5, 1, 2, 4 and 4 s"
    assert max(office.turns) <= TURN_S + 0.1, "no transaction is held up for long"
    assert cluster.made().count("n_a") == (1 if kind == "leaderless" else ROUNDS), (
        "made once, asked for again"
    )
    assert cluster.made().count("n_b") == 1
    cluster.leaderless.clear()
    cluster.seen_at_ms.clear()
    assert list(map(summary, office.do(create("n_a")))) == [("n_a", True, "")], "it may well come later"


def test_a_cluster_that_is_away_costs_no_round_and_nothing_is_told_of_it() -> None:
    alone = Cluster()
    Office(alone).do(create("n_a"), remove("n_b"))
    for silent in (*({number} for number in range(1, alone.calls + 1)), range(1, 21)):
        cluster = Cluster(silent=silent)
        office = Office(cluster)
        assert list(map(summary, office.do(create("n_a"), remove("n_b")))) == [
            ("n_a", True, ""),
            ("n_b", True, ""),
        ]
        assert sum(office.turns) == 0.0
        assert cluster.made().count("n_a") == 1


@pytest.mark.parametrize(
    ("cluster", "met"),
    [
        (Cluster(), {}),
        (Cluster(silent=range(1, 4)), {Trouble.UNREACHABLE: 3}),
        (Cluster(shows_s={"n_a": 0.6}), {Trouble.UNSETTLED: 1}),
        (Cluster(leaderless={"n_a"}), {Trouble.UNSETTLED: ROUNDS}),  # two turns end in it, and count nothing
        (Cluster(refuses={"n_a"}), {Trouble.REFUSED: 1}),
        (Cluster(silent=[3], shows_s={"n_a": 0.6}), {Trouble.UNREACHABLE: 1, Trouble.UNSETTLED: 1}),
    ],
)
def test_what_keeps_a_topic_from_being_made_is_counted_and_no_more_once_it_is_over(
    cluster: Cluster, met: dict[Trouble, int]
) -> None:
    office = Office(cluster)
    office.do(create("n_a"))
    assert office.patience.met == {**dict.fromkeys(Trouble, 0), **met}
    office.do(create("n_b"))
    assert office.patience.met == {**dict.fromkeys(Trouble, 0), **met}


def test_whoever_is_started_again_begins_with_the_first_round() -> None:
    cluster = Cluster(leaderless={"n_a"})
    for _ in range(3):
        with pytest.raises(AssertionError, match="nothing came of it"):
            Office(cluster).do(create("n_a"), attempts=2)
    assert list(map(summary, Office(cluster).do(create("n_a")))) == [("n_a", False, "QMTL-324")]


# ---- removing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Removing:
    """What is there and asked to go, what is told, and what is left."""

    asked: tuple[RemoveTopic, ...]
    told: tuple[tuple[str, bool, str], ...]
    left: tuple[str, ...]
    before: tuple[str, ...] = ()
    refuses: frozenset[str] = frozenset()


OURS = CATALOGUE[3].name
REMOVING = {
    "it is there": Removing((remove("n_a"),), (("n_a", True, ""),), ("n_b",), ("n_a", "n_b")),
    "it is not there": Removing((remove("n_a"),), (("n_a", True, ""),), ("N_a",), ("N_a",)),
    "it is one of the catalogue": Removing(
        (remove(OURS), remove("n_a")), ((OURS, False, "QMTL-325"), ("n_a", True, "")), (OURS,), (OURS, "n_a")
    ),
    "it is the cluster's own": Removing(
        (remove("__consumer_offsets"),),
        (("__consumer_offsets", False, "QMTL-325"),),
        ("__consumer_offsets",),
        ("__consumer_offsets",),
    ),
    "it is the cluster's own, and to be archived": Removing(
        (remove("__state", archive=True),), (("__state", False, "QMTL-325"),), ("__state",), ("__state",)
    ),
    "the cluster refuses": Removing(
        (remove("n_a"), remove("n_b")),
        (("n_a", False, "QMTL-323"), ("n_b", True, "")),
        ("n_a",),
        ("n_a", "n_b"),
        frozenset({"n_a"}),
    ),
    "there is no archive": Removing(
        (remove("n_a", archive=True), remove("n_b")),
        (("n_a", False, "QMTL-326"), ("n_b", True, "")),
        ("n_a",),
        ("n_a", "n_b"),
    ),
}


@pytest.mark.parametrize("case", REMOVING.values(), ids=REMOVING)
def test_a_topic_is_removed_if_it_may_be_and_nothing_else_goes(case: Removing) -> None:
    cluster = Cluster({name: there(name) for name in case.before}, refuses=set(case.refuses))
    office = Office(cluster)
    for _ in range(2):  # whoever repeats it finds the same
        reports = office.do(*case.asked)
        assert tuple(map(summary, reports)) == case.told
        assert tuple(sorted(cluster.topics)) == case.left
        assert all(bool(report.code) == bool(report.detail) for report in reports)
    wished = {task.topic for task in case.asked} - {OURS}
    assert {name for verb, names in cluster.requests if verb == "delete" for name in names} <= wished


@pytest.mark.parametrize("shows_s", [0.1, 3.0, 11.0])
def test_a_removal_is_told_of_once_the_topic_is_gone_and_not_before(shows_s: float) -> None:
    cluster = Cluster({"n_a": there("n_a")}, shows_s={"n_a": shows_s})
    office = Office(cluster)
    assert list(map(summary, office.do(remove("n_a"), attempts=5))) == [("n_a", True, "")]
    assert shows_s <= sum(office.turns) < shows_s + 0.2
    assert max(office.turns) <= TURN_S + 0.1


def test_a_topic_that_is_still_there_after_five_rounds_is_told_of_as_such() -> None:
    cluster = Cluster({"n_a": there("n_a")}, shows_s={"n_a": 1e9})
    assert list(map(summary, Office(cluster).do(remove("n_a")))) == [("n_a", False, "QMTL-324")]
    assert len([verb for verb, _ in cluster.requests if verb == "delete"]) == ROUNDS


# ---- archives ---------------------------------------------------------------------------------------------------------


def test_a_topic_is_archived_and_stays_and_the_report_says_where() -> None:
    cluster = Cluster({"n_a": there("n_a"), "n_b": there("n_b")})
    vault = Vault(cluster)
    for number in (1, 2):
        assert Office(cluster, vault).do(store("n_a", number)) == [
            ReportTopicArchived("n_a", number, True, "", "", "at/n_a", 3, "of n_a")
        ]
    assert (list(cluster.topics), list(vault.kept)) == (["n_a", "n_b"], ["n_a"])
    assert cluster.requests == []


def test_a_topic_goes_once_its_archive_was_read_back_and_the_report_says_where_it_is() -> None:
    cluster = Cluster({"n_a": there("n_a"), "n_b": there("n_b")})
    vault = Vault(cluster)
    for _ in range(2):  # a repetition says the same, though the topic is gone by then
        assert Office(cluster, vault).do(remove("n_a", archive=True), remove("n_b")) == [
            ReportTopicRemoved("n_a", True, "", "", "at/n_a", 3, "of n_a"),
            ReportTopicRemoved("n_b", True, "", ""),
        ]
        assert (cluster.topics, vault.kept) == ({}, {}), "what goes is stored by then, or stays"
        assert vault.checked == [("n_a", "at/n_a")]


OLD = replace(remove("n_a", archive=True), archived=None)
GONE = replace(remove("n_a", archive=True), archived=TopicArchive(1, "", "", 0))


@pytest.mark.parametrize(
    "task, errors, code",
    [
        (remove("n_a", archive=True), [ArchiveAltered("a bit.")], "QMTL-904"),
        (remove("n_a", archive=True), [TopicChanged("longer.")], "QMTL-905"),
        (remove("n_a", archive=True), [StoreUnavailable("full.")], "QMTL-321"),
        (remove("n_a", archive=True), [UnknownTopic("what?")], "QMTL-304"),
        (OLD, [], "QMTL-905"),
        (GONE, [], "QMTL-905"),
    ],
)
def test_a_topic_of_which_the_archive_is_not_all_there_stays(
    task: RemoveTopic, errors: list[QmtlError], code: str
) -> None:
    cluster = Cluster({"n_a": there("n_a"), "n_b": there("n_b")})
    reports = Office(cluster, Vault(cluster, *errors)).do(task, remove("n_b"))
    assert list(map(summary, reports)) == [("n_a", False, code), ("n_b", True, "")]
    assert list(cluster.topics) == ["n_a"]
    assert ("delete", ("n_a",)) not in cluster.requests


@pytest.mark.parametrize(
    "errors, code", [([StoreUnavailable("full.")], "QMTL-321"), ([UnknownTopic("what?")], "QMTL-304")]
)
def test_what_could_not_be_archived_is_told_of(errors: list[QmtlError], code: str) -> None:
    cluster = Cluster({"n_a": there("n_a"), "n_b": there("n_b")})
    reports = Office(cluster, Vault(cluster, *errors)).do(store("n_a"), store("n_b"))
    assert list(map(summary, reports)) == [("n_a", False, code), ("n_b", True, "")]
    assert list(map(summary, Office(cluster).do(store("n_a")))) == [("n_a", False, "QMTL-326")]


@pytest.mark.parametrize("task", [store("n_a"), remove("n_a", archive=True)])
def test_an_archive_that_can_not_read_the_log_is_asked_again(task: TopicTask) -> None:
    cluster = Cluster({"n_a": there("n_a")})
    office = Office(cluster, Vault(cluster, LogUnreachable("no."), LogUnreachable("no.")))
    assert list(map(summary, office.do(task))) == [("n_a", True, "")]
    assert len(office.turns) == 3


@pytest.mark.parametrize("task", [store("n_a"), OLD, GONE])
def test_of_a_topic_that_is_gone_and_was_never_archived_the_report_says_so(task: TopicTask) -> None:
    cluster = Cluster()
    (report,) = Office(cluster, Vault(cluster)).do(task)
    assert summary(report) == ("n_a", True, "QMTL-304")


# ---- together ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tasks, told, left",
    [
        ([create("n_a"), remove("n_a")], [("n_a", True, "")], ["n-b"]),
        ([remove("n_a"), create("n_a")], [("n_a", True, "")], ["n-b", "n_a"]),
        ([create("n_b"), remove("n-b")], [("n_b", True, ""), ("n-b", True, "")], ["n_b"]),
        ([remove("n-b"), create("n_b")], [("n-b", True, ""), ("n_b", True, "")], ["n_b"]),
    ],
)
def test_of_one_topic_the_newest_task_counts_and_what_goes_makes_room(
    tasks: list[TopicTask], told: list[tuple[str, bool, str]], left: list[str]
) -> None:
    cluster = Cluster({"n-b": there("n-b")})
    reports = Office(cluster).do(*tasks)
    assert list(map(summary, reports)) == told
    assert isinstance(reports[-1], ReportTopicCreated) == isinstance(tasks[-1], CreateTopic)
    assert sorted(cluster.topics) == left


def test_what_was_gathered_before_an_abort_is_forgotten() -> None:
    cluster = Cluster()
    admin, told = TopicAdmin(cluster), Told()
    admin.on_record(told, Arrival("dag.tasks", 0, 0, create("n_a")))
    admin.restore({})
    admin.flush(told)
    admin.on_record(told, Arrival("dag.tasks", 0, 0, create("n_b")))
    admin.flush(told)
    admin.flush(told)
    assert list(map(summary, told.reports)) == [("n_b", True, "")]
    assert list(cluster.topics) == ["n_b"]
