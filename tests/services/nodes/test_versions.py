"""Two versions of a strategy on the node workers: who gives the intents of a symbol, what a swap leaves alone, what goes for good."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.port import TopicPartition
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.traffic import is_canarys
from qmtl.foundation.contracts.dag import FULL_WEIGHT, RetireStrategy, SetTrafficWeight, StrategyVersion
from qmtl.foundation.contracts.node import NodeStatus
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import shards_of
from qmtl.foundation.wire.topics import SHARDS
from qmtl.replay.feed import last_closed
from qmtl.replay.rerun import rerun
from qmtl.services.dagmanager.graph import resolve
from qmtl.services.dagmanager.message import parse_message
from qmtl.services.nodes.processor import Nodes
from tests.services.graphs import T0, price, sma, strategy, target, text
from tests.services.nodes.floor import STEP_MS, Floor

SYMBOLS = tuple(f"S{number:02}-USD" for number in range(20))
STABLE, CANARY = Decimal("0.4"), Decimal("0.7")
"""What the versions want to hold: it tells whose intent it is."""


@contextmanager
def a_floor(poll_records: int = 4000) -> Iterator[Floor]:
    with TemporaryDirectory() as name:
        made = Floor(Path(name), poll_records)
        try:
            yield made
        finally:
            made.close()


@pytest.fixture
def floor() -> Iterator[Floor]:
    with a_floor() as made:
        yield made


def always(
    share: Decimal, version: str, symbols: Sequence[str] = SYMBOLS, period: int = 1, name: str = "s1"
) -> dict[str, Any]:
    """A strategy that has an intent of every symbol at every bar, once its mean is warm."""
    nodes = [price(symbols=symbols), sma("mean", period), target(source="mean", share=float(share))]
    return strategy(nodes, name, version=version)


def feed(floor: Floor, deployed: StrategyVersion, minutes: int, since: int = 0) -> None:
    """Bars of every symbol of every source up to then; none of the first minutes."""
    for source in deployed.nodes:
        if source.node_type == "price":
            symbols = json.loads(source.params_canon)["symbols"]
            closes = {one: [None] * since + [100.0 + at for at in range(since, minutes)] for one in symbols}
            floor.feed(replace(deployed, nodes=(source,)), closes, minutes)


def minute(bucket_ms: int) -> int:
    return (bucket_ms - T0) // STEP_MS


def told(floor: Floor, name: str = "s1") -> dict[tuple[int, str], list[Decimal]]:
    """The shares that a strategy's intents want, by minute and symbol."""
    found = defaultdict(list)
    for one in floor.events("trade.intents"):
        if one.strategy_id == name:
            found[minute(one.bucket_ms), one.symbol].append(one.target_percent)
    return dict(found)


def canarys(sentinel_id: str, weight: int, symbols: Collection[str] = SYMBOLS) -> set[str]:
    return {one for one in symbols if is_canarys(sentinel_id, one, weight)}


def weigh(floor: Floor, sentinel_id: str, weight: int, name: str = "weigh") -> None:
    floor.command(SetTrafficWeight(name, sentinel_id, weight, T0))


def retire(floor: Floor, name: str = "s1") -> None:
    floor.command(RetireStrategy(f"retire-{name}", "w1", name, T0))


def raw(floor: Floor, name: str) -> list[tuple[bytes, bytes | None]]:
    """The bytes of a topic, markers among them, in the order of the log."""
    return [(one.key, one.value) for one in read_all(floor.log, all_partitions(floor.log, name))]


# ---- a canary step by step ----------------------------------------------------------------------------------------------


