"""The laws of an answer in chunks: whoever reads has it whole, once and in order, and never more than a window of it is out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qmtl.foundation.common.names import MAX_NAME
from qmtl.foundation.contracts.dag import AdminAct
from qmtl.foundation.contracts.diff import (
    AckChunk,
    DiffChunk,
    DiffState,
    DiffStream,
    MappedNode,
    NodeOrigin,
)
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import HOUR_MS
from qmtl.services.dagmanager import diff_stream
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.diff_stream import CHUNK_BYTES, CHUNK_NODES, LONGEST_NODE, WINDOW, parts_of
from qmtl.services.dagmanager.submission import LONGEST_ID
from tests.services.dagmanager.desk import Desk
from tests.services.dagmanager.lives import tried
from tests.services.dagmanager.test_diffing import a_desk, graph_of, request
from tests.services.graphs import T0, crossing, price, sma, strategy, target

TICK_MS = 1_000


def wide(size: int) -> dict[str, Any]:
    """A strategy of so many nodes."""
    averages = [sma(f"n{at}", at + 2, tags=[]) for at in range(size - 2)]
    return strategy([price(), *averages, target(source="n0")])


def names_of(message: dict[str, Any]) -> list[str]:
    return [one.name for one in admit(request(message).dag_json, 0).nodes]


def chunks(desk: Desk, request_id: str = "r1", *, released: bool | None = None) -> list[DiffChunk]:
    rows = (row for row in desk.rows("dag.diff.chunks") if row.request_id == request_id)
    return [row for row in rows if released is None or row.released is released]


def stream(desk: Desk, request_id: str = "r1") -> DiffStream:
    found: DiffStream = desk.table("dag.diff.streams").get(request_id)
    return found


@pytest.fixture
def desk() -> Iterator[Desk]:
    with a_desk() as made:
        yield made


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of one node, so that few nodes make many."""
    monkeypatch.setattr(diff_stream, "CHUNK_NODES", 1)


# ---- any order, repetition and loss ----------------------------------------------------------------------------------


@dataclass
class Someone:
    """A reader of one answer, who keeps what it has before it acknowledges it."""

    wanted: list[str]
    kept: list[DiffChunk] = field(default_factory=list)
    read: list[DiffChunk] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [node.name for chunk in self.kept for node in chunk.queue_map]


