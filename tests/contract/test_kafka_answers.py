"""What the log makes of the answers of the Kafka client, told here by a stranger in the client's place: no broker is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain, repeat
from threading import Event
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from confluent_kafka import OFFSET_INVALID, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from hypothesis import given
from hypothesis import strategies as st

from qmtl.engine.incarnation import regressions
from qmtl.engine.log import kafka, kafka_admin, kafka_calls
from qmtl.engine.log.kafka import KafkaLog, KafkaWriter
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.stored import TopicFacts
from qmtl.foundation.common.errors import (
    Fenced,
    LogError,
    LogUnreachable,
    MissingRight,
    OutcomeUnknown,
    TransactionAborted,
    UnknownTopic,
)

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

    partitions: ClassVar[int] = 2
    said: Sequence[Said]
    questions: int = 0

    def __call__(self, settings: Any) -> Cluster:
        return self

    def _next(self) -> Said:
        said = self.said[min(self.questions, len(self.said) - 1)]
        self.questions += 1
        return said

    def list_topics(self, timeout: float) -> Any:
        topic = SimpleNamespace(partitions=dict.fromkeys(range(self.partitions)))
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
    assert type(refused.value) is LogUnreachable  # of no kind that keeps a task closed: it asks again


class Slow(Cluster):
    """A client whose every answer takes as long as its cluster is away."""

    away_s = 0.2

    def committed(self, asked: Sequence[KafkaPartition], timeout: float) -> list[Place]:
        Event().wait(min(timeout, self.away_s))
        if timeout < self.away_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "told"))
        return self._places(asked, timeout)


def test_positions_are_told_by_a_group_that_is_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "SURELY_S", Slow.away_s / 2)
    monkeypatch.setattr(kafka_admin, "AdminClient", Cluster([5]))
    monkeypatch.setattr(kafka, "Consumer", Slow([5]))
    log = KafkaLog("nowhere:1", settings=KafkaSettings(call_timeout_s=20.0))
    assert log.committed("group", [A0, A1], wait_s=Slow.away_s / 2) == {A0: 7, A1: 5}


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
    assert type(refused.value) is LogUnreachable


# ---- transactions -----------------------------------------------------------------------------------------------------


@dataclass
class Refusing:
    """A producer in the client's place: refuses a call with these errors, one after the other, and then takes it.

    Attributes:
        errors: by the name of the call.
        offset: where it says that a record lies.
    """

    errors: Mapping[str, Iterator[KafkaError | None]]
    offset: int | None = 3
    made: list[str] = field(default_factory=list)
    told: list[Any] = field(default_factory=list)

    def __call__(self, settings: Any) -> Refusing:
        return self

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **told: Any) -> None:
            self.made.append(name)
            self.told += [told["on_delivery"]] if "on_delivery" in told else []
            if (error := next(self.errors.get(name, iter(())), None)) is not None:
                raise KafkaException(error)
            if name == "commit_transaction":
                for one in self.told:
                    one(None, SimpleNamespace(offset=lambda: self.offset))

        return call


def write(writer: KafkaWriter) -> Any:
    writer.begin()
    writer.append("a", 0, b"k", b"v", track=True)
    return writer.commit({A0: 1}, "group", SimpleNamespace())


def drop(writer: KafkaWriter) -> None:
    writer.begin()
    writer.append("a", 0, b"k", b"v")
    writer.abort()


BEGIN, PRODUCE, POSITIONS, COMMIT, ABORT = CALLS = (
    "begin_transaction",
    "produce",
    "send_offsets_to_transaction",
    "commit_transaction",
    "abort_transaction",
)
TRANSACTIONAL = (BEGIN, POSITIONS, COMMIT, ABORT)


def told(code: int, **flags: bool) -> KafkaError:
    return KafkaError(code, "told", **flags)


RETRIABLE = told(KafkaError._TIMED_OUT, retriable=True)
MEANINGS: dict[str, tuple[KafkaError, type[LogError]]] = {
    "fenced": (told(KafkaError._FENCED, fatal=True), Fenced),
    "fenced, as older brokers say": (
        told(KafkaError.INVALID_PRODUCER_EPOCH, txn_requires_abort=True),
        Fenced,
    ),
    "fenced, as newer brokers say": (told(KafkaError.PRODUCER_FENCED, fatal=True), Fenced),
    "fatal": (told(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, fatal=True), OutcomeUnknown),
    "fatal, by the client": (told(KafkaError._FATAL, fatal=True), OutcomeUnknown),
    "abortable": (told(KafkaError.ILLEGAL_GENERATION, txn_requires_abort=True), TransactionAborted),
    "abortable, as the client says": (told(KafkaError._TIMED_OUT, txn_requires_abort=True), OutcomeUnknown),
    "denied": (told(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True), MissingRight),
    "unknown": (told(KafkaError.UNKNOWN), OutcomeUnknown),
    "the client's state": (told(KafkaError._STATE), OutcomeUnknown),
}


Transact = Callable[[Mapping[str, Iterator[KafkaError | None]], float], tuple[KafkaWriter, Refusing]]


@pytest.fixture
def transact(meeting: Meet, monkeypatch: pytest.MonkeyPatch) -> Transact:
    def make(
        errors: Mapping[str, Iterator[KafkaError | None]], call_s: float
    ) -> tuple[KafkaWriter, Refusing]:
        client = Refusing(errors)
        monkeypatch.setattr(kafka, "Producer", client)
        return meeting([5], call_s).writer("writer"), client

    return make


@pytest.mark.parametrize("call", TRANSACTIONAL)
def test_a_call_that_the_client_calls_retriable_is_made_again(transact: Transact, call: str) -> None:
    writer, client = transact({call: iter([RETRIABLE, RETRIABLE])}, 20.0)
    drop(writer) if call == ABORT else write(writer)
    assert client.made.count(call) == 3
    assert client.made.count(ABORT) == (3 if call == ABORT else 0)


@pytest.mark.parametrize("call", TRANSACTIONAL)
def test_a_call_that_stays_retriable_until_its_deadline_has_an_unknown_outcome(
    transact: Transact, call: str
) -> None:
    writer, _ = transact({call: repeat(RETRIABLE)}, 0.1)
    with pytest.raises(OutcomeUnknown):
        drop(writer) if call == ABORT else write(writer)


@pytest.mark.parametrize("meaning", MEANINGS)
@pytest.mark.parametrize("call", CALLS)
def test_an_error_means_the_same_of_whatever_call(transact: Transact, call: str, meaning: str) -> None:
    error, ends = MEANINGS[meaning]
    writer, client = transact({call: repeat(error)}, 20.0)
    if call == ABORT and ends is TransactionAborted:
        ends = OutcomeUnknown  # what could not be aborted is not known to be
    with pytest.raises(LogError) as refused:
        drop(writer) if call == ABORT else write(writer)
    assert type(refused.value) is ends
    assert "told" in refused.value.what or ends is MissingRight
    assert client.made.count(call) == 1
    if call not in (BEGIN, ABORT) and ends is TransactionAborted:
        assert client.made[-1] == ABORT  # and not before it is done may the next one begin


def test_a_right_that_lacks_counts_for_more_than_what_the_abort_says(transact: Transact) -> None:
    """The client says only that the transaction has failed; the broker, which has nothing of it, refuses to end it."""
    denied = told(KafkaError.TOPIC_AUTHORIZATION_FAILED, txn_requires_abort=True)
    errors = {
        PRODUCE: repeat(told(KafkaError._STATE)),
        BEGIN: chain([None], repeat(denied)),
        ABORT: repeat(told(KafkaError.INVALID_TXN_STATE, fatal=True)),
    }
    writer, client = transact(errors, 20.0)
    with pytest.raises(MissingRight):
        write(writer)
    assert client.made.count(ABORT) == 1


@pytest.mark.parametrize("meaning", ["fenced", "denied", "fatal"])
def test_what_the_abort_of_a_refused_record_says_counts_for_more_than_the_refusal(
    transact: Transact, meaning: str
) -> None:
    """A fenced client only says of a record that its state does not allow it."""
    error, ends = MEANINGS[meaning]
    writer, client = transact({PRODUCE: repeat(told(KafkaError._STATE)), ABORT: iter([error])}, 20.0)
    writer.begin()
    with pytest.raises(LogError) as refused:
        writer.append("a", 0, b"k", b"v")
    assert type(refused.value) is ends
    assert client.made[-1] == ABORT


@pytest.mark.parametrize("meaning", ["fatal", "abortable"])
def test_a_record_that_comes_after_the_failure_of_its_transaction_tells_why_it_failed(
    transact: Transact, meaning: str
) -> None:
    """Of the record the client says only that its state does not allow it."""
    known, ends = MEANINGS[meaning]
    flags = {"fatal": known.fatal(), "txn_requires_abort": known.txn_requires_abort()}
    begins = iter([None, KafkaError(known.code(), "why", **flags)])
    writer, client = transact({PRODUCE: repeat(told(KafkaError._STATE)), BEGIN: begins}, 20.0)
    writer.begin()
    with pytest.raises(LogError, match="why") as refused:
        writer.append("a", 0, b"k", b"v")
    assert type(refused.value) is ends
    assert client.made[-2:] == [BEGIN, ABORT]


def test_a_partition_that_came_after_it_was_missed_is_written(
    transact: Transact, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, client = transact({}, 20.0)
    writer.begin()
    with pytest.raises(UnknownTopic):
        writer.append("a", 2, b"k", b"v")
    monkeypatch.setattr(Cluster, "partitions", 3)
    writer.append("a", 2, b"k", b"v")
    assert client.made[-1] == PRODUCE


@pytest.mark.parametrize("offset", [None, OFFSET_INVALID])
def test_a_commit_that_does_not_know_where_its_checkpoint_lies_is_unknown(
    transact: Transact, offset: int | None
) -> None:
    """A record that a repeated request found on the log already is reported without its offset, and without an error."""
    writer, client = transact({}, 20.0)
    assert write(writer) == {A0: 3}
    client.told.clear()
    client.offset = offset
    with pytest.raises(OutcomeUnknown, match="offset of one of its records is unknown"):
        write(writer)


# ---- the time of a transaction ----------------------------------------------------------------------------------------

TRANSACTION_S = 15.0


@dataclass
class SlowProducer:
    """A producer whose calls take their time, by a clock that stands still otherwise.

    Attributes:
        shares: by the name of the call, what it uses up of the time that it is given, one after the other; then it says that it may be
            made again. A call that is not named, or is made more often, takes no time and succeeds.
        full: so many records are not taken at first, as there is no room for them.
        given: each call that was told how long it may take, with that time and when it was made.
    """

    shares: Mapping[str, Iterator[float]]
    full: int = 0
    now: float = 1000.0
    given: list[tuple[str, float, float]] = field(default_factory=list)

    def __call__(self, settings: Any) -> SlowProducer:
        return self

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    poll = sleep

    def produce(self, *row: Any) -> None:
        if self.full:
            self.full -= 1
            raise BufferError

    def __getattr__(self, name: str) -> Any:
        def call(*told: Any) -> None:
            if name in (POSITIONS, COMMIT, ABORT):
                self.given.append((name, told[-1], self.now))
                if (share := next(self.shares.get(name, iter(())), None)) is not None:
                    self.now += share * told[-1]
                    raise KafkaException(RETRIABLE)

        return call

    def list_topics(self, timeout: float) -> None: ...

    def purge(self) -> None: ...

    def flush(self, timeout: float) -> None: ...


_SHARES = st.lists(st.sampled_from([0.0, 0.3, 0.9, 1.0]), max_size=4)


@given(st.integers(0, 13), st.sampled_from([0, 1, 50, 200]), _SHARES, _SHARES, _SHARES)
def test_all_calls_of_a_transaction_together_end_before_the_broker_ends_it(
    computing_s: int, full: int, positions: list[float], commits: list[float], aborts: list[float]
) -> None:
    shares = {POSITIONS: iter(positions), COMMIT: iter(commits), ABORT: iter(aborts)}
    client = SlowProducer(shares)
    with pytest.MonkeyPatch.context() as stub:
        stub.setattr(kafka_admin, "AdminClient", Cluster([5]))
        stub.setattr(kafka, "Producer", client)
        log = KafkaLog("nowhere:1", settings=KafkaSettings(30.0, int(1e3 * TRANSACTION_S)))
        stub.setattr(kafka, "time", client)
        stub.setattr(kafka_calls, "time", client)
        writer = log.writer("writer")
        until = client.now + log.settings.transaction_s
        writer.begin()
        client.now += computing_s
        client.full = full
        ends: type[Exception] | None = None
        try:
            writer.append("a", 0, b"k", b"v")
            writer.commit({A0: 1}, "group", SimpleNamespace())
        except (TransactionAborted, OutcomeUnknown) as error:
            ends = type(error)
        writer.close()
    made = [name for name, _, _ in client.given]
    assert client.now < until + (TRANSACTION_S - log.settings.transaction_s)
    for _, seconds, at in client.given:
        assert 0 < seconds <= max(until - at, log.settings.least_s)
    assert next((at for name, _, at in client.given if name == COMMIT), 0.0) < until  # the first try
    if ends is None:
        assert made[-1] == COMMIT
    elif ends is TransactionAborted:
        assert made[-1] == ABORT
        assert COMMIT not in made
    else:
        assert made[-1] in (POSITIONS, COMMIT, ABORT)
        assert client.now >= until - 0.02 or made[-1] == ABORT  # it is not given up before its time
