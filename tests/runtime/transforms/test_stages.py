"""The stages beside the chain: limits, hours, routes and batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import BrokerMode, Order, OrderIntent, Side
from qmtl.runtime.orders.aggregate import place
from qmtl.runtime.pipeline.micro_batch import Batch, MicroBatchNode
from qmtl.runtime.risk.limits import NotionalLimit, OrderRateLimit, PositionLimit
from qmtl.runtime.risk.state import Holding, Placed, RiskState, Worth
from qmtl.runtime.sdk.risk_management import Kept, Resized, Withheld
from qmtl.runtime.sdk.timing_controls import Allowed, Denied, Hours, TimingPolicy
from qmtl.runtime.transforms.execution_nodes import (
    RiskControlNode,
    Routed,
    RouterNode,
    TimingGateNode,
    Unrouted,
)
from tests.services.trading.stage import START_MS, SYMBOL, world

WORTH = Worth(Decimal(1000), Decimal(1000), Decimal(1000), START_MS)
NEW_YORK = TimingPolicy(
    "America/New_York", tuple(Hours(day, 570, 960) for day in range(5)), (date(2026, 11, 26),)
)


def an_order(side: Side, quantity: str) -> Order:
    intent = OrderIntent("w", "s", SYMBOL, START_MS, Decimal(1), Decimal(10), "blake3:x")
    return place(intent, side, Decimal(quantity), False, 0)


def holding(quantity: str, *placed: Placed) -> RiskState:
    held = Holding("s", SYMBOL, Decimal(quantity), Decimal(10))
    return RiskState(BrokerMode.PAPER, WORTH, (("s", WORTH),), (held,), placed)


@given(st.integers(1, 400), st.integers(0, 100), st.integers(1, 120))
def test_what_is_resized_is_the_largest_that_keeps_within_the_limit(
    wanted: int, held: int, limit: int
) -> None:
    node = RiskControlNode(world(lot="1"), (PositionLimit(Decimal(limit)),))
    order = an_order(Side.BUY, str(wanted))
    found = node.control(holding(str(held)), order)
    room = limit - held
    if wanted <= room:
        assert found == Kept(order)
    elif room >= 1:
        assert isinstance(found, Resized)
        assert found.order == replace(order, quantity=Decimal(room))
    else:
        assert isinstance(found, Withheld)
        assert found.broken.threshold == limit


def test_the_whole_of_a_position_beyond_its_limit_may_leave() -> None:
    node = RiskControlNode(world(), (NotionalLimit(Decimal(1)),))
    order = an_order(Side.SELL, "100")
    assert node.control(holding("100"), order) == Kept(order)


def test_no_size_helps_against_a_limit_of_the_rate() -> None:
    node = RiskControlNode(world(), (OrderRateLimit(1, 60),))
    assert isinstance(node.control(holding("0", Placed("s", START_MS, 1)), an_order(Side.BUY, "9")), Withheld)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("America/New_York")).timestamp() * 1000)


@pytest.mark.parametrize(
    ("when", "reason", "again"),
    [
        ("2026-11-24T15:30", "", ""),
        ("2026-11-24T09:30", "", ""),
        ("2026-11-24T05:00", "outside_hours", "2026-11-24T09:30"),
        ("2026-11-24T16:00", "outside_hours", "2026-11-25T09:30"),
        ("2026-11-25T16:00", "outside_hours", "2026-11-27T09:30"),
        ("2026-11-26T12:00", "closed_date", "2026-11-27T09:30"),
        ("2026-11-27T23:00", "outside_hours", "2026-11-30T09:30"),
        ("2026-10-30T20:00", "outside_hours", "2026-11-02T09:30"),
    ],
)
def test_hours_are_those_of_the_zone(when: str, reason: str, again: str) -> None:
    found = TimingGateNode(NEW_YORK).check(at(when))
    assert found == (Denied(reason, at(again)) if reason else Allowed())


@given(st.integers(0, 4 * 10**12))
def test_the_hint_is_the_first_instant_that_is_allowed(at_ms: int) -> None:
    node = TimingGateNode(replace(NEW_YORK, closed=()))
    found = node.check(at_ms)
    if isinstance(found, Denied):
        assert found.next_valid_ms is not None
        assert at_ms < found.next_valid_ms <= at_ms + timedelta(days=4) // timedelta(milliseconds=1)
        assert node.check(found.next_valid_ms) == Allowed()
        assert isinstance(node.check(found.next_valid_ms - 1), Denied)


def test_around_the_clock_is_always_open_and_no_hours_left_never() -> None:
    assert TimingGateNode().check(START_MS) == Allowed()
    never = TimingPolicy(
        "UTC", (Hours(0, 0, 1440),), tuple(date(2018, 1, 1) + timedelta(days=n) for n in range(900))
    )
    assert TimingGateNode(never).check(START_MS) == Denied("closed_date", None)


@pytest.mark.parametrize(
    "make", [lambda: TimingPolicy("Moon/Base"), lambda: Hours(7, 0, 1), lambda: Hours(0, 5, 5)]
)
def test_a_zone_or_hours_that_are_none_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue):
        make()


def test_an_order_goes_where_its_symbol_goes() -> None:
    order = an_order(Side.BUY, "1")
    assert RouterNode(((SYMBOL, "kraken"),), "binance").route(order) == Routed(order, "kraken")
    assert RouterNode((("ETH-USD", "kraken"),), "binance").route(order) == Routed(order, "binance")
    assert isinstance(RouterNode((("ETH-USD", "kraken"),)).route(order), Unrouted)
    with pytest.raises(InvalidValue, match="twice"):
        RouterNode(((SYMBOL, "kraken"), (SYMBOL, "binance")))


@given(st.lists(st.integers()))
def test_a_batch_is_what_its_bucket_brought_in_order(payloads: list[int]) -> None:
    node, gathered = MicroBatchNode[int](), None
    for one in payloads:
        gathered = node.add(gathered, 60, one)
    assert node.close(gathered, 60) == Batch(60, tuple(payloads))


def test_a_batch_of_another_bucket_is_not_mixed_in() -> None:
    node = MicroBatchNode[int]()
    gathered = node.add(None, 60, 1)
    with pytest.raises(InvalidValue):
        node.add(gathered, 120, 2)
    with pytest.raises(InvalidValue):
        node.close(gathered, 120)
