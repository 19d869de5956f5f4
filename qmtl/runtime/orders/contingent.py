"""Orders that hang on each other: one cancels the other, one reduces the other, one triggers others, and the bracket made of these.

Decisions over orders as they are now; who makes them carries them out. Made again over the same orders they are the same, and once they are carried out there are
none: a crash between decision and deed, or an order that is looked at twice, does no harm. FIX 5.0 SP2, ContingencyType (1385).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias, assert_never

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, minus, negated, text, total
from qmtl.foundation.contracts.trade import Order, RequestKind
from qmtl.runtime.orders.aggregate import is_open, remaining, requests_of
from qmtl.runtime.orders.states import ENDS


class Exits(Enum):
    """What a fill of one exit does to the others; the value is the wire text."""

    CANCEL = "cancel"
    """It cancels them, and what is left of the entry: FIX 1385=1."""
    REDUCE = "reduce"
    """It takes as much from them: FIX 1385=3."""


@dataclass(frozen=True, slots=True)
class PlaceLeg:
    """An order is to be placed, of this quantity."""

    order_id: str
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class ResizeLeg:
    """An order is to be replaced by one of this quantity, what is filled of it included."""

    order_id: str
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class CancelLeg:
    """An order is to be cancelled."""

    order_id: str


LegDecision: TypeAlias = PlaceLeg | ResizeLeg | CancelLeg


@dataclass(frozen=True, slots=True)
class OneCancelsOther:
    """Orders of which only one is to be filled: the first fill of any cancels the others.

    Attributes:
        order_ids: two or more; where two are filled before either is cancelled, the one named first stays.
    """

    order_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_legs("order_ids", self.order_ids)


@dataclass(frozen=True, slots=True)
class OneReducesOther:
    """Orders that together are to fill one quantity: what one has filled is taken from the others.

    Attributes:
        order_ids: two or more.
        quantity: what they are to fill together, base currency; each is placed with it.
    """

    order_ids: tuple[str, ...]
    quantity: Decimal

    def __post_init__(self) -> None:
        _require_legs("order_ids", self.order_ids)
        if self.quantity <= 0:
            raise InvalidValue(
                f"quantity is {text(self.quantity)}; what orders are to fill together is positive.",
                "Say the quantity with which each of them is placed.",
            )


@dataclass(frozen=True, slots=True)
class OneTriggersOther:
    """Orders that are placed once another is filled to its end.

    Attributes:
        first_id: the one that is there.
        legs: what it triggers, by order id, each with its own quantity.
    """

    first_id: str
    legs: tuple[PlaceLeg, ...]

    def __post_init__(self) -> None:
        _require_legs("legs", (self.first_id, *(one.order_id for one in self.legs)))


@dataclass(frozen=True, slots=True)
class Bracket:
    """An entry, and exits of what it has bought or sold, of which only one is to be filled.

    Attributes:
        entry_id: the entry.
        exit_ids: as a rule a target and a stop.
        exits: what a fill of one exit does to the others.
    """

    entry_id: str
    exit_ids: tuple[str, ...]
    exits: Exits = Exits.CANCEL

    def __post_init__(self) -> None:
        _require_legs("exit_ids", (self.entry_id, *self.exit_ids))


Contingency: TypeAlias = OneCancelsOther | OneReducesOther | OneTriggersOther | Bracket


def decisions(contingency: Contingency, orders: Mapping[str, Order]) -> tuple[LegDecision, ...]:
    """What is to be done now, in the order in which the legs are named.

    Args:
        orders: those that were placed, by id, as they are now.
    """
    match contingency:
        case OneCancelsOther(order_ids=order_ids):
            return tuple(_cancelled([orders[one] for one in order_ids if one in orders]))
        case OneReducesOther(order_ids=order_ids, quantity=quantity):
            return tuple(_sized([orders[one] for one in order_ids if one in orders], quantity))
        case OneTriggersOther(first_id=first_id, legs=legs):
            first = orders.get(first_id)
            if first is None or not first.cum_quantity or first.cum_quantity != first.quantity:
                return ()
            return tuple(one for one in legs if one.order_id not in orders)
        case Bracket():
            return tuple(_bracketed(contingency, orders))
        case _:
            assert_never(contingency)


def uncovered(bracket: Bracket, orders: Mapping[str, Order]) -> Decimal:
    """What the entry has filled and no exit has filled or waits for: unsigned, base currency; below 0 where exits have filled more than the entry."""
    entry = orders.get(bracket.entry_id)
    there = [orders[one] for one in bracket.exit_ids if one in orders]
    held = minus(ZERO if entry is None else entry.cum_quantity, total([one.cum_quantity for one in there]))
    return minus(held, max((remaining(one) for one in there), default=ZERO))


def _cancelled(orders: Sequence[Order]) -> Iterator[CancelLeg]:
    filled = next((one for one in orders if one.cum_quantity), None)
    if filled is not None:
        yield from (CancelLeg(one.order_id) for one in orders if one is not filled and _can_cancel(one))


def _bracketed(bracket: Bracket, orders: Mapping[str, Order]) -> Iterator[LegDecision]:
    entry = orders.get(bracket.entry_id)
    if entry is None or not entry.cum_quantity:
        if entry is not None and not is_open(entry):  # nothing came of it, so nothing is to be left of it
            yield from (
                CancelLeg(one) for one in bracket.exit_ids if one in orders and _can_cancel(orders[one])
            )
        return
    there = [orders[one] for one in bracket.exit_ids if one in orders]
    has_filled = any(one.cum_quantity for one in there)
    if bracket.exits is Exits.CANCEL and has_filled:
        yield from _cancelled([*there, entry])
        first = next(one for one in there if one.cum_quantity)
        yield from _sized([first], total((entry.cum_quantity, *_others(there, first))))
        return
    if not has_filled:
        yield from (PlaceLeg(one, entry.cum_quantity) for one in bracket.exit_ids if one not in orders)
    yield from _sized(there, entry.cum_quantity)
    is_over = has_filled and total([one.cum_quantity for one in there]) >= entry.cum_quantity
    if is_over and _can_cancel(entry):  # what it would fill now had no exit any more
        yield CancelLeg(entry.order_id)


def _others(orders: Sequence[Order], order: Order) -> Iterator[Decimal]:
    return (negated(one.cum_quantity) for one in orders if one is not order)


def _sized(orders: Sequence[Order], whole: Decimal) -> Iterator[LegDecision]:
    """Each open order at `whole`, less what the others have filled of it; one of which nothing is left is cancelled."""
    done = total([one.cum_quantity for one in orders])
    for one in orders:
        wanted = minus(whole, minus(done, one.cum_quantity))
        if one.status in ENDS or _size_of(one) == wanted:
            continue
        if wanted <= one.cum_quantity:
            if _can_cancel(one):
                yield CancelLeg(one.order_id)
        elif not _is_cancelled(one):
            yield ResizeLeg(one.order_id, wanted)


def _size_of(order: Order) -> Decimal:
    """The quantity that it has once what was asked for is accepted."""
    asked = [one.quantity for one in requests_of(order) if one.quantity is not None]
    return asked[-1] if asked else order.quantity


def _can_cancel(order: Order) -> bool:
    return order.status not in ENDS and not _is_cancelled(order)


def _is_cancelled(order: Order) -> bool:
    return any(one.kind is RequestKind.CANCEL for one in requests_of(order))


def _require_legs(field: str, order_ids: tuple[str, ...]) -> None:
    if len(order_ids) < 2 or len(set(order_ids)) != len(order_ids):
        raise InvalidValue(
            f"{field} names {', '.join(order_ids) or 'nothing'}; it takes two orders or more, each once.",
            "Name each order once.",
        )
