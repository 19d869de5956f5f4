"""What a strategy sees of its own portfolio is what the bucket before has left: exactly, whatever disturbs the run, and in a backtest as on a log."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qmtl import Strategy, StreamInput, dag_message
from qmtl.backtest.simulation import simulate
from qmtl.bootstrap import open_log
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import CommandRefused
from qmtl.foundation.contracts.context import SetComputeContext
from qmtl.foundation.contracts.dag import FULL_WEIGHT, ComputeNode, DagSubmission
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.contracts.trade import Position
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import DESK
from qmtl.foundation.wire.topics import SHARDS
from qmtl.interfaces.client import submission_id
from qmtl.replay.rerun import rerun
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.sdk.builtins import position_target
from qmtl.services.nodes.processor import Nodes
from qmtl.services.trading.processor import Trading
from tests.flow.driving import on_kafka
from tests.flow.feedback import (
    START_MS,
    STEP_MS,
    SYMBOLS,
    TERMS,
    WORLD,
    Patient,
    Place,
    Rule,
    Scaling,
    bars_of,
    counted,
    scaling,
    signed,
    waiting_for_gain,
    whole_run,
)
from tests.services.graphs import crossing, strategy, text

MINUTES = 32
END_MS = START_MS + MINUTES * STEP_MS
MESSAGES = (dag_message(Scaling()), dag_message(Patient()))
OUT = ("trade.intents", "trade.orders", "trade.fills", "trade.rejections", "trade.portfolio")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A run that nothing disturbs."""
    made = Place(tmp_path_factory.mktemp("feedback"))
    whole_run(made, MESSAGES, bars_of(MINUTES), END_MS)
    yield made
    made.close()


@pytest.mark.parametrize(("name", "rule"), [("scaling", scaling), ("patient", waiting_for_gain)])
def test_a_strategy_that_trades_by_its_own_position_comes_to_what_is_counted_by_hand(
    place: Place, name: str, rule: Rule
) -> None:
    wanted = counted(bars_of(MINUTES), rule)
    fills = signed([one for one in place.rows("trade.fills") if one.strategy_id == name])
    assert [one[1:] for one in fills] == wanted.filled
    assert len(fills) > (30 if name == "scaling" else 3)
    own = [one for one in place.rows("trade.portfolio") if one.scope == f"strategy:{name}"]
    rows = {one.symbol: one for one in own}
    assert rows[""].equity == wanted.equity
    assert {symbol: rows[symbol].quantity for symbol in SYMBOLS} == wanted.held
    assert place.events("trade.rejections") == []


def test_a_backtest_leaves_what_the_processors_leave(place: Place) -> None:
    bars = {
        symbol: BarColumns.of(symbol, 60, [one for one in bars_of(MINUTES) if one.symbol == symbol])
        for symbol in SYMBOLS
    }
    done = simulate(MESSAGES, bars, TERMS)
    for mine, topic in ((done.orders.values(), "trade.orders"), (done.fills, "trade.fills")):
        assert sorted(mine, key=repr) == sorted(place.rows(topic), key=repr)
    assert sorted(done.intents, key=repr) == sorted(place.events("trade.intents"), key=repr)
    assert sorted(done.rows(), key=repr) == sorted(place.rows("trade.portfolio"), key=repr)
    assert list(done.rejections) == place.events("trade.rejections")


def is_scalings(one: ComputeNode) -> bool:
    return (
        one.node_type == "portfolio" and '"quantity"' in one.params_canon and '"scaling"' in one.params_canon
    )


def held_after(place: Place) -> dict[int, dict[str, float]]:
    """The positions that trading had closed with each bucket, by its markers alone."""
    out: dict[int, dict[str, float]] = {}
    now: dict[str, float] = {}
    for record in read_all(place.log, all_partitions(place.log, "trade.portfolio")):
        if record.value is None:
            continue  # a marker that is old enough is taken away again
        if is_marker(record.key):
            out[decode_marker_bucket(record.key)] = dict(now)
        elif not is_reserved(record.key):
            row: Any = codec.decode(record.value)
            if isinstance(row, Position) and row.scope == "strategy:scaling":
                now[row.symbol] = float(row.quantity)
    return out


def require_sees_the_bucket_before(place: Place) -> list[NodeValue]:
    """Hold each value of the node to what trading had closed with the bucket before; returns them."""
    closed = held_after(place)
    buckets = sorted(closed)
    (node,) = (one for one in place.rows("dag.nodes") if is_scalings(one))
    (queue,) = (one for one in place.rows("dag.queues") if one.node_id == node.node_id)
    seen: list[NodeValue] = place.events(queue.topic)
    for one in seen:
        before = buckets[buckets.index(one.bucket_ms) - 1]
        assert one.value == closed[before].get(one.symbol, 0.0), one
    return seen


def test_each_bucket_sees_exactly_what_the_one_before_has_closed(place: Place) -> None:
    seen = require_sees_the_bucket_before(place)
    assert len(seen) == len(bars_of(MINUTES))
    assert len({one.value for one in seen}) > 15


class Holding(Strategy):
    """The strategy `scaling` in a version that reads nothing back."""

    strategy_id = "scaling"
    version = "v0"

    def setup(self) -> None:
        price = StreamInput(SYMBOLS, interval=60, name="price")
        self.add_nodes([price, position_target(price, long_percent="0.3", short_percent="0")])


