"""What a person asks of the system comes onto the log once, and only if it can be meant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from qmtl.bootstrap import open_log, prepare
from qmtl.engine.log.port import Log, Writer
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import InvalidDag, NoAnswer, OutcomeUnknown, ReusedId, UnknownWorld
from qmtl.foundation.contracts.dag import (
    CollectGarbage,
    DagCommandOutcome,
    DagOutcome,
    DagSubmission,
    RetireStrategy,
)
from qmtl.foundation.contracts.world import World, WorldStatus
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.interfaces.client import ATTEMPTS, GC_ATTEMPTS, Client
from qmtl.services.dagmanager.repeats import content_digest
from tests.replay.logs import SETTINGS, commit, row
from tests.services.dagmanager.test_cases import CASES, submitted
from tests.services.graphs import T0

BAD = ("id_without_its_prefix", "no_json", "cycle_of_two", "everything_at_once")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """One that knows a world, and whom nobody answers."""
    log = open_log(f"embedded:{tmp_path_factory.mktemp('client') / 'log'}")
    prepare(log)
    commit(log, [row("world.state", World("w1", WorldStatus.ACTIVE, SETTINGS, T0))])
    yield Client(log, [], 0.01)
    log.close()


def published(client: Client) -> list[object]:
    return [
        codec.decode(one.value)
        for one in read_all(client.log, all_partitions(client.log, "dag.submissions"))
        if one.value is not None
    ]


@pytest.mark.parametrize("name", BAD)
def test_a_message_that_would_be_refused_is_refused_before_anything_is_published(
    client: Client, name: str
) -> None:
    before = published(client)
    with pytest.raises(InvalidDag) as caught:
        client.submit(DagSubmission(name, "w1", submitted(name), T0, execution_domain="live"))
    expected = CASES[name]["refused"]
    assert (caught.value.code, [[one.code, one.path] for one in caught.value.reasons]) == (
        expected["code"],
        expected["reasons"],
    )
    assert published(client) == before


def test_nothing_is_published_to_a_world_that_nobody_made(client: Client) -> None:
    before = published(client)
    with pytest.raises(UnknownWorld):
        client.submit(DagSubmission("s", "w2", submitted("crossing"), T0, execution_domain="live"))
    assert published(client) == before


def test_a_sound_message_is_published_once_however_often_it_is_sent(client: Client) -> None:
    before = published(client)
    sound = DagSubmission("sound", "w1", submitted("crossing"), T0, execution_domain="live")
    for _ in range(2):
        with pytest.raises(NoAnswer):
            client.submit(sound)
    assert published(client) == [*before, sound]


# ---- an id is of one content -------------------------------------------------------------------------------------------


def test_what_is_sent_under_an_id_that_has_other_content_is_refused_and_not_sent(client: Client) -> None:
    one = DagSubmission("mine", "w1", submitted("crossing"), T0, execution_domain="live")
    with pytest.raises(NoAnswer):
        client.submit(one)
    before = published(client)
    with pytest.raises(NoAnswer):
        client.submit(replace(one, submitted_at_ms=T0 + 1))  # the same, said later
    with pytest.raises(ReusedId, match="'mine'"):
        client.submit(replace(one, execution_domain="shadow"))
    assert published(client) == before


def test_an_answer_to_other_content_is_not_taken_for_ones_own(client: Client) -> None:
    """Somebody else was first, with an answer after it was looked for, or before."""
    one = DagSubmission("theirs", "w1", submitted("crossing"), T0, execution_domain="live")
    theirs = DagOutcome("theirs", "w1", "s", True, "", "", "v", request_digest="0" * 32)
    workers: list[Any] = [Telling(client.log, theirs)]
    for asker in (Client(client.log, workers, 5.0), client):
        with pytest.raises(ReusedId, match="'theirs'"):
            asker.submit(one)
    assert published(client).count(one) == 1
    commit(client.log, [row("dag.diffs", replace(theirs, request_digest=content_digest(one)))])
    assert client.submit(one).sentinel_id == "v"


class Telling:
    """Stands where a worker does: gives an answer, whatever was asked."""

    def __init__(self, log: Log, answer: DagOutcome) -> None:
        self.log, self.answer = log, answer

    def step(self) -> bool:
        commit(self.log, [row("dag.diffs", self.answer)])
        return True


# ---- a command is sent again once --------------------------------------------------------------------------------------


class Answering:
    """Stands where a worker does: takes commands from the log, or loses all of them as often as it is told to."""

    def __init__(self, log: SimulatedLog, losses: int) -> None:
        self.log, self.losses, self.lost = log, losses, 0

    def step(self) -> bool:
        found = commands(self.log)
        if found and self.lost < self.losses:
            self.lost += 1
            self.log.delete_topics(["dag.commands"])
            self.log.ensure_topics([topic("dag.commands")])
        elif found:
            commit(self.log, [row("dag.outcomes", DagCommandOutcome(found[-1].command_id, True, "", "done"))])
        return bool(found)


class Unsure:
    """A writer whose first transaction ends without anybody knowing how."""

    def __init__(self, inner: Writer, commits: bool) -> None:
        self._inner, self._commits = inner, commits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, *args: Any) -> None:
        if self._commits:
            self._inner.commit(*args)
        raise OutcomeUnknown("nobody knows")


def commands(log: SimulatedLog) -> list[Any]:
    found = read_all(log, all_partitions(log, "dag.commands"))
    return [codec.decode(one.value) for one in found if one.value is not None]


RETIRE = RetireStrategy("c", "w1", "s1", T0)
COLLECT = CollectGarbage("c", "", T0)


def asking(losses: int = 0, timeout_s: float = 5.0) -> tuple[Client, Answering]:
    log = SimulatedLog()
    log.ensure_topics(CATALOGUE)
    worker: Any = Answering(log, losses)
    return Client(log, [worker], timeout_s), worker


@pytest.mark.parametrize("commits", [True, False])
def test_a_command_whose_sending_has_an_unknown_end_is_on_the_log_once(
    monkeypatch: pytest.MonkeyPatch, commits: bool
) -> None:
    client, worker = asking()
    writer, made = worker.log.writer, list[str]()

    def unsure(name: str) -> Any:
        made.append(name)
        return Unsure(writer(name), commits) if made == ["qmtl.client.dag.commands"] else writer(name)

    monkeypatch.setattr(worker.log, "writer", unsure)
    assert client.dag_command(RETIRE).detail == "done"
    assert commands(worker.log) == [RETIRE]


def test_a_command_without_an_answer_is_sent_once_more_and_no_oftener() -> None:
    client, worker = asking(losses=1, timeout_s=0.6)
    assert client.dag_command(RETIRE).detail == "done"
    assert worker.lost == 1
    client, worker = asking(losses=9, timeout_s=0.2)
    with pytest.raises(NoAnswer):
        client.dag_command(RETIRE)
    assert worker.lost == ATTEMPTS == 2


def test_the_collection_of_garbage_is_sent_three_times_at_most_and_lies_there_once() -> None:
    client, worker = asking(losses=9, timeout_s=0.2)
    with pytest.raises(NoAnswer):
        client.dag_command(COLLECT)
    assert worker.lost == GC_ATTEMPTS == 3
    client, worker = asking(losses=2, timeout_s=0.6)
    assert client.dag_command(COLLECT).detail == "done"
    assert (worker.lost, commands(worker.log)) == (2, [COLLECT])
