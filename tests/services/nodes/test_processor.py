"""The laws of compute nodes: warm-up, sharing, states, and outputs that follow from the bars alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.dag import StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeStatus, NodeValue
from qmtl.foundation.wire.keys import decode_marker_bucket, encode_key, is_marker
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import shards_of
from qmtl.foundation.wire.topics import SHARDS, node_topic, topic
from qmtl.replay.feed import Feed, last_closed
from tests.services.graphs import T0, cross, crossing, price, sma, strategy, target
from tests.services.nodes.floor import STEP_MS, Closes, Floor, ForgetfulLog, LateLog, bars_of

MINUTE = STEP_MS


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


def mean_of(period: int, symbols: tuple[str, ...] = ("BTC-USD",)) -> dict[str, Any]:
    """A strategy of one average."""
    return strategy([price(symbols=symbols), sma("mean", period), target(source="mean")])


NEIGHBOUR = "LTC-USD"
"""A symbol whose source lives on the shard of that of BTC-USD."""


def home(deployed: StrategyVersion) -> int:
    """The shard of a strategy's source."""
    return shards_of(deployed.nodes, SHARDS)[deployed.nodes[0].node_id]


def rising(minutes: int, first: float = 100.0) -> list[float | None]:
    return [first + at for at in range(minutes)]


# ---- shards ---------------------------------------------------------------------------------------------------------


def joined_of(fast: int, slow: int) -> dict[str, Any]:
    """A strategy whose averages come from two sources, both with bars of BTC-USD."""
    nodes = [
        price("one", ("BTC-USD",)),
        price("two", ("BTC-USD", "ETH-USD")),
        sma("fast", fast, "one"),
        sma("slow", slow, "two"),
        cross(),
        target(),
    ]
    return {**strategy(nodes), "strategy_id": "joined"}


@pytest.mark.parametrize("poll_records", [1, 7, 4000])
@pytest.mark.parametrize("restarts", [0, 2])
def test_a_strategy_over_two_shards_says_what_it_says_on_one(poll_records: int, restarts: int) -> None:
    closes: list[float | None] = [100.0 + (at * 37 % 23) for at in range(60)]
    with a_floor(poll_records) as floor:
        near = floor.deploy({**strategy(crossing(3, 8, symbols=("BTC-USD",))), "strategy_id": "near"})
        far = floor.deploy(joined_of(3, 8))
        assert len(set(shards_of(far.nodes, SHARDS).values())) == 2
        floor.feed(near, {"BTC-USD": closes})
        floor.feed(replace(far, nodes=far.nodes[1:]), {"BTC-USD": closes})
        for _ in range(restarts):
            floor.work(11)
            floor.stop(lose_store=True)
            floor.start()
        floor.work()
        said = [
            [(one.bucket_ms, one.symbol, one.target_percent) for one in floor.outputs(deployed, "target")]
            for deployed in (near, far)
        ]
        assert len(said[0]) > 5
        assert said[0] == said[1]
        intents = floor.events("trade.intents")
        assert [sum(one.strategy_id == name for one in intents) for name in ("near", "joined")] == [
            len(said[0])
        ] * 2
        assert floor.events("dead.letters") == []
        assert len(floor.events("trade.market")) == 120  # each source's bars once, whoever reads them


def test_every_shard_closes_every_bucket_of_the_clock(floor: Floor) -> None:
    floor.feed(floor.deploy(mean_of(3)), {"BTC-USD": rising(10)})
    floor.work()
    for name in ("trade.intents", "trade.market"):
        for where in all_partitions(floor.log, name):
            closed = [
                decode_marker_bucket(record.key)
                for record in read_all(floor.log, [where])
                if is_marker(record.key)
            ]
            assert closed == [0, *(T0 + at * MINUTE for at in range(1, 11))]


