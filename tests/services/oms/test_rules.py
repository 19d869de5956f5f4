"""The laws of live orders: sent once at most, ended only when it is known, and each fill passed on once."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qmtl.engine.processor import Arrival
from qmtl.foundation.contracts.broker import (
    Attempt,
    AttemptState,
    BrokerSession,
    CancelOrder,
    LookAtOrder,
    OrderAbsent,
    OrderAccepted,
    OrderEnded,
    OrderUnknown,
    PlaceOrder,
    SendClaim,
    SendOrder,
    SessionState,
    VenueRequest,
    VenueStanding,
)
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, Side
from qmtl.foundation.contracts.world import Activation, EffectiveMode, PositionSide
from qmtl.runtime.orders.states import ENDS
from qmtl.services.egress.processor import CLAIM_S, Desk, Egress
from qmtl.services.oms.rules import (
    SETTLE_MS,
    Ruled,
    asked_now,
    blocked,
    on_order,
    on_report,
    seen,
    session_of,
    stands,
    was_seen,
)
from tests.services.egress.venue import WINDOW_MS, Fault, MemoryVenue
from tests.services.oms.samples import T0, a_fill, a_gate, an_attempt, an_order

S = AttemptState
OPEN, BLOCKED, CLOSED = SessionState.OPEN, SessionState.BLOCKED, SessionState.CLOSED


# ---- any story -----------------------------------------------------------------------------------------------------


class Emitted:
    """Takes what the egress emits."""

    def __init__(self) -> None:
        self.reports: list[Any] = []

    def emit(self, topic: str, message: Any) -> None:
        self.reports.append(message)


ids = st.integers(1, 2)


class AnyStory(RuleBasedStateMachine):
    """Two orders, a gate, a venue that may do anything, and senders that die at any time.

    What is asked and what is reported lies in two queues, as on the log; each is taken in order, and a sender's transaction may fail after
    the venue was reached. Time is one clock, and it may pass anywhere.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = T0
        self.venue = MemoryVenue(lambda: self.now_ms)
        self.known: dict[str, Attempt | None] = {}
        self.orders: dict[str, Order] = {}
        self.gate: Activation | None = a_gate()
        self.requests: deque[tuple[int, VenueRequest]] = deque()
        self.offset = self.lives = 0
        self.reports: deque[Any] = deque()
        self.said: list[Any] = []
        self.sends: Counter[str] = Counter()
        self.passed: dict[str, list[Any]] = {}
        self.new_sender()

    def new_sender(self) -> None:
        self.lives += 1
        self.desk = Desk(self.venue, f"life {self.lives}", 0, lambda: self.now_ms, lambda: self.now_ms / 1000)
        self.egress = Egress(self.desk)

    def why_not(self, order: Order) -> str:
        return blocked(order, self.gate, None)

    def apply(self, order_id: str, ruled: Ruled) -> None:
        self.known[order_id] = ruled.attempt
        for request in ruled.requests:
            if isinstance(request, SendOrder):
                self.sends[order_id] += 1
                assert not self.why_not(request.order)
            self.ask(request)
        told = self.passed.setdefault(order_id, [])
        for report in ruled.reports:
            assert not any(isinstance(one, OrderEnded) for one in told), "told after its end"
            told.append(report)
            if isinstance(report, OrderEnded):
                self.has_ended(order_id, report)
        fills = [one for one in told if isinstance(one, Fill)]
        is_over = any(isinstance(one, OrderEnded) for one in told) or (
            sum(one.quantity for one in fills) >= self.orders[order_id].quantity
        )
        assert (ruled.attempt is None) == is_over, "a row lives until an end or all fills were passed on"

    def has_ended(self, order_id: str, report: OrderEnded) -> None:
        assert not self.venue.is_open(order_id), f"{report} of an order that the venue works"
        assert order_id not in self.venue.on_its_way, f"{report} of an order that is on its way"
        found = self.venue.books.get(order_id)
        fills = [one for one in self.passed[order_id] if isinstance(one, Fill)]
        assert sum(one.quantity for one in fills) == (Decimal(0) if found is None else found.filled)

    def ask(self, request: VenueRequest) -> None:
        self.requests.append((self.offset, request))
        self.offset += 1

    # ---- what trading and people do

    @rule(number=ids, reduces=st.booleans())
    def place(self, number: int, reduces: bool) -> None:
        order = an_order(number, reduce_only=reduces)
        if order.order_id in self.orders:
            return
        self.orders[order.order_id] = order
        self.apply(order.order_id, on_order(order, None, self.why_not(order), T0, again=False))

    @rule(number=ids, status=st.sampled_from(OrderStatus))
    def echo(self, number: int, status: OrderStatus) -> None:
        """Trading writes the order with what it was told of it; its cancellation it may want at any time."""
        order = an_order(number)
        if order.order_id not in self.orders:
            return
        told = self.passed[order.order_id]
        ends = [one.status for one in told if isinstance(one, OrderEnded)]
        is_told = {
            OrderStatus.PENDING_NEW: self.known[order.order_id] is not None,
            OrderStatus.PENDING_CANCEL: True,
            OrderStatus.NEW: any(isinstance(one, OrderAccepted) for one in told),
            OrderStatus.PARTIALLY_FILLED: any(isinstance(one, Fill) for one in told),
        }.get(status, status in ends)
        if is_told:
            known = self.known[order.order_id]
            self.apply(
                order.order_id, on_order(an_order(number, status), known, self.why_not(order), T0, again=True)
            )

    @rule(
        gate=st.sampled_from(
            [
                a_gate(),
                a_gate(freeze=True),
                a_gate(active=False),
                a_gate(effective_mode=EffectiveMode.PAPER),
                None,
            ]
        )
    )
    def turn(self, gate: Activation | None) -> None:
        self.gate = gate

    # ---- what the two processes do

    @precondition(lambda self: self.requests)
    @rule(
        most=st.integers(1, 3),
        fault=st.sampled_from(Fault),
        becomes=st.sampled_from(["committed", "aborted", "dies"]),
    )
    def send(self, most: int, fault: Fault, becomes: str) -> None:
        step, taken = Emitted(), list(self.requests)[:most]
        self.venue.faults = deque([fault])
        for offset, request in taken:
            self.egress.on_record(step, Arrival("venue.requests", 0, offset, request))  # type: ignore[arg-type]
        self.egress.flush(step)  # type: ignore[arg-type]
        if becomes == "dies":
            self.new_sender()
        elif becomes == "aborted":
            self.egress = Egress(self.desk)
        else:
            for _ in taken:
                self.requests.popleft()
            self.reports += step.reports

    @precondition(lambda self: self.reports)
    @rule()
    def hear(self) -> None:
        self.tell(self.reports.popleft())

    @rule(data=st.data())
    def hear_again(self, data: st.DataObject) -> None:
        """As a letter that is written back, or a second look."""
        if self.said:
            self.tell(data.draw(st.sampled_from(self.said)))

    def tell(self, report: Any) -> None:
        self.said.append(report)
        if isinstance(report, VenueStanding):
            return
        known = self.known.get(report.order_id)
        why_not = "" if known is None else self.why_not(known.order)
        if report.order_id not in self.orders:
            return
        self.apply(report.order_id, on_report(report, known, why_not, T0))

    @rule()
    def tick(self) -> None:
        for request in asked_now([one for one in self.known.values() if one is not None]):
            self.ask(request)

    # ---- what the world does

    @rule(ms=st.sampled_from([1, 5_000, int(CLAIM_S * 1000), WINDOW_MS, SETTLE_MS + 1]), silent=st.booleans())
    def time_passes(self, ms: int, silent: bool) -> None:
        self.now_ms += ms
        self.venue.silent = silent
        for order_id, (sent_ms, _) in list(self.venue.on_its_way.items()):
            if self.now_ms - sent_ms > WINDOW_MS:
                self.venue.arrive(order_id)

    @rule(number=ids, quantity=st.integers(1, 10), lags=st.booleans())
    def trade(self, number: int, quantity: int, lags: bool) -> None:
        order_id = an_order(number).order_id
        if order_id in self.venue.on_its_way:
            self.venue.arrive(order_id)
        if self.venue.is_open(order_id):
            books = self.venue.books[order_id]
            self.venue.execute(order_id, min(Decimal(quantity), books.quantity - books.filled))
            books.told -= lags
        elif order_id in self.venue.books:
            self.venue.books[order_id].told = len(self.venue.books[order_id].executions)

    @rule(number=ids, status=st.sampled_from([OrderStatus.CANCELED, OrderStatus.EXPIRED]))
    def end(self, number: int, status: OrderStatus) -> None:
        self.venue.end(an_order(number).order_id, status)

    # ---- what always holds

    @invariant()
    def sent_once(self) -> None:
        assert all(times <= 1 for times in self.sends.values())
        assert all(times <= 1 for times in self.venue.submitted.values())
        assert set(self.venue.submitted) <= set(self.sends)

    @invariant()
    def fills_are_the_venues(self) -> None:
        for order_id, told in self.passed.items():
            fills = [one for one in told if isinstance(one, Fill)]
            assert [one.seq for one in fills] == list(range(1, len(fills) + 1))
            if fills:
                there = self.venue.books[order_id].executions[: len(fills)]
                assert [one.quantity for one in fills] == [one.quantity for one in there]


