"""The laws of asking for a diff: asked once, whole whatever breaks off in between, and an end to waiting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Fence, Log, Positions, TopicPartition, Writer
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import CommandRefused, NoAnswer, ReusedId, TransactionAborted, UnknownWorld
from qmtl.foundation.contracts.dag import AdminAct, AdminEntry, DagSubmission
from qmtl.foundation.contracts.diff import DiffChunk, DiffRequest, DiffState, NodeOrigin
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces.client import Client
from qmtl.interfaces.diffs import DiffMap, DiffReader
from qmtl.services.dagmanager import diff_stream
from qmtl.services.dagmanager.processor import DagManager
from qmtl.services.dagmanager.repeats import content_digest
from tests.replay.logs import commit, row, ticks
from tests.services.dagmanager.test_diff_stream import names_of, wide
from tests.services.dagmanager.test_diffing import request
from tests.services.graphs import crossing, strategy, submission


class Flaky(EmbeddedLog):
    """A log on which so many of the next acknowledgements are not taken."""

    broken = 0

    def writer(self, transactional_id: str) -> Any:
        return Refusing(self, super().writer(transactional_id))


class Refusing:
    """A writer that gives up a transaction with an acknowledgement while it has to."""

    def __init__(self, log: Flaky, writer: Writer) -> None:
        self._log, self._writer, self._acks = log, writer, False

    def append(self, topic: str, partition: int, key: bytes, value: bytes | None, **more: Any) -> None:
        self._acks |= topic == "dag.diff.acks"
        self._writer.append(topic, partition, key, value, **more)

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        if self._acks and self._log.broken:
            self._log.broken -= 1
            self._writer.abort()
            raise TransactionAborted("the broker was busy.")
        return self._writer.commit(positions, group, fence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Flaky]:
    made = Flaky(tmp_path / "log")
    made.ensure_topics(CATALOGUE)
    yield made
    made.close()


@pytest.fixture
def worker(log: Flaky, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(log, DagManager, codec, TaskSettings(tmp_path / "state"))
    yield made
    made.close()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diff_stream, "CHUNK_NODES", 1)


def ask(client: Client, asked: DiffRequest) -> DiffMap:
    return DiffReader(client, asked).run()


def messages(log: Log, name: str) -> list[Any]:
    return [codec.decode(one.value) for one in read_all(log, all_partitions(log, name)) if one.value]


def test_the_whole_map_comes_back_in_order_and_everything_is_acknowledged(
    log: Flaky, worker: Worker, small: None
) -> None:
    client = Client(log, [worker])
    found = ask(client, request(wide(35)))
    assert [one.name for one in found.nodes] == names_of(wide(35))
    assert (found.version, found.safe_mode, found.may_reuse) == ("v1", "", True)
    client.within(5, lambda: client.view("dag.diff.streams").get("r1").state is DiffState.DONE)
    assert client.view("dag.diff.chunks").rows() == []
    assert len(messages(log, "dag.diff.requests")) == 1


def test_a_diff_and_the_submission_after_it_tell_of_the_same_topics(log: Flaky, worker: Worker) -> None:
    client = Client(log, [worker])
    for at, nodes in enumerate([crossing(3, 8), crossing(3, 21), crossing(3, 8)]):
        message = strategy(nodes, version=f"v{at}")
        told = ask(client, request(message, f"r{at}"))
        sent = submission(message)
        client.publish_once("dag.submissions", sent, partial(eq, sent))
        outcome = client.wait("", partial(outcome_of, client, sent))
        topics = {row.node_id: row.topic for row in client.view("dag.queues").rows()}
        assert {one.node_id: one.topic for one in told.nodes}.items() <= topics.items()
        assert told.sentinel_id == outcome.sentinel_id
        new = {one.node_id for one in told.nodes if one.origin is NodeOrigin.NEW}
        assert new >= set(outcome.new_nodes)


def outcome_of(client: Client, sent: DagSubmission) -> Any:
    return client.view("dag.diffs").get(sent.submission_id)


def test_who_asks_under_an_id_that_has_other_content_hears_so_and_nothing_of_the_answer(
    log: Flaky, worker: Worker
) -> None:
    client = Client(log, [worker])
    message = strategy(crossing(3, 8))
    told = ask(client, request(message))
    assert ask(client, request(message)) == told
    with pytest.raises(ReusedId, match="'r1'"):
        ask(client, request(strategy(crossing(3, 21))))
    told_of = [one for one in messages(log, "dag.admin.log") if "QMTL-608" in getattr(one, "detail", "")]
    assert [(one.act, one.subject) for one in told_of] == [(AdminAct.REPEATED, "r1")]
    found = [one for one in messages(log, "dag.diff.chunks") if isinstance(one, DiffChunk)]
    assert {one.request_digest for one in found} == {content_digest(request(message))}


class Crash(Exception):
    """The client's end."""


