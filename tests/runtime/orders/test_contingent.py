"""Orders that hang on each other: decisions are carried out by a desk that is slow, loses answers and is filled meanwhile."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.broker import OrderAccepted, OrderEnded, OrderReplaced
from qmtl.foundation.contracts.trade import (
    Fill,
    Order,
    OrderStatus,
    OrderType,
    RequestKind,
    Side,
    TimeInForce,
)
from qmtl.runtime.orders.aggregate import ask_cancel, ask_replace, is_open, remaining, requests_of
from qmtl.runtime.orders.contingent import (
    Bracket,
    CancelLeg,
    Contingency,
    Exits,
    OneCancelsOther,
    OneReducesOther,
    OneTriggersOther,
    PlaceLeg,
    ResizeLeg,
    decisions,
    uncovered,
)
from qmtl.runtime.orders.fills import Applied, apply_fill
from qmtl.runtime.orders.reports import told


def an_order(order_id: str, quantity: Decimal | int) -> Order:
    placed = Order(
        "w", "s", order_id, "X", Side.BUY, OrderType.LIMIT, TimeInForce.GTC, Decimal(quantity), OrderStatus.PENDING_NEW,
        Decimal(0), Decimal(0), 0, False, Decimal(1), 0, 0, 0,
    )  # fmt: skip
    return told(placed, OrderAccepted("w", order_id, "", 0))


class Desk:
    """Orders at a venue, and what is asked of them."""

    def __init__(self, *orders: Order) -> None:
        self.orders = {one.order_id: one for one in orders}

    def fill(self, order_id: str, quantity: Decimal | int) -> None:
        order = self.orders[order_id]
        fill = Fill(
            "w", "s", order_id, order.last_seq + 1, "X", Side.BUY, Decimal(quantity), Decimal(10), Decimal(0), "USD",
            Decimal(0), 0,
        )  # fmt: skip
        outcome = apply_fill(order, fill)
        assert isinstance(outcome, Applied)
        self.orders[order_id] = outcome.order

    def ask(self, contingency: Contingency) -> None:
        """Carry out what is decided; nothing more is, as long as there is no answer."""
        for one in decisions(contingency, self.orders):
            match one:
                case PlaceLeg(order_id=order_id, quantity=quantity):
                    assert order_id not in self.orders
                    self.orders[order_id] = an_order(order_id, quantity)
                case ResizeLeg(order_id=order_id, quantity=quantity):
                    self.orders[order_id] = ask_replace(self.orders[order_id], quantity, 0)
                case CancelLeg(order_id=order_id):
                    self.orders[order_id] = ask_cancel(self.orders[order_id], 0)
        assert decisions(contingency, self.orders) == ()

    def answer(self) -> None:
        for order_id in self.orders:
            for first in requests_of(self.orders[order_id]):
                report: OrderEnded | OrderReplaced = OrderEnded(
                    "w", order_id, OrderStatus.CANCELED, "", "", 0
                )
                if first.kind is RequestKind.REPLACE:
                    report = OrderReplaced("w", order_id, first.client_order_id, None, 0)
                self.orders[order_id] = told(self.orders[order_id], report)

    def settle(self, contingency: Contingency) -> None:
        for _ in range(3):
            self.ask(contingency)
            self.answer()
        assert decisions(contingency, self.orders) == ()


def test_the_first_fill_of_one_cancels_the_others() -> None:
    pair = OneCancelsOther(("a", "b"))
    desk = Desk(an_order("a", 10), an_order("b", 10))
    assert decisions(pair, desk.orders) == ()
    desk.fill("b", 3)
    assert decisions(pair, desk.orders) == (CancelLeg("a"),)
    desk.settle(pair)
    assert (desk.orders["a"].status, remaining(desk.orders["b"])) == (OrderStatus.CANCELED, Decimal(7))


def test_where_both_are_filled_before_either_is_cancelled_the_one_named_first_stays() -> None:
    pair = OneCancelsOther(("a", "b"))
    desk = Desk(an_order("a", 10), an_order("b", 10))
    desk.fill("b", 3)
    desk.ask(pair)
    desk.fill("a", 2)  # it passes the cancellation on the wire
    desk.settle(pair)
    assert desk.orders["a"].status is OrderStatus.CANCELED
    assert desk.orders["b"].status is OrderStatus.CANCELED  # a was filled too, and is named first
    desk = Desk(an_order("a", 10), an_order("b", 10))
    desk.fill("a", 10)
    desk.fill("b", 10)
    assert decisions(pair, desk.orders) == ()


def test_one_triggers_others_once_it_is_filled_to_its_end() -> None:
    order = OneTriggersOther("a", (PlaceLeg("b", Decimal(4)), PlaceLeg("c", Decimal(6))))
    desk = Desk(an_order("a", 10))
    desk.fill("a", 9)
    assert decisions(order, desk.orders) == ()
    desk.fill("a", 1)
    assert decisions(order, desk.orders) == order.legs
    desk.settle(order)
    assert set(desk.orders) == {"a", "b", "c"}
    assert decisions(order, {}) == ()


PARTS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 10), st.booleans()), max_size=12)


@given(PARTS)
@settings(max_examples=150)
def test_orders_that_reduce_each_other_fill_one_quantity_together(parts: list[tuple[str, int, bool]]) -> None:
    group = OneReducesOther(("a", "b", "c"), Decimal(20))
    desk = Desk(*(an_order(one, 20) for one in "abc"))
    for order_id, share, _ in parts:
        order = desk.orders[order_id]
        if (left := remaining(order)) > 0:
            desk.fill(order_id, min(left, Decimal(share)))
        desk.settle(group)
        done = sum((one.cum_quantity for one in desk.orders.values()), Decimal(0))
        assert done <= 20
        assert all(remaining(one) == 20 - done for one in desk.orders.values() if is_open(one))
        assert any(is_open(one) for one in desk.orders.values()) == (done < 20)


@given(
    st.sampled_from(Exits),
    st.lists(st.tuples(st.sampled_from("exy"), st.integers(1, 10), st.booleans()), max_size=14),
)
@settings(max_examples=200)
def test_a_bracket_has_exits_for_what_its_entry_has_filled_and_never_more(
    exits: Exits, parts: list[tuple[str, int, bool]]
) -> None:
    bracket = Bracket("e", ("x", "y"), exits)
    desk = Desk(an_order("e", 30))
    raced = False
    for order_id, share, is_slow in parts:
        order = desk.orders.get(order_id)
        if order is not None and (left := remaining(order)) > 0:
            desk.fill(order_id, min(left, Decimal(share)))
        desk.ask(bracket)
        raced = raced or is_slow
        if is_slow:
            continue
        desk.settle(bracket)
        entry = desk.orders["e"].cum_quantity
        there = [desk.orders[one] for one in "xy" if one in desk.orders]
        if not entry:
            assert there == []
        if not raced:
            done = sum((one.cum_quantity for one in there), Decimal(0))
            assert done <= entry
            assert uncovered(bracket, desk.orders) == 0
            assert sum(bool(one.cum_quantity) for one in there) < 2 or exits is Exits.REDUCE
            assert all(remaining(one) <= entry - done for one in there)


def test_the_first_fill_of_an_exit_cancels_the_other_and_what_is_left_of_the_entry() -> None:
    desk = Desk(an_order("e", 10))
    desk.fill("e", 6)
    for exits, decided in (
        (Exits.CANCEL, (CancelLeg("y"), CancelLeg("e"))),
        (Exits.REDUCE, (ResizeLeg("y", Decimal(4)),)),
    ):
        bracket = Bracket("e", ("x", "y"), exits)
        now = Desk(*desk.orders.values())
        now.settle(bracket)
        now.fill("x", 2)
        assert decisions(bracket, now.orders) == decided


def test_an_entry_of_which_nothing_came_leaves_no_exits() -> None:
    bracket = Bracket("e", ("x", "y"))
    desk = Desk(an_order("e", 10), an_order("x", 10))
    desk.orders["e"] = told(desk.orders["e"], OrderEnded("w", "e", OrderStatus.EXPIRED, "", "", 0))
    assert decisions(bracket, desk.orders) == (CancelLeg("x"),)
    assert uncovered(bracket, {}) == 0


def test_an_exit_that_is_gone_leaves_what_is_held_uncovered_and_is_told() -> None:
    bracket = Bracket("e", ("x", "y"))
    desk = Desk(an_order("e", 10))
    desk.fill("e", 10)
    desk.settle(bracket)
    for one in "xy":
        desk.orders[one] = told(desk.orders[one], OrderEnded("w", one, OrderStatus.REJECTED, "", "", 0))
    assert decisions(bracket, desk.orders) == ()
    assert uncovered(bracket, desk.orders) == 10


@pytest.mark.parametrize("ids", [(), ("a",), ("a", "a")])
def test_a_group_names_two_orders_or_more_each_once(ids: tuple[str, ...]) -> None:
    with pytest.raises(InvalidValue, match="two orders or more"):
        OneCancelsOther(ids)
    with pytest.raises(InvalidValue, match="two orders or more"):
        OneReducesOther(ids, Decimal(1))
    with pytest.raises(InvalidValue, match="two orders or more"):
        Bracket("a", tuple(one for one in ids[1:]))
    with pytest.raises(InvalidValue, match="positive"):
        OneReducesOther(("a", "b"), Decimal(0))
