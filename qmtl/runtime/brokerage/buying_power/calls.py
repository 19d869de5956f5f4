"""What has to be closed where positions ask for more than the equity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

from qmtl.foundation.common.money import ZERO, magnitude, minus, negated, product, total
from qmtl.runtime.brokerage.buying_power.requirement import Requirement, When

WARNING_SHARE = Decimal("0.05")
"""Lean warns where what remains is no more than that share of the equity."""

_WIDE = Context(prec=60)
_WHOLE = Decimal(1)


@dataclass(frozen=True, slots=True)
class MarginPosition:
    """A position on margin.

    Attributes:
        quantity: signed, not 0.
        unit_value: of one unit, account currency.
        profit: unrealised, account currency: what loses most is closed first.
    """

    symbol: str
    quantity: Decimal
    unit_value: Decimal
    requirement: Requirement
    profit: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class MarginCall:
    """An order that has to be placed.

    Attributes:
        quantity: signed, against the position.
    """

    symbol: str
    quantity: Decimal


def is_margin_warning(equity: Decimal, used: Decimal) -> bool:
    """Whether what remains of the equity is no more than 5 % of it, or nothing."""
    return minus(equity, used) <= product(max(equity, ZERO), WARNING_SHARE)


def margin_calls(positions: Sequence[MarginPosition], equity: Decimal, when: When) -> list[MarginCall]:
    """The orders that bring the margin used down to the equity; none where it is not above it.

    As Lean's `DefaultMarginCallModel`: what is missing, in units of the position, divided by the share of its value that it keeps as margin; whole units, at least 1 and
    at most all of it; the largest loss first, until nothing is missing.
    """
    used = total(one.requirement.maintenance(one.quantity, one.unit_value, when) for one in positions)
    missing = minus(used, equity)
    out = []
    for one in sorted(positions, key=lambda each: (each.profit, each.symbol)):
        if missing <= 0:
            break
        margin = one.requirement.maintenance(one.quantity, one.unit_value, when)
        if not margin:
            continue
        size = magnitude(one.quantity)
        units = _WIDE.divide(_WIDE.multiply(missing, size), margin).quantize(_WHOLE, ROUND_HALF_UP, _WIDE)
        closed = max(min(units, size), min(_WHOLE, size))
        out.append(MarginCall(one.symbol, negated(closed) if one.quantity > 0 else closed))
        missing = minus(missing, _WIDE.divide(_WIDE.multiply(margin, closed), size))
    return out
