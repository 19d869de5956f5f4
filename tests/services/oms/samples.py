"""Live orders and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

from qmtl.foundation.contracts.broker import Attempt, AttemptState
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order, OrderStatus, OrderType, Side, TimeInForce
from qmtl.foundation.contracts.world import Activation, EffectiveMode, PositionSide

T0 = 1_522_800_000_000


def an_order(number: int = 1, status: OrderStatus = OrderStatus.PENDING_NEW, **changed: Any) -> Order:
    order = Order(
        "w", "s", f"{number:032x}", "BTC-USD", Side.BUY, OrderType.MARKET, TimeInForce.GTC, Decimal(10), status,
        Decimal(0), Decimal(0), 0, False, Decimal(100), T0, T0, T0 - 60_000, BrokerMode.LIVE, 2,
    )  # fmt: skip
    return replace(order, **changed)


def an_attempt(state: AttemptState, order: Order | None = None, **changed: Any) -> Attempt:
    claimed_ms = 0 if state is AttemptState.REQUESTED else T0
    attempt = Attempt(order or an_order(), state, claimed_ms, "", 0, False)
    return replace(attempt, **changed)


def a_fill(seq: int, quantity: str = "4", order: Order | None = None, **changed: Any) -> Fill:
    of = order or an_order()
    fill = Fill(
        of.world_id, of.strategy_id, of.order_id, seq, of.symbol, of.side, Decimal(quantity), Decimal(100), Decimal(0),
        "USD", Decimal(0), T0,
    )  # fmt: skip
    return replace(fill, **changed)


def a_gate(side: PositionSide = PositionSide.LONG, **changed: Any) -> Activation:
    row = Activation(
        "w", "s", side, True, Decimal(1), False, False, EffectiveMode.LIVE, 1, f"act:w:s:{side.value}:1", T0
    )
    return replace(row, **changed)
