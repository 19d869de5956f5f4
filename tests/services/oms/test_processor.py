"""The laws of the order management system on a log: batches, restarts and gates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.contracts.broker import OrderEnded, PlaceOrder, SessionState
from qmtl.foundation.contracts.trade import BrokerMode, OrderStatus
from qmtl.foundation.contracts.world import EffectiveMode
from tests.services.oms.rig import Rig
from tests.services.oms.samples import a_gate, an_order

STORY: tuple[tuple[str, Any], ...] = (
    ("order", an_order(1)),
    ("order", an_order(2)),
    ("order", an_order(1, OrderStatus.PENDING_CANCEL)),
    ("gate", a_gate(version=2, freeze=True)),
    ("gate", a_gate(version=3)),
    ("fill", 1),
    ("fill", 2),
    ("tick", None),
)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.end()


def run(story: list[int], poll_records: int, reopens: bool) -> list[Any]:
    with TemporaryDirectory() as directory:
        rig = Rig(Path(directory), poll_records)
        rig.write("activation", a_gate())
        for at in story:
            kind, what = STORY[at]
            if kind == "order":
                rig.write("trade.orders", what)
            elif kind == "gate":
                rig.write("activation", what)
            elif kind == "tick":
                rig.tick()
            elif rig.venue.is_open(an_order(what).order_id):
                rig.venue.execute(an_order(what).order_id, "3")
            if reopens:
                rig.reopen()
        assert all(times == 1 for times in rig.venue.submitted.values())
        assert rig.events("dead.letters") == []
        out = [rig.rows("oms.attempts"), rig.rows("ops.sessions"), rig.events("order.reports")]
        rig.end()
        return out


@given(st.lists(st.integers(0, len(STORY) - 1), max_size=8, unique=True))
@settings(max_examples=8, deadline=None)
def test_neither_batches_nor_restarts_change_what_is_decided(story: list[int]) -> None:
    as_one = run(story, 4000, False)
    assert run(story, 1, False) == as_one
    assert run(story, 2, True) == as_one


def test_orders_on_paper_are_none_of_its_business(rig: Rig) -> None:
    rig.write("activation", a_gate())
    rig.write("trade.orders", an_order(mode=BrokerMode.PAPER))
    assert rig.rows("oms.attempts") == []


def test_of_one_reading_the_last_word_of_a_gate_counts(rig: Rig) -> None:
    rig.write("activation", a_gate())
    rig.write("activation", a_gate(version=2, freeze=True), settle=False)
    rig.write("trade.orders", an_order())
    (end,) = rig.events("order.reports")
    assert (end.code, rig.venue.submitted) == ("QMTL-724", {})
    assert rig.events("venue.requests", PlaceOrder) == []


def test_a_freeze_between_the_order_and_its_claim_stops_it(rig: Rig) -> None:
    rig.write("activation", a_gate())
    rig.write("trade.orders", an_order(), settle=False)
    while rig.oms.step():
        pass
    while rig.egress.step():
        pass  # it has claimed
    rig.write("activation", a_gate(version=2, freeze=True))
    (end,) = rig.events("order.reports")
    assert (end.code, rig.venue.submitted) == ("QMTL-724", {})
    (session,) = rig.rows("ops.sessions")
    assert session.state is SessionState.CLOSED


def test_a_session_that_is_blocked_watches_and_cancels_and_closes_with_its_last_order(rig: Rig) -> None:
    order = an_order()
    rig.write("activation", a_gate())
    rig.write("trade.orders", order)
    rig.write("activation", a_gate(version=2, effective_mode=EffectiveMode.PAPER))
    assert [one.state for one in rig.rows("ops.sessions")] == [SessionState.BLOCKED]
    rig.venue.execute(order.order_id, "3")
    rig.write("trade.orders", an_order(status=OrderStatus.PENDING_CANCEL))
    assert [type(one).__name__ for one in rig.events("order.reports")] == [
        "OrderAccepted",
        "Fill",
        "OrderEnded",
    ]
    (session,) = rig.rows("ops.sessions")
    assert (session.state, session.connected, session.number) == (SessionState.CLOSED, False, 1)
    assert rig.venue.times("close") == 1
    rig.write("activation", a_gate(version=3))
    (session,) = rig.rows("ops.sessions")
    assert (session.state, session.connected, session.number) == (SessionState.OPEN, True, 2)


def test_orders_that_are_read_again_from_the_beginning_are_not_sent_again(rig: Rig) -> None:
    """As where their topic was made anew and an operator has accepted it."""
    later = replace(an_order(3), created_at_ms=an_order().created_at_ms + 60_000)
    rig.write("activation", a_gate())
    rig.write("trade.orders", an_order(1), an_order(2), later)
    for order in (an_order(1), an_order(2), later):
        rig.venue.execute(order.order_id, str(order.quantity))
    rig.tick()
    assert rig.rows("oms.attempts") == []
    rig.reopen()
    rig.write("trade.orders", an_order(1), an_order(2), later)
    rig.tick()
    assert set(rig.venue.submitted.values()) == {1}
    refused = rig.events("order.reports", OrderEnded)
    assert [(one.status, one.code) for one in refused] == [(OrderStatus.REJECTED, "QMTL-723")] * 3