AnyStory.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAnyStory = AnyStory.TestCase


def test_every_order_comes_to_its_end_once_everything_answers_again() -> None:
    """Whatever a first send has met: what is taken is found, what was lost ends, and none is sent twice."""
    for fault in Fault:
        for becomes in ("committed", "aborted", "dies"):
            story = AnyStory()
            story.place(1, False)
            story.send(1, Fault.NONE, "committed")  # the claim
            story.hear()
            story.send(1, fault, becomes)
            for _ in range(4):
                story.time_passes(SETTLE_MS, False)
                story.tick()
                while story.requests:
                    story.send(3, Fault.NONE, "committed")
                while story.reports:
                    story.hear()
                story.trade(1, 10, False)
            assert story.known == {an_order().order_id: None}, (fault, becomes)
            assert story.passed[an_order().order_id]
            story.sent_once()


# ---- tables --------------------------------------------------------------------------------------------------------

ORDER = an_order()
ID = ORDER.order_id
ACCEPTED = OrderAccepted("w", ID, "v1", T0 + 5)
UNKNOWN = OrderUnknown("w", ID, "QMTL-721", "", T0 + 5)
CLAIM = SendClaim("w", ID, "me", T0)
ENDED = OrderEnded("w", ID, OrderStatus.EXPIRED, "", "", T0 + 5)


