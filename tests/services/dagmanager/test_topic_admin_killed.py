"""Whenever the topic admin is killed it finds the same; and it does on a real Kafka what it does elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import chain, repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicDescription, Topics, TopicStanding
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import (
    LogError,
    LogUnreachable,
)
from qmtl.foundation.contracts.dag import (
    TopicReport,
    TopicTask,
)
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.services.dagmanager.topic_admin import (
    Patience,
    TopicAdmin,
)
from tests.engine.faults import Fault, FaultyLog
from tests.services.dagmanager.outside import Vault, create, remove, store, summary, there

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
    | st.builds(lambda name, archive: remove(name, archive=archive), NAMES, st.booleans())
    | st.builds(store, NAMES),
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
            [store("n_old"), remove("n_a"), remove("n_never"), remove("dag.tasks")],
            [
                ("n_old", True, ""),
                ("n_a", True, ""),
                ("n_never", True, ""),
                ("dag.tasks", False, "QMTL-325"),
            ],
        ),
        ([create("n_a"), remove("n_old", archive=True)], [("n_a", True, ""), ("n_old", True, "")]),
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