def test_a_strategy_whose_row_is_taken_away_runs_on_and_so_does_its_shard_also_after_a_restart(
    floor: Floor,
) -> None:
    """Only a row that says so withdraws a strategy: what is deployed is what `node.deployments` says, and a shard alone writes it."""
    gone, stays = floor.deploy(mean_of(3)), floor.deploy({**mean_of(4), "strategy_id": "stays"})
    floor.feed(gone, {"BTC-USD": rising(10)})
    floor.work()
    spec = topic("dag.strategies")
    writer = floor.log.writer("test")
    writer.begin()
    writer.append(spec.name, spec.partition_of(gone), encode_key(spec.key_of(gone)), None)
    writer.commit({}, "test", None)
    writer.close()
    floor.work()
    for minutes in (15, 20):
        floor.feed(gone, {"BTC-USD": rising(minutes)})
        floor.work()
        for deployed, period in ((gone, 3), (stays, 4)):
            assert [one.bucket_ms for one in floor.outputs(deployed, "mean")] == [
                T0 + at * MINUTE for at in range(period, minutes + 1)
            ]
        floor.stop(lose_store=True)
        floor.start()
    assert floor.events("dead.letters") == []


# ---- warm-up --------------------------------------------------------------------------------------------------------


def test_thirty_periods_of_sixty_seconds_are_silent_for_thirty_minutes(floor: Floor) -> None:
    deployed = floor.deploy(mean_of(30))
    floor.feed(deployed, {"BTC-USD": rising(29)})
    floor.work()
    assert floor.outputs(deployed, "mean") == []
    assert floor.outputs(deployed, "target") == []
    floor.feed(deployed, {"BTC-USD": rising(30)})
    floor.work()
    (first,) = floor.outputs(deployed, "mean")
    assert (first.bucket_ms, first.value) == (T0 + 30 * MINUTE, fmean(range(100, 130)))


closes = st.lists(st.none() | st.integers(1, 10**6).map(lambda cents: cents / 100), min_size=1, max_size=25)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 9), closes, closes)
def test_a_node_emits_for_each_input_from_the_period_th_on_and_for_no_other(
    period: int, btc: list[float | None], eth: list[float | None]
) -> None:
    """Oracle: `statistics.fmean` over the last inputs of each symbol."""
    made: Closes = {"BTC-USD": btc, "ETH-USD": eth}
    with a_floor() as floor:
        deployed = floor.deploy(mean_of(period, ("BTC-USD", "ETH-USD")))
        floor.feed(deployed, made)
        floor.work()
        found = {(row.symbol, row.bucket_ms): row.value for row in floor.outputs(deployed, "mean")}
        assert len(found) == len(floor.outputs(deployed, "mean"))
    wanted = {}
    for symbol, values in made.items():
        seen: list[float] = []
        for at, value in enumerate(values):
            if value is not None:
                seen.append(value)
                if len(seen) >= period:
                    wanted[symbol, T0 + (at + 1) * MINUTE] = pytest.approx(fmean(seen[-period:]), rel=1e-15)
    assert found == wanted


# ---- states ---------------------------------------------------------------------------------------------------------


