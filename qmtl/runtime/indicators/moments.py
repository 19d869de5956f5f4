"""What exact sums of values, squares and products say of a window: standard deviation, score, Bollinger's bands, correlation, weighted mean.

With S the sum of n values and Q that of their squares, N = n*Q - S*S is n*n times their variance (over n), and not below 0. It is an exact
integer of units, and does not change if all values are shifted; so a column is computed from what its values differ by.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import Column, Flags, Floats
from qmtl.runtime.indicators.exact import (
    EXACT,
    Whole,
    finite,
    largest,
    mean,
    means,
    python_integers,
    quotients,
    ratio,
    sums,
    units,
    window_totals,
)
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.parameters import Rules, choice, number, whole
from qmtl.runtime.indicators.rolling import Rolling, Row

_ZERO: Final = Decimal(0)
_SQUARES_BOUND: Final = 1 << 30
"""Below it size times the largest difference, twice that, and the square of either, fit into 64 bits."""

_WHOLE_BOUND: Final = 1 << 62

BANDS: Final = ("upper", "middle", "lower", "percent_b", "bandwidth")


class _Sums:
    """S and Q of the values in the window."""

    __slots__ = ("squares", "total")

    def __init__(self) -> None:
        self.total = _ZERO
        self.squares = _ZERO

    def enter(self, row: Row) -> None:
        (value,) = row
        self.total = EXACT.add(self.total, value)
        self.squares = EXACT.add(self.squares, EXACT.multiply(value, value))

    def leave(self, row: Row) -> None:
        (value,) = row
        self.total = EXACT.subtract(self.total, value)
        self.squares = EXACT.subtract(self.squares, EXACT.multiply(value, value))

    def spread(self, size: int) -> Decimal:
        """N: size * size times the variance."""
        return EXACT.subtract(
            EXACT.multiply(Decimal(size), self.squares), EXACT.multiply(self.total, self.total)
        )


def _differences(values: Whole, size: int) -> Whole:
    """By what values differ from the first, in integers that hold the sums of their squares."""
    fits = values.dtype != object and len(values)
    differ = values - values[0] if fits else values
    return differ if fits and largest(differ) * size < _SQUARES_BOUND else python_integers(differ)


def _spreads(differ: Whole, size: int) -> tuple[Whole, Whole]:
    """S and N of every window."""
    totals = sums(differ, size)
    return totals, size * sums(differ * differ, size) - totals * totals


class _Deviation(_Sums):
    __slots__ = ("_ddof",)

    def __init__(self, ddof: int) -> None:
        super().__init__()
        self._ddof = ddof

    def give(self, rows: Sequence[Row]) -> float | None:
        size = len(rows)
        variance = ratio(self.spread(size), Decimal(size * (size - self._ddof)))
        return None if variance is None else math.sqrt(variance)

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        return deviations(*units(ports[0]), size, self._ddof)


def deviations(values: Whole, places: int, size: int, ddof: int) -> Column:
    """The standard deviation of every window of values in units of `10**-places`."""
    _, spread = _spreads(_differences(values, size), size)
    variance = quotients(spread, size * (size - ddof) * 100**places)
    return Column(np.sqrt(variance.values), variance.there)


class _Score(_Sums):
    """Of the newest value x: (x - mean) / deviation. Its square is (n*x - S)**2 * (n - ddof) / (n * N), a fraction that is rounded once; whatever
    the unit is, it is the same."""

    __slots__ = ("_ddof",)

    def __init__(self, ddof: int) -> None:
        super().__init__()
        self._ddof = ddof

    def give(self, rows: Sequence[Row]) -> float | None:
        size = len(rows)
        spread = self.spread(size)
        if not spread:
            return None
        above = EXACT.subtract(EXACT.multiply(Decimal(size), rows[-1][0]), self.total)
        square = ratio(
            EXACT.multiply(EXACT.multiply(above, above), Decimal(size - self._ddof)),
            EXACT.multiply(Decimal(size), spread),
        )
        return None if square is None else math.copysign(math.sqrt(square), above)

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        values, _ = units(ports[0])
        differ = _differences(values, size)
        totals, spread = _spreads(differ, size)
        above = size * differ[size - 1 :] - totals
        if max(largest(above) ** 2, largest(spread)) * size >= _WHOLE_BOUND:
            above, spread = python_integers(above), python_integers(spread)
        square = quotients(above * above * (size - self._ddof), spread * size)
        return Column(_signed(np.sqrt(square.values), above), square.there)


def _signed(sizes: Floats, signs: Whole) -> Floats:
    return np.where(np.asarray(signs < 0, dtype=np.bool_), -sizes, sizes)


class _Band(_Sums):
    __slots__ = ("_band", "_k")

    def __init__(self, band: str, k: float) -> None:
        super().__init__()
        self._band = band
        self._k = k

    def give(self, rows: Sequence[Row]) -> float | None:
        size = len(rows)
        middle = mean(self.total, Decimal(size))
        variance = ratio(self.spread(size), Decimal(size * size))
        if variance is None:
            return None
        reach = self._k * math.sqrt(variance)
        upper, lower = middle + reach, middle - reach
        value: float
        match self._band:
            case "upper":
                value = upper
            case "lower":
                value = lower
            case "middle":
                value = middle
            case "percent_b":
                width = upper - lower
                if width == 0.0:
                    return None
                value = (float(rows[-1][0]) - lower) / width
            case _:
                if middle == 0.0:
                    return None
                value = (upper - lower) / middle
        return value if math.isfinite(value) else None

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        values, places = units(ports[0])
        middle = means(window_totals(values, size), places, size)
        deviation = deviations(values, places, size, 0)
        there: Flags = deviation.there
        with np.errstate(all="ignore"):  # what is not finite is not there
            reach = self._k * deviation.values
            upper, lower = middle + reach, middle - reach
            match self._band:
                case "upper":
                    told = upper
                case "lower":
                    told = lower
                case "middle":
                    told = middle
                case "percent_b":
                    width = upper - lower
                    there = there & (width != 0.0)
                    told = (ports[0][size - 1 :] - lower) / width
                case _:
                    there = there & (middle != 0.0)
                    told = (upper - lower) / middle
            return finite(told, there)


class _Correlation:
    """Pearson's r of two inputs. With C = n*Sxy - Sx*Sy its square is C*C / (Nx * Ny), rounded once, and never above 1 (Cauchy and Schwarz)."""

    __slots__ = ("_products", "_x", "_y")

    def __init__(self) -> None:
        self._x = _Sums()
        self._y = _Sums()
        self._products = _ZERO

    def enter(self, row: Row) -> None:
        x, y = row
        self._x.enter((x,))
        self._y.enter((y,))
        self._products = EXACT.add(self._products, EXACT.multiply(x, y))

    def leave(self, row: Row) -> None:
        x, y = row
        self._x.leave((x,))
        self._y.leave((y,))
        self._products = EXACT.subtract(self._products, EXACT.multiply(x, y))

    def give(self, rows: Sequence[Row]) -> float | None:
        size = len(rows)
        spreads = EXACT.multiply(self._x.spread(size), self._y.spread(size))
        if not spreads:
            return None
        together = EXACT.subtract(
            EXACT.multiply(Decimal(size), self._products), EXACT.multiply(self._x.total, self._y.total)
        )
        square = ratio(EXACT.multiply(together, together), spreads)
        return None if square is None else math.copysign(math.sqrt(square), together)

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        x, y = (_differences(units(port)[0], size) for port in ports)
        (x_total, x_spread), (y_total, y_spread) = _spreads(x, size), _spreads(y, size)
        if x.dtype != y.dtype:
            x, y = python_integers(x), python_integers(y)
        together = size * sums(x * y, size) - x_total * y_total
        if max(largest(together) ** 2, largest(x_spread) * largest(y_spread)) >= _WHOLE_BOUND:
            together, x_spread, y_spread = map(python_integers, (together, x_spread, y_spread))
        square = quotients(together * together, x_spread * y_spread)
        return Column(_signed(np.sqrt(square.values), together), square.there)


