"""The end of an input is on the log: a node that was active is completed with the last of its inputs, and goes on where one of them does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.dag import StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import EndOfInput
from qmtl.foundation.contracts.node import NodeState, NodeStatus
from qmtl.foundation.wire.keys import encode_key, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic
from qmtl.replay.feed import Feed
from qmtl.services.nodes.endings import settled
from tests.services.graphs import T0, cross, price, sma, strategy, tag_query, target
from tests.services.nodes.floor import STEP_MS, Floor, bars_of

A, B = "BTC-USD", "ETH-USD"
WARM_UP = 3


def two_sources() -> dict[str, Any]:
    """Averages over two sources, which live on two shards, and what reads both."""
    nodes = [
        price("one", (A,)),
        price("two", (A, B)),
        sma("fast", 1, "one"),
        sma("slow", WARM_UP, "two"),
        cross(),
        target(),
    ]
    return strategy(nodes, "joined")


def feed(floor: Floor, deployed: StrategyVersion, name: str, minutes: int, *, bars: int, ends: bool) -> None:
    """Bring a source so far, with bars up to `bars` minutes from the start that are not there yet."""
    (source,) = [one for one in deployed.nodes if one.name == name]
    raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
    found = bars_of({A: [100.0 + at for at in range(bars)]})
    one = Feed(floor.log, codec, raw, 60, iter(found), T0, T0 + minutes * STEP_MS, ends=ends)
    while not one.done:
        one.push(2)
    one.close()


def ways(floor: Floor, deployed: StrategyVersion) -> dict[str, list[tuple[NodeStatus, int]]]:
    """Each state of each node, in the order of the log, with the minute since when."""
    names = {one.node_id: one.name for one in deployed.nodes}
    out: dict[str, list[tuple[NodeStatus, int]]] = {name: [] for name in names.values()}
    for record in read_all(floor.log, all_partitions(floor.log, "node.state")):
        if record.value is None or is_reserved(record.key):
            continue
        row: NodeState = codec.decode(record.value)
        said = (row.status, (row.since_bucket_ms - T0) // STEP_MS if row.since_bucket_ms else 0)
        if out[names[row.node_id]][-1:] != [said]:
            out[names[row.node_id]].append(said)
    return out


@dataclass
class Model:
    """The states by a count of minutes, one node at a time; a node reads sources and has a warm-up of its own."""

    reads: tuple[str, ...]
    warm_up: int
    seen: int = 0
    ended: set[str] = field(default_factory=set)
    way: list[tuple[NodeStatus, int]] = field(default_factory=lambda: [(NodeStatus.INITIALIZED, 0)])

    def minute(self, at: int, bars: set[str], ends: set[str], had: bool) -> None:
        self.seen += had
        self.ended = (self.ended - bars) | (ends & set(self.reads))
        if self.way[-1][0] is NodeStatus.INITIALIZED:
            self.way.append((NodeStatus.PRE_WARMUP, at))
        if self.seen >= self.warm_up and self.way[-1][0] is NodeStatus.PRE_WARMUP:
            self.way.append((NodeStatus.ACTIVE, at))
        over = self.ended == set(self.reads)
        if over and self.way[-1][0] is NodeStatus.ACTIVE:
            self.way.append((NodeStatus.COMPLETED, at))
        elif not over and self.way[-1][0] is NodeStatus.COMPLETED:
            self.way.append((NodeStatus.ACTIVE, at))
        # Several moves of one minute are one row.
        self.way = [one for place, one in enumerate(self.way) if one[1] != at or place == len(self.way) - 1]


PIECES = st.lists(
    st.tuples(st.integers(1, 4), st.booleans(), st.booleans(), st.booleans(), st.booleans()),
    min_size=1,
    max_size=5,
)


@settings(deadline=None, max_examples=12)
@example(
    [(1, False, False, False, True), (1, False, True, False, True)], 1, False
)  # an end that is said again
@given(PIECES, st.sampled_from([1, 4000]), st.booleans())
def test_a_node_is_completed_exactly_while_all_of_its_inputs_have_ended(
    pieces: list[tuple[int, bool, bool, bool, bool]], poll: int, dies: bool
) -> None:
    """Each piece: its minutes; of each source, whether it has bars, and whether its input ends with the piece. Whenever workers die, and
    whatever they have lost, the rows are the same."""
    with TemporaryDirectory() as name:
        floor = Floor(Path(name), poll)
        try:
            deployed = floor.deploy(two_sources())
            models = {
                "one": Model(("one",), 1),
                "two": Model(("two",), 1),
                "fast": Model(("one",), 1),
                "slow": Model(("two",), WARM_UP),
                "cross": Model(("one", "two"), 1),
                "target": Model(("one", "two"), 1),
            }
            floor.work()
            fed = {"one": 0, "two": 0}
            minute = 0
            for minutes, one, two, one_ends, two_ends in pieces:
                begins, minute = minute, minute + minutes
                for source, has, ends in (("one", one, one_ends), ("two", two, two_ends)):
                    fed[source] = minute if has else 0
                    feed(floor, deployed, source, minute, bars=fed[source], ends=ends)
                if dies:
                    floor.work(3)
                    floor.stop(lose_store=True)
                    floor.start()
                floor.work()
                for at in range(begins + 1, minute + 1):
                    with_bars = {source for source, has in (("one", one), ("two", two)) if has}
                    last = at == minute
                    ending = {
                        source for source, end in (("one", one_ends), ("two", two_ends)) if end and last
                    }
                    models["one"].minute(at, with_bars, ending, one)
                    models["two"].minute(at, with_bars, ending, two)
                    models["fast"].minute(at, with_bars, ending, one)
                    models["slow"].minute(at, with_bars, ending, two)
                    # The crossing gives a value once both averages have one in the same minute.
                    both = one and two and models["slow"].seen >= WARM_UP
                    models["cross"].minute(at, with_bars, ending, both)
                    models["target"].minute(at, with_bars, ending, both)
            found = ways(floor, deployed)
            assert {name: way[-1] for name, way in found.items()} == {
                name: model.way[-1] for name, model in models.items()
            }
            if poll == 1:  # a transaction of several buckets writes the last row alone
                assert found == {name: model.way for name, model in models.items()}
            assert floor.events("dead.letters") == floor.events("late.records") == []
        finally:
            floor.close()


@pytest.fixture
def floor(tmp_path: Path) -> Any:
    made = Floor(tmp_path)
    yield made
    made.close()


def status(floor: Floor, deployed: StrategyVersion) -> dict[str, NodeStatus]:
    names = {one.node_id: one.name for one in deployed.nodes}
    return {names[one.node_id]: one.status for one in floor.view("node.state").rows() if one.node_id in names}


def mean_of(period: int, name: str = "s1", **more: Any) -> dict[str, Any]:
    return strategy([price(symbols=(A,)), sma("mean", period, **more), target(source="mean")], name)


def test_a_range_that_is_too_short_leaves_a_node_in_its_warm_up(floor: Floor) -> None:
    deployed = floor.deploy(mean_of(5))
    feed(floor, deployed, "price", 4, bars=4, ends=True)
    floor.work()
    waits = NodeStatus.PRE_WARMUP
    assert status(floor, deployed) == {"price": NodeStatus.COMPLETED, "mean": waits, "target": waits}
    feed(floor, deployed, "price", 6, bars=6, ends=True)
    floor.work()
    assert set(status(floor, deployed).values()) == {NodeStatus.COMPLETED}


def test_who_comes_after_the_end_waits_and_what_asks_for_more_goes_on(floor: Floor) -> None:
    """A node that is deployed when its input has ended knows so, and is completed by nothing but bars."""
    first = floor.deploy(mean_of(1))
    feed(floor, first, "price", 3, bars=3, ends=True)
    floor.work()
    second = floor.deploy(mean_of(2, "s2"))
    assert status(floor, second)["mean"] is NodeStatus.INITIALIZED
    assert status(floor, first)["mean"] is NodeStatus.COMPLETED
    feed(floor, second, "price", 6, bars=6, ends=False)
    floor.work()
    assert set(status(floor, second).values()) == {NodeStatus.ACTIVE}
    assert all(row.ended == () for row in floor.view("node.state").rows())


def test_a_tag_query_that_another_source_answers_goes_on(floor: Floor) -> None:
    floor.share()
    asks = strategy([tag_query(tags=("a",)), target(source="asked")], "asks")
    first = floor.deploy(mean_of(1, tags=["a"]))
    asking = floor.deploy(asks)
    feed(floor, first, "price", 3, bars=3, ends=True)
    floor.work()
    assert status(floor, asking)["asked"] is NodeStatus.COMPLETED
    other = [price("p", (A, B)), sma("mean", 1, "p", tags=["a"]), target(source="mean")]
    floor.deploy(strategy(other, "other"))
    assert status(floor, asking)["asked"] is NodeStatus.ACTIVE
    assert status(floor, first)["mean"] is NodeStatus.COMPLETED


def test_an_end_of_another_time_is_a_dead_letter_and_ends_nothing(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed = floor.deploy(mean_of(1))
    wrong = EndOfInput(60, T0 + 2 * STEP_MS)
    monkeypatch.setattr("qmtl.replay.feed.EndOfInput", lambda interval, end_ms: wrong)
    feed(floor, deployed, "price", 3, bars=3, ends=True)
    floor.work()
    assert set(status(floor, deployed).values()) == {NodeStatus.ACTIVE}
    (letter,) = floor.events("dead.letters")
    assert (letter.code, letter.key) == ("QMTL-404", encode_key(("",)))
    assert "with the bucket" in letter.cause


@given(
    st.sampled_from(NodeStatus),
    st.lists(st.sampled_from("abcd"), unique=True),
    st.frozensets(st.sampled_from("abcd")),
)
def test_only_active_and_completed_change_into_each_other(
    before: NodeStatus, sources: list[str], ended: frozenset[str]
) -> None:
    state = NodeState("n", before, 1)
    after = settled(state, sources, ended, 2)
    assert after.ended == tuple(one for one in sources if one in ended)
    if before not in (NodeStatus.ACTIVE, NodeStatus.COMPLETED):
        assert (after.status, after.since_bucket_ms) == (before, 1)
    elif sources and set(sources) <= ended:
        assert after.status is NodeStatus.COMPLETED
    else:
        assert after.status is NodeStatus.ACTIVE
    assert settled(after, sources, ended, 3) is after