def states(floor: Floor, names: dict[str, str]) -> dict[str, tuple[NodeStatus, int]]:
    rows = floor.view("node.state").rows()
    return {
        names[row.node_id]: (row.status, (row.since_bucket_ms - T0) // MINUTE if row.since_bucket_ms else 0)
        for row in rows
    }


def test_a_node_is_initialized_then_warms_up_then_is_active_for_good(floor: Floor) -> None:
    deployed = floor.deploy(mean_of(3))
    names = {node.node_id: node.name for node in deployed.nodes}
    assert states(floor, names) == dict.fromkeys(("price", "mean", "target"), (NodeStatus.INITIALIZED, 0))
    story: list[float | None] = [None, 1.0, 2.0, 3.0, 4.0, None, None]
    steps = []
    for minutes in range(1, len(story) + 1):
        floor.feed(deployed, {"BTC-USD": story[:minutes]}, minutes)
        floor.work()
        steps.append(states(floor, names))
    warming, active = NodeStatus.PRE_WARMUP, NodeStatus.ACTIVE
    assert [step["price"] for step in steps] == [(warming, 1)] + [(active, 2)] * 6
    assert [step["mean"] for step in steps] == [(warming, 1)] * 3 + [(active, 4)] * 4
    assert [step["target"] for step in steps] == [(warming, 1)] * 3 + [(active, 4)] * 4


def test_a_state_names_every_strategy_that_the_node_serves(floor: Floor) -> None:
    floor.share()
    floor.deploy(mean_of(3))
    deployed = floor.deploy({**mean_of(3), "strategy_id": "s0"}, "w2")
    assert {row.strategies for row in floor.view("node.state").rows()} == {("w1/s1", "w2/s0")}
    assert len(floor.view("node.state").rows()) == len(deployed.nodes)


# ---- sharing --------------------------------------------------------------------------------------------------------


def test_a_shared_node_is_computed_once_and_serves_the_intents_of_every_strategy(floor: Floor) -> None:
    floor.share()
    first = floor.deploy(strategy(crossing(2, 4, 0.4), "s1"))
    second = floor.deploy(strategy(crossing(2, 4, 0.7), "s2"))
    third = floor.deploy(strategy(crossing(2, 4, 0.4), "s1"), "w2")
    zigzag: list[float | None] = [100.0, 101.0, 103.0, 106.0, 100.0, 90.0, 85.0, 99.0, 120.0, 130.0]
    floor.feed(first, {"BTC-USD": zigzag, "ETH-USD": list(reversed(zigzag))})
    floor.work()
    for name, count in (("fast", 2 * 9), ("slow", 2 * 7)):
        topics = {node.topic for one in (first, second, third) for node in one.nodes if node.name == name}
        assert len(topics) == 1
        rows = floor.outputs(first, name)
        assert len({(row.node_id, row.symbol, row.bucket_ms) for row in rows}) == len(rows) == count
    targets = floor.outputs(first, "target")
    assert len(targets) >= 4
    intents = floor.events("trade.intents")
    by_strategy = {
        key: [
            (row.symbol, row.bucket_ms, abs(row.target_percent))
            for row in intents
            if (row.world_id, row.strategy_id) == key
        ]
        for key in (("w1", "s1"), ("w1", "s2"), ("w2", "s1"))
    }
    assert sum(map(len, by_strategy.values())) == len(intents)
    turns = [(row.symbol, row.bucket_ms) for row in targets]
    assert {key: [row[:2] for row in rows] for key, rows in by_strategy.items()} == dict.fromkeys(
        by_strategy, turns
    )
    assert {key: {row[2] for row in rows} for key, rows in by_strategy.items()} == {
        ("w1", "s1"): {Decimal("0.4")},
        ("w1", "s2"): {Decimal("0.7")},
        ("w2", "s1"): {Decimal("0.4")},
    }


def test_each_world_sees_each_bar_of_a_shared_source_once(floor: Floor) -> None:
    floor.share()
    deployed = floor.deploy(mean_of(2))
    floor.deploy({**mean_of(3), "strategy_id": "s2"})
    floor.deploy(mean_of(2), "w2")
    floor.feed(deployed, {"BTC-USD": rising(5)})
    floor.work()
    seen = [(row.world_id, row.bar.open_time_ms) for row in floor.events("trade.market")]
    assert sorted(seen) == [(world, T0 + at * MINUTE) for world in ("w1", "w2") for at in range(5)]


def test_a_strategy_that_comes_later_joins_warm_nodes_and_warms_up_its_own(floor: Floor) -> None:
    deployed = floor.deploy(mean_of(2))
    floor.feed(deployed, {"BTC-USD": rising(4)})
    floor.work()
    later = floor.deploy(
        strategy([price(symbols=("BTC-USD",)), sma("mean", 2), sma("long", 3), target(source="long")], "s2")
    )
    floor.feed(deployed, {"BTC-USD": rising(8)})
    floor.work()
    assert [row.bucket_ms for row in floor.outputs(later, "mean")] == [T0 + at * MINUTE for at in range(2, 9)]
    assert [row.bucket_ms for row in floor.outputs(later, "long")] == [T0 + at * MINUTE for at in range(7, 9)]


# ---- prices of the node's own source -----------------------------------------------------------------------------------


def on_the_price(strategy_id: str, period: int, *symbols: str, interval: int = 60) -> dict[str, Any]:
    """A strategy that has an intent at every bar: its reference price is the bar's close."""
    nodes = [price(symbols=symbols), sma("mean", period), target(source="mean")]
    return strategy([{**node, "interval": interval} for node in nodes], strategy_id)


def feed_prices(
    floor: Floor,
    deployed: StrategyVersion,
    symbols: Sequence[str],
    interval: int,
    first: int,
    until_ms: int = T0 + 2 * 3_600_000,
) -> None:
    """Bars up to then, each with a price of its own."""
    source = deployed.nodes[0]
    raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
    step_ms = interval * 1000
    bars = [
        Bar(symbol, at_ms, interval, close, close, close, close, Decimal(1))
        for at_ms in range(T0, until_ms, step_ms)
        for close in [Decimal(first + (at_ms - T0) // step_ms)]
        for symbol in symbols
    ]
    feed = Feed(floor.log, codec, raw, interval, iter(bars), T0, until_ms)
    while not feed.done:
        feed.push(1000)
    feed.close()


ROOMMATE = "XTZ-USD"
"""A symbol whose source together with BTC-USD, of one minute, lives on the shard of that of BTC-USD alone."""


def test_a_value_of_another_shard_whose_bar_is_lost_is_a_dead_letter_and_its_shard_goes_on(
    tmp_path: Path,
) -> None:
    lost_ms = T0 + 5 * MINUTE
    floor = Floor(tmp_path, log=ForgetfulLog)
    assert isinstance(floor.log, ForgetfulLog)
    far = floor.deploy(joined_of(1, 1))
    one, two, fast, slow = far.nodes[:4]
    homes = shards_of(far.nodes, SHARDS)
    (foreign, source), (near, _) = sorted(((fast, one), (slow, two)), key=lambda pair: homes[pair[0].node_id])
    assert homes[foreign.node_id] != homes[far.nodes[-1].node_id]
    floor.log.who_reads, floor.log.lost = foreign.topic, (source.topic, lost_ms)
    for number in (0, 1):
        floor.feed(replace(far, nodes=far.nodes[number:]), {"BTC-USD": rising(10)})
    floor.work()
    (letter,) = floor.events("dead.letters")
    assert (letter.processor, letter.topic, letter.code) == ("nodes", foreign.topic, "QMTL-404")
    assert "BTC-USD" in letter.cause
    assert [len(floor.outputs(far, node.name)) for node in (foreign, near)] == [10, 10]
    for name in ("trade.intents", "trade.market"):
        for where in all_partitions(floor.log, name):
            assert last_closed(floor.log, where) == T0 + 10 * MINUTE
    floor.close()


@pytest.mark.parametrize("strategy_id", ["a", "m", "z"])
@pytest.mark.parametrize("interval, symbols", [(60, ("BTC-USD", ROOMMATE)), (1800, ("BTC-USD",))])
def test_another_strategys_source_of_the_same_symbol_changes_no_price(
    strategy_id: str, interval: int, symbols: tuple[str, ...]
) -> None:
    """Wherever in the plan it comes: before the source that two others share, between their nodes, or behind them."""
    said = []
    for others in ([], [on_the_price(strategy_id, 1, *symbols, interval=interval)]):
        with a_floor() as floor:
            floor.deploy(on_the_price("b", 1, "BTC-USD"))
            mine = floor.deploy(on_the_price("s1", 2, "BTC-USD"))
            for message in others:
                other = floor.deploy(message)
                assert other.nodes[0].node_id != mine.nodes[0].node_id
                assert home(other) == home(mine)
                feed_prices(floor, other, symbols, interval, 5000)
            feed_prices(floor, mine, ("BTC-USD",), 60, 100)
            floor.work()
            intents = [one for one in floor.events("trade.intents") if one.strategy_id in ("b", "s1")]
            said.append([intents, floor.outputs(mine, "mean"), floor.outputs(mine, "target")])
            assert len(floor.events("trade.intents")) - len(intents) == (
                len(others) * len(symbols) * 7200 // interval
            )
            assert floor.events("dead.letters") == []
    own = [one.reference_price for one in said[0][0] if one.strategy_id == "s1"]
    assert own == [Decimal(100 + at) for at in range(1, 120)]
    assert said[0] == said[1]


@pytest.mark.parametrize("ends", [None, T0 + 3_600_000])
def test_no_minute_waits_for_half_an_hours_bar_that_is_not_due_and_none_that_is_due_is_late(
    floor: Floor, ends: int | None
) -> None:
    """The long source may end: then the minutes wait once, for sixty buckets of the clock."""
    mine = floor.deploy(on_the_price("s1", 1, "BTC-USD"))
    other = floor.deploy(on_the_price("z", 1, "BTC-USD", interval=1800))
    assert home(other) == home(mine)
    feed_prices(floor, other, ("BTC-USD",), 1800, 5000, T0 + 1_800_000)
    for number in range(1, 181):
        now = T0 + number * MINUTE
        feed_prices(floor, mine, ("BTC-USD",), 60, 100, now)
        floor.work()
        due = None if ends is None or now < ends + 1_800_000 else ends + 1_800_000
        waited = due is not None and now < due + 59 * MINUTE
        if number % 30 == 0 and (ends is None or now <= ends):
            assert len(floor.outputs(mine, "mean")) == (number if number == 30 else number - 1)
            feed_prices(floor, other, ("BTC-USD",), 1800, 5000, now)
            floor.work()
        reached = due - MINUTE if waited and due is not None else now
        assert len(floor.outputs(mine, "mean")) == (reached - T0) // MINUTE
    last = T0 + 180 * MINUTE if ends is None else ends
    assert [row.bucket_ms for row in floor.outputs(other, "mean")] == list(
        range(T0 + 1_800_000, last + 1, 1_800_000)
    )
    assert floor.events("late.records") == floor.events("dead.letters") == []


@settings(deadline=None, max_examples=8)
@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(1, 4), st.booleans()), max_size=20),
    st.sampled_from([1, 4000]),
)
def test_several_feeds_move_one_clock_which_never_goes_back(
    acts: list[tuple[int, int, bool]], poll: int
) -> None:
    """Both know the clock from before the other began."""
    minutes = 20
    with a_floor(poll) as floor:
        one = floor.deploy(on_the_price("s1", 1, "BTC-USD"))
        two = floor.deploy(on_the_price("z", 1, "BTC-USD", ROOMMATE))
        feeds = []
        for deployed, symbols in ((one, ("BTC-USD",)), (two, ("BTC-USD", ROOMMATE))):
            source = deployed.nodes[0]
            raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
            bars = bars_of({symbol: rising(minutes) for symbol in symbols})
            feeds.append(Feed(floor.log, codec, raw, 60, iter(bars), T0, T0 + minutes * MINUTE))
            feeds[-1].push(1)
        for number, buckets, works in acts:
            feeds[number].push(buckets)
            if works:
                floor.work()
        while not all(feed.done for feed in feeds):
            for feed in feeds:
                feed.push(3)
        floor.work()
        for feed in feeds:
            feed.close()
        ticks = [
            decode_marker_bucket(row.key) for row in read_all(floor.log, all_partitions(floor.log, "clock"))
        ]
        every = [T0 + at * MINUTE for at in range(1, minutes + 1)]
        assert ticks == every
        for deployed in (one, two):
            assert sorted({row.bucket_ms for row in floor.outputs(deployed, "mean")}) == every
        assert floor.events("late.records") == floor.events("dead.letters") == []