class Mortal(Client):
    """A client that dies when it has let its workers run so often."""

    rounds = 0

    def pump(self) -> bool:
        self.rounds -= 1
        if self.rounds < 0:
            raise Crash
        return super().pump()


def test_a_client_that_crashed_anywhere_gets_the_whole_map_when_it_asks_again(
    log: Flaky, worker: Worker, small: None
) -> None:
    whole = ask(Client(log, [worker]), request(wide(25), "whole")).nodes
    crashes = 0
    for rounds in range(1_000):
        client = Mortal(log, [worker])
        client.rounds = rounds
        asked = request(wide(25), f"r{rounds}")
        try:
            found = ask(client, asked)
        except Crash:
            crashes += 1
            found = ask(Hasty(log, [worker]), asked)
            assert found.nodes == whole
            continue
        assert found.nodes == whole
        break
    assert crashes >= 3
    requests = [one.request_id for one in messages(log, "dag.diff.requests")]
    assert len(set(requests)) == crashes + 2
    assert (
        max(Counter(requests).values()) <= 2
    )  # once by each client, and by the second only what was taken meanwhile
    assert answered(log) == Counter(set(requests))


def answered(log: Flaky) -> Counter[str]:
    """How often each request was answered."""
    told = [one for one in messages(log, "dag.admin.log") if isinstance(one, AdminEntry)]
    return Counter(one.subject for one in told if one.act is AdminAct.DIFFED and one.detail == "request")


def test_who_asks_again_after_an_answer_was_given_up_has_one_answer_and_not_parts_of_two(
    log: Flaky, worker: Worker, small: None
) -> None:
    """The first answer got far, the second one, of another graph, is at its beginning: what is read from both is the second one's."""
    asked = request(wide(25))
    client = Mortal(log, [worker])
    client.rounds = 2
    with pytest.raises(Crash):
        ask(client, asked)
    commit(log, [*ticks(1, 2), *ticks(70, 140)], "clock")
    settle(worker)
    assert client.view("dag.diff.streams").rows() == []
    commit(log, [row("dag.submissions", submission(wide(25)))])
    settle(worker)
    client = Mortal(log, [worker])
    client.rounds = 1
    with pytest.raises(Crash):
        ask(client, asked)
    found = ask(Hasty(log, [worker]), asked)
    assert answered(log)["r1"] == 2
    assert found == replace(ask(Client(log, [worker]), request(wide(25), "r2")), request_id="r1")
    assert {one.origin for one in found.nodes} == {NodeOrigin.REUSED}


def test_who_asks_under_an_id_that_is_free_again_has_the_answer_to_that_and_who_asked_before_hears_so(
    log: Flaky, worker: Worker, small: None
) -> None:
    """What is read from both answers begins with the other content's."""
    assert len(ask(Client(log, [worker]), request(wide(12))).nodes) == 12
    commit(log, [*ticks(1, 2), *ticks(70, 140)], "clock")
    settle(worker)
    client = Mortal(log, [worker])
    client.rounds = 1
    with pytest.raises(Crash):
        ask(client, request(wide(25)))
    assert [one.name for one in ask(Hasty(log, [worker]), request(wide(25))).nodes] == names_of(wide(25))
    with pytest.raises(ReusedId, match="'r1'"):
        ask(Hasty(log, [worker]), request(wide(12)))
    assert answered(log)["r1"] == 2


