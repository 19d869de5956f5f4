"""The laws of an order's life under any story of requests, reports, fills, busts and corrections, each told once or more."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.broker import (
    FillBusted,
    FillCorrected,
    OrderAccepted,
    OrderEnded,
    OrderMarked,
    OrderReplaced,
    OrderRestated,
    OrderTriggered,
    RequestPending,
    RequestRejected,
    StateReport,
)
from qmtl.foundation.contracts.trade import (
    Fill,
    Order,
    OrderStatus,
    OrderTerms,
    OrderType,
    RequestKind,
    Side,
    TimeInForce,
)
from qmtl.foundation.wire.registry import codec
from qmtl.runtime.orders.aggregate import (
    ask_cancel,
    ask_replace,
    is_open,
    is_same,
    is_whole,
    pending,
    remaining,
    requests_of,
    said_of,
)
from qmtl.runtime.orders.fills import Applied, Conflict, Duplicate, Revised, Rule, apply_fill, revise
from qmtl.runtime.orders.ids import accepted_id, origin_of, request_id_of
from qmtl.runtime.orders.reports import told
from qmtl.runtime.orders.states import BIDDING, ENDS, HELD, NEXT, PRECEDENCE, UNFILLED_ENDS

S = OrderStatus
Event: TypeAlias = tuple[str, int, int]


def a_new(force: TimeInForce = TimeInForce.GTC, quantity: int = 100) -> Order:
    return Order(
        "w", "s", "o", "X", Side.SELL, OrderType.LIMIT, force, Decimal(quantity), S.PENDING_NEW, Decimal(0), Decimal(0), 0,
        False, Decimal(1), 0, 0, 0,
    )  # fmt: skip


def a_fill(seq: int, quantity: int, price: int = 10) -> Fill:
    return Fill(
        "w", "s", "o", seq, "X", Side.SELL, Decimal(quantity), Decimal(price), Decimal(0), "USD", Decimal(0), seq
    )  # fmt: skip


def accepted(order: Order) -> Order:
    return told(order, OrderAccepted("w", "o", "", 0))


@dataclass
class Story:
    """An order, the fills that it was told, and a count beside the machine."""

    order: Order
    fills: dict[int, Fill] = field(default_factory=dict)
    ids: list[str] = field(default_factory=list)

    def tell(self, event: Event) -> None:
        kind, a, b = event
        before = self.order
        waiting = requests_of(before)
        name = waiting[a % len(waiting)].client_order_id if waiting else "nobody"
        match kind:
            case "fill":
                self._fill(a_fill(before.last_seq + 1, a, b + 1))
            case "again" if self.fills:
                seq = a % len(self.fills) + 1
                outcome = apply_fill(before, a_fill(seq, 1))
                assert outcome == Duplicate(before)
            case "bust" | "correct" if self.fills:
                self._revise(kind, a % len(self.fills) + 1, a, b + 1)
            case "cancel" | "replace":
                self._ask(kind, a)
            case "accept":
                self.report(OrderAccepted("w", "o", "", 1))
            case "end":
                self.report(OrderEnded("w", "o", sorted(UNFILLED_ENDS, key=str)[a % 3], "", "", 1))
            case "taken":
                self.report(RequestPending("w", "o", name, 1))
            case "refused":
                self.report(RequestRejected("w", "o", name, "", "", 1))
            case "replaced":
                self.report(OrderReplaced("w", "o", name, None, 1))
            case "marked":
                self.report(OrderMarked("w", "o", [*sorted(HELD, key=str), BIDDING][a % 5], b % 2 == 0, 1))
            case "restated":
                self.report(OrderRestated("w", "o", Decimal(a * 2), None, 1))
            case "triggered":
                self.report(OrderTriggered("w", "o", 1))
            case _:
                return

    def _fill(self, fill: Fill) -> None:
        before = self.order
        outcome = apply_fill(before, fill)
        if before.cum_quantity + fill.quantity > before.quantity:
            assert isinstance(outcome, Conflict)
            assert outcome.rule is Rule.OVERFILL
            return
        assert isinstance(outcome, Applied)
        ended = bool(set(said_of(before)) & UNFILLED_ENDS)
        rests = before.time_in_force is TimeInForce.DAY and S.DONE_FOR_DAY in said_of(before)
        assert outcome.late == (ended or rests)
        self.order, self.fills[fill.seq] = outcome.order, fill
        assert apply_fill(self.order, fill) == Duplicate(self.order)

    def _revise(self, kind: str, seq: int, quantity: int, price: int) -> None:
        fill = self.fills[seq]
        number = fill.revision + 1
        revision: FillBusted | FillCorrected = FillBusted("w", "o", seq, number, 1)
        if kind == "correct":
            revision = FillCorrected("w", "o", seq, number, Decimal(quantity), Decimal(price), Decimal(1), 1)
        outcome = revise(self.order, fill, revision)
        if isinstance(outcome, Conflict):
            assert outcome.rule is Rule.OVERFILL
            return
        assert isinstance(outcome, Revised)
        self.order, self.fills[seq] = outcome.order, outcome.fill
        assert revise(self.order, outcome.fill, revision) == Duplicate(self.order)
        gap = revise(self.order, outcome.fill, replace(revision, revision=number + 2))
        assert isinstance(gap, Conflict)
        assert gap.rule is Rule.GAP

    def _ask(self, kind: str, quantity: int) -> None:
        before = self.order
        name = request_id_of(before)
        ended = bool(set(said_of(before)) & UNFILLED_ENDS)
        try:
            self.order = (
                ask_cancel(before, 1) if kind == "cancel" else ask_replace(before, Decimal(quantity), 1)
            )
        except InvariantBroken:
            assert ended or (kind == "cancel" and is_whole(before))
            return
        assert not ended
        assert kind == "replace" or not is_whole(before)
        request = requests_of(self.order)[-1]
        assert (request.client_order_id, request.origin_id) == (name, origin_of(before))
        assert name not in self.ids
        self.ids.append(name)

    def report(self, report: StateReport) -> None:
        before = self.order
        try:
            self.order = told(before, report)
        except InvariantBroken:
            assert isinstance(report, OrderEnded | OrderRestated | OrderReplaced)
            return
        assert told(self.order, report) == self.order

    def check(self, before: Order) -> None:
        now = self.order
        assert now.status is before.status or now.status in NEXT[before.status], (before.status, now.status)
        assert (
            now.cum_quantity == sum((one.quantity for one in self.fills.values()), Decimal(0)) <= now.quantity
        )
        if now.cum_quantity:
            paid = sum((one.quantity * one.price for one in self.fills.values()), Decimal(0))
            assert abs(now.average_price * now.cum_quantity - paid) < Decimal("1e-12")
        left = remaining(now)
        assert left in (0, now.quantity - now.cum_quantity)
        assert pending(now) == -left
        if left:
            assert is_open(now)
            assert not set(said_of(now)) & UNFILLED_ENDS
        if now.status is S.FILLED:
            assert now.cum_quantity == now.quantity
        hidden = () if now.life is None else now.life.hidden
        assert all(PRECEDENCE[one] <= PRECEDENCE[now.status] for one in hidden)
        kinds = {one.kind for one in requests_of(now) if one.acknowledged}
        assert (now.status is S.PENDING_CANCEL) == (RequestKind.CANCEL in kinds)
        assert (now.status is S.PENDING_REPLACE) == (kinds == {RequestKind.REPLACE})
        if (
            set(said_of(before)) & UNFILLED_ENDS
        ):  # an end absorbs: the same end, nothing waits, nothing is left
            assert set(said_of(now)) == set(said_of(before))
            assert now.quantity == before.quantity
            assert not is_open(now)


EVENTS = st.tuples(
    st.sampled_from(
        [
            *["fill"] * 4,
            "again",
            "bust",
            "correct",
            "cancel",
            "replace",
            "accept",
            "end",
            "taken",
            "refused",
            "replaced",
            "marked",
            "restated",
            "triggered",
        ]
    ),
    st.integers(1, 120),
    st.integers(0, 9),
)
FORCES = st.sampled_from([TimeInForce.GTC, TimeInForce.DAY])


@given(FORCES, st.lists(EVENTS, max_size=25))
@settings(max_examples=400)
def test_any_story_keeps_the_laws_and_said_again_changes_nothing(
    force: TimeInForce, events: list[Event]
) -> None:
    story = Story(a_new(force))
    for event in events:
        before = story.order
        story.tell(event)
        story.check(before)
    assert codec.decode(codec.encode(story.order)) == story.order


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.data())
@settings(max_examples=100)
def test_any_order_of_deliveries_gives_the_same_book(sizes: list[int], data: st.DataObject) -> None:
    """Fills come again until their predecessors are there; acceptance, end, and the answers to requests pass them on the wire."""
    start = a_new(quantity=400)
    start = ask_cancel(ask_replace(start, Decimal(350), 1, "R"), 1, "C")
    fills = [a_fill(seq, size, seq) for seq, size in enumerate(sizes, 1)]
    says: list[StateReport] = [
        OrderAccepted("w", "o", "", 1),
        OrderReplaced("w", "o", "R", None, 2),
        RequestRejected("w", "o", "C", "", "", 3),
    ]
    end = OrderEnded("w", "o", S.CANCELED, "", "", 4)
    mixed = data.draw(st.permutations([*fills, *says, *fills]))
    straight = start
    for one in [*says, *fills]:
        straight = _either(straight, one)
    ended = told(straight, end)
    now, waiting = start, list(mixed)
    at = data.draw(st.integers(0, 12))
    while waiting:
        one = waiting.pop(0)
        after = _either(now, one)
        if isinstance(one, Fill) and one.seq > now.last_seq + 1:
            waiting.append(one)
        now = after
        at -= 1
        if at == 0 and not any(isinstance(rest, OrderReplaced | RequestRejected) for rest in waiting):
            now = told(now, end)
    assert told(now, end) == ended


def _either(order: Order, one: Fill | StateReport) -> Order:
    if not isinstance(one, Fill):
        return told(order, one)
    return apply_fill(order, one).order


def test_requests_have_ids_of_their_own_out_of_what_is_logged() -> None:
    first = ask_cancel(accepted(a_new()), 5)
    again = ask_cancel(accepted(a_new()), 9)
    assert requests_of(first)[0].client_order_id == requests_of(again)[0].client_order_id
    assert re.fullmatch("[0-9a-f]{32}", request_id_of(first))
    second = ask_replace(first, Decimal(50), 6)
    ids = [one.client_order_id for one in requests_of(second)]
    assert len({*ids, "o", request_id_of(second)}) == 4
    assert origin_of(second) == ids[1]
    done = told(second, OrderReplaced("w", "o", ids[1], Decimal(60), 7))
    assert (accepted_id(done), done.quantity, [one.kind for one in requests_of(done)]) == (
        ids[1],
        Decimal(60),
        [RequestKind.CANCEL],
    )
    assert ask_cancel(first, 9, ids[0]) is first


def test_a_plain_order_has_no_life_and_one_that_was_asked_something_remembers_how_often() -> None:
    plain = accepted(a_new())
    outcome = apply_fill(plain, a_fill(1, 100))
    assert (plain.life, outcome.order.life) == (None, None)
    asked = ask_cancel(plain, 1)
    (request,) = requests_of(asked)
    back = told(asked, RequestRejected("w", "o", request.client_order_id, "QMTL-1", "too late", 2))
    assert (back.status, requests_of(back)) == (S.NEW, ())
    assert request_id_of(back) not in (request.client_order_id, request_id_of(plain))


def test_a_row_of_before_that_waits_for_its_cancellation_goes_on() -> None:
    old = replace(accepted(a_new()), status=S.PENDING_CANCEL)
    assert is_open(old)
    filled = apply_fill(old, a_fill(1, 40))
    assert isinstance(filled, Applied)
    assert (filled.order.cum_quantity, remaining(filled.order)) == (Decimal(40), Decimal(60))
    ended = told(filled.order, OrderEnded("w", "o", S.CANCELED, "", "", 1))
    assert (ended.status, is_open(ended)) == (S.CANCELED, False)


def test_an_id_that_is_known_takes_the_same_order_only() -> None:
    order = accepted(a_new())
    assert is_same(order, a_new())
    assert not is_same(order, a_new(quantity=150))
    assert not is_same(order, replace(a_new(), terms=OrderTerms(limit_price=Decimal(1))))


@pytest.mark.parametrize(
    "report",
    [
        OrderEnded("w", "o", S.FILLED, "", "", 1),
        OrderEnded("w", "o", S.NEW, "", "", 1),
        OrderMarked("w", "o", S.FILLED, True, 1),
        OrderMarked("w", "o", S.PENDING_CANCEL, True, 1),
        OrderRestated("w", "o", Decimal(0), None, 1),
        OrderRestated("w", "o", Decimal(39), None, 1),
        OrderRestated("w", "o", Decimal(200), Decimal(0), 1),
        OrderEnded("w", "o", S.REJECTED, "", "", 1),
        OrderReplaced("w", "o", "C", None, 1),
    ],
)
def test_what_can_not_be_is_refused(report: StateReport) -> None:
    outcome = apply_fill(accepted(a_new()), a_fill(1, 40))
    asked = ask_cancel(outcome.order, 1, "C")
    with pytest.raises(InvariantBroken, match=r"order o|request C"):
        told(asked, report)


@pytest.mark.parametrize("ended", sorted(ENDS, key=str))
def test_what_has_ended_is_not_cancelled_and_is_replaced_only_where_it_was_filled(ended: OrderStatus) -> None:
    order = replace(a_new(), status=ended, cum_quantity=Decimal(100 if ended is S.FILLED else 0))
    with pytest.raises(InvariantBroken, match="can't be cancelled"):
        ask_cancel(order, 1)
    if ended is S.FILLED:
        assert is_open(ask_replace(order, Decimal(120), 1))
    else:
        with pytest.raises(InvariantBroken, match="can't be replaced"):
            ask_replace(order, Decimal(120), 1)
    with pytest.raises(InvariantBroken, match="positive"):
        ask_replace(order, Decimal(0), 1)


def test_the_table_of_states_in_the_documents_is_that_of_the_code() -> None:
    page = (Path(__file__).parents[3] / "docs" / "orders.md").read_text(encoding="utf-8")
    rows = {
        one[0]: (int(one[1]), set(re.findall("`([a-z_]+)`", one[2])))
        for one in re.findall(r"^\| `([a-z_]+)` \| (\d+) \|[^|]*\| ([^|]*) \|$", page, re.M)
    }
    assert rows == {
        status.value: (PRECEDENCE[status], {one.value for one in following})
        for status, following in NEXT.items()
    }