# ---- bars that a source does not take -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil, cause",
    [
        (lambda bar: Bar("LTC-USD", *astuple(bar)[1:]), "LTC-USD"),
        (lambda bar: Bar(bar.symbol, bar.open_time_ms, 30, *astuple(bar)[3:]), "30 s"),
        (lambda bar: replace(bar, low=Decimal(0)), "low of BTC-USD was 0; a price is positive"),
        (lambda bar: replace(bar, low=Decimal(-1), close=Decimal(-1)), "low of BTC-USD was -1; a price"),
        (lambda bar: replace(bar, high=bar.low - 1), "outside 102 to 101"),
        (lambda bar: replace(bar, open=bar.high + 1), "open of BTC-USD was 103, outside"),
        (lambda bar: replace(bar, close=bar.low - 1), "close of BTC-USD was 101, outside"),
        (lambda bar: replace(bar, volume=Decimal(-1)), "volume of BTC-USD was -1"),
        (lambda bar: replace(bar, high=Decimal("103." + "1" * 28)), "high of BTC-USD was too long"),
        (lambda bar: replace(bar, low=Decimal("1e-21")), "low of BTC-USD was too long"),
        (lambda bar: replace(bar, volume=Decimal("1e20")), "volume of BTC-USD was too long"),
    ],
)
def test_a_bar_that_breaks_the_contract_of_its_source_is_a_dead_letter_and_the_others_count(
    floor: Floor, spoil: Callable[[Bar], Bar], cause: str
) -> None:
    deployed = floor.deploy(mean_of(1))
    bars = bars_of({"BTC-USD": rising(4)})
    # The feed puts a bar into the bucket that its open time and the feed's interval give.
    floor.feed_bars(deployed, [*bars[:2], spoil(bars[2]), bars[3]], 4)
    floor.work()
    (letter,) = floor.events("dead.letters")
    assert (letter.processor, letter.code) == ("nodes", "QMTL-701")
    assert cause in letter.cause
    assert [row.bucket_ms for row in floor.outputs(deployed, "mean")] == [
        T0 + at * MINUTE for at in (1, 2, 4)
    ]