def test_a_node_that_comes_late_and_one_that_comes_again_see_all_of_it(tmp_path: Path) -> None:
    """What the first version holds by then was closed before anybody read it, or while nobody did."""
    made, bars = Place(tmp_path), bars_of(20)
    try:
        made.open_world()
        plain, back = dag_message(Holding()), dag_message(Scaling())
        version = made.publish(plain)
        made.open_gates("scaling")
        for at, message in ((5, back), (10, plain), (15, back), (20, None)):
            end_ms = START_MS + at * STEP_MS
            made.trade(version, [bar for bar in bars if bar.open_time_ms < end_ms], end_ms)
            made.restart()
            if message is not None:
                version = made.publish_again(message)
        seen = require_sees_the_bucket_before(made)
        read = {(one.bucket_ms - START_MS) // STEP_MS for one in seen}
        assert read.isdisjoint({*range(6), *range(12, 16)})
        assert {*range(8, 11), *range(18, 21)} <= read
        first = min(one.bucket_ms for one in seen)
        assert all(one.value for one in seen if one.bucket_ms == first)
    finally:
        made.close()


def test_the_same_log_gives_the_same_nodes_and_orders_again(place: Place, tmp_path: Path) -> None:
    for make, number in ((Nodes, DESK), (Trading, 0)):
        found = rerun(place.log, codec, make, number, tmp_path / str(number))
        assert found.differences == []
        assert found.steps


@pytest.mark.parametrize(("poll_records", "deaths"), [(3, (40, 60)), (4000, (2, 2))])
def test_neither_polls_nor_deaths_nor_lost_stores_change_what_is_ordered(
    place: Place, tmp_path: Path, poll_records: int, deaths: tuple[int, int]
) -> None:
    other = Place(tmp_path, partial(TaskSettings, poll_records=poll_records))
    try:
        other.open_world()
        versions = [other.publish(one) for one in MESSAGES]
        for one in versions:
            other.open_gates(one.strategy_id)
        stores: tuple[tuple[str, ...], ...] = ((), (f"nodes-{DESK}", "trading-0"))
        for rounds, lose in zip(deaths, stores, strict=True):
            assert not other.trade(versions[0], bars_of(MINUTES), END_MS, rounds)
            other.restart(lose=lose)
        assert other.trade(versions[0], bars_of(MINUTES), END_MS)
        for topic in OUT:
            assert sorted(other.bytes_of(topic)) == sorted(place.bytes_of(topic)), topic
    finally:
        other.close()


def test_through_a_broker_it_comes_to_what_is_counted_too(tmp_path: Path, kafka_bootstrap: str) -> None:
    minutes = 12
    with on_kafka(kafka_bootstrap, tmp_path, {}) as where:
        made = Place(tmp_path, log=open_log(where.log))
        try:
            whole_run(made, MESSAGES[:1], bars_of(minutes), START_MS + minutes * STEP_MS)
            fills = signed(made.rows("trade.fills"))
            assert [one[1:] for one in fills] == counted(bars_of(minutes)).filled
            assert len(fills) > 10
        finally:
            made.close()


def reads_of(place: Place) -> list[bool]:
    """Of each task of the node workers, whether it reads the portfolio."""
    where = TopicPartition("trade.portfolio", 0)
    (worker,) = (one for one in place.workers if one.name == "nodes")
    return [where in worker.tasks[number].positions for number in range(SHARDS)]


def test_the_desk_alone_reads_the_portfolio_and_only_for_such_a_node(place: Place, tmp_path: Path) -> None:
    assert reads_of(place) == [number == DESK for number in range(SHARDS)]
    plain = Place(tmp_path)
    try:
        plain.open_world()
        plain.publish(text(strategy(crossing(symbols=SYMBOLS))))
        assert not any(reads_of(plain))
    finally:
        plain.close()


def test_nobody_but_the_desk_waits_for_trading(tmp_path: Path) -> None:
    made = Place(tmp_path)
    try:
        made.open_world()
        version = made.publish(dag_message(Scaling()))
        (trading,) = (one for one in made.workers if one.name == "trading")
        made.client.workers.remove(trading)
        feed = made.feed(version, bars_of(5), START_MS + 5 * STEP_MS)
        feed.push(6)
        while made.client.pump():
            pass
        feed.close()
        (worker,) = (one for one in made.workers if one.name == "nodes")
        closed = [max(worker.tasks[number].buckets, default=0) for number in range(SHARDS)]
        assert closed[:DESK] == [START_MS + 5 * STEP_MS] * DESK
        assert closed[DESK] <= START_MS  # genesis is all that it waited for
        made.client.workers.append(trading)
        while made.client.pump():
            pass
        assert max(worker.tasks[DESK].buckets) == START_MS + 5 * STEP_MS
    finally:
        made.close()


def test_on_a_log_that_worlds_share_it_is_refused(tmp_path: Path) -> None:
    made = Place(tmp_path)
    try:
        made.open_world()
        wish = SetComputeContext("share", "", "paper", START_MS, "data", shared_worlds=True)
        assert made.client.dag_command(wish).accepted
        message = dag_message(Scaling())
        name = submission_id(WORLD, message)
        said = made.client.in_log(DagSubmission(name, WORLD, message, START_MS, FULL_WEIGHT))
        with pytest.raises(CommandRefused, match=r"QMTL-515.*namespace of its own"):
            made.client.submit(said)
    finally:
        made.close()
