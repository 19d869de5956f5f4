"""What a fill makes of an order, and what a bust or a correction makes of both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import TypeAlias, assert_never

from qmtl.foundation.common.money import ZERO, negated, plus, product, quotient, text, total
from qmtl.foundation.contracts.broker import FillBusted, FillCorrected, FillRevision
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, TimeInForce
from qmtl.runtime.orders.aggregate import changed, moved, said_of
from qmtl.runtime.orders.states import UNACCEPTED, UNFILLED_ENDS

PRICE_PLACES = 18
"""Digits after the point to which the average price of several fills is rounded, half-even."""


class Rule(Enum):
    """Which rule a fill broke; the value is the wire text."""

    ALIEN = "alien"
    INVALID = "invalid"
    GAP = "gap"
    OVERFILL = "overfill"


@dataclass(frozen=True, slots=True)
class Applied:
    """The fill counts: the order after it.

    Attributes:
        late: the order had ended before.
    """

    order: Order
    late: bool = False


@dataclass(frozen=True, slots=True)
class Duplicate:
    """It was applied before: nothing changes."""

    order: Order


@dataclass(frozen=True, slots=True)
class Conflict:
    """It can't be applied: nothing changes, and somebody has to look.

    Attributes:
        detail: the numbers that broke the rule.
    """

    order: Order
    rule: Rule
    detail: str


@dataclass(frozen=True, slots=True)
class Revised:
    """A bust or a correction counts: the order and the fill after it."""

    order: Order
    fill: Fill


FillOutcome: TypeAlias = Applied | Duplicate | Conflict
RevisionOutcome: TypeAlias = Revised | Duplicate | Conflict


def apply_fill(order: Order, fill: Fill) -> FillOutcome:
    """What one fill makes of an order, whatever was delivered before.

    A fill is known by (order id, seq). The next number counts, an earlier one counted before, a later one leaves a hole that
    has to be closed first: delivered again after its predecessors, it counts. Whether a number that recurs says something else
    than the first time is not seen here: the order keeps no fills. Who keeps them compares.

    A fill that comes when the order has ended was made before the end was said: it counts, as long as it makes no more than was ordered, and is told as
    late. The order stays ended; filled goes before cancelled and expired.
    """
    if (
        fill.order_id != order.order_id
        or fill.world_id != order.world_id
        or fill.strategy_id != order.strategy_id
        or fill.symbol != order.symbol
        or fill.side is not order.side
    ):
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
    average = _average(order, fill, cum_quantity) if order.cum_quantity else fill.price
    now = order.status
    if order.life is None and (
        now is OrderStatus.NEW or now is OrderStatus.PARTIALLY_FILLED or now is OrderStatus.PENDING_NEW
    ):
        status = OrderStatus.FILLED if cum_quantity == order.quantity else OrderStatus.PARTIALLY_FILLED
        return Applied(moved(order, status, fill.fill_time_ms, cum_quantity, average, fill.seq))
    said = said_of(order)
    late = not UNFILLED_ENDS.isdisjoint(said)
    if order.time_in_force is TimeInForce.DAY:
        late = late or OrderStatus.DONE_FOR_DAY in said
    else:  # it is filled on another day
        said = tuple(one for one in said if one is not OrderStatus.DONE_FOR_DAY)
    said = tuple(one for one in said if one not in UNACCEPTED)  # a fill proves that it is worked
    if cum_quantity == order.quantity:  # nothing is left to be held
        said = tuple(one for one in said if one in UNFILLED_ENDS)
    after = changed(
        order,
        fill.fill_time_ms,
        said=said,
        cum_quantity=cum_quantity,
        average_price=average,
        last_seq=fill.seq,
    )
    return Applied(after, late)


def revise(order: Order, fill: Fill, revision: FillRevision) -> RevisionOutcome:
    """What a bust or a correction makes of an order and of one of its fills.

    What is said of a fill after it is known by (order id, seq, revision) and counted as fills are. What is busted can be filled again, unless the order had
    ended before.

    Args:
        fill: as it stands now, with what was said of it before.
    """
    if (revision.world_id, revision.order_id) != (order.world_id, order.order_id) or _identity(
        fill
    ) != _identity(order):
        return Conflict(order, Rule.ALIEN, f"revision of order {revision.order_id} met {_identity(order)}")
    if fill.seq != revision.seq or not 0 < fill.seq <= order.last_seq:
        return Conflict(order, Rule.GAP, f"fill {revision.seq} is not there; the last was {order.last_seq}")
    if revision.revision <= fill.revision:
        return Duplicate(order)
    if revision.revision > fill.revision + 1:
        detail = f"revision {revision.revision} of fill {fill.seq} came, {fill.revision + 1} is awaited"
        return Conflict(order, Rule.GAP, detail)
    match revision:
        case FillBusted():
            after = replace(fill, quantity=ZERO, fee=ZERO, revision=revision.revision)
        case FillCorrected(quantity=quantity, price=price, fee=fee):
            if quantity <= 0 or price <= 0:
                detail = f"quantity {text(quantity)}, price {text(price)}: each is positive"
                return Conflict(order, Rule.INVALID, detail)
            after = replace(fill, quantity=quantity, price=price, fee=fee, revision=revision.revision)
        case _:
            assert_never(revision)
    cum_quantity = total((order.cum_quantity, negated(fill.quantity), after.quantity))
    if cum_quantity > order.quantity or cum_quantity < 0:
        detail = f"revision {revision.revision} of fill {fill.seq} makes {text(cum_quantity)} of ordered {text(order.quantity)}"
        return Conflict(order, Rule.OVERFILL, detail)
    paid = total(
        (
            product(order.average_price, order.cum_quantity),
            negated(product(fill.price, fill.quantity)),
            product(after.price, after.quantity),
        )
    )
    average = quotient(paid, cum_quantity, PRICE_PLACES) if cum_quantity else ZERO
    now = changed(order, revision.at_ms, cum_quantity=cum_quantity, average_price=average)
    return Revised(now, after)


def _identity(message: Order | Fill) -> tuple[str, str, str, str, str]:
    return (message.world_id, message.strategy_id, message.order_id, message.symbol, message.side.value)


def _average(order: Order, fill: Fill, cum_quantity: Decimal) -> Decimal:
    paid = total((product(order.average_price, order.cum_quantity), product(fill.price, fill.quantity)))
    return quotient(paid, cum_quantity, PRICE_PLACES)