def absent(after_ms: int) -> OrderAbsent:
    return OrderAbsent("w", ID, T0 + after_ms)


SOON, LONG_AFTER = absent(SETTLE_MS), absent(SETTLE_MS + 1)
SENT = (SendOrder("w", ORDER, "me"),)

ON_REPORT: list[tuple[AttemptState, Any, AttemptState | None, tuple[Any, ...], tuple[Any, ...]]] = [
    # given, when, then: the state, the requests, the reports
    (S.REQUESTED, CLAIM, S.CLAIMED, SENT, ()),
    (S.CLAIMED, CLAIM, S.CLAIMED, (), ()),
    (S.UNKNOWN, CLAIM, S.UNKNOWN, (), ()),
    (S.WORKING, CLAIM, S.WORKING, (), ()),
    (S.REQUESTED, ACCEPTED, S.WORKING, (), (ACCEPTED,)),
    (S.CLAIMED, ACCEPTED, S.WORKING, (), (ACCEPTED,)),
    (S.UNKNOWN, ACCEPTED, S.WORKING, (), (ACCEPTED,)),
    (S.WORKING, ACCEPTED, S.WORKING, (), ()),
    *((state, ENDED, None, (), (ENDED,)) for state in S),
    (S.REQUESTED, UNKNOWN, S.REQUESTED, (), ()),
    (S.CLAIMED, UNKNOWN, S.UNKNOWN, (), ()),
    (S.UNKNOWN, UNKNOWN, S.UNKNOWN, (), ()),
    (S.WORKING, UNKNOWN, S.WORKING, (), ()),
    (S.REQUESTED, LONG_AFTER, S.REQUESTED, (), ()),
    (S.WORKING, LONG_AFTER, S.WORKING, (), ()),
    (S.CLAIMED, SOON, S.UNKNOWN, (), ()),
    (S.UNKNOWN, SOON, S.UNKNOWN, (), ()),
    *((state, a_fill(1), S.WORKING, (), (a_fill(1),)) for state in S),
    *((state, a_fill(2), state, (), ()) for state in S),
    *((state, a_fill(1, "10"), None, (), (a_fill(1, "10"),)) for state in S),
]


