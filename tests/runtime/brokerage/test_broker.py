"""One law for both brokers: the one that simulates, and the one that trades at a venue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.contracts.broker import OrderAbsent, OrderAccepted, OrderEnded, OrderUnknown
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order, OrderStatus
from qmtl.foundation.contracts.world import WorldSettings
from qmtl.runtime.brokerage.broker import Broker
from qmtl.runtime.brokerage.paper import PaperBroker
from qmtl.runtime.brokerage.real import RealBroker
from qmtl.runtime.data.instruments import instrument_for
from tests.services.egress.venue import Fault, MemoryVenue
from tests.services.oms.samples import T0, an_order

SETTINGS = WorldSettings("USD", Decimal(1000), Decimal("0.001"), Decimal(0), ())


class OnPaper:
    """A paper broker per bucket; a trade is a bar."""

    mode = BrokerMode.PAPER

    def __init__(self) -> None:
        self.bars: list[Bar] = []

    @property
    def broker(self) -> Broker:
        return PaperBroker(SETTINGS, instrument_for, self.bars, T0)

    def trade(self, order: Order, quantity: Decimal) -> None:
        price = Decimal(100)
        self.bars.append(Bar(order.symbol, T0, 60, price, price, price, price, Decimal(1)))


class AtVenue:
    """A real broker over a venue in memory."""

    mode = BrokerMode.LIVE

    def __init__(self) -> None:
        self.venue = MemoryVenue(lambda: T0)

    @property
    def broker(self) -> Broker:
        return RealBroker(self.venue, lambda: T0)

    def trade(self, order: Order, quantity: Decimal) -> None:
        books = self.venue.books[order.order_id]
        if self.venue.is_open(order.order_id):
            self.venue.execute(order.order_id, min(quantity, books.quantity - books.filled))


BOTH = pytest.mark.parametrize("make", [OnPaper, AtVenue])


@BOTH
def test_what_is_placed_is_accepted_under_its_own_id(make: Callable[[], Any]) -> None:
    desk = make()
    order = an_order(mode=desk.mode)
    (accepted,) = desk.broker.place(order)
    assert isinstance(accepted, OrderAccepted)
    assert (accepted.world_id, accepted.order_id, desk.broker.mode) == ("w", order.order_id, order.mode)


@BOTH
@given(trades=st.lists(st.integers(1, 6), max_size=4))
def test_fills_are_numbered_from_1_told_again_alike_and_never_more_than_was_ordered(
    make: Callable[[], Any], trades: list[int]
) -> None:
    desk = make()
    order = an_order(mode=desk.mode)
    desk.broker.place(order)
    before: list[Fill] = []
    for quantity in trades:
        desk.trade(order, Decimal(quantity))
        answers = desk.broker.look(order)
        assert desk.broker.look(order) == answers
        fills = [one for one in answers if isinstance(one, Fill)]
        assert fills[: len(before)] == before
        assert [one.seq for one in fills] == list(range(1, len(fills) + 1))
        assert sum(one.quantity for one in fills) <= order.quantity
        for one in fills:
            assert (one.world_id, one.strategy_id, one.order_id, one.symbol, one.side) == (
                "w",
                "s",
                order.order_id,
                order.symbol,
                order.side,
            )
        before = fills
    assert bool(before) == bool(trades)


@BOTH
def test_a_cancellation_is_the_end_and_the_last_that_is_told(make: Callable[[], Any]) -> None:
    desk = make()
    order = an_order(mode=desk.mode)
    desk.broker.place(order)
    answers = desk.broker.cancel(order)
    end = answers[-1]
    assert isinstance(end, OrderEnded)
    assert (end.order_id, end.status) == (order.order_id, OrderStatus.CANCELED)
    assert not any(isinstance(one, OrderEnded) for one in answers[:-1])


def placed(fault: Fault) -> tuple[AtVenue, Order, Any]:
    desk, order = AtVenue(), an_order()
    desk.venue.faults.append(fault)
    return desk, order, desk.broker.place(order)


@pytest.mark.parametrize(
    ("fault", "kind", "then"),
    [
        (Fault.REFUSED, OrderEnded, OrderAbsent),
        (Fault.REJECTED, OrderEnded, OrderEnded),
        (Fault.LOST, OrderUnknown, OrderAbsent),
        (Fault.UNSAID, OrderUnknown, OrderAccepted),
        (Fault.SLOW, OrderUnknown, OrderAbsent),
    ],
)
def test_what_is_not_said_is_unknown_and_asked_for(fault: Fault, kind: type, then: type) -> None:
    desk, order, answers = placed(fault)
    assert [type(one) for one in answers] == [kind]
    assert [type(one) for one in desk.broker.look(order)] == [then]
    assert desk.venue.times("submit") == 1


def test_an_end_waits_until_all_that_was_filled_is_told() -> None:
    desk, order, _ = placed(Fault.NONE)
    desk.trade(order, Decimal(4))
    desk.venue.end(order.order_id, OrderStatus.CANCELED)
    desk.venue.books[order.order_id].told = 0
    assert [type(one) for one in desk.broker.look(order)] == [OrderAccepted]
    desk.venue.books[order.order_id].told = 1
    assert [type(one) for one in desk.broker.look(order)] == [OrderAccepted, Fill, OrderEnded]


def test_what_was_partly_filled_and_then_rejected_is_told_of_with_its_fills() -> None:
    desk, order, _ = placed(Fault.NONE)
    desk.trade(order, Decimal(4))
    desk.venue.end(order.order_id, OrderStatus.REJECTED)
    accepted, fill, end = desk.broker.look(order)
    assert (type(accepted), type(fill)) == (OrderAccepted, Fill)
    assert isinstance(end, OrderEnded)
    assert (end.status, end.code) == (OrderStatus.CANCELED, "QMTL-720")


def test_a_cancellation_that_is_not_answered_is_unknown() -> None:
    desk, order, _ = placed(Fault.NONE)
    desk.venue.silent = True
    assert [type(one) for one in desk.broker.cancel(order)] == [OrderUnknown]


def test_a_fee_in_the_bought_currency_is_worth_what_was_paid_and_any_other_stays() -> None:
    desk, order, _ = placed(Fault.NONE)
    desk.venue.execute(order.order_id, "4", "105", "0.01", "BTC")
    desk.venue.execute(order.order_id, "1", "95", "0.01", "BNB")
    one, two = (each for each in desk.broker.look(order) if isinstance(each, Fill))
    assert (one.fee, one.fee_currency, one.slippage) == (Decimal("1.05"), "USD", Decimal(5))
    assert (two.fee, two.fee_currency, two.slippage) == (Decimal("0.01"), "BNB", Decimal(-5))
    sell = replace(order, side=type(order.side).SELL)
    assert [each.slippage for each in desk.broker.look(sell) if isinstance(each, Fill)] == [-5, 5]
