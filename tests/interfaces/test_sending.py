"""What it costs to send a message and to have its answer does not grow with how many were sent before, and nothing is decided twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Positions, Reader, Record, TopicPartition
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import CommandRefused
from qmtl.foundation.contracts.dag import AdminAct, DagSubmission, RetireStrategy
from qmtl.foundation.contracts.world import World, WorldStatus
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces.client import Client
from qmtl.interfaces.tail import Tail
from qmtl.services.dagmanager.processor import DagManager
from tests.contract.driving import events
from tests.replay.logs import SETTINGS, commit, row
from tests.services.dagmanager.test_diff_stream import wide
from tests.services.dagmanager.test_diffing import request
from tests.services.graphs import T0, crossing, strategy, text


class Metered(EmbeddedLog):
    """A log that counts the records which are read while somebody is watched, and what its readers are told to read."""

    watched = False

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.records: Counter[str] = Counter()
        self.assigned: Counter[str] = Counter()

    def reader(self) -> Any:
        return _Counted(self, super().reader())


class _Counted:
    def __init__(self, log: Metered, inner: Reader) -> None:
        self._log, self._inner = log, inner
        self._topics: set[str] = set()

    def assign(self, positions: Positions) -> None:
        self._inner.assign(positions)
        if self._log.watched:
            topics = {where.topic for where in positions}
            self._log.assigned.update(topics - self._topics)
            self._topics |= topics

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        found = self._inner.poll(max_records, timeout_s)
        if self._log.watched:
            self._log.records.update(one.topic for one in found)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Unwatched:
    """A worker, whose reading is its own affair."""

    def __init__(self, log: Metered, inner: Worker) -> None:
        self._log, self._inner = log, inner

    def step(self) -> bool:
        before, self._log.watched = self._log.watched, False
        try:
            return self._inner.step()
        finally:
            self._log.watched = before


@contextmanager
def served(directory: Path) -> Iterator[tuple[Metered, list[Any]]]:
    """A log with a world, and a DAG Manager on it."""
    log = Metered(directory / "log")
    log.ensure_topics(CATALOGUE)
    commit(log, [row("world.state", World("w1", WorldStatus.ACTIVE, SETTINGS, T0))])
    worker = Worker(log, DagManager, codec, TaskSettings(directory / "state"))
    try:
        yield log, [_Unwatched(log, worker)]
    finally:
        worker.close()
        log.close()


@contextmanager
def watched(log: Metered) -> Iterator[Counter[str]]:
    """What is read of each topic meanwhile."""
    log.records, log.assigned, log.watched = Counter(), Counter(), True
    try:
        yield log.records
    finally:
        log.watched = False


def settle(workers: Sequence[Any]) -> None:
    while any(one.step() for one in workers):
        pass


def messages(log: EmbeddedLog, name: str) -> list[Any]:
    return [codec.decode(one.value) for one in read_all(log, all_partitions(log, name)) if one.value]


def decisions(log: EmbeddedLog) -> list[Any]:
    acts = (AdminAct.DIFFED, AdminAct.COMMANDED)
    return [one for one in messages(log, "dag.admin.log") if getattr(one, "act", None) in acts]


def before(log: Metered, workers: Sequence[Any], many: int) -> None:
    """So many of each message, all of them answered."""
    for start in range(0, many, 200):
        numbers = range(start, min(many, start + 200))
        commit(log, [row("dag.submissions", DagSubmission(f"s{at}", "w1", b"no json", T0)) for at in numbers])
        commit(log, [row("dag.commands", RetireStrategy(f"c{at}", "w1", "s1", T0)) for at in numbers])
        commit(log, [row("dag.diff.requests", request(b"no json", f"r{at}")) for at in numbers])
    settle(workers)


def a_submission() -> DagSubmission:
    return DagSubmission("new", "w1", text(strategy(crossing())), T0, execution_domain="live")


def test_what_is_read_to_send_a_message_does_not_grow_with_those_before(tmp_path: Path) -> None:
    """Once a client has looked at the answers, whose rows go in time. How far a service has come it finds within so many offsets."""
    costs: list[list[int]] = []
    for many in (300, 500):
        with served(tmp_path / str(many)) as (log, workers):
            before(log, workers, many)
            cost, client = [], Client(log, workers)
            for name in ("dag.diffs", "dag.outcomes"):
                client.view(name)
            with watched(log) as read:
                assert client.submit(a_submission()).accepted
            cost.append(read.total())
            with watched(log) as read, pytest.raises(CommandRefused):
                client.dag_command(RetireStrategy("new", "w1", "nobody", T0))
            cost.append(read.total())
            with watched(log) as read:
                assert len(Client(log, workers).diff(request(wide(3), "new")).nodes) == 3
            cost.append(read.total())
        costs.append(cost)
    few, many_ = costs
    assert all(later < sooner + 25 for sooner, later in zip(few, many_, strict=True)), costs


def test_one_reader_of_the_answers_serves_all_diffs_of_a_client(tmp_path: Path) -> None:
    with served(tmp_path) as (log, workers):
        client = Client(log, workers)
        with watched(log) as read:
            for number in range(6):
                assert len(client.diff(request(wide(3), f"r{number}")).nodes) == 3
        assert log.assigned["dag.diff.chunks"] == 1
        chunks = [one for one in messages(log, "dag.diff.chunks") if hasattr(one, "seq")]
        assert len(chunks) == 6
        where = TopicPartition("dag.diff.chunks", 0)
        assert read["dag.diff.chunks"] <= log.end_offsets([where])[where]
        client.close()


def test_what_was_answered_before_is_told_again_and_decided_once(tmp_path: Path) -> None:
    with served(tmp_path) as (log, workers):
        before(log, workers, 3)
        first = Client(log, workers).submit(a_submission())
        retire = RetireStrategy("new", "w1", "s1", T0)
        told = Client(log, workers).dag_command(retire)
        asked = request(wide(3), "new")
        found = Client(log, workers).diff(asked)
        settle(workers)
        decided = decisions(log)
        assert Client(log, workers).submit(a_submission()) == first
        assert Client(log, workers).dag_command(retire) == told
        assert Client(log, workers).diff(asked) == found
        settle(workers)
        assert decisions(log) == decided


def test_what_waits_to_be_taken_is_not_sent_again_by_whoever_comes_after(tmp_path: Path) -> None:
    with served(tmp_path) as (log, workers):
        before(log, workers, 30)
        same = a_submission()
        for _ in range(3):
            client = Client(log, [])
            client.publish_once("dag.submissions", same, lambda other: other.submission_id == "new")
        assert [one.submission_id for one in messages(log, "dag.submissions")].count("new") == 1


# ---- a topic from a place on ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 2), st.integers(1, 4)),
            st.tuples(st.just("read"), st.integers(0, 1), st.none()),
            st.tuples(st.just("break off"), st.integers(0, 1), st.integers(1, 3)),
        ),
        max_size=25,
    )
)
def test_each_of_two_askers_has_every_record_from_its_place_on_in_order_whatever_breaks_off(
    acts: Sequence[tuple[str, int, int | None]],
) -> None:
    log = SimulatedLog()
    log.ensure_topics([events("t", 3)])
    commit(log, [("t", partition, b"old", b"") for partition in range(3)])
    tail = Tail(log, "t")
    places: list[dict[TopicPartition, int]] = [{}, tail.end()]
    had: list[list[tuple[int, bytes]]] = [[], []]
    written: list[tuple[int, bytes]] = []

    def read(who: int, most: int | None = None) -> None:
        for record in tail.read(places[who]):
            if most is not None and most <= 0:
                raise LookupError  # the one that it was given is not done with
            most = None if most is None else most - 1
            had[who].append((record.partition, record.key))

    for at, (act, which, count) in enumerate(acts):
        match act:
            case "write":
                made = [(which, b"%d.%d" % (at, number)) for number in range(count or 0)]
                commit(log, [("t", partition, key, b"") for partition, key in made])
                written += made
            case "read":
                read(which)
            case _:
                with suppress(LookupError):
                    read(which, count)
    for who, also in ((0, True), (1, False)):
        read(who)
        for partition in range(3):
            old = [b"old"] if also else []
            mine = [key for where, key in had[who] if where == partition]
            assert mine == [*old, *(key for where, key in written if where == partition)]
    tail.close()
