"""The life of an order: how it is placed, what a fill makes of it, and which states may follow each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Final, TypeAlias, assert_never

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.evolving import changing, making
from qmtl.foundation.common.identity import client_order_id
from qmtl.foundation.common.money import ZERO, minus, negated, plus, product, quotient, text, total
from qmtl.foundation.contracts.broker import OrderAccepted, OrderEnded
from qmtl.foundation.contracts.trade import (
    BrokerMode,
    Fill,
    Order,
    OrderIntent,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)

PRICE_PLACES = 18
"""Digits after the point to which the average price of several fills is rounded, half-even."""

_ENDS: Final = frozenset(
    {OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.REJECTED, OrderStatus.EXPIRED}
)

_UNFILLED_ENDS: Final = _ENDS - {OrderStatus.FILLED}

NEXT: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.PENDING_NEW: _ENDS
    | {OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED, OrderStatus.PENDING_CANCEL},
    OrderStatus.NEW: _ENDS | {OrderStatus.PARTIALLY_FILLED, OrderStatus.PENDING_CANCEL},
    OrderStatus.PARTIALLY_FILLED: (_ENDS - {OrderStatus.REJECTED})
    | {OrderStatus.PARTIALLY_FILLED, OrderStatus.PENDING_CANCEL},
    OrderStatus.PENDING_CANCEL: _ENDS | {OrderStatus.PENDING_CANCEL},
    OrderStatus.FILLED: frozenset(),
    OrderStatus.CANCELED: frozenset(),
    OrderStatus.REJECTED: frozenset(),
    OrderStatus.EXPIRED: frozenset(),
}
"""Which state may follow which: FIX 5.0 SP2 Volume 4, order state change matrices, without busts and replacements.

A fill may overtake the acknowledgement, hence the row of `PENDING_NEW`. An order that is partly filled while its cancellation
is awaited stays `PENDING_CANCEL`, and one that never reached its venue is rejected out of it. The last four absorb.
"""


_placed: Final = making(
    Order,
    order_type=OrderType.MARKET,
    time_in_force=TimeInForce.GTC,
    status=OrderStatus.PENDING_NEW,
    cum_quantity=ZERO,
    average_price=ZERO,
    last_seq=0,
    terms=None,
)
_moved: Final = changing(Order, "status", "updated_at_ms")
_filled: Final = changing(Order, "status", "updated_at_ms", "cum_quantity", "average_price", "last_seq")


class Rule(Enum):
    """Which rule a fill broke; the value is the wire text."""

    ALIEN = "alien"
    INVALID = "invalid"
    GAP = "gap"
    ENDED = "ended"
    OVERFILL = "overfill"


@dataclass(frozen=True, slots=True)
class Applied:
    """The fill counts: the order after it."""

    order: Order


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The fill was applied before: nothing changes."""

    order: Order


@dataclass(frozen=True, slots=True)
class Conflict:
    """The fill can't be applied: nothing changes, and somebody has to look.

    Attributes:
        detail: the numbers that broke the rule.
    """

    order: Order
    rule: Rule
    detail: str


FillOutcome: TypeAlias = Applied | Duplicate | Conflict


def order_id_of(intent: OrderIntent, side: Side, session: int = 1) -> str:
    """The id of the order that an intent leads to: a function of the intent, the side and the order session alone, 32 hex digits."""
    return client_order_id(
        intent.world_id,
        intent.strategy_id,
        intent.symbol,
        side.value,
        intent.bucket_ms,
        intent.target_percent,
        intent.intent_index,
        session,
    )


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


def is_open(order: Order) -> bool:
    """Whether the order can still be filled."""
    return bool(NEXT[order.status])


def remaining(order: Order) -> Decimal:
    """What can still be filled: unsigned, 0 once the order has ended."""
    return minus(order.quantity, order.cum_quantity) if is_open(order) else ZERO


def pending(order: Order) -> Decimal:
    """What the order can still add to the position: signed."""
    left = remaining(order)
    return left if order.side is Side.BUY else negated(left)