def astuple(bar: Bar) -> tuple[Any, ...]:
    return (bar.symbol, bar.open_time_ms, bar.interval, bar.open, bar.high, bar.low, bar.close, bar.volume)


# ---- outputs follow from the bars alone ---------------------------------------------------------------------------------


def told(floor: Floor) -> dict[str, list[Any]]:
    nodes = [row.topic for row in floor.view("dag.queues").rows() if "_price_" not in row.topic]
    return {name: floor.events(name) for name in (*nodes, "trade.intents", "trade.market", "dead.letters")}


prices = st.lists(st.integers(1, 10**6).map(lambda cents: cents / 100), min_size=8, max_size=25)


@settings(max_examples=10, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=4),
    closes,
    prices,
)
def test_batches_and_restarts_at_any_point_change_no_output(
    poll_records: int,
    interruptions: list[tuple[int, bool]],
    btc: list[float | None],
    eth: list[float | None],
) -> None:
    made: Closes = {"BTC-USD": btc, "ETH-USD": eth}
    with a_floor() as plain, a_floor(poll_records) as disturbed:
        plain.feed(plain.deploy(strategy(crossing(2, 4))), made)
        plain.work()
        disturbed.feed(disturbed.deploy(strategy(crossing(2, 4))), made)
        for steps, lose_store in interruptions:
            disturbed.work(steps)
            disturbed.stop(lose_store=lose_store)
            disturbed.start()
        disturbed.work()
        assert told(disturbed) == told(plain)
        assert told(plain)["dead.letters"] == []


