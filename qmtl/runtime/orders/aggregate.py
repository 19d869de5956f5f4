"""An order: how it is placed, what can be asked of it, and what can still be filled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.evolving import changing, making
from qmtl.foundation.common.money import ZERO, minus, negated, text
from qmtl.foundation.contracts.trade import (
    BrokerMode,
    Order,
    OrderIntent,
    OrderLife,
    OrderRequest,
    OrderStatus,
    OrderTerms,
    OrderType,
    RequestKind,
    Side,
    TimeInForce,
)
from qmtl.runtime.orders.ids import order_id_of, origin_of, request_id_of
from qmtl.runtime.orders.states import ENDS, FILLED, SAID, UNFILLED_ENDS, told_of

_BARE: Final = OrderLife()

_placed: Final = making(
    Order,
    order_type=OrderType.MARKET,
    time_in_force=TimeInForce.GTC,
    status=OrderStatus.PENDING_NEW,
    cum_quantity=ZERO,
    average_price=ZERO,
    last_seq=0,
    terms=None,
    life=None,
)
_moved: Final = changing(Order, "status", "updated_at_ms", "cum_quantity", "average_price", "last_seq")


def place(
    intent: OrderIntent,
    side: Side,
    quantity: Decimal,
    reduce_only: bool,
    portfolio_bucket_ms: int,
    mode: BrokerMode = BrokerMode.PAPER,
    session: int = 1,
) -> Order:
    """A market order, good till cancelled, created at the close of the intent's bucket; no broker has said anything of it yet.

    Args:
        intent: as it stands on the log, not as the gate has limited it: its target is a part of the order id.
        quantity: unsigned, base currency.
        portfolio_bucket_ms: the cut of the portfolio that the size was computed on.
        mode, session: whose order it is.

    Raises:
        InvariantBroken: a quantity that is not positive.
    """
    if quantity <= 0:
        raise InvariantBroken(
            f"an order of {intent.symbol} was placed with the quantity {quantity}; it is positive."
        )
    return _placed(
        intent.world_id,
        intent.strategy_id,
        order_id_of(intent, side, session),
        intent.symbol,
        side,
        quantity,
        reduce_only,
        intent.reference_price,
        intent.bucket_ms,
        intent.bucket_ms,
        portfolio_bucket_ms,
        mode,
        session,
    )


# ---- what it is -----------------------------------------------------------------------------------------------------


def is_open(order: Order) -> bool:
    """Whether something more is awaited of it: a fill, or the answer to a request."""
    if order.life is None:
        return order.status not in ENDS and not _rests(order)
    return bool(order.life.requests) or (order.status not in ENDS and not _rests(order))


def remaining(order: Order) -> Decimal:
    """What can still be filled (LeavesQty): unsigned, 0 once the order has ended, and while a day order is done for the day."""
    if order.status in ENDS or _rests(order):
        return ZERO
    return minus(order.quantity, order.cum_quantity)


def pending(order: Order) -> Decimal:
    """What the order can still add to the position: signed."""
    left = remaining(order)
    return left if order.side is Side.BUY else negated(left)


def said_of(order: Order) -> tuple[OrderStatus, ...]:
    """The states that it is in by a report of their own, whether its status tells them or not."""
    first = (order.status,) if order.status in SAID else ()
    return first if order.life is None else first + order.life.hidden


def requests_of(order: Order) -> tuple[OrderRequest, ...]:
    """The requests without an answer, in the order in which they were made."""
    return () if order.life is None else order.life.requests


def _rests(order: Order) -> bool:
    """Done for the day as an order of that day, or settled for it."""
    if order.status is OrderStatus.NEW or order.status is OrderStatus.PARTIALLY_FILLED:
        return False
    said = said_of(order)
    if OrderStatus.CALCULATED in said:
        return True
    return OrderStatus.DONE_FOR_DAY in said and order.time_in_force is TimeInForce.DAY


def is_same(known: Order, again: Order) -> bool:
    """Whether an order under a known id is the known one, sent again; else its id is taken, and the known order goes on (FIX F.1.a, F.1.b)."""
    parts = [
        (one.world_id, one.strategy_id, one.order_id, one.symbol, one.side, one.order_type, one.time_in_force)
        for one in (known, again)
    ]
    return parts[0] == parts[1] and (known.quantity, known.terms) == (again.quantity, again.terms)


# ---- what is asked of it --------------------------------------------------------------------------------------------


def ask_cancel(order: Order, at_ms: int, request_id: str = "", *, acknowledged: bool = False) -> Order:
    """The order once its cancellation was asked for.

    Args:
        request_id: FIX 11 of the request; the id that follows from the log where it is empty.
        acknowledged: whoever asks has the answer already that it was taken up.

    Raises:
        InvariantBroken: the order has ended, or all of it is filled.
    """
    if order.status in ENDS or is_whole(order):
        raise InvariantBroken(f"order {order.order_id} was {order.status.value} and can't be cancelled.")
    return _asked(order, RequestKind.CANCEL, None, None, at_ms, request_id, acknowledged)


def ask_replace(
    order: Order,
    quantity: Decimal,
    at_ms: int,
    request_id: str = "",
    *,
    terms: OrderTerms | None = None,
    acknowledged: bool = False,
) -> Order:
    """The order once another quantity, or other terms, were asked for; a filled one is open again if it is accepted.

    Args:
        quantity: of the whole order, what is filled of it included.
        terms: None where they stay.

    Raises:
        InvariantBroken: a quantity that is not positive, or an order that ended unfilled.
    """
    if quantity <= 0:
        raise InvariantBroken(
            f"order {order.order_id} was to be of {text(quantity)}; a quantity is positive."
        )
    if order.status in UNFILLED_ENDS or not UNFILLED_ENDS.isdisjoint(said_of(order)):
        raise InvariantBroken(f"order {order.order_id} was {order.status.value} and can't be replaced.")
    return _asked(order, RequestKind.REPLACE, quantity, terms, at_ms, request_id, acknowledged)


def _asked(
    order: Order,
    kind: RequestKind,
    quantity: Decimal | None,
    terms: OrderTerms | None,
    at_ms: int,
    request_id: str,
    acknowledged: bool,
) -> Order:
    client_order_id = request_id or request_id_of(order)
    life = order.life or _BARE
    if any(one.client_order_id == client_order_id for one in life.requests):
        return order
    request = OrderRequest(
        client_order_id,
        origin_of(order),
        kind,
        quantity,
        terms,
        acknowledged,
        max(order.updated_at_ms, at_ms),
    )
    counted = replace(order, life=replace(life, asked=life.asked + 1))
    return changed(counted, at_ms, requests=(*life.requests, request))


# ---- what becomes of it ---------------------------------------------------------------------------------------------


def changed(
    order: Order,
    at_ms: int,
    *,
    said: Sequence[OrderStatus] | None = None,
    requests: tuple[OrderRequest, ...] | None = None,
    client_order_id: str | None = None,
    quantity: Decimal | None = None,
    cum_quantity: Decimal | None = None,
    average_price: Decimal | None = None,
    last_seq: int | None = None,
    terms: OrderTerms | None = None,
) -> Order:
    """The order with some of it changed, and its state as it follows from that; None leaves a part as it is.

    An end leaves nothing to ask for, a whole fill nothing to cancel: requests of that kind are over with it.
    """
    life = order.life or _BARE
    size = order.quantity if quantity is None else quantity
    filled = order.cum_quantity if cum_quantity is None else cum_quantity
    states = said_of(order) if said is None else tuple(dict.fromkeys(said))
    waiting = life.requests if requests is None else requests
    if not UNFILLED_ENDS.isdisjoint(states):
        states = tuple(one for one in states if one in UNFILLED_ENDS)
        waiting = ()
    elif filled and filled == size:
        waiting = tuple(one for one in waiting if one.kind is RequestKind.REPLACE)
    status = told_of(size, filled, states, waiting)
    after = OrderLife(
        life.client_order_id if client_order_id is None else client_order_id,
        waiting,
        life.asked,
        tuple(one for one in states if one is not status),
    )
    return replace(
        order,
        status=status,
        updated_at_ms=max(order.updated_at_ms, at_ms),
        quantity=size,
        cum_quantity=filled,
        average_price=order.average_price if average_price is None else average_price,
        last_seq=order.last_seq if last_seq is None else last_seq,
        terms=order.terms if terms is None else terms,
        life=None if after == _BARE else after,
    )


def moved(
    order: Order,
    status: OrderStatus,
    at_ms: int,
    cum_quantity: Decimal,
    average_price: Decimal,
    last_seq: int,
) -> Order:
    """A plain order in its next state: nearly every order goes this way and no other."""
    at_ms = at_ms if at_ms > order.updated_at_ms else order.updated_at_ms
    return _moved(order, status, at_ms, cum_quantity, average_price, last_seq)


def is_whole(order: Order) -> bool:
    """Whether all of it is filled, whatever its status tells."""
    return order.status is FILLED or (bool(order.cum_quantity) and order.cum_quantity == order.quantity)