@pytest.mark.parametrize(("given_", "when", "state", "requests", "reports"), ON_REPORT)
def test_what_a_report_makes_of_an_attempt(
    given_: AttemptState, when: Any, state: AttemptState | None, requests: Any, reports: Any
) -> None:
    ruled = on_report(when, an_attempt(given_), "", T0)
    assert (None if ruled.attempt is None else ruled.attempt.state) is state
    assert (ruled.requests, ruled.reports) == (requests, reports)


@pytest.mark.parametrize("state", [S.CLAIMED, S.UNKNOWN])
def test_what_the_venue_does_not_have_long_after_the_claim_never_arrived(state: AttemptState) -> None:
    ruled = on_report(LONG_AFTER, an_attempt(state), "", T0)
    assert ruled.attempt is None
    (end,) = ruled.reports
    assert isinstance(end, OrderEnded)
    assert (end.status, end.code, end.order_id) == (OrderStatus.REJECTED, "QMTL-725", ID)


def test_no_request_can_arrive_after_its_absence_counts() -> None:
    """A send comes at most so long after its claim, and a request lives for so long."""
    assert CLAIM_S * 1000 + WINDOW_MS < SETTLE_MS


@pytest.mark.parametrize("report", [CLAIM, ACCEPTED, UNKNOWN, ENDED, LONG_AFTER])
def test_a_report_of_what_is_not_known_changes_nothing(report: Any) -> None:
    assert on_report(report, None, "", T0) == Ruled(None)


def test_a_fill_of_an_order_that_is_forgotten_is_passed_on() -> None:
    assert on_report(a_fill(1), None, "", T0) == Ruled(None, reports=(a_fill(1),))


def test_a_claim_remembers_when_it_was_made() -> None:
    late = replace(CLAIM, at_ms=T0 + 7)
    ruled = on_report(late, an_attempt(S.REQUESTED), "", T0)
    assert ruled.attempt == an_attempt(S.CLAIMED, claimed_ms=T0 + 7)


def test_a_claim_of_what_is_blocked_by_now_ends_it_unsent() -> None:
    ruled = on_report(CLAIM, an_attempt(S.REQUESTED), "long version 2 is frozen", T0 + 60_000)
    assert (ruled.attempt, ruled.requests) == (None, ())
    assert ruled.reports == (
        OrderEnded("w", ID, OrderStatus.REJECTED, "QMTL-724", "long version 2 is frozen", T0 + 60_000),
    )


def test_what_is_found_while_its_cancellation_waits_is_cancelled() -> None:
    known = an_attempt(S.UNKNOWN, canceling=True)
    assert on_report(ACCEPTED, known, "", T0).requests == (CancelOrder("w", ORDER),)


def test_what_was_filled_is_kept_with_the_attempt() -> None:
    ruled = on_report(a_fill(1, "4"), an_attempt(S.WORKING), "", T0)
    assert ruled.attempt is not None
    assert (ruled.attempt.last_seq, ruled.attempt.order.cum_quantity) == (1, Decimal(4))
    ruled = on_report(a_fill(2, "6"), ruled.attempt, "", T0)
    assert (ruled.attempt, len(ruled.reports)) == (None, 1)


@pytest.mark.parametrize("state", [None, *S])
@pytest.mark.parametrize("why_not", ["", "frozen"])
def test_a_new_order_is_asked_for_once_and_only_if_it_may(state: AttemptState | None, why_not: str) -> None:
    known = None if state is None else an_attempt(state)
    ruled = on_order(ORDER, known, why_not, T0, again=False)
    if known is not None:
        assert ruled == Ruled(known)
    elif why_not:
        assert ruled == Ruled(None, (), (OrderEnded("w", ID, OrderStatus.REJECTED, "QMTL-724", why_not, T0),))
    else:
        assert ruled == Ruled(an_attempt(S.REQUESTED), (PlaceOrder("w", ORDER),))


CANCEL = an_order(status=OrderStatus.PENDING_CANCEL)


def test_the_cancellation_of_what_was_never_sent_ends_it_at_once() -> None:
    ruled = on_order(CANCEL, an_attempt(S.REQUESTED), "frozen", T0, again=True)
    assert (ruled.attempt, ruled.requests) == (None, ())
    assert ruled.reports == (OrderEnded("w", ID, OrderStatus.CANCELED, "", "it was not sent", T0),)
    assert on_report(CLAIM, None, "", T0).requests == ()


