"""Orders, books and states for the tests of risk."""

from __future__ import annotations

from decimal import Decimal

from qmtl.foundation.contracts.trade import (
    BrokerMode,
    Order,
    OrderStatus,
    OrderTerms,
    OrderType,
    Side,
    TimeInForce,
)
from qmtl.runtime.risk.state import Holding, Placed, RiskState, Worth, opened

T0 = 1_522_800_000_000
"""2018-04-04T00:00Z: a day begins."""

PRICE = Decimal(100)


def an_order(
    side: Side,
    quantity: Decimal | int,
    strategy_id: str = "s",
    symbol: str = "X",
    *,
    price: Decimal = PRICE,
    limit_price: Decimal | None = None,
    at_ms: int = T0,
    filled: Decimal = Decimal(0),
    mode: BrokerMode = BrokerMode.PAPER,
) -> Order:
    terms = None if limit_price is None else OrderTerms(limit_price=limit_price)
    return Order(
        "w", strategy_id, "o" * 32, symbol, side, OrderType.MARKET, TimeInForce.GTC, Decimal(quantity), OrderStatus.NEW,
        filled, Decimal(0), 0, False, price, at_ms, at_ms, at_ms, mode, 1, terms,
    )  # fmt: skip


def holding(
    quantity: Decimal | int,
    *,
    buying: Decimal | int = 0,
    selling: Decimal | int = 0,
    strategy_id: str = "s",
    symbol: str = "X",
    mark: Decimal = PRICE,
) -> Holding:
    return Holding(strategy_id, symbol, Decimal(quantity), mark, Decimal(buying), Decimal(selling))


def a_state(
    *holdings: Holding,
    equity: Decimal | int = 10_000,
    world: Worth | None = None,
    worths: dict[str, Worth] | None = None,
    placed: tuple[Placed, ...] = (),
) -> RiskState:
    """A state in which each strategy has a book of the same equity, where nothing else is said."""
    names = sorted({one.strategy_id for one in holdings} | {"s"})
    each = {name: opened(Decimal(equity), T0) for name in names} | (worths or {})
    together = opened(Decimal(equity) * len(each), T0)
    return RiskState(BrokerMode.PAPER, world or together, tuple(each.items()), holdings, placed)
