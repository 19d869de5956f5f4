"""The laws of the topic admin: it reports what it sees, makes nothing twice, removes only what it may, and finds the same when it is killed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.archive.port import Archived
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicDescription, Topics, TopicStanding
from qmtl.engine.processor import Arrival
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import (
    LogError,
    LogUnreachable,
    StoreUnavailable,
    TopicRefused,
    UnknownTopic,
)
from qmtl.foundation.contracts.dag import (
    CreateTopic,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    TopicClass,
    TopicReport,
    TopicTask,
)
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, node_topic
from qmtl.services.dagmanager.topic_admin import (
    ROUNDS,
    TURN_S,
    Archive,
    Patience,
    TopicAdmin,
)
from tests.engine.faults import Fault, FaultyLog


def create(topic: str, partitions: int = 1) -> CreateTopic:
    spec = node_topic(topic, TopicClass.INDICATOR, partitions)
    return CreateTopic(topic, TopicClass.INDICATOR, partitions, spec.replication, spec.config())


def remove(topic: str, *, archive: bool = False) -> RemoveTopic:
    return RemoveTopic(topic, f"blake3:{topic}", archive)


def there(topic: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> TopicDescription:
    wanted = create(topic, partitions)
    return TopicDescription(topic, partitions, 1, {**wanted.config, **(config or {})})


def summary(report: TopicReport) -> tuple[str, bool, str]:
    match report:
        case ReportTopicCreated():
            return report.topic, report.created, report.code
        case ReportTopicRemoved():
            return report.topic, report.removed, report.code


# ---- the outside ------------------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A cluster as its admin port shows it, with its own time, which passes only while somebody waits.

    Attributes:
        topics: what is there.
        shows_s: how long after the request it is seen that a topic was made, or has gone; 0 for others.
        leaderless: topics of which a partition has no leader.
        refuses: what is not made, and not deleted.
        silent: calls that get no answer, by their number from 1 on.
        requests: what was asked, in order.
    """

    topics: dict[str, TopicDescription] = field(default_factory=dict)
    shows_s: dict[str, float] = field(default_factory=dict)
    leaderless: set[str] = field(default_factory=set)
    refuses: set[str] = field(default_factory=set)
    silent: Collection[int] = ()
    calls: int = 0
    now_ms: int = 100_000
    requests: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    seen_at_ms: dict[str, float] = field(default_factory=dict)
    was: dict[str, TopicDescription] = field(default_factory=dict)

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now_ms += round(seconds * 1000)

    def _answer(self) -> None:
        self.calls += 1
        if self.calls in self.silent:
            raise LogUnreachable("nobody is there.")

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        self._answer()
        seen = {**self.topics, **self.was}
        seen = {name: one for name, one in seen.items() if (name in self.was) == self._hidden(name)}
        out = {}
        for name in names:
            alike = [one for one in sorted(seen) if one != name and flat(one) == flat(name)]
            led = name in seen and name not in self.leaderless
            out[name] = TopicStanding(seen.get(name), led, alike[0] if alike else "")
        return out

    def _hidden(self, name: str) -> bool:
        """Whether what was asked of it does not show yet."""
        return self.now_ms < self.seen_at_ms.get(name, 0)

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        self._answer()
        self.requests.append(("create", tuple(one.name for one in wanted)))
        for one in wanted:
            if one.name not in self.refuses and one.name not in self.topics:
                self.topics[one.name] = one
                self.was.pop(one.name, None)
                self.seen_at_ms[one.name] = self.now_ms + 1000 * self.shows_s.get(one.name, 0.0)
        return {one.name: TopicRefused("policy.") for one in wanted if one.name in self.refuses}

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        self._answer()
        self.requests.append(("delete", tuple(names)))
        for name in names:
            if name not in self.refuses and name in self.topics:
                self.was[name] = self.topics.pop(name)
                self.seen_at_ms[name] = self.now_ms + 1000 * self.shows_s.get(name, 0.0)
        return {name: TopicRefused("policy.") for name in names if name in self.refuses}

    def made(self) -> list[str]:
        """Every name that a request has asked for."""
        return [name for verb, names in self.requests if verb == "create" for name in names]