def test_a_cancellation_waits_until_the_venue_is_known_to_have_the_order() -> None:
    for state in (S.CLAIMED, S.UNKNOWN):
        asked = an_attempt(state, canceling=True)
        assert on_order(CANCEL, an_attempt(state), "frozen", T0, again=True) == Ruled(asked)
        assert asked_now([asked]) == [LookAtOrder("w", ORDER)]
    asked = an_attempt(S.WORKING, canceling=True)
    cancel = CancelOrder("w", ORDER)
    assert on_order(CANCEL, an_attempt(S.WORKING), "frozen", T0, again=True) == Ruled(asked, (cancel,))
    assert asked_now([asked]) == [cancel]  # again at each tick, until its end is told
    assert on_order(CANCEL, None, "", T0, again=True) == Ruled(None)  # it has ended
    never = on_order(
        CANCEL, None, "", T0, again=False
    )  # its first row was compacted away before anybody saw it
    assert never == Ruled(
        None, reports=(OrderEnded("w", ID, OrderStatus.CANCELED, "", "it was not sent", T0),)
    )


def test_an_order_that_is_read_again_after_its_end_is_not_sent_again() -> None:
    ruled = on_order(ORDER, None, "", T0, again=True)
    assert ruled.attempt is None
    assert ruled.requests == ()
    (report,) = ruled.reports
    assert isinstance(report, OrderEnded)
    assert (report.status, report.code) == (OrderStatus.REJECTED, "QMTL-723")


@given(buckets=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 3)), max_size=12))
def test_what_was_seen_is_known_by_its_bucket_and_its_id(buckets: list[tuple[int, int]]) -> None:
    """Orders come bucket by bucket, and any beginning of them may come again."""
    stream = sorted(set(buckets))
    orders = [
        replace(an_order(number), order_id=f"{at}-{number}", created_at_ms=T0 + at) for at, number in stream
    ]
    session: BrokerSession | None = None
    for order in orders:
        assert not was_seen(order, session)
        session = seen(order, session)
        assert was_seen(order, session)
    assert all(was_seen(order, session) for order in orders)


@pytest.mark.parametrize("status", list(OrderStatus))
@pytest.mark.parametrize("state", [None, *S])
def test_an_echo_changes_nothing_but_that_what_has_ended_is_not_sent(
    state: AttemptState | None, status: OrderStatus
) -> None:
    if status in (OrderStatus.PENDING_NEW, OrderStatus.PENDING_CANCEL):
        return
    known = None if state is None else an_attempt(state)
    has_ended = status in ENDS
    gone = state is S.REQUESTED and has_ended
    assert on_order(an_order(status=status), known, "", T0, again=True) == Ruled(None if gone else known)


def test_at_a_tick_everything_that_may_be_there_is_asked_for_in_its_order() -> None:
    orders = [an_order(number) for number in range(4)]
    attempts = [an_attempt(state, order) for state, order in zip(S, orders, strict=True)]
    assert asked_now(attempts) == [LookAtOrder("w", order) for order in orders[1:]]


L, R = a_gate(), a_gate(PositionSide.SHORT)
SELL = replace(ORDER, side=Side.SELL)
REDUCING = replace(ORDER, reduce_only=True)


@pytest.mark.parametrize(
    ("order", "long", "short", "why"),
    [
        (ORDER, L, None, ""),
        (ORDER, L, R, ""),
        (SELL, None, R, ""),
        (ORDER, None, R, "no activation of long"),
        (SELL, L, None, "no activation of short"),
        (ORDER, None, None, "no activation of long"),
        (ORDER, replace(L, active=False), R, "inactive"),
        (ORDER, replace(L, weight=Decimal(0)), R, "weight 0"),
        (ORDER, replace(L, effective_mode=EffectiveMode.PAPER), R, "paper"),
        (SELL, L, replace(R, effective_mode=EffectiveMode.SHADOW), "shadow"),
        (ORDER, replace(L, freeze=True), R, "long version 1 is frozen"),
        (ORDER, L, replace(R, freeze=True), "short version 1 is frozen"),
        (ORDER, L, replace(R, drain=True), "short version 1 is draining"),
        (REDUCING, replace(L, freeze=True), None, "frozen"),
        (REDUCING, L, replace(R, drain=True), "draining"),
        (REDUCING, replace(L, active=False), None, ""),
        (REDUCING, replace(L, effective_mode=EffectiveMode.PAPER), R, ""),
        (REDUCING, None, None, ""),
    ],
)
def test_what_stops_an_order(
    order: Order, long: Activation | None, short: Activation | None, why: str
) -> None:
    found = blocked(order, long, short)
    assert bool(found) == bool(why)
    assert why in found


