"""The paper broker on orders that are not plain market orders: what it reports of a bucket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from qmtl.foundation.contracts.broker import OrderEnded
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, OrderTerms, OrderType, Side, TimeInForce
from qmtl.foundation.contracts.world import WorldSettings
from qmtl.runtime.brokerage.broker import OrderMoved, PaperAnswer
from qmtl.runtime.brokerage.paper import PaperBroker
from qmtl.runtime.data.instruments import instrument_for

T0 = 1_522_800_000_000
MINUTE, DAY = 60_000, 86_400_000
SETTINGS = WorldSettings("USD", Decimal(1000), Decimal("0.001"), Decimal(0), ())


def an_order(kind: OrderType, terms: OrderTerms | None, tif: TimeInForce = TimeInForce.GTC) -> Order:
    return Order(
        "w", "s", "o" * 32, "BTC-USD", Side.BUY, kind, tif, Decimal(2), OrderStatus.NEW, Decimal(0),
        Decimal(0), 0, False, Decimal(100), T0, T0, T0, terms=terms,
    )  # fmt: skip


def look(order: Order, *prices: str, at_ms: int = T0 + MINUTE) -> Sequence[PaperAnswer]:
    bars = [
        Bar("BTC-USD", T0 + at * MINUTE, 60, *(Decimal(each) for each in f"{one} 9".split()))
        for at, one in enumerate(prices)
    ]
    return PaperBroker(SETTINGS, instrument_for, bars, at_ms).look(order)


def test_a_stop_limit_is_triggered_in_one_bar_and_filled_in_a_later_one() -> None:
    terms = OrderTerms(limit_price=Decimal("100.5"), stop_price=Decimal(100))
    order = an_order(OrderType.STOP_LIMIT, terms)
    moved, fill = look(order, "101 102 101 102", "99 99 98 98", at_ms=T0 + 2 * MINUTE)
    assert moved == OrderMoved("w", "o" * 32, replace(terms, is_triggered=True), T0 + MINUTE)
    assert isinstance(fill, Fill)
    assert (fill.seq, fill.price, fill.quantity, fill.fee) == (1, Decimal(99), Decimal(2), Decimal("0.198"))


def test_a_day_order_expires_when_its_day_is_over_though_no_bar_comes() -> None:
    order = an_order(OrderType.LIMIT, OrderTerms(limit_price=Decimal(90)), TimeInForce.DAY)
    end = T0 - T0 % DAY + DAY
    assert look(order, at_ms=end - 1) == []
    (ended,) = look(order, at_ms=end)
    assert isinstance(ended, OrderEnded)
    assert ended.status is OrderStatus.EXPIRED


def test_an_order_that_can_not_be_worked_is_rejected_with_a_code() -> None:
    (ended,) = look(an_order(OrderType.LIMIT, None), "100 100 100 100")
    assert isinstance(ended, OrderEnded)
    assert (ended.status, ended.code) == (OrderStatus.REJECTED, "QMTL-101")


def test_what_is_not_met_at_once_of_an_ioc_is_cancelled() -> None:
    order = an_order(OrderType.LIMIT, OrderTerms(limit_price=Decimal(99)), TimeInForce.IOC)
    (ended,) = look(order, "100 100 98 98")
    assert isinstance(ended, OrderEnded)
    assert ended.status is OrderStatus.CANCELED
