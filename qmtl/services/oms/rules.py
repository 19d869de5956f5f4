"""What the order management system decides: which live order goes to the venue, what its answers mean, and when the connection is needed.

An order is sent at most once. The one who would send it claims it first; it is told to send only once the claim is on the log, and only if the gates that this
task has seen by then still let the order out. From its claim on an order may be at the venue. What has no clear answer is asked for, never sent again: `SETTLE_MS`
after the claim no request of that time can be on its way any more, and an order that the venue does not have by then never arrived. Both times are
of the sender's clock, as it has written them: a task that catches up takes no shorter waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, assert_never

from qmtl.foundation.common.errors import OrderBlocked, OrderNeverArrived, OrderTooOld
from qmtl.foundation.common.money import text, total
from qmtl.foundation.contracts.broker import (
    Attempt,
    AttemptState,
    BrokerSession,
    CancelOrder,
    LookAtOrder,
    OrderAbsent,
    OrderAccepted,
    OrderEnded,
    OrderReport,
    OrderUnknown,
    PlaceOrder,
    SendClaim,
    SendOrder,
    SessionState,
    VenueRequest,
    VenueStanding,
)
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, Side
from qmtl.foundation.contracts.world import Activation, EffectiveMode

SETTLE_MS: Final = 120_000
"""So long after a claim no request can be on its way: the claim is good for half a minute, and a venue refuses a request that is older than its window,
at most a minute anywhere; the rest is for clocks that differ."""

Whose: TypeAlias = tuple[str, str]
"""World id, strategy id."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """What follows from something.

    Attributes:
        attempt: the row from now on; None where there is none any more.
        requests: to the venue's side, in this order.
        reports: to trading, in this order.
    """

    attempt: Attempt | None
    requests: tuple[VenueRequest, ...] = ()
    reports: tuple[OrderReport, ...] = ()


# ---- orders ---------------------------------------------------------------------------------------------------------


def blocked(order: Order, long: Activation | None, short: Activation | None) -> str:
    """Why an order may not go out now; empty where it may.

    A frozen or draining side stops everything. What only reduces goes out beside that. All else needs the gate of the side that it opens: active,
    live, with a weight above 0.
    """
    for row in (long, short):
        if row is not None and (row.freeze or row.drain):
            return f"{row.side.value} version {row.version} is {'frozen' if row.freeze else 'draining'}"
    if order.reduce_only:
        return ""
    side, name = (long, "long") if order.side is Side.BUY else (short, "short")
    if side is None:
        return f"no activation of {name}"
    if not (side.active and side.weight > 0 and side.effective_mode is EffectiveMode.LIVE):
        state = "active" if side.active else "inactive"
        return f"{name} version {side.version} is {state}, weight {text(side.weight)}, {side.effective_mode.value}"
    return ""


def was_seen(order: Order, session: BrokerSession | None) -> bool:
    """Whether a new order has been here before, as where its topic is read again from the beginning: orders of a world come bucket by bucket."""
    if session is None or order.created_at_ms > session.newest_ms:
        return False
    return order.created_at_ms < session.newest_ms or order.order_id in session.newest


def seen(order: Order, session: BrokerSession | None) -> BrokerSession:
    """The session once a new order was seen."""
    world_id = order.world_id
    known = session or BrokerSession(world_id, 0, SessionState.CLOSED, "", "", False, "", "", 0)
    ids = known.newest if order.created_at_ms == known.newest_ms else ()
    return replace(known, newest_ms=order.created_at_ms, newest=(*ids, order.order_id))


def on_order(order: Order, known: Attempt | None, why_not: str, now_ms: int, *, again: bool) -> Ruled:
    """A live order as trading has just written it, or has written it before.

    Args:
        known: what is attempted of it.
        why_not: what `blocked` says.
        now_ms: the newest bucket.
        again: what `was_seen` says.
    """
    match order.status:
        case OrderStatus.PENDING_NEW:
            if known is not None:
                return Ruled(known)
            if (
                again
            ):  # it has ended: who has it open all the same is told so, and nothing is sent a second time
                why = "it was seen before, and is not attempted any more"
                return Ruled(
                    None, reports=(_ended(order, OrderStatus.REJECTED, OrderTooOld.code, why, now_ms),)
                )
            if why_not:
                return Ruled(None, reports=(_blocked(order, why_not, now_ms),))
            fresh = Attempt(order, AttemptState.REQUESTED, 0, "", 0, False)
            return Ruled(fresh, (PlaceOrder(order.world_id, order),))
        case OrderStatus.PENDING_CANCEL:
            if known is None and again:
                return Ruled(None)  # it has ended, and its end was told
            if known is None or known.state is AttemptState.REQUESTED:
                # Nobody has sent it, and nobody will: a claim finds no row.
                gone = _ended(order, OrderStatus.CANCELED, "", "it was not sent", now_ms)
                return Ruled(None, reports=(gone,))
            asked = replace(known, canceling=True)
            is_there = known.state is AttemptState.WORKING
            return Ruled(asked, (CancelOrder(order.world_id, known.order),) if is_there else ())
        case (
            OrderStatus.NEW
            | OrderStatus.PARTIALLY_FILLED
            | OrderStatus.PENDING_REPLACE
            | OrderStatus.STOPPED
            | OrderStatus.SUSPENDED
            | OrderStatus.DONE_FOR_DAY
            | OrderStatus.CALCULATED
            | OrderStatus.ACCEPTED_FOR_BIDDING
        ):
            return Ruled(known)  # the echo of what was reported
        case OrderStatus.FILLED | OrderStatus.CANCELED | OrderStatus.REJECTED | OrderStatus.EXPIRED:
            if known is not None and known.state is AttemptState.REQUESTED:
                return Ruled(None)  # nobody waits for it any more: it is not sent after its end
            return Ruled(known)  # likewise
        case _:
            assert_never(order.status)


def on_report(
    report: SendClaim | OrderAccepted | Fill | OrderEnded | OrderUnknown | OrderAbsent,
    known: Attempt | None,
    why_not: str,
    now_ms: int,
) -> Ruled:
    """What the venue's side has said of an order; of one that has ended, or is not known, it changes nothing, and a fill is passed on.

    Trading knows each fill by its number, so one that comes again does nothing there, and one that comes late is booked.

    Args:
        why_not: what `blocked` says of the order now.
        now_ms: the newest bucket.
    """
    if known is None:
        return Ruled(None, reports=(report,) if isinstance(report, Fill) else ())
    order = known.order
    match report:
        case SendClaim():
            if known.state is not AttemptState.REQUESTED:
                return Ruled(known)  # there is a claim, and it may have been acted on
            if why_not:
                return Ruled(None, reports=(_blocked(order, why_not, now_ms),))
            claimed = replace(known, state=AttemptState.CLAIMED, claimed_ms=report.at_ms)
            return Ruled(claimed, (SendOrder(order.world_id, order, report.claimant),))
        case OrderAccepted():
            if known.state is AttemptState.WORKING:
                return Ruled(known)
            works = replace(known, state=AttemptState.WORKING, venue_order_id=report.venue_order_id)
            asks = (CancelOrder(order.world_id, order),) if known.canceling else ()
            return Ruled(works, asks, (report,))
        case Fill():
            return _on_fill(report, known)
        case OrderEnded():
            return Ruled(None, reports=(report,))
        case OrderUnknown():
            is_unsure = known.state is AttemptState.CLAIMED
            return Ruled(replace(known, state=AttemptState.UNKNOWN) if is_unsure else known)
        case OrderAbsent():
            return _on_absence(report, known, now_ms)
        case _:
            assert_never(report)


def _on_fill(fill: Fill, known: Attempt) -> Ruled:
    """Fills are passed on in their order, each once; one that came early is told again at the next look."""
    if fill.seq != known.last_seq + 1:
        return Ruled(known)
    order = replace(known.order, cum_quantity=total((known.order.cum_quantity, fill.quantity)))
    # A fill proves that the venue has it, whatever became of the answer that was to say so.
    passed = replace(known, state=AttemptState.WORKING, last_seq=fill.seq, order=order)
    is_whole = order.cum_quantity >= order.quantity
    return Ruled(None if is_whole else passed, reports=(fill,))


def _on_absence(report: OrderAbsent, known: Attempt, now_ms: int) -> Ruled:
    match known.state:
        case AttemptState.REQUESTED:
            return Ruled(known)  # nobody has sent it
        case AttemptState.WORKING:
            return Ruled(known)  # it was there: what has become of it is not for us to make up
        case AttemptState.CLAIMED | AttemptState.UNKNOWN:
            after_ms = report.at_ms - known.claimed_ms
            if after_ms <= SETTLE_MS:
                return Ruled(replace(known, state=AttemptState.UNKNOWN))
            detail = f"the venue does not have it {after_ms} ms after it was claimed"
            gone = _ended(known.order, OrderStatus.REJECTED, OrderNeverArrived.code, detail, now_ms)
            return Ruled(None, reports=(gone,))
        case _:
            assert_never(known.state)


def asked_now(attempts: Iterable[Attempt]) -> list[VenueRequest]:
    """What is asked of the venue at a tick: of every order that may be there, what has become of it."""
    out: list[VenueRequest] = []
    for one in attempts:
        match one.state:
            case AttemptState.REQUESTED:
                continue
            case AttemptState.CLAIMED | AttemptState.UNKNOWN:
                out.append(LookAtOrder(one.order.world_id, one.order))
            case AttemptState.WORKING:
                asks = CancelOrder if one.canceling else LookAtOrder
                out.append(asks(one.order.world_id, one.order))
            case _:
                assert_never(one.state)
    return out


def _blocked(order: Order, why: str, at_ms: int) -> OrderEnded:
    return _ended(order, OrderStatus.REJECTED, OrderBlocked.code, why, at_ms)


def _ended(order: Order, status: OrderStatus, code: str, detail: str, at_ms: int) -> OrderEnded:
    return OrderEnded(order.world_id, order.order_id, status, code, detail, at_ms)


# ---- the connection -------------------------------------------------------------------------------------------------


def session_of(
    world_id: str,
    gates: Sequence[Activation],
    has_open: bool,
    known: BrokerSession | None,
    now_ms: int,
) -> BrokerSession | None:
    """The session of a world as its gates and its orders want it; None where it stays as it is.

    Args:
        gates: of the world.
        has_open: whether an order is at the venue or on the way to it.
    """
    stopped = {row.strategy_id for row in gates if row.freeze or row.drain}
    live = next((row for row in gates if row.strategy_id not in stopped and _is_live(row)), None)
    if live is not None:
        state, reason = SessionState.OPEN, live.etag
    elif has_open:
        state, reason = SessionState.BLOCKED, "orders are open and no gate is live"
    else:
        state, reason = SessionState.CLOSED, "no gate is live"
    was = SessionState.CLOSED if known is None else known.state
    if state is was:
        return None
    before = known or BrokerSession(world_id, 0, was, "", "", False, "", "", now_ms)
    opens = was is SessionState.CLOSED
    return replace(
        before,
        number=before.number + opens,
        state=state,
        reason=reason,
        code="",
        detail="",
        changed_ms=now_ms,
    )


def _is_live(row: Activation) -> bool:
    return row.active and row.weight > 0 and row.effective_mode is EffectiveMode.LIVE


def stands(known: BrokerSession, said: VenueStanding) -> BrokerSession:
    """The session after the venue's side has said whether it is connected."""
    return replace(known, venue=said.venue, connected=said.connected, code=said.code, detail=said.detail)