def flat(name: str) -> str:
    return "".join("_" if char in "._-" else char for char in name.lower())


class Vault:
    """An archive, of topics that the cluster has."""

    def __init__(self, cluster: Topics, *errors: LogError) -> None:
        self._cluster = cluster
        self._errors = list(errors)
        self.kept: dict[str, Archived] = {}

    def __call__(self, topic: str) -> Archived:
        if self._errors:
            raise self._errors.pop(0)
        if self._cluster.look_up([topic])[topic].found is not None:
            self.kept[topic] = Archived(f"at/{topic}", 3, f"of {topic}")
        if topic not in self.kept:
            raise UnknownTopic(f"there is no {topic}.")
        return self.kept[topic]


class Told:
    """What a processor may touch: it only tells."""

    def __init__(self) -> None:
        self.reports: list[TopicReport] = []
        self.closed_ms = 0

    def table(self, topic: str) -> Any:
        raise AssertionError("an effect has no tables")

    def emit(self, topic: str, message: Any) -> None:
        assert topic == "dag.reports"
        self.reports.append(message)


class Office:
    """Where the topic admin works. A transaction that fails is run again by a processor that is made anew.

    Attributes:
        turns: how long each transaction took, in the cluster's time.
    """

    def __init__(self, cluster: Cluster, archive: Archive | None = None) -> None:
        self.cluster = cluster
        self.turns: list[float] = []
        self._archive = archive
        self._patience = Patience(cluster.wait, lambda: cluster.now_ms / 1000)

    def do(self, *tasks: TopicTask, attempts: int = 50) -> list[TopicReport]:
        for _ in range(attempts):
            admin = TopicAdmin(self.cluster, self._archive, self._patience)
            told, began = Told(), self.cluster.now_ms
            try:
                for at, task in enumerate(tasks):
                    admin.on_record(told, Arrival("dag.tasks", 0, at, task))
                admin.flush(told)
            except LogUnreachable:
                continue
            finally:
                self.turns.append((self.cluster.now_ms - began) / 1000)
            return told.reports
        raise AssertionError("nothing came of it")


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


def test_a_topic_is_archived_before_it_goes_and_the_report_says_where() -> None:
    cluster = Cluster({"n_a": there("n_a"), "n_b": there("n_b")})
    vault = Vault(cluster)
    for _ in range(2):  # a repetition says the same, though the topic is gone by then
        assert Office(cluster, vault).do(remove("n_a", archive=True), remove("n_b")) == [
            ReportTopicRemoved("n_a", True, "", "", "at/n_a", 3, "of n_a"),
            ReportTopicRemoved("n_b", True, "", ""),
        ]
        assert (cluster.topics, list(vault.kept)) == ({}, ["n_a"])


@pytest.mark.parametrize(
    "error, code", [(StoreUnavailable("full."), "QMTL-321"), (UnknownTopic("what?"), "QMTL-304")]
)
def test_a_topic_that_is_not_archived_stays(error: LogError, code: str) -> None:
    cluster = Cluster({"n_a": there("n_a"), "n_b": there("n_b")})
    reports = Office(cluster, Vault(cluster, error)).do(remove("n_a", archive=True), remove("n_b"))
    assert list(map(summary, reports)) == [("n_a", False, code), ("n_b", True, "")]
    assert list(cluster.topics) == ["n_a"]
    assert ("delete", ("n_a",)) not in cluster.requests


def test_an_archive_that_can_not_read_the_log_is_asked_again() -> None:
    cluster = Cluster({"n_a": there("n_a")})
    office = Office(cluster, Vault(cluster, LogUnreachable("no."), LogUnreachable("no.")))
    assert list(map(summary, office.do(remove("n_a", archive=True)))) == [("n_a", True, "")]
    assert len(office.turns) == 3


