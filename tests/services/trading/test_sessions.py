"""The laws of order sessions: two books that never mix, and a real broker whose reports are booked or kept, never lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.contracts.broker import (
    FillBusted,
    FillCorrected,
    OrderAccepted,
    OrderEnded,
    OrderMarked,
    OrderRestated,
)
from qmtl.foundation.contracts.trade import Account, BrokerMode, Fill, Order, OrderStatus, Position, Side
from qmtl.foundation.contracts.world import EffectiveMode, PositionSide
from tests.services.trading.stage import CASH, Stage, activation, world

PAPER, LIVE = BrokerMode.PAPER, BrokerMode.LIVE
BOOKS = {PAPER: "strategy:s", LIVE: "live:s"}


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.end()


def live(version: int = 2, **changed: Any) -> Any:
    return activation(version=version, effective_mode=EffectiveMode.LIVE, **changed)


def of(stage: Stage, mode: BrokerMode) -> list[Order]:
    found = [one for one in stage.rows("trade.orders") if one.mode is mode]
    return sorted(found, key=lambda one: one.created_at_ms)


def account(stage: Stage, mode: BrokerMode) -> Account:
    (found,) = [
        row for row in stage.rows("trade.portfolio") if isinstance(row, Account) and row.scope == BOOKS[mode]
    ]
    return found


def held(stage: Stage, mode: BrokerMode) -> Decimal:
    rows = [row for row in stage.rows("trade.portfolio") if isinstance(row, Position)]
    return sum((row.quantity for row in rows if row.scope == BOOKS[mode]), Decimal(0))


def fill(order: Order, seq: int, quantity: str, **changed: Any) -> Fill:
    found = Fill(
        order.world_id, order.strategy_id, order.order_id, seq, order.symbol, order.side, Decimal(quantity), Decimal(100),
        Decimal(1), "USD", Decimal(0), order.created_at_ms + 1,
    )  # fmt: skip
    return replace(found, **changed)


def ended(order: Order, status: OrderStatus = OrderStatus.CANCELED) -> OrderEnded:
    return OrderEnded(order.world_id, order.order_id, status, "", "", order.created_at_ms + 2)


def at_venue(stage: Stage) -> Order:
    """A world that is live from its beginning, with one order of 500."""
    stage.close(world(fee="0"), live(), stage.bar("100"))
    stage.close(stage.bar("100"), stage.intent("0.5", "100"))
    (order,) = of(stage, LIVE)
    assert (order.status, order.quantity) == (OrderStatus.PENDING_NEW, Decimal(500))
    return order


def test_going_live_takes_nothing_along(stage: Stage) -> None:
    stage.close(world(fee="0"), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(stage.bar("100"), stage.intent("0.2", "100"))  # 500 bought, 300 to be sold
    before = account(stage, PAPER)
    stage.close(live(), stage.intent("0.4", "100"))
    first, second = of(stage, PAPER)
    assert (first.status, second.status) == (OrderStatus.FILLED, OrderStatus.CANCELED)
    (order,) = of(stage, LIVE)
    assert (order.quantity, order.session, order.reduce_only) == (Decimal(400), 2, False)
    assert order.order_id not in (first.order_id, second.order_id)
    assert account(stage, LIVE).cash == CASH
    stage.close(stage.bar("150"))
    assert (account(stage, PAPER).cash, held(stage, PAPER)) == (before.cash, Decimal(500))
    assert account(stage, PAPER).equity == before.cash + 500 * 150  # marked on
    assert (account(stage, LIVE).equity, held(stage, LIVE)) == (CASH, Decimal(0))


def test_a_dry_run_begins_anew_and_what_is_at_the_venue_is_only_taken_back(stage: Stage) -> None:
    order = at_venue(stage)
    stage.report(OrderAccepted("w", order.order_id, "v", 1), fill(order, 1, "200"))
    stage.close(stage.bar("100"))
    stage.close(activation(version=3), stage.bar("100"), stage.intent("0.3", "100"))
    (asked,) = of(stage, LIVE)
    assert asked.status is OrderStatus.PENDING_CANCEL
    assert asked in stage.rows("trade.open_orders")
    (paper,) = of(stage, PAPER)
    assert (paper.quantity, paper.session) == (Decimal(300), 2)
    assert account(stage, PAPER).cash == CASH
    stage.report(ended(order))
    stage.close(stage.bar("100"), stage.intent("0.1", "100"))
    back = of(stage, LIVE)[-1]
    assert (back.side.value, back.reduce_only, back.session) == ("SELL", True, 1)
    assert back.quantity < 200
    stage.close(stage.bar("100"), stage.intent("0.9", "100"))
    assert len(of(stage, LIVE)) == 2  # it never grows
    assert held(stage, LIVE) == 200


def test_what_was_asked_to_be_cancelled_is_not_sold_before_it_is_there(stage: Stage) -> None:
    """Else the other side would be opened at the venue by an order that goes out as one that only reduces."""
    order = at_venue(stage)
    stage.report(OrderAccepted("w", order.order_id, "v", 1), fill(order, 1, "200"))
    stage.close(activation(version=3), stage.bar("100"))
    stage.close(stage.bar("100"), stage.intent("0", "100"))
    back = of(stage, LIVE)[-1]
    assert (back.side.value, back.quantity, back.reduce_only) == ("SELL", Decimal(200), True)


def test_a_live_order_that_only_reduces_outlives_its_session(stage: Stage) -> None:
    order = at_venue(stage)
    stage.report(fill(order, 1, "500"))
    stage.close(stage.bar("100"))
    stage.close(stage.bar("100"), stage.intent("0.1", "100"))
    stage.close(activation(version=3), stage.bar("100"))
    assert [one.status for one in of(stage, LIVE)] == [OrderStatus.FILLED, OrderStatus.PENDING_NEW]


def test_a_strategy_is_at_the_venue_while_one_of_its_sides_is(stage: Stage) -> None:
    stage.close(world(fee="0"), live(), activation(PositionSide.SHORT), stage.bar("100"))
    stage.close(stage.intent("-0.5", "100"))  # the side that is still on paper is closed meanwhile
    assert stage.rows("trade.orders") == []
    stage.close(stage.intent("0.5", "100"))
    assert [one.mode for one in stage.rows("trade.orders")] == [LIVE]


def test_a_drain_that_cancels_waits_for_the_venue(stage: Stage) -> None:
    order = at_venue(stage)
    stage.close(live(version=3, drain=True, drain_cancels=True))
    (asked,) = stage.rows("trade.open_orders")
    assert asked.status is OrderStatus.PENDING_CANCEL
    stage.report(fill(order, 1, "100"))
    assert [one.status for one in stage.rows("trade.open_orders")] == [OrderStatus.PENDING_CANCEL]
    stage.report(ended(order))
    (gone,) = of(stage, LIVE)
    assert (gone.status, gone.cum_quantity, stage.rows("trade.open_orders")) == (
        OrderStatus.CANCELED,
        Decimal(100),
        [],
    )
    assert held(stage, LIVE) == 100


WRONG: dict[str, Any] = {
    "unknown order": lambda one: replace(ended(one), order_id="f" * 32),
    "unknown world": lambda one: replace(ended(one), world_id="v"),
    "overfill": lambda one: fill(one, 2, "500"),
    "gap": lambda one: fill(one, 3, "1"),
    "other content": lambda one: fill(one, 1, "101"),
    "foreign fee": lambda one: fill(one, 2, "1", fee_currency="BNB"),
    "too many digits": lambda one: fill(one, 2, "0." + "1" * 37, price=Decimal("0." + "3" * 37)),
    "alien": lambda one: fill(one, 2, "1", symbol="ETH-USD"),
    "rejected after a fill": lambda one: ended(one, OrderStatus.REJECTED),
    "filled without a fill": lambda one: ended(one, OrderStatus.FILLED),
    "ended as new": lambda one: ended(one, OrderStatus.NEW),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_report_that_contradicts_is_a_dead_letter_and_the_others_are_booked(
    stage: Stage, wrong: Any
) -> None:
    order = at_venue(stage)
    stage.report(fill(order, 1, "100"))
    stage.report(wrong(order), fill(order, 2, "50"))
    (letter,) = stage.letters()
    assert (letter.code, letter.topic, letter.processor) == ("QMTL-726", "order.reports", "trading")
    (now,) = of(stage, LIVE)
    assert (now.status, now.cum_quantity) == (OrderStatus.PARTIALLY_FILLED, Decimal(150))
    assert account(stage, LIVE).cash == CASH - 150 * 100 - 2
    stage.close(stage.bar("100"))
    assert account(stage, LIVE).as_of_ms == stage.at_ms()


def test_a_report_of_a_paper_order_is_a_dead_letter(stage: Stage) -> None:
    stage.close(world(), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    (order,) = of(stage, PAPER)
    stage.report(ended(order), fill(order, 1, "1"))
    assert [one.code for one in stage.letters()] == ["QMTL-726"] * 2
    assert of(stage, PAPER) == [order]


def test_what_was_said_before_or_comes_after_the_end_changes_nothing(stage: Stage) -> None:
    order = at_venue(stage)
    accepted = OrderAccepted("w", order.order_id, "v", 1)
    story = (accepted, fill(order, 1, "100"), ended(order))
    stage.report(*story)
    before = [stage.rows(name) for name in ("trade.orders", "trade.fills", "trade.portfolio")]
    stage.report(*story, ended(order, OrderStatus.EXPIRED), accepted)
    assert [stage.rows(name) for name in ("trade.orders", "trade.fills", "trade.portfolio")] == before
    assert stage.letters() == []


def test_a_fill_after_the_end_is_booked_and_tagged_unless_it_is_more_than_was_ordered(stage: Stage) -> None:
    order = at_venue(stage)
    late = fill(order, 2, "1")
    stage.report(fill(order, 1, "100"), ended(order), late)
    assert [(one.seq, one.late) for one in stage.rows("trade.fills")] == [(1, False), (2, True)]
    assert (held(stage, LIVE), account(stage, LIVE).cash) == (Decimal(101), CASH - 101 * 100 - 2)
    (now,) = of(stage, LIVE)
    assert (now.status, now.cum_quantity, stage.rows("trade.open_orders")) == (
        OrderStatus.CANCELED,
        Decimal(101),
        [],
    )
    stage.report(late)
    assert stage.letters() == []
    stage.report(fill(order, 3, "400"))
    assert [one.code for one in stage.letters()] == ["QMTL-726"]
    assert held(stage, LIVE) == 101


def test_a_fill_into_a_frozen_or_draining_gate_is_booked_and_tagged(stage: Stage) -> None:
    order = at_venue(stage)
    stage.report(fill(order, 1, "100"))
    stage.close(live(version=9, freeze=True))
    stage.report(fill(order, 2, "50"))
    assert [(one.seq, one.late) for one in stage.rows("trade.fills")] == [(1, False), (2, True)]
    assert held(stage, LIVE) == 150


def test_busts_and_corrections_move_cash_and_position_as_if_the_fill_had_been_so(stage: Stage) -> None:
    order = at_venue(stage)
    stage.report(fill(order, 1, "100"), fill(order, 2, "50"))
    corrected = FillCorrected("w", order.order_id, 1, 1, Decimal(90), Decimal(101), Decimal(2), 5)
    busted = FillBusted("w", order.order_id, 2, 1, 6)
    for _ in range(2):
        stage.report(corrected, busted)
        assert (held(stage, LIVE), account(stage, LIVE).cash) == (Decimal(90), CASH - 90 * 101 - 2)
        (now,) = of(stage, LIVE)
        assert (now.cum_quantity, now.average_price, now.last_seq) == (Decimal(90), Decimal(101), 2)
        first, second = stage.rows("trade.fills")
        assert (first.quantity, first.price, first.revision) == (Decimal(90), Decimal(101), 1)
        assert (second.quantity, second.fee, second.revision) == (Decimal(0), Decimal(0), 1)
    stage.report(fill(order, 1, "100"), fill(order, 2, "50"))  # as first told: they counted before
    assert (held(stage, LIVE), stage.letters()) == (Decimal(90), [])
    stage.report(FillBusted("w", order.order_id, 3, 1, 7), FillBusted("w", order.order_id, 1, 3, 7))
    assert [one.code for one in stage.letters()] == ["QMTL-726"] * 2


def test_what_venues_say_of_requests_and_states_is_booked(stage: Stage) -> None:
    order = at_venue(stage)
    stage.report(OrderMarked("w", order.order_id, OrderStatus.SUSPENDED, True, 1))
    assert [one.status for one in of(stage, LIVE)] == [OrderStatus.SUSPENDED]
    assert [one.status for one in stage.rows("trade.open_orders")] == [OrderStatus.SUSPENDED]
    stage.report(OrderMarked("w", order.order_id, OrderStatus.SUSPENDED, False, 2))
    stage.report(OrderRestated("w", order.order_id, Decimal(400), None, 3))
    (now,) = of(stage, LIVE)
    assert (now.status, now.quantity, now.life) == (order.status, Decimal(400), None)
    stage.report(
        OrderRestated("w", order.order_id, Decimal(800), Decimal(0), 4),
        OrderMarked("w", order.order_id, OrderStatus.FILLED, True, 4),
    )
    assert [one.code for one in stage.letters()] == ["QMTL-726"] * 2
    assert of(stage, LIVE) == [now]


MODES = st.sampled_from([EffectiveMode.PAPER, EffectiveMode.LIVE, EffectiveMode.COMPUTE_ONLY])
EVENTS = st.one_of(
    st.tuples(st.just("gate"), MODES),
    st.tuples(st.just("bar"), st.sampled_from(["80", "100", "130"])),
    st.tuples(st.just("intent"), st.sampled_from(["0", "0.2", "0.5", "0.9"])),
    st.tuples(st.just("fill"), st.sampled_from(["0.25", "1"])),
    st.tuples(st.just("end"), st.just("")),
)


def run(directory: Path, story: list[tuple[str, Any]], poll_records: int) -> list[Any]:
    stage = Stage(directory, poll_records)
    stage.close(world(fee="0.001"), activation(), stage.bar("100"))
    numbers = {PAPER: 1, LIVE: 0}
    mode = EffectiveMode.PAPER
    for version, (kind, what) in enumerate(story, 2):
        before = stage.rows("trade.portfolio")
        open_live = [one for one in stage.rows("trade.open_orders") if one.mode is LIVE]
        if kind in ("fill", "end"):
            for order in open_live[:1]:
                left = order.quantity - order.cum_quantity
                part = (left * Decimal(what or 1)).quantize(Decimal("0.0001"))
                stage.report(
                    ended(order) if kind == "end" else fill(order, order.last_seq + 1, str(part or left))
                )
            untouched = [row for row in before if row.scope == BOOKS[PAPER]]
            assert [row for row in stage.rows("trade.portfolio") if row.scope == BOOKS[PAPER]] == untouched
        else:
            holding = held(stage, LIVE)
            known = {one.order_id for one in of(stage, LIVE)}
            mode = what if kind == "gate" else mode
            if kind == "gate":
                stage.close(activation(version=version, effective_mode=what))
            elif kind == "bar":
                stage.close(stage.bar(what))
            else:
                stage.close(stage.intent(what, "100"))
            assert held(stage, LIVE) == holding  # no bar fills what is at the venue
            if mode is EffectiveMode.PAPER:
                placed = [one for one in of(stage, LIVE) if one.order_id not in known]
                assert all(one.reduce_only for one in placed)
        check_books(stage)
        for book in (PAPER, LIVE):
            rows = [row for row in stage.rows("trade.portfolio") if isinstance(row, Account)]
            for row in rows:
                if row.scope == BOOKS[book]:
                    assert row.session >= numbers[book]
                    numbers[book] = row.session
    assert stage.letters() == []
    out = [
        stage.rows(name) for name in ("trade.orders", "trade.open_orders", "trade.fills", "trade.portfolio")
    ]
    stage.end()
    return out


def check_books(stage: Stage) -> None:
    """Of the session that each book is in: what was paid is what is gone."""
    orders = {one.order_id: one for one in stage.rows("trade.orders")}
    accounts = [row for row in stage.rows("trade.portfolio") if isinstance(row, Account)]
    for row in accounts:
        mode = PAPER if row.scope == BOOKS[PAPER] else LIVE
        fills = [
            one
            for one in stage.rows("trade.fills")
            if orders[one.order_id].mode is mode
            and (mode is LIVE or orders[one.order_id].session == row.session)
        ]
        signed = [one.quantity if one.side is Side.BUY else -one.quantity for one in fills]
        paid = sum((q * one.price for q, one in zip(signed, fills, strict=True)), Decimal(0))
        assert row.cash == CASH - paid - sum((one.fee for one in fills), Decimal(0))
        assert held(stage, mode) == sum(signed, Decimal(0))
        assert row.equity == CASH + row.realised + row.unrealised - row.fees


@given(st.lists(EVENTS, max_size=14))
@settings(max_examples=20, deadline=None)
def test_whatever_happens_each_book_is_conserved_and_none_has_rows_of_the_other(
    story: list[tuple[str, Any]],
) -> None:
    with TemporaryDirectory() as one, TemporaryDirectory() as other:
        assert run(Path(one), story, 4000) == run(Path(other), story, 3)


def test_the_live_book_goes_on_where_it_was_left_and_a_dry_run_never_does(stage: Stage) -> None:
    stage.close(world(fee="0"), activation(), stage.bar("100"))
    stage.close(stage.intent("0.5", "100"))
    stage.close(stage.bar("110"))  # 500 on paper, bought at 110
    stage.close(live(), stage.intent("0.3", "100"))
    (order,) = of(stage, LIVE)
    stage.report(fill(order, 1, "300"))
    stage.close(stage.bar("100"))
    cash = account(stage, LIVE).cash
    stage.close(activation(version=3), stage.intent("0.2", "100"))
    assert (account(stage, PAPER).cash, account(stage, PAPER).session, held(stage, PAPER)) == (
        CASH,
        3,
        Decimal(0),
    )
    assert (
        of(stage, PAPER)[-1].quantity == 200
    )  # of all its cash, and nothing held: not the book that the cut has
    stage.close(live(version=4), stage.intent("0.5", "100"))
    assert (account(stage, LIVE).cash, account(stage, LIVE).session, held(stage, LIVE)) == (
        cash,
        4,
        Decimal(300),
    )
    assert (of(stage, LIVE)[-1].side, of(stage, LIVE)[-1].session) == (Side.BUY, 4)