def settle(worker: Worker) -> None:
    while worker.step():
        pass


class Hasty(Client):
    """A client that waits no longer than its workers have something to do."""

    def within(self, seconds: float, ready: Any) -> Any:
        idle = 0
        while not (found := ready()) and idle < 3:
            idle = 0 if self.pump() else idle + 1
        return found


class Patient(Client):
    """A client that loses no time after a failure, and has enough of it for an answer."""

    def within(self, seconds: float, ready: Any) -> Any:
        return super().within(0 if ready is bool else 30, ready)


def test_an_acknowledgement_that_is_not_taken_is_sent_again(log: Flaky, worker: Worker, small: None) -> None:
    log.broken = 5
    found = ask(Patient(log, [worker]), request(wide(25)))
    assert len(found.nodes) == 25
    log.broken = 6
    with pytest.raises(TransactionAborted):
        ask(Patient(log, [worker]), request(wide(25), "r2"))
    log.broken = 0
    assert ask(Client(log, [worker]), request(wide(25), "r2")).nodes == found.nodes


def test_without_a_dag_manager_the_sixth_attempt_is_the_last_and_the_request_lies_there_once(
    log: Flaky, tmp_path: Path
) -> None:
    waits: list[float] = []

    class Watched(Client):
        def within(self, seconds: float, ready: Any) -> Any:
            waits.append(seconds)
            return ready()

    with pytest.raises(NoAnswer, match="r1"):
        ask(Watched(log, []), request(wide(3)))
    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    assert len(messages(log, "dag.diff.requests")) == 1
    worker = Worker(log, DagManager, codec, TaskSettings(tmp_path / "late"))
    assert len(ask(Client(log, [worker]), request(wide(3))).nodes) == 3
    worker.close()


def test_a_refusal_is_raised_with_its_code_and_a_world_that_does_not_exist_is_not_asked_for(
    log: Flaky, worker: Worker
) -> None:
    client = Client(log, [worker])
    with pytest.raises(CommandRefused, match="QMTL-500"):
        ask(client, request(b"no json"))
    with pytest.raises(UnknownWorld, match="w1"):
        client.diff(request(wide(3), "r2"))
    assert [one.request_id for one in messages(log, "dag.diff.requests")] == ["r1"]
    assert client.diff(request(wide(3), "r3", world_id="")).safe_mode == "decision_unavailable"


def test_two_answers_at_a_time_do_not_get_mixed_up(log: Flaky, worker: Worker, small: None) -> None:
    client = Client(log, [worker])
    client.publish_once("dag.diff.requests", request(wide(12), "r"), lambda other: False)
    client.publish_once("dag.diff.requests", request(wide(14), "r-0"), lambda other: False)
    assert len(ask(client, request(wide(12), "r")).nodes) == 12
    assert len(ask(client, request(wide(14), "r-0")).nodes) == 14


def test_an_answer_of_more_chunks_than_a_window_comes_whole_over_a_broker(
    kafka_bootstrap: str, kafka_namespace: str, tmp_path: Path, small: None
) -> None:
    """And a second one over the same reader; the first, asked for once more, is found among the records from before."""
    log = KafkaLog(kafka_bootstrap, kafka_namespace)
    log.ensure_topics(CATALOGUE)
    worker = Worker(log, DagManager, codec, TaskSettings(tmp_path / "state"))
    client = Client(log, [worker])
    try:
        found = {name: ask(client, request(wide(25), name)) for name in ("r1", "r2")}
        assert [one.name for one in found["r1"].nodes] == names_of(wide(25))
        assert ask(Client(log, [worker]), request(wide(25), "r1")) == found["r1"]
        told = [one for one in messages(log, "dag.admin.log") if isinstance(one, AdminEntry)]
        assert [one.subject for one in told if one.detail == "request"] == ["r1", "r2"]
    finally:
        client.close()
        worker.close()
        log.close()