def test_of_a_topic_that_is_gone_and_was_never_archived_the_report_says_so() -> None:
    cluster = Cluster()
    (report,) = Office(cluster, Vault(cluster)).do(remove("n_a", archive=True))
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


# ---- kills ------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is no more."""


class End(Enum):
    """What becomes of a call to the outside."""

    ANSWERED = "it is answered"
    BEFORE = "the process dies before it"
    AFTER = "the process dies after it"
    AWAY = "nobody answers, and it was not heard"
    UNHEARD = "nobody answers, but it was heard"


class Mortal:
    """The topics of a log, through a process that may die at any call."""

    def __init__(self, log: Topics, plan: Iterator[End]) -> None:
        self._log = log
        self._plan = plan

    def _meet(self, call: Any) -> Any:
        match next(self._plan):
            case End.ANSWERED:
                return call()
            case End.BEFORE:
                raise Killed
            case End.AFTER:
                call()
                raise Killed
            case End.AWAY:
                raise LogUnreachable("nobody is there.")
            case End.UNHEARD:
                call()
                raise LogUnreachable("nobody is there.")

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        return dict(self._meet(lambda: self._log.look_up(names)))

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        return dict(self._meet(lambda: self._log.create_topics(wanted)))

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        return dict(self._meet(lambda: self._log.delete_topics(names)))


def ask(log: Log, tasks: Sequence[TopicTask]) -> None:
    writer = log.writer("people")
    writer.begin()
    for task in tasks:
        writer.append("dag.tasks", 0, encode_key((task.topic,)), codec.encode(task))
    writer.commit({}, "", None)
    writer.close()


def reported(log: Log) -> list[TopicReport]:
    found = read_all(log, all_partitions(log, "dag.reports"))
    return [codec.decode(one.value) for one in found if one.value is not None]


@dataclass(frozen=True)
class Story:
    """What a run has left: its reports, the topics beside the catalogue, and what could not be handled."""

    reports: list[TopicReport]
    topics: dict[str, tuple[int, str]]
    letters: int


LOG = [spec for spec in CATALOGUE if spec.name in ("dag.tasks", "dag.reports", "dead.letters", "task.cuts")]


def run(
    tasks: Sequence[TopicTask],
    before: Sequence[TopicDescription],
    at_once: int,
    ends: Sequence[End] = (),
    faults: Sequence[Fault] = (),
) -> Story:
    """Works until all is done, with a new process after each death."""
    with TemporaryDirectory() as name:
        log = FaultyLog(Path(name) / "log", iter(faults))
        log.ensure_topics(LOG)
        log.create_topics(before)
        ask(log, tasks)
        plan = chain(ends, repeat(End.ANSWERED))
        vault = Vault(log)
        now = [0.0]

        def make() -> TopicAdmin:
            return TopicAdmin(Mortal(log, plan), vault, Patience(lambda seconds: None))

        given_settings = TaskSettings(Path(name) / "state", commit_records=at_once, clock=lambda: now[0])
        for _ in range(100):
            worker = Worker(log, make, codec, given_settings)
            try:
                idle = 0
                while idle < 3:
                    idle = 0 if worker.step() else idle + 1
                    now[0] += 60.0  # a task that waits to be opened again has waited
                break
            except Killed:
                continue
            finally:
                worker.close()
        ours = {spec.name for spec in LOG}
        found = log.look_up([topic for topic in log.topics() if topic not in ours])
        left = {
            topic: (one.found.partitions, one.found.config["retention.ms"])
            for topic, one in found.items()
            if one.found is not None
        }
        story = Story(reported(log), left, len(list(read_all(log, all_partitions(log, "dead.letters")))))
        log.close()
        return story


