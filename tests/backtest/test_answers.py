"""A tag query of a backtest is answered by the strategies of the run, and says what it says on a log on which all of them are."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl import ProcessingNode, Strategy, StreamInput
from qmtl.backtest.answers import answered
from qmtl.backtest.signals import Nodes
from qmtl.backtest.simulation import Terms, simulate
from qmtl.backtest.sweep.node_cache import KeptNodes
from qmtl.foundation.common.errors import InvalidDag, TagsTooCommon
from qmtl.foundation.contracts.dag import TopicClass
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic
from qmtl.replay.feed import Feed
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.tag_query import AGGREGATES
from qmtl.runtime.sdk.builtins import builtin
from qmtl.runtime.sdk.loading import message_of
from qmtl.services.dagmanager.admission import admit
from tests.runtime.sdk import authored
from tests.services.graphs import T0, cross, price, sma, strategy, tag_query, target, text
from tests.services.nodes.floor import STEP_MS, Closes, Floor, bars_of

A, B, C = "BTC-USD", "ETH-USD", "LTC-USD"
MINUTES = 24
TAGS = st.lists(st.sampled_from(["x", "y", "z"]), max_size=3)


@st.composite
def running(draw: st.DrawFn) -> tuple[list[dict[str, Any]], Closes]:
    """Strategies of one world, in the order of their publication, and what their sources say."""
    out = []
    for number in range(draw(st.integers(1, 3))):
        symbols = draw(st.lists(st.sampled_from([A, B, C]), min_size=1, unique=True))
        nodes = [
            price(symbols=symbols, tags=draw(TAGS)),
            sma("mean", draw(st.integers(1, 3)), tags=draw(TAGS)),
            target(source="mean"),
        ]
        if draw(st.booleans()) or not number:
            query = tag_query(
                "asked",
                draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=1, max_size=2)),
                draw(st.sampled_from(["any", "all"])),
                draw(st.sampled_from(sorted(AGGREGATES))),
                draw(TAGS),
            )
            smooth = sma("smooth", draw(st.integers(1, 3)), "asked", tags=draw(TAGS))
            nodes = [query, smooth, *nodes[:2], cross("cross", "smooth", "mean"), target()]
        version = draw(st.sampled_from(["v1", "v2"]))
        out.append(strategy(nodes, f"s{draw(st.integers(0, 9))}-{number}", version=version))
    prices = st.one_of(st.none(), st.integers(1, 9000).map(lambda units: units / 100))
    return out, {one: draw(st.lists(prices, min_size=MINUTES, max_size=MINUTES)) for one in (A, B, C)}


WAVES: Closes = {
    one: [100.0 + (at * of % 23) for at in range(MINUTES)] for one, of in ((A, 37), (B, 41), (C, 7))
}


def of_all(aggregate: str, mode: str = "any") -> list[dict[str, Any]]:
    """One that asks and has an answer itself, and two that have others."""
    asks = [tag_query("asked", ["x"], mode, aggregate), price(symbols=(A,)), sma("mean", 2, tags=["x"])]
    return [
        strategy([*asks, cross("cross", "asked", "mean"), target()], "asks"),
        strategy([price(symbols=(A, B), tags=["x"]), sma("mean", 3, tags=["x"]), target(source="mean")], "b"),
        strategy([price(symbols=(C,)), sma("mean", 1, tags=["x", "y"]), target(source="mean")], "c"),
    ]


@settings(deadline=None, max_examples=10)
@given(running())
@example((of_all("median"), WAVES))
@example((of_all("count", "all")[:1], WAVES))
def test_values_and_intents_are_those_of_the_node_workers(case: tuple[list[dict[str, Any]], Closes]) -> None:
    messages, closes = case
    read = sorted({symbol for one in messages for symbol in symbols_of(one)})
    bars = {
        symbol: BarColumns.of(symbol, 60, bars_of({symbol: closes[symbol]}))
        for symbol in read
        if any(one is not None for one in closes[symbol])
    }
    if list(bars) != read:  # a backtest refuses what has no bar at all
        return
    done = simulate([text(one) for one in messages], bars, Terms(world_id="w1"))
    nodes = Nodes(bars)
    found = {node_id: one for graph in answered(done.graphs) for node_id, one in nodes.of(graph).items()}
    with TemporaryDirectory() as name:
        floor = Floor(Path(name))
        try:
            for one in messages:
                floor.deploy(one)
            feed(floor, closes)
            floor.work()
            assert sorted(done.intents, key=repr) == sorted(floor.events("trade.intents"), key=repr)
            topics = {
                one.topic: one.node_id
                for row in floor.view("dag.strategies").rows()
                for one in row.nodes
                if one.node_type in ("sma", "tag_query")
            }
            assert len(set(topics.values())) == len(topics)
            for topic, node_id in topics.items():
                said = {(one.symbol, one.bucket_ms): one.value for one in values(floor, topic)}
                assert column_values(found[node_id], bars) == said
            reads = {
                one.node.node_id: one.node.dependencies
                for graph in answered(done.graphs)
                for one in graph.nodes
            }
            for node in (node for row in rows(floor) for node in row.nodes):
                assert reads[node.node_id] == node.dependencies  # in this order, which tells two zeros apart
            assert done.computed == len({node.node_id for row in rows(floor) for node in row.nodes})
        finally:
            floor.close()


def symbols_of(message: dict[str, Any]) -> list[str]:
    (found,) = [one["params"]["symbols"] for one in message["nodes"] if one["node_type"] == "price"]
    return list(found)


def rows(floor: Floor) -> list[Any]:
    return floor.view("dag.strategies").rows()


def values(floor: Floor, topic: str) -> list[NodeValue]:
    return floor.events(topic)


def column_values(given_: Any, bars: dict[str, BarColumns]) -> dict[tuple[str, int], float]:
    out = {}
    for symbol, column in given_.items():
        assert isinstance(column, Column)
        for at, (has, value) in enumerate(zip(column.there.tolist(), column.values.tolist(), strict=True)):
            if has:
                out[symbol, int(bars[symbol].bucket_ms[at])] = value
    return out


def feed(floor: Floor, closes: Closes) -> None:
    """Bring all sources to the end before anybody works."""
    sources = {one.topic: one for row in rows(floor) for one in row.nodes if one.node_type == "price"}
    for source in sources.values():
        reads = {one: closes[one] for one in (A, B, C) if f'"{one}"' in source.params_canon}
        raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
        one = Feed(floor.log, codec, raw, 60, iter(bars_of(reads)), T0, T0 + MINUTES * STEP_MS)
        while not one.done:
            one.push(50)
        one.close()


def columns(*symbols: str) -> dict[str, BarColumns]:
    return {one: BarColumns.of(one, 60, bars_of({one: WAVES[one]})) for one in symbols}


def test_a_query_that_nobody_answers_gives_nothing_and_all_else_goes_on() -> None:
    alone = strategy([tag_query(tags=["no"]), target(source="asked")], "alone")
    other = strategy([price(symbols=(A,)), sma("mean", 2), target(source="mean")], "other")
    done = simulate([text(alone), text(other)], columns(A))
    assert {one.strategy_id for one in done.intents} == {"other"}
    assert done.graphs == tuple(admit(text(one), done.start_ms) for one in (alone, other))


def test_who_answers_is_asked_of_numbers_that_come_from_no_query() -> None:
    """Nothing reads itself: not the query, nor what is computed from it, nor a target, whatever their tags."""
    nodes = [
        tag_query("asked", ["x"], own_tags=["x"]),
        price(symbols=(A,), tags=[]),
        sma("mean", 2, tags=["x"]),
        sma("above", 2, "asked", tags=["x"]),
        target(source="mean", tags=["x"]),
    ]
    (graph,) = answered([admit(text(strategy(nodes)), 0)])
    names = {one.node.node_id: one.name for one in graph.nodes}
    (query,) = [one.node for one in graph.nodes if one.name == "asked"]
    assert [names[one] for one in query.dependencies] == ["mean"]


def test_more_answers_than_a_log_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    messages = [text(one) for one in of_all("mean")]
    assert simulate(messages, columns(A, B, C)).intents
    monkeypatch.setattr("qmtl.backtest.answers.MAX_ANSWERS", 3)
    with pytest.raises(TagsTooCommon, match="4 nodes answer the tag query 'asked'; at most 3 do"):
        simulate(messages, columns(A, B, C))


def test_a_node_that_fails_is_its_own_strategys_whoever_asks_for_it() -> None:
    class Failing(Strategy):
        strategy_id = "failing"

        def setup(self) -> None:
            source = StreamInput(symbols=[A], name="price", interval=60)
            bad = ProcessingNode(source, authored.fails_above, name="bad", params={"limit": 110}, tags=["x"])
            self.add_nodes([source, bad])
            self.add_nodes(builtin("position_target", bad, long_percent=0.1, short_percent=-0.1))

    asks = text(strategy([tag_query(tags=["x"]), target(source="asked")], "asks"))
    done = simulate([asks, message_of(Failing(), None)], columns(A))
    assert [(one.strategy_id, one.name) for one in done.faults] == [("failing", "bad")]
    assert done.intents
    assert max(one.bucket_ms for one in done.intents) < done.faults[0].bucket_ms


def test_a_sweep_has_no_tag_query() -> None:
    graph = admit(text(of_all("mean")[0]), 0)
    with pytest.raises(InvalidDag, match="may differ from combination to combination"):
        KeptNodes(columns(A), 1 << 20).of(graph)
