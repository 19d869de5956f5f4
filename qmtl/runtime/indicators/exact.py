"""Exact sums of floats: each enters as the decimal of its shortest text, and what is given in the end is rounded once.

An exact sum has no order and never drifts: what has left a window has left the sum. So it makes no difference whether it is kept as a decimal
that grows and shrinks by single values, or as the difference of two sums over a column of integers, which are such decimals in units of
the last place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qmtl.foundation.common.errors import InvalidValue
from qmtl.runtime.columns import Column, Flags, Floats

EXACT: Final = Context(prec=4000, traps=[Inexact, InvalidOperation])
"""Wide enough for sums of products of any floats, which lie between 5e-324 and 2e308, so that the trap never springs."""

MEAN: Final = Context(prec=40)
"""More than twice the digits of a float: a mean is rounded once more only where it becomes a float."""

Whole: TypeAlias = NDArray[Any]
"""Whole numbers: int64 where all that is computed with them fits, else Python's own."""

WHOLE_FLOAT: Final = 1 << 53
"""Below it every whole number is a float."""

_TEXT_DIGITS: Final = 10**15
"""Numbers of up to 15 digits are all different as floats, so the shortest text of the float is the number itself."""

_MOST_PLACES: Final = 15
_SAMPLE: Final = 64


def entered(node_type: str, value: float) -> Decimal:
    """The decimal of a float's shortest text; of the two zeros there is one.

    Raises:
        InvalidValue: not finite.
    """
    require_finite(node_type, value)
    return Decimal(repr(value + 0.0))


def require_finite(node_type: str, *values: float) -> None:
    """Raises: InvalidValue, NaN or an infinity."""
    for value in values:
        if value - value != 0.0:
            raise InvalidValue(
                f"an input of a {node_type} node was {value}; only finite numbers are computed with.",
                "Check its source.",
            )


def quotient(top: int, bottom: int) -> float | None:
    """The float nearest to a fraction; `None` if it is larger than any."""
    try:
        return top / bottom  # of two integers Python rounds once, however long they are
    except OverflowError:
        return None


def ratio(top: Decimal, bottom: Decimal) -> float | None:
    """As `quotient`, of decimals."""
    above, below = top.as_integer_ratio()
    by, of = bottom.as_integer_ratio()
    return quotient(above * of, below * by)


def quotients(tops: Whole, bottoms: Whole | int) -> Column:
    """`quotient` of each; nothing is there where the bottom is 0, or the fraction larger than any float."""
    divides = np.broadcast_to(np.asarray(bottoms != 0), tops.shape)
    if _are_floats(tops) and _are_floats(bottoms):
        # Both are floats without rounding, and division rounds once.
        under = np.where(divides, bottoms, 1).astype(np.float64)
        return Column(tops / under, divides.copy())
    belows = bottoms.tolist() if isinstance(bottoms, np.ndarray) else [bottoms] * len(tops)
    return given(
        quotient(top, bottom) if bottom else None for top, bottom in zip(tops.tolist(), belows, strict=True)
    )


def given(values: Iterable[float | None]) -> Column:
    """A column of what single computations gave."""
    return Column.of(values)


def finite(values: Floats, there: Flags | None = None) -> Column:
    """A column of the finite ones among those that are there."""
    sound = np.isfinite(values)
    return Column(values, sound if there is None else sound & there)


def mean(total: Decimal, count: Decimal) -> float:
    """A mean from its exact sum."""
    return float(MEAN.divide(total, count))


