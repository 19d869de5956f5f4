"""Orders, fills and intents with everything said that a test doesn't care about."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from qmtl.foundation.contracts.broker import OrderAccepted
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderIntent, Position, Side
from qmtl.foundation.contracts.world import WorldSettings
from qmtl.runtime.execution import portfolio
from qmtl.runtime.orders.aggregate import place
from qmtl.runtime.orders.ids import order_id_of
from qmtl.runtime.orders.reports import told

WORLD, STRATEGY, SYMBOL, CURRENCY = "w1", "s1", "BTC-USD", "USD"
SCOPE = portfolio.scope_of_strategy(STRATEGY)
T0 = 1_522_800_000_000


def dec(text: str | int) -> Decimal:
    return Decimal(text)


def an_account(cash: Decimal = Decimal(10_000), currency: str = CURRENCY) -> Account:
    return portfolio.open_account(WORLD, SCOPE, WorldSettings(currency, cash, Decimal(0), Decimal(0), ()), T0)


def a_position(quantity: Decimal, average: Decimal) -> Position:
    cost = quantity * average
    return Position(
        WORLD, SCOPE, SYMBOL, quantity, cost, average, Decimal(0), Decimal(0), average, Decimal(0), 1, T0
    )


def an_intent(target: str = "0.5", price: str = "100", index: int = 0) -> OrderIntent:
    return OrderIntent(
        WORLD, STRATEGY, SYMBOL, T0, Decimal(target), Decimal(price), "blake3:" + "0" * 64, index
    )


def an_order(side: Side = Side.BUY, quantity: str | Decimal = "10") -> Order:
    """One that its broker has accepted."""
    placed = place(an_intent(), side, Decimal(quantity), False, T0 - 60_000)
    return told(placed, OrderAccepted(placed.world_id, placed.order_id, "", T0))


def a_fill(
    seq: int = 1,
    quantity: Decimal = Decimal(1),
    price: Decimal = Decimal(100),
    side: Side = Side.BUY,
    fee: Decimal = Decimal(0),
    currency: str = CURRENCY,
) -> Fill:
    order_id = order_id_of(an_intent(), side)
    return Fill(
        WORLD, STRATEGY, order_id, seq, SYMBOL, side, quantity, price, fee, currency, Decimal(0), T0 + 60_000
    )


def of(order: Order, fill: Fill) -> Fill:
    """The fill as one of that order."""
    return replace(fill, order_id=order.order_id, side=order.side)