def test_a_canary_is_stepped_up_symbol_by_symbol_and_a_second_run_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    floor = Floor(tmp_path / "live")
    feed(floor, floor.deploy(always(STABLE, "v1")), 3)
    floor.work()
    deployed = floor.deploy(always(CANARY, "v2"), weight_bp=1000)
    assert deployed.canary is not None
    mine = deployed.canary.sentinel_id
    weights = {1: 0, 2: 0, 3: 0}
    for begin, weight in ((4, 1000), (7, 5000), (10, FULL_WEIGHT)):
        if weight > 1000:
            weigh(floor, mine, weight, f"weigh-{weight}")
            floor.work()
        feed(floor, deployed, begin + 2)
        floor.work()
        weights |= dict.fromkeys(range(begin, begin + 3), weight)
    assert 0 < len(canarys(mine, 1000)) < len(canarys(mine, 5000)) < len(SYMBOLS)
    assert told(floor) == {
        (at, symbol): [CANARY if symbol in canarys(mine, weight) else STABLE]
        for at, weight in weights.items()
        for symbol in SYMBOLS
    }
    assert floor.events("dead.letters") == floor.events("late.records") == []
    floor.stop()
    for shard in range(SHARDS):
        again = rerun(floor.log, codec, Nodes, shard, tmp_path / f"again-{shard}")
        assert again.steps > 0
        assert again.differences == []
    floor.close()


def home_of(symbols: Sequence[str]) -> int:
    """The shard on which the source of these symbols lives."""
    graph = resolve(parse_message(text(always(STABLE, "v1", symbols))), T0)
    return int(graph.nodes[0].node.node_id.removeprefix("blake3:")[:8], 16) % SHARDS


