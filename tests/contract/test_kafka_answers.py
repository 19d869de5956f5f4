"""What the log makes of the answers of the Kafka client, told here by a stranger in the client's place: no broker is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from qmtl.engine.incarnation import regressions
from qmtl.engine.log import kafka, kafka_admin
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.stored import TopicFacts
from qmtl.foundation.common.errors import LogError

A0 = TopicPartition("a", 0)
A1 = TopicPartition("a", 1)
LEADERLESS = KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "told")
NOT_YET = KafkaError(KafkaError.OFFSET_NOT_AVAILABLE, "told")
Said = int | KafkaError


@dataclass(frozen=True)
class Place:
    """One partition of an answer."""

    topic: str
    partition: int
    offset: int
    error: KafkaError | None = None


@dataclass
class Cluster:
    """A client in whose answers the last one repeats for ever.

    Attributes:
        said: what it answers about partition 1, one answer per question; partition 0 is always well, and holds 7 offsets.
    """

    said: Sequence[Said]
    questions: int = 0

    def __call__(self, settings: Any) -> Cluster:
        return self

    def _next(self) -> Said:
        said = self.said[min(self.questions, len(self.said) - 1)]
        self.questions += 1
        return said

    def list_topics(self, timeout: float) -> Any:
        topic = SimpleNamespace(partitions={0: None, 1: None})
        return SimpleNamespace(brokers={1: None}, cluster_id="stub", topics={"a": topic})

    def describe_topics(self, names: Any, request_timeout: float) -> Any:
        return {"a": _done(SimpleNamespace(topic_id="id", partitions=[0, 1]))}

    def list_offsets(self, asked: Any, isolation_level: Any, request_timeout: float) -> Any:
        said = self._next()
        return {
            place: _failed(one)
            if isinstance(one := said if place.partition else 7, KafkaError)
            else _done(SimpleNamespace(offset=one))
            for place in asked
        }

    def _places(self, asked: Sequence[KafkaPartition], timeout: float) -> list[Place]:
        said = self._next()
        return [
            Place("a", place.partition, -1, one)
            if isinstance(one := said if place.partition else 7, KafkaError)
            else Place("a", place.partition, one)
            for place in asked
        ]

    offsets_for_times = committed = _places

    def close(self) -> None: ...


def _done(value: Any) -> Future[Any]:
    out: Future[Any] = Future()
    out.set_result(value)
    return out


def _failed(error: KafkaError) -> Future[Any]:
    out: Future[Any] = Future()
    out.set_exception(KafkaException(error))
    return out


Asking = Callable[[KafkaLog], object]
QUESTIONS: dict[str, Asking] = {
    "begin": lambda log: log.begin_offsets([A0, A1]),
    "end": lambda log: log.end_offsets([A0, A1]),
    "stable": lambda log: log.stable_offsets([A0, A1]),
    "committed": lambda log: log.committed("group", [A0, A1]),
}


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[Said], float], KafkaLog]:
    def meet(said: Sequence[Said], call_s: float) -> KafkaLog:
        cluster = Cluster(said)
        monkeypatch.setattr(kafka_admin, "AdminClient", cluster)
        monkeypatch.setattr(kafka, "Consumer", cluster)
        return KafkaLog("nowhere:1", settings=KafkaSettings(call_timeout_s=call_s))

    return meet


Meet = Callable[[Sequence[Said], float], KafkaLog]


@pytest.mark.parametrize(
    "question, first",
    [
        (question, first)
        for question in QUESTIONS
        for first in (OFFSET_INVALID, -1, -2, LEADERLESS, NOT_YET)
        if (question, first) != ("committed", OFFSET_INVALID)  # there it says that nothing is committed
    ],
    ids=str,
)
def test_a_number_that_is_no_offset_is_asked_again(meeting: Meet, question: str, first: Said) -> None:
    log = meeting([first, first, 5], 20.0)
    assert QUESTIONS[question](log) == {A0: 7, A1: 5}


@pytest.mark.parametrize(
    "ask", [*QUESTIONS.values(), lambda log: log.offsets_at_time([A0, A1], 1)], ids=[*QUESTIONS, "time"]
)
def test_an_offset_that_nobody_knows_until_the_deadline_is_an_error_and_no_fact(
    meeting: Meet, ask: Asking
) -> None:
    with pytest.raises(LogError, match=r"a\[1\] had no offset to tell, only -2") as refused:
        ask(meeting([-2], 0.1))
    assert type(refused.value) is LogError  # of no kind that keeps a task closed


def test_a_group_that_never_committed_has_no_position(meeting: Meet) -> None:
    assert meeting([OFFSET_INVALID], 20.0).committed("group", [A0, A1]) == {A0: 7}


@pytest.mark.parametrize(
    "answers, position",
    [
        ([9, 5], 5),
        ([9, -1], 9),  # no record is so late: the end
        ([9, -1001, 5], 5),
        ([9, LEADERLESS, 5], 5),  # the error comes with the offset -1
        ([9, -1001, -1], 9),
    ],
)
def test_only_the_end_is_told_of_a_time_without_an_offset(
    meeting: Meet, answers: Sequence[Said], position: int
) -> None:
    """The first answer is to the question for the end."""
    assert meeting(answers, 20.0).offsets_at_time([A0, A1], 1) == {A0: 7, A1: position}


def test_a_log_whose_leader_is_being_replaced_has_not_regressed(meeting: Meet) -> None:
    log = meeting([-1001, -1001, 0, -1001, -1001, 5], 20.0)  # the begin, then the end
    assert regressions(log, {"a": TopicFacts("id", 2)}, {A1: 5}) == []
    with pytest.raises(LogError) as refused:
        regressions(meeting([-1001], 0.1), {"a": TopicFacts("id", 2)}, {A1: 5})
    assert type(refused.value) is LogError