def means(totals: Whole, places: int, count: int) -> Floats:
    """`mean` of each sum of units of `10**-places`.

    Where a sum S and the divisor D = count * 10**places are below 2**53, one division of floats gives the same bits. It rounds S/D once. The
    mean rounds it to 40 digits first, which could only lead elsewhere if a tie t between two floats lay between S/D and what 40 digits are left
    of it, or were S/D itself. With S < 2**53, D >= 1 there is no tie that S/D equals: t = M / 2**j with M odd and of 54 bits, and S = t * D would
    have M as a divisor. Nor is one near: |S/D - t| = |S * 2**j - M * D| / (D * 2**j) >= 1 / (D * 2**j), of S/D that is at least a share of
    1 / (D * 2**54) > 2**-107 > 6e-33, and 40 digits are off by a share of 5e-40 at most.
    """
    divisor = count * 10**places
    if _are_floats(totals) and divisor < WHOLE_FLOAT:
        return np.asarray(totals / np.float64(divisor), dtype=np.float64)
    # A power of ten in both changes no digit of what is left at 40 of them.
    return np.array([mean(Decimal(one), Decimal(divisor)) for one in totals.tolist()], dtype=np.float64)


def units(values: Floats) -> tuple[Whole, int]:
    """The decimals of the shortest texts as whole units of `10**-places`: int64 of up to 15 digits, or Python's integers."""
    return _short_units(values) or _long_units(values)


def _short_units(values: Floats) -> tuple[Whole, int] | None:
    if not len(values):
        return np.zeros(0, dtype=np.int64), 0
    most = float(np.abs(values).max())
    for places in range(_MOST_PLACES + 1):
        if most * 10.0**places >= _TEXT_DIGITS:
            return None
        if _in_units(values[:_SAMPLE], places) is not None:
            whole = _in_units(values, places)
            if whole is not None:
                return (whole, places) if largest(whole) < _TEXT_DIGITS else None
    return None


def _in_units(values: Floats, places: int) -> Whole | None:
    """The whole numbers of which these are the floats. Number and power of ten are floats without rounding, so the division of the two rounds
    once, and what it gives is the float of the decimal."""
    scale = 10.0**places
    whole = np.rint(values * scale)
    return whole.astype(np.int64) if np.array_equal(whole / scale, values) else None


def _long_units(values: Floats) -> tuple[Whole, int]:
    numbers = [_read(repr(value)) for value in values.tolist()]
    places = max(0, max((shown for _, shown in numbers), default=0))
    powers = {shown: 10 ** (places - shown) for shown in {shown for _, shown in numbers}}
    out = np.empty(len(numbers), dtype=object)
    out[:] = [digits * powers[shown] for digits, shown in numbers]
    return out, places


def _read(text: str) -> tuple[int, int]:
    """The digits of a float's text as an integer, and how many of them are after the point."""
    mantissa, _, exponent = text.partition("e")
    before, _, behind = mantissa.partition(".")
    return int(before + behind), len(behind) - (int(exponent) if exponent else 0)


def largest(values: Whole) -> int:
    """The greatest size; 0 of none."""
    return int(np.abs(values).max()) if len(values) else 0


def python_integers(values: Whole) -> Whole:
    """The same numbers without a bound."""
    return values.astype(object)


def sums(values: Whole, size: int) -> Whole:
    """Of each `size` neighbours. In 64 bits the sums over the column may wrap round: their differences are right again, as long as the sums
    of neighbours fit."""
    total = np.zeros(len(values) + 1, dtype=values.dtype)
    np.cumsum(values, out=total[1:])
    return np.asarray(total[size:] - total[:-size])


BLOCK: Final = 1 << 14
"""Buckets that are computed at once: few enough for a processor's cache, and for their prices to lie close together, so that squares of what
they differ by fit into 64 bits."""


def blocks(count: int) -> Iterator[tuple[int, int]]:
    """So many buckets, in turns of `BLOCK`."""
    return ((begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK))


def window_totals(values: Whole, size: int) -> Whole:
    """`sums`, in 64 bits where each fits into them."""
    fits = values.dtype != object and largest(values) * size < 1 << 62
    return sums(values if fits else python_integers(values), size)


def _are_floats(values: Whole | int) -> bool:
    if isinstance(values, int):
        return abs(values) < WHOLE_FLOAT
    return values.dtype != object and largest(values) < WHOLE_FLOAT