class _Weighted:
    """The newest of n values counts n times, the one before it n - 1 times, the oldest once. Where one leaves, all others count once less."""

    __slots__ = ("_count", "_total", "_weighted")

    def __init__(self) -> None:
        self._count = 0
        self._total = _ZERO
        self._weighted = _ZERO

    def enter(self, row: Row) -> None:
        (value,) = row
        self._count += 1
        self._total = EXACT.add(self._total, value)
        self._weighted = EXACT.add(self._weighted, EXACT.multiply(Decimal(self._count), value))

    def leave(self, row: Row) -> None:
        (value,) = row
        self._count -= 1
        self._weighted = EXACT.subtract(self._weighted, self._total)
        self._total = EXACT.subtract(self._total, value)

    def give(self, rows: Sequence[Row]) -> float | None:
        size = len(rows)
        return ratio(self._weighted, Decimal(size * (size + 1) // 2))

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        values, places = units(ports[0])
        if values.dtype == object or largest(values) * size * (size + 1) // 2 >= 1 << 62:
            values = python_integers(values)
        # By the place k in the column: the sum of k*x, less what each of the window's places is too high by.
        place = np.arange(1, len(values) + 1, dtype=np.int64).astype(values.dtype)
        behind = np.arange(len(values) - size + 1, dtype=np.int64).astype(values.dtype)
        weighted = sums(values * place, size) - behind * sums(values, size)
        return quotients(weighted, size * (size + 1) // 2 * 10**places)


def _deviation(params: Parsed, window: NodeWindow | None) -> Rolling:
    return Rolling("std", 1, params.period, lambda: _Deviation(params.values["ddof"]), window)


def _score(params: Parsed, window: NodeWindow | None) -> Rolling:
    return Rolling("zscore", 1, params.period, lambda: _Score(params.values["ddof"]), window)


def _band(params: Parsed, window: NodeWindow | None) -> Rolling:
    band, k = params.values["band"], params.values["k"]
    return Rolling("bollinger", 1, params.period, lambda: _Band(band, k), window)


def _correlation(params: Parsed, window: NodeWindow | None) -> Rolling:
    return Rolling("correlation", 2, params.period, _Correlation, window)


def _weighted(params: Parsed, window: NodeWindow | None) -> Rolling:
    return Rolling("wma", 1, params.period, _Weighted, window)


def _degrees(period: int, values: Mapping[str, Any]) -> Iterator[InvalidParameter]:
    if values["ddof"] >= period:
        yield InvalidParameter(
            f"ddof was the number {values['ddof']}; it is less than the period, which was {period}.",
            "Look back on more inputs.",
        )


_DDOF: Final[Rules] = {"ddof": whole(0, 1)}

STD: Final = Indicator("std", 1, _deviation, least=1, rules=_DDOF, along=_degrees)
"""The standard deviation of the last `period` inputs: sqrt(N / (n * (n - ddof))), variance and root rounded once each. Of a constant it is 0. Nothing
where the variance is beyond a float. Parameters: `ddof`, 0 of all there is, 1 of a sample."""

ZSCORE: Final = Indicator("zscore", 1, _score, least=2, rules=_DDOF, along=_degrees)
"""How many standard deviations the newest of `period` inputs is above their mean. Nothing where all are equal. Parameters: `ddof`."""

BOLLINGER: Final = Indicator(
    "bollinger", 1, _band, least=1, rules={"band": choice(*BANDS), "k": number(0, above=True)}
)
"""Bollinger's bands: middle, the mean of `period` inputs as an sma has it; upper and lower, k standard deviations (ddof 0) beside it; percent_b =
(x - lower) / (upper - lower), nothing where the two are equal; bandwidth = (upper - lower) / middle, nothing where that is 0."""

CORRELATION: Final = Indicator("correlation", 2, _correlation, least=2)
"""Pearson's correlation of the last `period` pairs of inputs, -1 to 1. Nothing where one of the two is constant."""

WMA: Final = Indicator("wma", 1, _weighted, least=1)
"""The mean of the last `period` inputs, of which the oldest counts once and the newest `period` times; rounded once."""