def values(rows: list[NodeValue]) -> list[tuple[int, float]]:
    return [(row.bucket_ms, row.value) for row in rows]


@pytest.mark.parametrize("poll_records", [1, 5, 4000])
@pytest.mark.parametrize("restarts", [0, 1, 3])
@pytest.mark.parametrize("other", [NEIGHBOUR, "ETH-USD"])
def test_two_sources_that_are_both_fed_are_taken_bucket_by_bucket_whatever_is_read_first(
    poll_records: int, restarts: int, other: str
) -> None:
    with a_floor(poll_records) as floor:
        btc = floor.deploy(mean_of(3, ("BTC-USD",)))
        eth = floor.deploy({**mean_of(3, (other,)), "strategy_id": "s2"})
        assert (home(btc) == home(eth)) == (other == NEIGHBOUR)
        floor.stop()
        floor.feed(btc, {"BTC-USD": rising(40)})
        floor.feed(eth, {other: rising(40, 1000.0)})
        floor.start()
        for _ in range(restarts):
            floor.work(9)
            floor.stop(lose_store=True)
            floor.start()
        floor.work()
        assert floor.events("dead.letters") == []
        buckets = [T0 + at * MINUTE for at in range(3, 41)]
        assert values(floor.outputs(btc, "mean")) == [(at, 98.0 + (at - T0) // MINUTE) for at in buckets]
        assert values(floor.outputs(eth, "mean")) == [(at, 998.0 + (at - T0) // MINUTE) for at in buckets]


@pytest.mark.parametrize("late", ["BTC-USD", NEIGHBOUR])
@pytest.mark.parametrize("polls", [1, 5])
def test_a_source_that_is_fed_is_waited_for_though_nothing_of_it_has_been_read(
    tmp_path: Path, late: str, polls: int
) -> None:
    floor = Floor(tmp_path, log=LateLog)
    sources = {
        symbol: floor.deploy({**mean_of(1, (symbol,)), "strategy_id": symbol})
        for symbol in ("BTC-USD", NEIGHBOUR)
    }
    for symbol, deployed in sources.items():
        floor.feed(deployed, {symbol: rising(10)})
    assert isinstance(floor.log, LateLog)
    floor.log.late, floor.log.polls = (sources[late].nodes[0].topic,), 1_000
    floor.work(polls)
    assert floor.events("trade.market") == []
    floor.log.polls = 0
    floor.work()
    assert floor.events("dead.letters") == []
    assert [len(floor.outputs(deployed, "mean")) for deployed in sources.values()] == [10, 10]
    floor.close()


def test_a_source_that_nobody_feeds_holds_nobody_up(floor: Floor) -> None:
    btc = floor.deploy(mean_of(3, ("BTC-USD",)))
    eth = floor.deploy({**mean_of(3, (NEIGHBOUR,)), "strategy_id": "s2"})
    floor.feed(btc, {"BTC-USD": rising(10)})
    floor.work()
    assert len(floor.outputs(btc, "mean")) == 8
    floor.feed(eth, {NEIGHBOUR: [None] * 10 + rising(10)}, 20)
    floor.work()
    assert len(floor.outputs(btc, "mean")) == 8  # from its first marker on, it is waited for
    floor.feed(btc, {"BTC-USD": rising(20)})
    floor.work()
    assert len(floor.outputs(btc, "mean")) == 18
    assert len(floor.outputs(eth, "mean")) == 8


@pytest.mark.parametrize("poll_records", [1, 100, 4000])
@pytest.mark.parametrize("down", [False, True])
def test_a_source_that_ended_long_ago_has_all_its_bars_computed_however_much_is_read_at_once(
    poll_records: int, down: bool
) -> None:
    with a_floor(poll_records) as floor:
        btc = floor.deploy(mean_of(3, ("BTC-USD",)))
        eth = floor.deploy({**mean_of(3, (NEIGHBOUR,)), "strategy_id": "s2"})
        if down:
            floor.stop()
        floor.feed(eth, {NEIGHBOUR: rising(30)})
        floor.feed(
            btc, {"BTC-USD": rising(100)}
        )  # and the clock, which leaves the other more than an hour behind
        if down:
            floor.start()
        floor.work()
        said = [floor.outputs(btc, "mean"), floor.outputs(eth, "mean")]
        assert [[one.bucket_ms for one in values] for values in said] == [
            [T0 + at * MINUTE for at in range(3, minutes + 1)] for minutes in (100, 30)
        ]
        assert floor.events("late.records") == []
        assert floor.events("dead.letters") == []
