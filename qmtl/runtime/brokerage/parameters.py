"""The checks that the parameters of all brokerage models share."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, round_places

AMOUNT_PLACES = 18
"""Digits after the point that a fee, a payment of interest or a slippage may have; a longer one is rounded half-even."""

ONE = Decimal(1)


def between(field: str, value: Decimal, low: Decimal, high: Decimal, remedy: str) -> None:
    """
    Raises:
        InvalidValue: `value` is not finite, or not from `low` to `high`.
    """
    if not value.is_finite() or not low <= value <= high:
        raise InvalidValue(f"{field} was {value}; it must be from {low} to {high}.", remedy)


def fraction(field: str, value: Decimal) -> None:
    """A rate that may be a rebate: between -1 and 1, without them.

    Raises:
        InvalidValue: it is not finite or too large.
    """
    if not value.is_finite() or value.copy_abs() >= 1:
        raise InvalidValue(
            f"{field} was {value}; it must be a finite fraction between -1 and 1.",
            "Send 0.001 for a tenth of a percent.",
        )


def not_negative(field: str, value: Decimal) -> None:
    """
    Raises:
        InvalidValue: `value` is not finite or below 0.
    """
    if not value.is_finite() or value < 0:
        raise InvalidValue(f"{field} was {value}; it must be finite and not below 0.", "Check its sign.")


def positive(field: str, value: Decimal) -> None:
    """
    Raises:
        InvalidValue: `value` is not finite or not above 0.
    """
    if not value.is_finite() or value <= 0:
        raise InvalidValue(f"{field} was {value}; it must be finite and above 0.", "Check its sign.")


def finite(field: str, value: Decimal) -> None:
    """
    Raises:
        InvalidValue: `value` is not finite.
    """
    if not value.is_finite():
        raise InvalidValue(f"{field} was {value}; it must be finite.", "Send a finite number.")


def named(field: str, value: str) -> None:
    """
    Raises:
        InvalidValue: `value` is empty.
    """
    if not value:
        raise InvalidValue(f"{field} was empty; it must be a name.", "Send a name such as USD.")


def rising(field: str, values: Sequence[Decimal]) -> None:
    """
    Raises:
        InvalidValue: a value is not finite, or not above the one before it.
    """
    for value in values:
        finite(field, value)
    for before, after in pairwise(values):
        if not before < after:
            raise InvalidValue(
                f"{field} had {after} after {before}; each must be above the one before it.",
                "Sort them, and send each once.",
            )


def kept(exact: Decimal) -> Decimal:
    """An amount as it is; beyond `AMOUNT_PLACES` digits after the point it is rounded half-even. Nothing is 0, without a sign."""
    if int(exact.as_tuple().exponent) < -AMOUNT_PLACES:
        exact = round_places(exact, AMOUNT_PLACES)
    return exact if exact else ZERO