class Answers(RuleBasedStateMachine):
    """Two answers, acknowledged in any way, over restarts of the DAG Manager and of their readers."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.desk = Desk(Path(self.folder.name))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(diff_stream, "CHUNK_NODES", 2)
        self.now_ms = T0
        self.in_flight: list[AckChunk] = []
        self.someone: dict[str, Someone] = {}

    @initialize(sizes=st.tuples(st.integers(3, 60), st.integers(3, 60)))
    def begin(self, sizes: tuple[int, int]) -> None:
        self.desk.tick(self.now_ms)
        self.requests = {f"r{at}": request(wide(size), f"r{at}") for at, size in enumerate(sizes)}
        self.graph = graph_of(self.desk)
        for name, size in zip(self.requests, sizes, strict=True):
            self.desk.send(self.requests[name])
            self.someone[name] = Someone(names_of(wide(size)))

    def teardown(self) -> None:
        """Whatever has happened: in the end everybody has everything, and nothing is left but that it is done."""
        for name, reader in self.someone.items():
            for _ in range(40):
                self.read(name)
                self.keep(name)
                self.desk.send(AckChunk(name, len(reader.kept) - 1))
            assert reader.names == reader.wanted
            assert [chunk.last for chunk in reader.kept] == [False] * (len(reader.kept) - 1) + [True]
            assert chunks(self.desk, name) == []
            assert stream(self.desk, name).state is DiffState.DONE
        self.patch.undo()
        self.desk.close()
        self.folder.cleanup()

    who = st.sampled_from(["r0", "r1"])

    @rule(name=who)
    def ask_again(self, name: str) -> None:
        before = self.desk.all_rows(), list(self.desk.emitted)
        self.desk.send(self.requests[name])
        assert (self.desk.all_rows(), self.desk.emitted) == before

    @rule(name=who)
    def read(self, name: str) -> None:
        """Take what is out, as far as it goes on from what was taken."""
        reader = self.someone[name]
        for chunk in chunks(self.desk, name, released=True):
            if chunk.seq == len(reader.kept) + len(reader.read):
                reader.read.append(chunk)

    @rule(name=who)
    def keep(self, name: str) -> None:
        reader = self.someone[name]
        reader.kept += reader.read
        reader.read = []
        if reader.kept:
            self.in_flight.append(AckChunk(name, len(reader.kept) - 1))

    @rule(name=who)
    def crash_of_the_reader(self, name: str) -> None:
        """It has what it kept, and finds the rest in the table again."""
        self.someone[name].read = []

    @precondition(lambda self: self.in_flight)
    @rule(choose=st.randoms(use_true_random=False), again=st.booleans())
    def deliver(self, choose: Any, again: bool) -> None:
        at = choose.randrange(len(self.in_flight))
        self.desk.send(self.in_flight[at] if again else self.in_flight.pop(at))

    @precondition(lambda self: self.in_flight)
    @rule()
    def lose(self) -> None:
        self.in_flight.pop()

    @rule(
        name=st.sampled_from(["r0", "r1", "nobody", "no id"]),
        beyond=st.sampled_from([0, 1, 9, 50]),
        negative=st.booleans(),
    )
    def stray(self, name: str, beyond: int, negative: bool) -> None:
        """What was never out, and what nobody knows, can't be acknowledged."""
        row = self.desk.table("dag.diff.streams").get(name)
        seq = -1 - beyond if negative else beyond + (row.released if row is not None else 0)
        before = self.desk.all_rows(), list(self.desk.emitted)
        self.desk.send(AckChunk(name, seq))
        assert (self.desk.all_rows(), self.desk.emitted) == before

    @rule(seconds=st.sampled_from([1, 20, 31]))
    def tick(self, seconds: int) -> None:
        self.now_ms += seconds * TICK_MS
        self.desk.tick(self.now_ms)

    @rule()
    def restart(self) -> None:
        before = self.desk.stream_memory()
        self.desk.again()
        assert self.desk.stream_memory() == before

    @invariant()
    def at_most_a_window_is_out(self) -> None:
        for name, reader in self.someone.items():
            row, rows = stream(self.desk, name), chunks(self.desk, name)
            assert [one.seq for one in rows] == list(range(row.acknowledged, row.chunks))
            out = [one.seq for one in rows if one.released]
            assert out == list(range(row.acknowledged, row.released))
            assert len(out) <= WINDOW
            assert len(out) == min(WINDOW, len(rows))
            assert row.acknowledged <= len(reader.kept)

    @invariant()
    def the_graph_is_as_it_was(self) -> None:
        if self.someone:
            assert graph_of(self.desk) == self.graph


Answers.TestCase.settings = tried(60, 40)
TestAnswers = Answers.TestCase


# ---- how long a chunk is -------------------------------------------------------------------------------------------


def mapped(name: str) -> MappedNode:
    return MappedNode("blake3:" + "0" * 64, name, "t", NodeOrigin.NEW)


