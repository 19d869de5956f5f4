"""The life of an order: deduplication laws first, then the states."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.broker import OrderEnded
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, OrderType, Side, TimeInForce
from qmtl.runtime.orders.aggregate import is_open, pending, place, remaining
from qmtl.runtime.orders.fills import Applied, Conflict, Duplicate, Rule, apply_fill
from qmtl.runtime.orders.ids import order_id_of
from qmtl.runtime.orders.reports import told
from qmtl.runtime.orders.states import ENDS, NEXT, PRECEDENCE, UNFILLED_ENDS
from tests.services.trading.samples import T0, a_fill, an_intent, an_order, dec, of

ORACLE = json.loads((Path(__file__).parent / "oracle_fix.json").read_text())
TERMINAL = (OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.REJECTED, OrderStatus.EXPIRED)

quantities = st.integers(1, 10**9).map(lambda lots: Decimal(lots).scaleb(-8))
prices = st.integers(1, 10**7).map(lambda ticks: Decimal(ticks).scaleb(-2))


@st.composite
def orders_with_fills(draw: st.DrawFn) -> tuple[Order, list[Fill]]:
    """An order and fills of it that add up to at most its quantity."""
    parts = draw(st.lists(st.tuples(quantities, prices), min_size=1, max_size=6))
    left = draw(st.sampled_from([Decimal(0), Decimal("0.5")]))
    order = an_order(draw(st.sampled_from(Side)), sum((part for part, _ in parts), left))
    return order, [of(order, a_fill(seq, *part)) for seq, part in enumerate(parts, 1)]


def applied(order: Order, fill: Fill) -> Order:
    outcome = apply_fill(order, fill)
    assert isinstance(outcome, Applied), outcome
    return outcome.order


def in_order(order: Order, fills: list[Fill]) -> Order:
    for fill in fills:
        order = applied(order, fill)
    return order


# ---- deduplication --------------------------------------------------------------------------------------------


@given(orders_with_fills(), st.data())
def test_fills_that_come_again_and_in_any_order_count_once_each(
    case: tuple[Order, list[Fill]], data: st.DataObject
) -> None:
    order, fills = case
    copies = [fill for fill in fills for _ in range(data.draw(st.integers(1, 3)))]
    deliveries = deque(data.draw(st.permutations(copies)))
    now, counted = order, 0
    while deliveries:
        fill = deliveries.popleft()
        match apply_fill(now, fill):
            case Applied(order=after):
                now, counted = after, counted + 1
                assert now.last_seq == counted == fill.seq
            case Duplicate(order=same):
                assert same == now
                assert fill.seq <= now.last_seq
            case Conflict(order=same, rule=rule):
                assert (same, rule) == (now, Rule.GAP)
                deliveries.append(fill)  # at-least-once: it is delivered again
    assert counted == len(fills)
    assert now == in_order(order, fills)


@given(orders_with_fills())
def test_what_is_filled_is_the_sum_of_the_fills_and_never_more_than_ordered(
    case: tuple[Order, list[Fill]],
) -> None:
    order, fills = case
    for count in range(len(fills) + 1):
        now = in_order(order, fills[:count])
        assert now.cum_quantity == sum((fill.quantity for fill in fills[:count]), Decimal(0)) <= now.quantity
        assert (now.status is OrderStatus.FILLED) == (now.cum_quantity == now.quantity)
        assert remaining(now) == now.quantity - now.cum_quantity
        sign = 1 if now.side is Side.BUY else -1
        assert pending(now) == sign * remaining(now)
        assert is_open(now) == bool(remaining(now))


@given(orders_with_fills())
def test_the_average_price_is_that_of_the_fills(case: tuple[Order, list[Fill]]) -> None:
    order, fills = case
    now = in_order(order, fills)
    paid = sum((fill.quantity * fill.price for fill in fills), Decimal(0))
    # Each of the fills may round once, half a unit of the 18th place.
    assert abs(now.average_price - paid / now.cum_quantity) < Decimal("1e-16")
    assert in_order(order, fills[:1]).average_price == fills[0].price


@given(orders_with_fills())
def test_a_fill_too_much_changes_nothing(case: tuple[Order, list[Fill]]) -> None:
    order, fills = case
    now = in_order(order, fills)
    over = of(order, a_fill(now.last_seq + 1, now.quantity - now.cum_quantity + Decimal("0.00000001")))
    outcome = apply_fill(now, over)
    assert isinstance(outcome, Conflict)
    assert (outcome.order, outcome.rule) == (now, Rule.OVERFILL)
    assert f"{format(now.quantity.normalize(), 'f')}" in outcome.detail


@pytest.mark.parametrize(
    "change, rule, says",
    [
        ({"seq": 3}, Rule.GAP, "fill 3 came, 1 is awaited"),
        ({"seq": 0}, Rule.INVALID, "seq 0"),
        ({"quantity": dec(0)}, Rule.INVALID, "quantity 0"),
        ({"quantity": dec(-1)}, Rule.INVALID, "quantity -1"),
        ({"price": dec(0)}, Rule.INVALID, "price 0"),
        ({"quantity": dec(11)}, Rule.OVERFILL, "makes 11 of ordered 10"),
        ({"order_id": "other"}, Rule.ALIEN, "other"),
        ({"world_id": "w2"}, Rule.ALIEN, "w2"),
        ({"strategy_id": "s2"}, Rule.ALIEN, "s2"),
        ({"symbol": "ETH-USD"}, Rule.ALIEN, "ETH-USD"),
        ({"side": Side.SELL}, Rule.ALIEN, "SELL"),
    ],
)
def test_a_fill_that_contradicts_its_order_is_a_conflict_with_the_numbers(
    change: dict[str, Any], rule: Rule, says: str
) -> None:
    order = an_order()
    outcome = apply_fill(order, replace(of(order, a_fill()), **change))
    assert isinstance(outcome, Conflict)
    assert (outcome.order, outcome.rule) == (order, rule)
    assert says in outcome.detail


@given(orders_with_fills(), st.sampled_from(sorted(UNFILLED_ENDS, key=str)), st.integers(0, 6))
def test_a_fill_after_the_end_counts_as_late_and_the_order_stays_ended(
    case: tuple[Order, list[Fill]], end: OrderStatus, at: int
) -> None:
    order, fills = case
    cut = min(at, len(fills) - 1)
    end = OrderStatus.CANCELED if cut and end is OrderStatus.REJECTED else end
    now = in_order(order, fills[:cut])
    now = told(now, OrderEnded(now.world_id, now.order_id, end, "", "", T0))
    assert (now.status, remaining(now), is_open(now)) == (end, Decimal(0), False)
    for fill in fills[cut:]:
        outcome = apply_fill(now, fill)
        assert isinstance(outcome, Applied)
        assert outcome.late
        now = outcome.order
        assert now.status is (OrderStatus.FILLED if now.cum_quantity == now.quantity else end)
        assert not is_open(now)
        assert isinstance(apply_fill(now, fill), Duplicate)
    straight = in_order(order, fills)
    assert (now.cum_quantity, now.average_price, now.last_seq) == (
        straight.cum_quantity,
        straight.average_price,
        straight.last_seq,
    )


# ---- states ---------------------------------------------------------------------------------------------------


def test_every_state_has_a_row_and_an_end_is_left_only_by_what_comes_late() -> None:
    assert set(NEXT) == set(PRECEDENCE) == set(OrderStatus)
    assert all(NEXT[status] == {OrderStatus.FILLED} for status in UNFILLED_ENDS)
    assert tuple(status for status in OrderStatus if status in ENDS) == TERMINAL


@pytest.mark.parametrize("row", ORACLE["transitions"], ids=lambda row: f"{row['now']}-{row['next']}")
def test_fix_shows_the_transition_and_we_allow_it(row: dict[str, str]) -> None:
    assert OrderStatus(row["next"]) in NEXT[OrderStatus(row["now"])]


@pytest.mark.parametrize("row", ORACLE["scenarios"], ids=lambda row: row["id"])
def test_the_printed_scenario_of_fix_has_the_same_quantities_and_states(row: dict[str, Any]) -> None:
    order = an_order(Side.BUY, row["order_qty"])
    assert order.status is OrderStatus.NEW
    for seq, trade in enumerate(row["trades"], 1):
        order = applied(order, of(order, a_fill(seq, dec(trade["last_qty"]))))
        assert order.cum_quantity == dec(trade["cum_qty"])
        assert remaining(order) == dec(trade["leaves_qty"])
        assert order.status is OrderStatus(trade["status"])


# ---- placing ----------------------------------------------------------------------------------------------------


def test_a_placed_order_says_what_it_was_made_of() -> None:
    intent = an_intent("0.25", "123.45")
    order = place(intent, Side.SELL, dec("1.5"), True, T0 - 60_000)
    assert order == Order(
        intent.world_id,
        intent.strategy_id,
        order_id_of(intent, Side.SELL),
        intent.symbol,
        Side.SELL,
        OrderType.MARKET,
        TimeInForce.GTC,
        dec("1.5"),
        OrderStatus.PENDING_NEW,
        dec(0),
        dec(0),
        0,
        True,
        dec("123.45"),
        T0,
        T0,
        T0 - 60_000,
    )
    assert is_open(order)


def test_the_order_id_is_a_function_of_the_intent_alone() -> None:
    ids = {
        order_id_of(intent, side)
        for intent in (
            an_intent(),
            an_intent("0.6"),
            an_intent(index=1),
            replace(an_intent(), symbol="ETH-USD"),
            replace(an_intent(), bucket_ms=T0 + 60_000),
            replace(an_intent(), strategy_id="s2"),
            replace(an_intent(), world_id="w2"),
        )
        for side in Side
    }
    assert len(ids) == 14
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)
    assert place(an_intent(), Side.BUY, dec(1), False, 0).order_id in ids
    assert place(an_intent("0.50"), Side.BUY, dec(2), True, 1).order_id in ids


@pytest.mark.parametrize("quantity", ["0", "-1"])
def test_an_order_of_nothing_is_a_bug(quantity: str) -> None:
    with pytest.raises(InvariantBroken, match="positive"):
        place(an_intent(), Side.BUY, dec(quantity), False, 0)
