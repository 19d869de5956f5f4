"""The laws of the edge to a venue: what it does once stays done once, whatever becomes of its transactions and processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.common.errors import VenueUnanswered
from qmtl.foundation.contracts.broker import (
    LookAtOrder,
    OrderAccepted,
    OrderEnded,
    OrderUnknown,
    PlaceOrder,
    SendOrder,
    SessionState,
    UseVenue,
)
from qmtl.foundation.contracts.trade import Fill, OrderStatus
from qmtl.services.egress.processor import CLAIM_S
from tests.engine.faults import Fault as CommitFault
from tests.services.egress.venue import Fault
from tests.services.oms.rig import Rig
from tests.services.oms.samples import a_gate, an_order

ORDER = an_order()
ID = ORDER.order_id


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def one(**settings: Any) -> Rig:
        made.append(Rig(tmp_path / str(len(made)), **settings))
        return made[-1]

    yield one
    for rig in made:
        rig.end()


def test_an_order_goes_out_once_and_what_became_of_it_comes_back(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER)
    assert rig.venue.submitted == {ID: 1}
    rig.venue.execute(ID, "4")
    rig.tick()
    rig.venue.execute(ID, "6")
    rig.tick()
    told = rig.events("order.reports")
    assert [type(one) for one in told] == [OrderAccepted, Fill, Fill]
    assert rig.rows("oms.attempts") == []
    rig.tick()
    assert rig.events("order.reports") == told


@pytest.mark.parametrize("fault", list(CommitFault)[1:])
@pytest.mark.parametrize("which", range(4))
def test_a_transaction_that_fails_after_the_venue_was_called_gives_the_same_answers_without_a_call(
    make: Callable[..., Rig], fault: CommitFault, which: int
) -> None:
    rig = make()
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER, settle=False)
    rig.plan.next = [CommitFault.NONE] * which + [fault]
    rig.settle()
    assert rig.plan.next == []
    assert rig.venue.submitted == {ID: 1}
    assert [type(one) for one in rig.events("order.reports")] == [OrderAccepted]


@pytest.mark.parametrize("steps", range(8))
def test_a_process_that_ends_between_any_two_steps_never_sends_twice(
    make: Callable[..., Rig], steps: int
) -> None:
    rig = make()
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER, settle=False)
    for at in range(steps):
        (rig.oms if at % 2 == 0 else rig.egress).step()
    rig.reopen()
    rig.settle()
    for _ in range(4):
        rig.tick()
    assert rig.venue.submitted.get(ID, 0) <= 1
    if ID in rig.venue.submitted:
        assert [type(one) for one in rig.events("order.reports")] == [OrderAccepted]
    else:  # claimed by the life before: nobody knows that it was not sent, until its time has passed
        (end,) = rig.events("order.reports")
        assert (end.status, end.code) == (OrderStatus.REJECTED, "QMTL-725")


def test_an_adapter_that_breaks_after_the_order_was_taken_does_not_send_it_again(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    rig.write("activation", a_gate())
    rig.venue.faults.append(Fault.BROKEN)
    rig.write("trade.orders", ORDER)
    assert rig.venue.submitted == {ID: 1}
    (unknown,) = rig.events("venue.reports", OrderUnknown)
    assert "KeyError" in unknown.detail
    assert rig.events("dead.letters") == []
    rig.tick()
    assert [type(one) for one in rig.events("order.reports")] == [OrderAccepted]


def test_what_another_has_claimed_is_not_sent(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.write("venue.requests", PlaceOrder("w", ORDER), SendOrder("w", ORDER, "somebody else"))
    assert (rig.venue.submitted, rig.events("venue.reports", OrderEnded)) == ({}, [])


def test_a_claim_is_good_for_one_send(make: Callable[..., Rig]) -> None:
    rig = make()
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER)
    rig.write("venue.requests", SendOrder("w", ORDER, rig.desk.claimant))  # as a letter that is written back
    assert rig.venue.submitted == {ID: 1}


@pytest.mark.parametrize(
    ("late_ms", "is_sent"), [(int(CLAIM_S * 1000), True), (int(CLAIM_S * 1000) + 1, False)]
)
def test_a_claim_that_is_answered_late_is_not_acted_on(
    make: Callable[..., Rig], late_ms: int, is_sent: bool
) -> None:
    rig = make()
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER, settle=False)
    while rig.oms.step():
        pass
    while rig.egress.step():
        pass
    rig.now_ms += late_ms
    rig.settle()
    assert (ID in rig.venue.submitted) is is_sent
    if not is_sent:
        (end,) = rig.events("order.reports")
        assert (end.status, end.code) == (OrderStatus.REJECTED, "QMTL-723")


@pytest.mark.parametrize(("age_ms", "code"), [(10_000, ""), (10_001, "QMTL-723")])
def test_what_is_too_old_is_not_sent(make: Callable[..., Rig], age_ms: int, code: str) -> None:
    rig = make(max_age_ms=10_000)
    rig.now_ms += age_ms
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER)
    assert (ID in rig.venue.submitted) is (not code)
    assert [one.code for one in rig.events("order.reports", OrderEnded)] == ([code] if code else [])


def test_without_a_venue_every_order_is_refused(make: Callable[..., Rig]) -> None:
    rig = make(has_venue=False)
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER)
    (end,) = rig.events("order.reports")
    assert (end.status, end.code) == (OrderStatus.REJECTED, "QMTL-722")
    (session,) = rig.rows("ops.sessions")
    assert (session.connected, session.code) == (False, "QMTL-722")


def test_while_the_venue_is_down_orders_are_refused_unsent_and_a_tick_finds_it_up(
    make: Callable[..., Rig],
) -> None:
    rig = make()
    rig.venue.down = VenueUnanswered("no answer.", "")
    rig.write("activation", a_gate())
    rig.write("trade.orders", ORDER)
    (end,) = rig.events("order.reports")
    assert (end.status, end.code, rig.venue.submitted) == (OrderStatus.REJECTED, "QMTL-721", {})
    (session,) = rig.rows("ops.sessions")
    assert (session.state, session.connected, session.code) == (SessionState.OPEN, False, "QMTL-721")
    rig.venue.down = None
    rig.tick()
    (session,) = rig.rows("ops.sessions")
    assert (session.connected, session.code, session.venue) == (True, "", "memory")
    rig.write("trade.orders", an_order(2))
    assert len(rig.venue.submitted) == 1


def test_worlds_share_a_connection_and_the_last_one_closes_it(make: Callable[..., Rig]) -> None:
    rig = make()
    for world, wanted in (("v", True), ("w", True), ("v", False)):
        rig.write("venue.requests", UseVenue(world, wanted))
    assert (rig.venue.times("connect"), rig.venue.times("close")) == (1, 0)
    rig.write("venue.requests", UseVenue("w", False))
    assert (rig.venue.times("connect"), rig.venue.times("close")) == (1, 1)
    rig.write("venue.requests", UseVenue("w", True))
    assert rig.venue.times("connect") == 2


def test_of_many_looks_that_wait_the_last_one_is_enough(make: Callable[..., Rig]) -> None:
    rig = make()
    looks = [LookAtOrder("w", an_order(number)) for number in (1, 2, 1, 1)]
    rig.write("venue.requests", *looks)
    assert [call for call in rig.venue.calls if call[0] == "find"] == [
        ("find", an_order(2).order_id),
        ("find", ID),
    ]