def placed() -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The symbols of both versions, those of the canary one more, so that it lives on the same shard, a higher or a lower one."""
    first = next(some for number in range(4, 20) if home_of(some := SYMBOLS[:number]) in (1, 2))
    more = [(*first, f"X{number}-USD") for number in range(40)]
    where = {"same": 0, "higher": 1, "lower": -1}
    homes = {one: home_of(one) - home_of(first) for one in more}
    return {
        name: (first, next(one for one, off in homes.items() if off * side > 0 or off == side == 0))
        for name, side in where.items()
    }


PLACED = placed()
acts = st.lists(
    st.integers(1, FULL_WEIGHT - 1) | st.sampled_from(["feed", "feed", "work", "restart"]), max_size=8
)


@settings(max_examples=10, deadline=None)
@given(acts, st.integers(1, FULL_WEIGHT - 1), st.sampled_from(sorted(PLACED)), st.sampled_from([3, 4000]))
@example(["feed", "work", 5000, "feed", 9000, "work", "feed", 100], 1000, "higher", 9)
@example(["feed", "work", 5000, "feed", 9000, "work", "feed", 100], 1000, "lower", 9)
def test_every_symbol_has_one_intent_in_every_bucket_from_the_version_that_has_it_there(
    what: list[int | str], weight: int, place: str, poll: int
) -> None:
    """Whenever weights change: each bucket is that of one row, and rows follow each other as they were written."""
    first, second = PLACED[place]
    with a_floor(poll) as floor:
        before = floor.deploy(always(STABLE, "v1", first))
        deployed = floor.deploy(always(CANARY, "v2", second), weight_bp=weight)
        assert deployed.canary is not None
        mine = deployed.canary.sentinel_id
        homes = shards_of(deployed.nodes, SHARDS)
        off = homes[deployed.canary.signals[0]] - homes[before.signals[0]]
        assert {"same": off == 0, "higher": off > 0, "lower": off < 0}[place]
        weights, minutes = [weight], 0
        for number, act in enumerate((*what, "feed")):
            match act:
                case int():
                    weigh(floor, mine, act, f"weigh-{number}")
                    weights.append(act)
                case "feed":
                    minutes += 2
                    feed(floor, deployed, minutes)
                case "work":
                    floor.work(2)
                case _:
                    floor.stop(lose_store=True)
                    floor.start()
        floor.work()
        found = told(floor)
        assert floor.events("dead.letters") == []
    own = (set(second) - set(first)).pop()  # of both, only the canary knows it: the stable version gives none
    row = 0
    for at in range(1, minutes + 1):
        assert all(len(found[at, symbol]) == 1 for symbol in first)
        theirs = {symbol for symbol in second if found.get((at, symbol)) == [CANARY]}
        while theirs != canarys(mine, weights[row], second):
            row += 1
            assert row < len(weights), f"minute {at} is of no weight in its turn"
        assert found.get((at, own), [CANARY]) == [CANARY]
    assert {at for at, _ in found} == set(range(1, minutes + 1))


def test_a_signal_of_both_versions_gives_its_intents_once_whatever_the_weight(floor: Floor) -> None:
    both = [*always(STABLE, "v1")["nodes"], target("more", "mean", float(CANARY))]
    floor.deploy(always(STABLE, "v1"))
    deployed = floor.deploy(strategy(both, signals=("target", "more"), version="v2"), weight_bp=5000)
    assert deployed.canary is not None
    feed(floor, deployed, 3)
    floor.work()
    mine = canarys(deployed.canary.sentinel_id, 5000)
    assert 0 < len(mine) < len(SYMBOLS)
    keys = [(one.symbol, one.bucket_ms, one.intent_index) for one in floor.events("trade.intents")]
    assert len(set(keys)) == len(keys)
    assert {key: sorted(shares) for key, shares in told(floor).items()} == {
        (at, symbol): [STABLE, CANARY] if symbol in mine else [STABLE]
        for at in (1, 2, 3)
        for symbol in SYMBOLS
    }


# ---- what a swap leaves alone -----------------------------------------------------------------------------------------


def two_means(slow: int, version: str, name: str = "s1") -> dict[str, Any]:
    """A strategy of a mean that its versions share, and of one of its own."""
    nodes = [
        price(symbols=("BTC-USD",)),
        sma("fast", 3),
        sma("slow", slow),
        target("target", "fast"),
        target("other", "slow"),
    ]
    return strategy(nodes, name, ("target", "other"), version)


def names_of(deployed: StrategyVersion) -> dict[str, str]:
    return {node.node_id: node.name for node in deployed.nodes}


def topic_of(deployed: StrategyVersion, name: str) -> str:
    (found,) = [node.topic for node in deployed.nodes if node.name == name]
    return found


def test_nodes_that_two_versions_share_say_the_same_bytes_with_and_without_the_swap() -> None:
    said = []
    for swaps in (False, True):
        with a_floor() as floor:
            deployed = floor.deploy(two_means(5, "v1"))
            shared = [topic_of(deployed, name) for name in ("fast", "target")]
            for minutes in (2, 7, 12):  # the first swap comes amid the warm-up
                feed(floor, deployed, minutes)
                floor.work()
                if swaps:
                    floor.deploy(two_means(minutes + 4, f"v{minutes}"))
            feed(floor, deployed, 20)
            floor.work()
            said.append([raw(floor, name) for name in shared])
            assert [minute(one.bucket_ms) for one in floor.events(shared[0])] == list(range(3, 21))
    assert said[0] == said[1]


def test_a_version_drops_the_nodes_of_the_one_before_that_it_does_not_have(floor: Floor) -> None:
    old = floor.deploy(two_means(5, "v1"))
    feed(floor, old, 6)
    floor.work()
    new = floor.deploy(two_means(4, "v2"))
    floor.work()
    dropped = {node.node_id for node in old.nodes} - {node.node_id for node in new.nodes}
    assert {names_of(old)[one] for one in dropped} == {"slow", "other"}
    assert not dropped & {row.node_id for row in floor.view("node.windows").rows()}
    assert {names_of(new)[row.node_id] for row in floor.view("node.windows").rows()} == {"fast", "target"}
    states = {names_of(new)[row.node_id]: row.status for row in floor.view("node.state").rows()}
    assert states == {
        **dict.fromkeys(("price", "fast", "target"), NodeStatus.ACTIVE),
        **dict.fromkeys(("slow", "other"), NodeStatus.INITIALIZED),
    }
    feed(floor, new, 12)
    floor.work()
    assert [minute(one.bucket_ms) for one in floor.outputs(old, "slow")] == [5, 6]
    assert [minute(one.bucket_ms) for one in floor.outputs(new, "slow")] == [10, 11, 12]


# ---- a strategy that was taken out ---------------------------------------------------------------------------------------


def test_of_a_strategy_that_was_taken_out_only_what_others_share_goes_on(floor: Floor) -> None:
    gone, stays = floor.deploy(two_means(5, "v1")), floor.deploy(two_means(4, "v1", "s2"))
    feed(floor, gone, 6)
    floor.work()
    retire(floor)
    floor.work()
    names = names_of(stays)
    assert {
        row.strategy.strategy_id: bool(row.strategy.nodes) for row in floor.view("node.deployments").rows()
    } == {
        "s1": False,
        "s2": True,
    }
    assert {names.get(row.node_id) for row in floor.view("node.windows").rows()} == set(names.values()) - {
        "price"
    }
    states = floor.view("node.state").rows()
    assert {names.get(row.node_id): row.strategies for row in states} == dict.fromkeys(
        names.values(), ("w1/s2",)
    )
    feed(floor, stays, 9)
    floor.work()
    assert {at for at, _ in told(floor)} == set(range(3, 7))
    assert {at for at, _ in told(floor, "s2")} == set(range(3, 10))
    closed = [
        minute(last_closed(floor.log, TopicPartition(topic_of(deployed, name), 0)))
        for deployed, name in ((gone, "slow"), (gone, "fast"), (stays, "slow"))
    ]
    assert closed == [6, 9, 9]


def test_nobody_waits_for_the_source_of_a_strategy_that_was_taken_out(floor: Floor) -> None:
    gone, stays = (
        floor.deploy(always(STABLE, "v1", (symbol,), name=symbol)) for symbol in ("LTC-USD", "BTC-USD")
    )
    assert shards_of(gone.nodes, SHARDS)[gone.signals[0]] == shards_of(stays.nodes, SHARDS)[stays.signals[0]]
    for deployed in (gone, stays):
        feed(floor, deployed, 3)
    feed(floor, stays, 6)
    floor.work()
    assert max(told(floor, "BTC-USD"))[0] == 3  # it waits for the other's bar
    retire(floor, "LTC-USD")
    floor.work()
    assert max(told(floor, "BTC-USD"))[0] == 6
    feed(floor, gone, 9)
    feed(floor, stays, 9)
    floor.work()
    assert max(told(floor, "BTC-USD"))[0] == 9
    assert max(told(floor, "LTC-USD"))[0] == 3
    seen = {(one.bar.symbol, minute(one.bar.open_time_ms)) for one in floor.events("trade.market")}
    assert {at for symbol, at in seen if symbol == "LTC-USD"} == {0, 1, 2}


@pytest.mark.parametrize("restarts", ["none", "stopped", "store lost"])
def test_after_the_last_strategy_a_shard_closes_on_and_what_comes_back_begins_with_its_warm_up(
    floor: Floor, restarts: str
) -> None:
    deployed = floor.deploy(always(STABLE, "v1", ("BTC-USD",), 3))
    feed(floor, deployed, 5)
    floor.work()
    retire(floor)
    floor.work()
    for name in ("node.windows", "node.state"):
        assert floor.view(name).rows() == []
    assert {row.strategy.nodes for row in floor.view("node.deployments").rows()} == {()}
    floor.feed(deployed, {}, 8)
    floor.work()
    for where in all_partitions(floor.log, "trade.intents"):
        assert minute(last_closed(floor.log, where)) == 8
    if restarts != "none":
        floor.stop(lose_store=restarts == "store lost")
        floor.start()
    again = floor.deploy(always(STABLE, "v2", ("BTC-USD",), 3))
    assert again.nodes == tuple(
        replace(node, reused=one.reused) for node, one in zip(deployed.nodes, again.nodes, strict=True)
    )
    feed(floor, again, 12, since=8)
    floor.work()
    assert sorted(at for at, _ in told(floor)) == [3, 4, 5, 11, 12]
    assert floor.events("dead.letters") == []


def test_a_row_with_a_weight_that_is_none_is_a_dead_letter_and_the_row_before_holds(floor: Floor) -> None:
    floor.deploy(always(STABLE, "v1", ("BTC-USD",)))
    deployed = floor.deploy(always(CANARY, "v2", ("BTC-USD",)), weight_bp=5000)
    assert deployed.canary is not None
    bad = replace(deployed, canary=replace(deployed.canary, traffic_weight=FULL_WEIGHT + 1))
    floor.send("dag.strategies", bad)
    feed(floor, deployed, 3)
    floor.work()
    letters = floor.events("dead.letters")
    assert {(one.processor, one.topic) for one in letters} == {("nodes", "dag.strategies")}
    mine = canarys(deployed.canary.sentinel_id, 5000, ("BTC-USD",))
    assert told(floor) == {(at, "BTC-USD"): [CANARY if mine else STABLE] for at in (1, 2, 3)}
