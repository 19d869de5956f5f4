"""Variation margin: a future pays its profit into cash once a day, and at each close what the day has brought since."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal

from qmtl.foundation.common.money import ZERO, magnitude, minus, plus, product, quotient
from qmtl.runtime.brokerage.parameters import AMOUNT_PLACES, ONE, finite, positive


@dataclass(frozen=True, slots=True)
class DailyPosition:
    """A position in a future (Lean's `FutureSettlementModel` and its holding).

    Attributes:
        quantity: contracts, signed.
        cost: signed sum of price * multiplier of what is open.
        settled: profit of what is open that cash has already.
        day: of the last settlement, counted by the caller; None before the first.
        multiplier: units in one contract.
    """

    quantity: Decimal
    cost: Decimal
    settled: Decimal = ZERO
    day: int | None = None
    multiplier: Decimal = ONE

    def unsettled(self, price: Decimal) -> Decimal:
        """Profit at a price that cash has not yet."""
        return minus(minus(self._worth(price), self.cost), self.settled)

    def _worth(self, price: Decimal) -> Decimal:
        return product(product(self.quantity, price), self.multiplier)


def open_position(
    quantity: Decimal, price: Decimal, day: int | None = None, multiplier: Decimal = ONE
) -> DailyPosition:
    """A position that was just opened.

    Raises:
        InvalidValue: a number that is not finite, a multiplier that is not above 0.
    """
    finite("quantity", quantity)
    finite("price", price)
    positive("multiplier", multiplier)
    return DailyPosition(
        quantity, product(product(quantity, price), multiplier), day=day, multiplier=multiplier
    )


def settled(position: DailyPosition, price: Decimal, day: int) -> tuple[DailyPosition, Decimal]:
    """The settlement of a day: what goes into cash (negative: out of it). Once per day; a day that was settled pays nothing more.

    Raises:
        InvalidValue: a price that is not finite.
    """
    finite("price", price)
    if position.day is not None and day <= position.day:
        return position, ZERO
    paid = position.unsettled(price)
    return replace(position, settled=plus(position.settled, paid), day=day), paid


def filled(position: DailyPosition, quantity: Decimal, price: Decimal) -> tuple[DailyPosition, Decimal]:
    """A fill, and what it brings into cash: of what it closes, the profit that cash has not yet. What it opens has no profit.

    Where a part of a position is closed, its cost and its settled profit are that part of the whole, rounded half-even to 18 digits; the rest keeps what is left, so
    that the sums stay exact.

    Args:
        quantity: signed.

    Raises:
        InvalidValue: a number that is not finite.
    """
    finite("quantity", quantity)
    finite("price", price)
    held = position.quantity
    if not held or (held > 0) == (quantity > 0):
        added = product(product(quantity, price), position.multiplier)
        return replace(position, quantity=plus(held, quantity), cost=plus(position.cost, added)), ZERO
    whole = magnitude(quantity) >= magnitude(held)
    closed = held if whole else quantity.copy_negate()
    cost = position.cost if whole else _part(position.cost, closed, held)
    had = position.settled if whole else _part(position.settled, closed, held)
    worth = product(product(closed, price), position.multiplier)
    rest = plus(held, quantity)
    left = DailyPosition(
        rest,
        product(product(rest, price), position.multiplier) if whole else minus(position.cost, cost),
        minus(position.settled, had),
        position.day,
        position.multiplier,
    )
    return left, minus(minus(worth, cost), had)


def _part(amount: Decimal, closed: Decimal, held: Decimal) -> Decimal:
    return quotient(product(amount, closed), held, AMOUNT_PLACES)