# ---- the connection ------------------------------------------------------------------------------------------------

LIVE = [a_gate(etag="act:w:s:long:4")]
PAPER = [a_gate(effective_mode=EffectiveMode.PAPER)]


def a_session(state: SessionState, number: int = 3, connected: bool = True) -> BrokerSession:
    return BrokerSession("w", number, state, "as it was", "memory", connected, "QMTL-720", "down", T0)


@pytest.mark.parametrize(
    ("was", "gates", "has_open", "then", "number"),
    [
        (None, LIVE, False, OPEN, 1),
        (None, PAPER, False, None, 0),
        (None, [], False, None, 0),
        (None, PAPER, True, BLOCKED, 1),
        (CLOSED, LIVE, False, OPEN, 4),
        (CLOSED, PAPER, True, BLOCKED, 4),
        (CLOSED, PAPER, False, None, 3),
        (OPEN, LIVE, True, None, 3),
        (OPEN, PAPER, True, BLOCKED, 3),
        (OPEN, PAPER, False, CLOSED, 3),
        (BLOCKED, LIVE, True, OPEN, 3),
        (BLOCKED, PAPER, True, None, 3),
        (BLOCKED, PAPER, False, CLOSED, 3),
        (OPEN, [replace(LIVE[0], freeze=True)], False, CLOSED, 3),
        (OPEN, [replace(LIVE[0], drain=True)], True, BLOCKED, 3),
        (OPEN, [replace(LIVE[0], weight=Decimal(0))], False, CLOSED, 3),
        (OPEN, [replace(LIVE[0], active=False)], False, CLOSED, 3),
        (OPEN, [*PAPER, replace(LIVE[0], strategy_id="t")], False, None, 3),
    ],
)
def test_what_the_session_of_a_world_becomes(
    was: SessionState | None,
    gates: list[Activation],
    has_open: bool,
    then: SessionState | None,
    number: int,
) -> None:
    known = None if was is None else a_session(was)
    found = session_of("w", gates, has_open, known, T0 + 1)
    if then is None:
        assert found is None
        return
    assert found is not None
    assert (found.state, found.number, found.changed_ms) == (then, number, T0 + 1)
    assert (found.code, found.detail) == ("", "")
    if then is OPEN:
        assert found.reason == "act:w:s:long:4"


gates_ = st.lists(
    st.builds(
        a_gate,
        st.sampled_from(PositionSide),
        strategy_id=st.sampled_from(["s", "t"]),
        active=st.booleans(),
        weight=st.sampled_from([Decimal(0), Decimal(1)]),
        freeze=st.booleans(),
        drain=st.booleans(),
        effective_mode=st.sampled_from(EffectiveMode),
    ),
    max_size=4,
    unique_by=lambda row: (row.strategy_id, row.side),
)


@given(st.lists(st.tuples(gates_, st.booleans()), max_size=8))
def test_a_session_is_open_exactly_while_a_gate_lets_out_and_its_number_counts_its_openings(
    story: list[tuple[list[Activation], bool]],
) -> None:
    known: BrokerSession | None = None
    opened = 0
    for gates, has_open in story:
        was = CLOSED if known is None else known.state
        known = session_of("w", gates, has_open, known, T0) or known
        state = CLOSED if known is None else known.state
        sides = {(row.strategy_id, row.side): row for row in gates}
        lets_out = any(
            not blocked(
                replace(ORDER, side=side),
                sides.get((name, PositionSide.LONG)),
                sides.get((name, PositionSide.SHORT)),
            )
            for name in ("s", "t")
            for side in Side
        )
        assert (state is OPEN) == lets_out
        assert (state is BLOCKED) == (has_open and not lets_out)
        opened += was is CLOSED and state is not CLOSED
        assert (0 if known is None else known.number) == opened
        assert session_of("w", gates, has_open, known, T0) is None


def test_the_venues_side_says_whether_it_is_connected() -> None:
    said = VenueStanding("w", "v", False, "QMTL-721", "no answer", T0 + 9)
    before = a_session(OPEN)
    assert stands(before, said) == replace(
        before, venue="v", connected=False, code="QMTL-721", detail="no answer"
    )