NAMES = st.sampled_from(["n_a", "n-a", "N.A", "n_b", "n_c"])
TASKS = st.lists(
    st.builds(create, NAMES, st.sampled_from([1, 2]))
    | st.builds(lambda name, archive: remove(name, archive=archive), NAMES, st.booleans()),
    min_size=1,
    max_size=6,
)
BEFORE = st.lists(
    st.sampled_from(
        [there("n.a"), there("n_b", 2), there("n_c"), there("n_a", config={"retention.ms": "9"})]
    ),
    unique_by=lambda one: one.name,
    max_size=3,
)


@settings(max_examples=20, deadline=None)
@given(
    TASKS,
    BEFORE,
    st.integers(1, 6),
    st.lists(st.sampled_from(End), max_size=6),
    st.lists(st.sampled_from(Fault), max_size=3),
)
def test_whenever_it_is_killed_the_topics_and_the_reports_are_those_of_a_run_in_peace(
    tasks: list[TopicTask],
    before: list[TopicDescription],
    at_once: int,
    ends: list[End],
    faults: list[Fault],
) -> None:
    assert run(tasks, before, at_once, ends, faults) == run(tasks, before, at_once)


LIVES = st.permutations(["n_a", "n_b", "n_c", "n_d"]).flatmap(
    lambda names: st.tuples(*(st.booleans() for _ in names)).map(
        lambda gone: (
            [create(name) for name in names]
            + [remove(name) for name, is_gone in zip(names, gone, strict=True) if is_gone]
        )
    )
)


@settings(max_examples=8, deadline=None)
@given(LIVES, st.integers(1, 8))
def test_how_many_tasks_a_transaction_takes_decides_nothing(tasks: list[TopicTask], at_once: int) -> None:
    one_by_one, together = run(tasks, [], 1), run(tasks, [], at_once)
    assert one_by_one.topics == together.topics
    last = [{report.topic: report for report in story.reports} for story in (one_by_one, together)]
    assert last[0] == last[1]
    assert len(one_by_one.reports) == len(tasks)


# ---- a real Kafka -----------------------------------------------------------------------------------------------------


def test_on_a_real_kafka_topics_come_and_go_as_they_are_asked_for(
    kafka_bootstrap: str, kafka_namespace: str, tmp_path: Path
) -> None:
    log = KafkaLog(kafka_bootstrap, kafka_namespace)
    log.ensure_topics(CATALOGUE)
    log.create_topics([there("n_mismatch", 2), there("n-alike"), there("n_old")])
    vault = Vault(log)
    worker = Worker(log, lambda: TopicAdmin(log, vault), codec, TaskSettings(tmp_path / "state"))
    asked: list[tuple[list[TopicTask], list[tuple[str, bool, str]]]] = [
        (
            [create("n_a"), create("n_b", 3), create("n_mismatch"), create("n_alike"), create("n_bad")],
            [
                ("n_a", True, ""),
                ("n_b", True, ""),
                ("n_mismatch", False, "QMTL-303"),
                ("n_alike", False, "QMTL-322"),
                ("n_bad", False, "QMTL-323"),
            ],
        ),
        (
            [remove("n_a"), remove("n_old", archive=True), remove("n_never"), remove("dag.tasks")],
            [
                ("n_a", True, ""),
                ("n_old", True, ""),
                ("n_never", True, ""),
                ("dag.tasks", False, "QMTL-325"),
            ],
        ),
        ([create("n_a")], [("n_a", True, "")]),
    ]
    asked[0][0][-1] = replace(create("n_bad"), config={"cleanup.policy": "sometimes"})
    told: list[tuple[str, bool, str]] = []
    try:
        for tasks, answers in asked:
            ask(log, tasks)
            told += answers
            while len(reported(log)) < len(told):
                worker.step(0.1)
        assert list(map(summary, reported(log))) == told
        ours = {spec.name for spec in CATALOGUE}
        assert set(log.topics()) - ours == {"n_a", "n_b", "n_mismatch", "n-alike"}
        assert list(vault.kept) == ["n_old"]
    finally:
        worker.close()
        log.close()
