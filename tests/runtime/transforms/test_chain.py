"""The chain of stages, driven bucket by bucket, makes what the trading processor makes of the same buckets on a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Account, BrokerMode, Fill, Order, OrderRejection, Position, Side
from qmtl.foundation.contracts.world import PositionSide
from qmtl.runtime.sdk.activation_manager import ActivationManager
from qmtl.runtime.sdk.watermark import WatermarkGate
from qmtl.runtime.transforms.chain import Chain, ChainBucket, ChainState
from qmtl.runtime.transforms.execution_nodes import (
    Booked,
    ExecutionNode,
    FillIngestNode,
    Known,
    PortfolioNode,
    PreTradeGateNode,
    Ready,
    SizingNode,
    Unbooked,
)
from qmtl.runtime.transforms.publisher import OrderPublishNode
from tests.services.trading.stage import START_MS, STEP_MS, SYMBOL, Stage, activation, world

FIRST_MS = START_MS + STEP_MS


def chain(mode: str = "paper") -> Chain:
    home = world(slippage="0.0005")
    return Chain(
        PreTradeGateNode(60, WatermarkGate.for_mode(mode)),
        SizingNode(home),
        ExecutionNode(home),
        OrderPublishNode(mode),
        FillIngestNode(),
        PortfolioNode(home, "s", 60),
    )


@dataclass(frozen=True, slots=True)
class Drawn:
    """One bucket: prices of its bar, targets of its intents, and what the gates are told."""

    bar: tuple[str, str] | None
    targets: tuple[str, ...]
    gate: tuple[PositionSide, bool, bool, bool, str] | None


prices = st.integers(50, 200).map(str)
buckets = st.builds(
    Drawn,
    st.none() | st.tuples(prices, prices),
    st.lists(st.sampled_from(["1", "0.5", "0.25", "0", "-0.5", "1.5"]), max_size=2).map(tuple),
    st.none()
    | st.none()
    | st.tuples(
        st.sampled_from(PositionSide),
        st.booleans(),
        st.sampled_from([False, False, False, True]),
        st.sampled_from([False, False, False, True]),
        st.sampled_from(["1", "0.5", "0"]),
    ),
)


@contextmanager
def a_stage() -> Iterator[Stage]:
    with TemporaryDirectory() as place:
        stage = Stage(Path(place))
        try:
            yield stage
        finally:
            stage.end()


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(buckets, min_size=3, max_size=9))
def test_the_chain_makes_what_the_trading_processor_makes(drawn: list[Drawn]) -> None:
    home, stages = world(slippage="0.0005"), chain()
    versions = dict.fromkeys(PositionSide, 1)
    with a_stage() as stage:
        state = stages.begin(FIRST_MS)
        fills: dict[tuple[str, int], Fill] = {}
        rejections: list[OrderRejection] = []
        for at, one in enumerate(drawn):
            gates = []
            if at == 0:
                gates = [activation(side) for side in PositionSide]
            elif one.gate is not None:
                side, active, freeze, drain, weight = one.gate
                versions[side] += 1
                gates = [
                    activation(
                        side,
                        active=active,
                        freeze=freeze,
                        drain=drain,
                        weight=Decimal(weight),
                        version=versions[side],
                    )
                ]
            bars = [] if one.bar is None else [stage.bar(*one.bar)]
            intents = [stage.intent(target, "100", index=at) for at, target in enumerate(one.targets)]
            stage.close(*([home] if at == 0 else []), *gates, *bars, *intents)
            done = stages.step(
                state,
                ChainBucket(stage.at_ms(), tuple(gates), tuple(bar.bar for bar in bars), tuple(intents)),
            )
            state = done.state
            fills |= {(fill.order_id, fill.seq): fill for fill in done.fills}
            rejections += done.rejections
        orders = dict(state.before.orders)
        assert {one.order_id: one for one in stage.rows("trade.orders")} == orders
        assert {(one.order_id, one.seq): one for one in stage.rows("trade.fills")} == fills
        assert stage.rejections() == rejections
        rows = stage.rows("trade.portfolio")
        assert [row for row in rows if isinstance(row, Account)] == [state.before.account]
        held = {row.symbol: row for row in rows if isinstance(row, Position)}
        assert held == dict(state.before.positions)


def opened(stages: Chain, target: str = "0.5") -> tuple[ChainState, ChainState]:
    """A chain whose first bucket has ordered, and whose second has filled."""
    with a_stage() as stage:
        intent, bar = stage.intent(target, "100"), stage.bar("100").bar
        first = stages.step(
            stages.begin(FIRST_MS),
            ChainBucket(FIRST_MS, tuple(activation(side) for side in PositionSide), (bar,), (intent,)),
        )
        later = replace(bar, open_time_ms=FIRST_MS)
        second = stages.step(first.state, ChainBucket(FIRST_MS + STEP_MS, bars=(later,)))
        return first.state, second.state


def test_the_first_order_of_a_world_passes_though_nothing_was_ever_filled() -> None:
    ordered, filled = opened(chain())
    assert [order.quantity for order in ordered.before.open_orders] == [Decimal("500")]
    assert filled.before.held(SYMBOL) == 500
    assert ordered.before.open_orders[0].portfolio_bucket_ms == 0


def test_a_sale_makes_a_short_and_not_a_longer_long() -> None:
    assert opened(chain(), "-0.5")[1].before.held(SYMBOL) == -500


def test_an_empty_bucket_is_closed_with_a_marker() -> None:
    stages = chain()
    done = stages.step(stages.begin(FIRST_MS), ChainBucket(FIRST_MS))
    assert done.ready == Ready("trade.portfolio", FIRST_MS)
    assert done.state.before.as_of_ms == FIRST_MS


@pytest.mark.parametrize(
    ("mode", "waits"), [("paper", True), ("live", True), ("simulate", False), ("backtest", False)]
)
def test_a_snapshot_that_lags_is_refused_where_the_watermark_is_on(mode: str, waits: bool) -> None:
    _, late = opened(chain())
    with a_stage() as stage:
        stage.bucket = 8
        intent = stage.intent("0", "100")
    gate = PreTradeGateNode(60, WatermarkGate.for_mode(mode))
    found = gate.check(intent, late.activation, late.before)
    assert (isinstance(found, OrderRejection) and found.reason is RejectionReason.WATERMARK) is waits


def test_a_snapshot_of_the_intents_own_bucket_is_no_feedback() -> None:
    _, state = opened(chain())
    with a_stage() as stage:
        stage.bucket = 1
        intent = stage.intent("0", "100")
    assert intent.bucket_ms == state.before.as_of_ms
    with pytest.raises(InvalidValue, match="it is of a bucket before"):
        PreTradeGateNode(60).check(intent, state.activation, state.before)


def a_fill(state: ChainState, seq: int, quantity: str) -> Fill:
    (order,) = state.before.orders.values()
    return Fill(
        "w",
        "s",
        order.order_id,
        seq,
        SYMBOL,
        Side.BUY,
        Decimal(quantity),
        Decimal(100),
        Decimal(0),
        "USD",
        Decimal(0),
        FIRST_MS,
    )


def test_three_fills_of_one_bucket_count_each_and_once() -> None:
    ordered, _ = opened(chain())
    stages = chain()
    now, told = ordered.before, [a_fill(ordered, seq, "100") for seq in (1, 2, 3)]
    for fill in (*told, *told):
        found = stages.fills.ingest(now, fill)
        assert isinstance(found, Booked | Known)
        now = stages.portfolio.book(now, found) if isinstance(found, Booked) else now
    assert now.held(SYMBOL) == 300
    assert isinstance(stages.fills.ingest(now, a_fill(ordered, 5, "100")), Unbooked)
    stranger = replace(told[0], order_id="another")
    assert isinstance(stages.fills.ingest(now, stranger), Unbooked)


def test_an_older_activation_opens_nothing_again() -> None:
    frozen = ActivationManager().updated(activation(freeze=True, version=3))
    assert frozen.updated(activation(version=2)) is frozen
    assert frozen.weight_for_side("long") == 0
    assert frozen.updated(activation(version=4)).weight_for_side("long") == 1


def test_a_side_that_nobody_spoke_of_or_knows_is_closed() -> None:
    assert ActivationManager().weight_for_side("long") == 0
    with pytest.raises(InvalidValue):
        ActivationManager().weight_for_side("sideways")


@pytest.mark.parametrize(("weight", "held"), [("1", "500"), ("0.5", "250"), ("0", None)])
def test_a_weight_function_lessens_what_is_opened(weight: str, held: str | None) -> None:
    stages = replace(chain(), sizing=SizingNode(world(), lambda side: Decimal(weight)))
    _, state = opened(stages)
    assert state.before.held(SYMBOL) == Decimal(held or 0)


def test_a_weight_beyond_one_is_refused() -> None:
    with pytest.raises(InvalidValue, match="a weight is 0 to 1"):
        opened(replace(chain(), sizing=SizingNode(world(), lambda side: Decimal(2))))


def test_an_exit_is_whole_whatever_the_weight_function_says() -> None:
    stages = chain()
    _, state = opened(stages)
    closed = replace(stages, sizing=SizingNode(world(), lambda side: Decimal(0)))
    with a_stage() as stage:
        stage.bucket = 2
        done = closed.step(state, ChainBucket(stage.at_ms(3), intents=(stage.intent("0", "100"),)))
    assert [(one.side, one.quantity, one.reduce_only) for one in done.orders] == [
        (Side.SELL, Decimal(500), True)
    ]


@pytest.mark.parametrize(("mode", "count"), [("simulate", 0), ("paper", 1)])
def test_what_a_mode_publishes(mode: str, count: int) -> None:
    sent: list[Order] = []
    opened(replace(chain(), publish=OrderPublishNode(mode, sent.append)))
    assert len(sent) == count


def test_what_is_no_order_is_never_published_and_a_live_one_not_by_paper() -> None:
    ordered, _ = opened(chain())
    (order,) = ordered.before.orders.values()
    node = OrderPublishNode("paper", lambda one: None)
    with pytest.raises(InvalidValue, match="only orders are"):
        node.publish({"rejected": True})  # type: ignore[arg-type]  # what an untyped caller would do
    with pytest.raises(InvalidValue, match="live broker"):
        node.publish(replace(order, mode=BrokerMode.LIVE))
    with pytest.raises(InvalidValue, match="hook"):
        OrderPublishNode("live")