def transition(order: Order, status: OrderStatus, at_ms: int) -> Order:
    """The order in its next state.

    Raises:
        InvariantBroken: a state that may not follow the present one.
    """
    if status not in NEXT[order.status]:
        allowed = ", ".join(sorted(following.value for following in NEXT[order.status])) or "nothing"
        raise InvariantBroken(
            f"order {order.order_id} was {order.status.value} and can't become {status.value}; {allowed} may follow."
        )
    return _moved(order, status, at_ms)


def told(order: Order, report: OrderAccepted | OrderEnded) -> Order:
    """The order after a report that is no fill; one that says nothing new, or comes to an order that has ended, changes nothing.

    Raises:
        InvariantBroken: an end that its state does not allow.
    """
    match report:
        case OrderAccepted():
            if order.status is not OrderStatus.PENDING_NEW:
                return order
            return transition(order, OrderStatus.NEW, max(order.updated_at_ms, report.at_ms))
        case OrderEnded():
            if not is_open(order):
                return order
            if report.status not in _UNFILLED_ENDS:
                raise InvariantBroken(
                    f"order {order.order_id} was said to have ended as {report.status.value}; only its fills can say that."
                )
            return transition(order, report.status, max(order.updated_at_ms, report.at_ms))
        case _:
            assert_never(report)


def apply_fill(order: Order, fill: Fill) -> FillOutcome:
    """What one fill makes of an order, whatever was delivered before.

    A fill is known by (order id, seq). The next number counts, an earlier one counted before, a later one leaves a hole that
    has to be closed first: delivered again after its predecessors, it counts. Whether a number that recurs says something else
    than the first time is not seen here: the order keeps no fills. Who keeps them compares.

    An order that ended unfilled refuses a late fill as `ENDED`; it is for the caller to book it under a record of its own.
    """
    if _identity(fill) != _identity(order):
        return Conflict(order, Rule.ALIEN, f"fill of {_identity(fill)} met order of {_identity(order)}")
    if fill.seq <= 0 or fill.quantity <= 0 or fill.price <= 0:
        detail = f"seq {fill.seq}, quantity {text(fill.quantity)}, price {text(fill.price)}: each is positive"
        return Conflict(order, Rule.INVALID, detail)
    if fill.seq <= order.last_seq:
        return Duplicate(order)
    if fill.seq > order.last_seq + 1:
        return Conflict(order, Rule.GAP, f"fill {fill.seq} came, {order.last_seq + 1} is awaited")
    cum_quantity = plus(order.cum_quantity, fill.quantity)
    if cum_quantity > order.quantity:
        detail = f"fill {fill.seq} of {text(fill.quantity)} makes {text(cum_quantity)} of ordered {text(order.quantity)}"
        return Conflict(order, Rule.OVERFILL, detail)
    if not is_open(order):
        return Conflict(
            order,
            Rule.ENDED,
            f"fill {fill.seq} of {text(fill.quantity)} came to an order {order.status.value}",
        )
    if cum_quantity == order.quantity:
        status = OrderStatus.FILLED
    elif order.status is OrderStatus.PENDING_CANCEL:  # FIX: what is awaited goes before what was filled of it
        status = order.status
    else:
        status = OrderStatus.PARTIALLY_FILLED
    return Applied(
        _filled(
            order,
            status,
            max(order.updated_at_ms, fill.fill_time_ms),
            cum_quantity,
            _average(order, fill, cum_quantity),
            fill.seq,
        )
    )


def _identity(message: Order | Fill) -> tuple[str, str, str, str, str]:
    return (message.world_id, message.strategy_id, message.order_id, message.symbol, message.side.value)


def _average(order: Order, fill: Fill, cum_quantity: Decimal) -> Decimal:
    if not order.cum_quantity:
        return fill.price
    paid = total((product(order.average_price, order.cum_quantity), product(fill.price, fill.quantity)))
    return quotient(paid, cum_quantity, PRICE_PLACES)