def test_ten_thousand_nodes_are_a_hundred_chunks() -> None:
    nodes = [mapped(f"n{at}") for at in range(10_000)]
    parts = list(parts_of(nodes, CHUNK_BYTES))
    assert [len(part) for part in parts] == [100] * 100
    assert [node for part in parts for node in part] == nodes


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([2, 1_000, 100_000, CHUNK_BYTES // 3]), min_size=1, max_size=30))
def test_no_chunk_is_longer_than_a_mebibyte_and_none_could_have_taken_the_next_node_easily(
    lengths: list[int],
) -> None:
    nodes = [mapped("é" * (length // 2)) for length in lengths]
    empty = DiffChunk("r" * 50, 2**31, False, (), "s" * 300, "v" * 50, "decision_unavailable", True)
    room = CHUNK_BYTES - len(codec.encode(empty))
    made = [
        DiffChunk("r" * 50, 2**31, False, part, "s" * 300, "v" * 50, "decision_unavailable", True)
        for part in parts_of(nodes, room)
    ]
    assert [node for one in made for node in one.queue_map] == nodes
    sizes = [len(codec.encode(one)) for one in made]
    assert max(sizes) <= CHUNK_BYTES
    for size, behind in zip(sizes, made[1:], strict=False):
        assert size + len(behind.queue_map[0].name.encode()) + 10_000 > CHUNK_BYTES


def test_a_chunk_of_the_longest_names_has_room(desk: Desk) -> None:
    """No name is longer than one that is admitted, no topic than Kafka takes."""
    names = [f"{at}".rjust(MAX_NAME, "n") for at in range(100)]
    first, *averages, last = names
    nodes = [price(first), *(sma(one, 3, first) for one in averages), target(last, averages[0])]
    desk.send(request(strategy(nodes, signals=(last,))))
    (only,) = chunks(desk)
    assert only.accepted
    told = [
        MappedNode("i" * LONGEST_ID, node.name, "t" * 249, NodeOrigin.BUFFERING) for node in only.queue_map
    ]
    empty = len(codec.encode(replace(only, queue_map=())))
    assert len(codec.encode(replace(only, queue_map=tuple(told)))) <= empty + CHUNK_NODES * LONGEST_NODE
    longer = price("n" * (MAX_NAME + 1))
    desk.send(request(strategy([longer, *crossing()]), "r2"))
    (refused,) = chunks(desk, "r2")
    assert not refused.accepted


def test_the_largest_strategy_that_is_admitted_is_told_whole(desk: Desk) -> None:
    size = 3_000
    desk.send(request(wide(size)))
    rows = chunks(desk)
    assert [len(one.queue_map) for one in rows] == [CHUNK_NODES] * 30
    assert [one.released for one in rows] == [True] * 10 + [False] * 20
    found: list[str] = []
    while rows := chunks(desk, released=True):
        found += [node.name for row in rows for node in row.queue_map]
        desk.send(AckChunk("r1", rows[-1].seq))
    assert found == names_of(wide(size))


# ---- who says nothing ------------------------------------------------------------------------------------------------


def test_an_acknowledgement_lets_out_as_many_as_it_takes(desk: Desk, small: None) -> None:
    desk.send(request(wide(30)))
    desk.send(AckChunk("r1", 3))
    assert [one.seq for one in chunks(desk, released=True)] == list(range(4, 14))
    assert [one.seq for one in chunks(desk, released=False)] == list(range(14, 30))


@pytest.mark.parametrize("seq", [-1, 10, 11, 29, 30])
def test_what_is_not_out_can_not_be_acknowledged(desk: Desk, small: None, seq: int) -> None:
    desk.send(request(wide(30)))
    before = desk.all_rows()
    desk.send(AckChunk("r1", seq), AckChunk("r2", 0))
    assert desk.all_rows() == before


def seconds(desk: Desk, first: int, *more: int) -> None:
    for at in (first, *more):
        desk.tick(T0 + at * TICK_MS)


def test_thirty_seconds_of_ticks_without_an_acknowledgement_are_told_once(desk: Desk, small: None) -> None:
    seconds(desk, 0)
    desk.send(request(wide(12)))
    seconds(desk, 10, 39)
    assert (stream(desk).state, stream(desk).heard_ms) == (DiffState.OPEN, T0 + 10 * TICK_MS)
    seconds(desk, 40, 41, 500)
    assert (stream(desk).state, stream(desk).timeouts) == (DiffState.TIMEOUT, 1)
    (told,) = [one for one in desk.told("dag.admin.log") if one.act is AdminAct.STALLED]
    assert (told.subject, told.detail, told.at_ms) == (
        "r1",
        "0 of 12 chunks were acknowledged",
        T0 + 40 * TICK_MS,
    )


def test_an_answer_that_stalled_goes_on_from_what_was_acknowledged_last(desk: Desk, small: None) -> None:
    desk.send(request(wide(12)), AckChunk("r1", 1))
    seconds(desk, 0, 31)
    assert stream(desk).state is DiffState.TIMEOUT
    desk.again()
    desk.send(AckChunk("r1", 2))
    assert (stream(desk).state, stream(desk).heard_ms) == (DiffState.OPEN, None)
    assert [one.seq for one in chunks(desk, released=True)] == list(range(3, 12))
    seconds(desk, 32, 61)
    assert stream(desk).timeouts == 1
    seconds(desk, 62)
    assert stream(desk).timeouts == 2


def test_a_clock_that_stood_still_makes_nobody_late(desk: Desk, small: None) -> None:
    """The first tick ever, and the first after hours, begin to count; they end nothing."""
    desk.send(request(wide(12)))
    seconds(desk, 0)
    assert stream(desk).state is DiffState.OPEN
    desk.send(AckChunk("r1", 0))
    seconds(desk, 10 * 3_600)
    assert (stream(desk).state, stream(desk).acknowledged) == (DiffState.OPEN, 1)


def test_an_hour_of_ticks_without_an_acknowledgement_leaves_nothing(desk: Desk, small: None) -> None:
    seconds(desk, 0)
    desk.send(request(wide(12)), AckChunk("r1", 0))
    before = len(chunks(desk))
    seconds(desk, 1, 3_600)
    assert (before, len(chunks(desk))) == (11, 11)
    desk.again()
    seconds(desk, 3_601)
    assert (chunks(desk), desk.rows("dag.diff.streams")) == ([], [])
    assert [one.act for one in desk.told("dag.admin.log")][-2:] == [AdminAct.STALLED, AdminAct.GIVEN_UP]
    desk.send(AckChunk("r1", 1))
    assert (chunks(desk), desk.rows("dag.diff.streams")) == ([], [])


def test_of_two_answers_that_were_left_the_first_goes_first(desk: Desk, small: None) -> None:
    seconds(desk, 0)
    desk.send(request(wide(12), "b"))
    seconds(desk, 1)
    desk.send(request(wide(12), "a"))
    seconds(desk, 11, 31, 3_601)
    assert [row.request_id for row in desk.rows("dag.diff.streams")] == ["a"]


def test_an_answer_that_was_taken_whole_is_forgotten_in_silence(desk: Desk) -> None:
    seconds(desk, 0)
    desk.send(request(wide(12)), AckChunk("r1", 0))
    assert (chunks(desk), stream(desk).state) == ([], DiffState.DONE)
    seconds(desk, 1, 40)
    assert stream(desk).state is DiffState.DONE
    desk.tick(T0 + TICK_MS + HOUR_MS)
    assert desk.rows("dag.diff.streams") == []
    assert {one.act for one in desk.told("dag.admin.log")} == {AdminAct.DIFFED}


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_tick_says_the_same_after_a_restart(data: st.DataObject) -> None:
    """In which order streams came to a tick, memory could know and the tables can't: nothing may depend on it."""
    names = data.draw(st.permutations(["a", "b", "c", "d"]))
    choices: list[str | int] = [*names, 10, 20, 3_570]
    steps = data.draw(st.lists(st.sampled_from(choices), min_size=6, max_size=24))
    with a_desk() as straight, a_desk() as restarted:
        now_ms = T0
        for step in steps:
            now_ms += step * TICK_MS if isinstance(step, int) else 0
            for desk in (straight, restarted):
                if isinstance(step, int):
                    desk.tick(now_ms)
                elif desk.table("dag.diff.streams").get(step) is None:
                    desk.send(request(wide(3), step))
                else:
                    desk.send(AckChunk(step, 0))
            restarted.again()
            assert straight.emitted == restarted.emitted
            assert straight.all_rows() == restarted.all_rows()
            assert straight.seal() == restarted.seal()


def test_a_refusal_is_one_chunk_and_done_once_it_is_acknowledged(desk: Desk) -> None:
    desk.send(request(b"no json"))
    (only,) = chunks(desk, released=True)
    assert (only.accepted, only.last, only.seq) == (False, True, 0)
    desk.send(AckChunk("r1", 0))
    assert (chunks(desk), stream(desk).state) == ([], DiffState.DONE)
