"""Bars and values of nodes as columns: what many consecutive buckets hold, one array per field.

A column says what the records say, no more and no less: prices stay exact as whole units of a power of ten, and where a node gave nothing,
nothing is there. So whatever is computed on columns can be held against what is computed record by record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from qmtl.foundation.common.errors import InvalidBar, InvalidValue
from qmtl.foundation.common.money import MAX_FACTOR_POINT, checked
from qmtl.foundation.contracts.market import Bar, fault_of

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

MAX_UNITS: Final = 10**18 - 1
"""Whole units of a column are shorter than this, so that they fit into 64 bits, and into the decimals of other programs."""

_EXACT_FLOAT: Final = 1 << 53
_EXACT_PLACES: Final = 22
"""Up to here a power of ten is a float without rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaled:
    """Exact decimals of one column: `units / 10**places` each.

    Attributes:
        units: int64, at most `MAX_UNITS` in size.
        places: digits after the point, 0 to `MAX_FACTOR_POINT`.
    """

    units: Integers
    places: int

    @classmethod
    def of(cls, values: Sequence[Decimal], places: int | None = None) -> Self:
        """The column of these decimals, in the fewest places that hold them all.

        Args:
            places: in so many places instead.

        Raises:
            InvalidValue: a value that has more digits than a column holds.
        """
        needed = max((-int(value.as_tuple().exponent) for value in values), default=0)
        shown = max(needed, 0) if places is None else places
        units = [int(value.scaleb(shown)) for value in values]
        if needed > shown or shown > MAX_FACTOR_POINT or any(abs(one) > MAX_UNITS for one in units):
            raise InvalidValue(
                f"a number had more digits than a column holds: {len(str(MAX_UNITS))} in all, {shown} of them after the point.",
                "Compute with records instead, or round the data.",
            )
        return cls(np.array(units, dtype=np.int64), shown)

    def __len__(self) -> int:
        return len(self.units)

    def at(self, index: int) -> Decimal:
        """One value, exact, in normal form."""
        return checked(Decimal(int(self.units[index])).scaleb(-self.places), "")

    def floats(self) -> Floats:
        """Each value as the float that is nearest to it."""
        if self.places <= _EXACT_PLACES and (not len(self) or int(np.abs(self.units).max()) <= _EXACT_FLOAT):
            return self.units / np.float64(10**self.places)  # both are exact, and division rounds once
        return np.array([float(Decimal(int(one)).scaleb(-self.places)) for one in self.units])

    def chunk(self, begin: int, end: int) -> Scaled:
        """Those from `begin` up to `end`, as a view of the same memory."""
        return Scaled(self.units[begin:end], self.places)


@dataclass(frozen=True, slots=True, eq=False)
class BarColumns:
    """Bars of one symbol and interval, ascending and each time once; a bar that is absent in the market is absent here.

    Attributes:
        interval: seconds.
        open_time_ms: int64, epoch ms, multiples of the interval.
        open, high, low, close: quote currency per unit of base, all in the same places.
        volume: base currency.
    """

    symbol: str
    interval: int
    open_time_ms: Integers
    open: Scaled
    high: Scaled
    low: Scaled
    close: Scaled
    volume: Scaled

    @classmethod
    def of(cls, symbol: str, interval: int, bars: Iterable[Bar]) -> Self:
        """The columns of these bars.

        Raises:
            InvalidBar: as `require_sound`; a bar of another symbol or interval.
            InvalidValue: a number has more digits than a column holds.
        """
        rows = list(bars)
        for index, bar in enumerate(rows):
            if (bar.symbol, bar.interval) != (symbol, interval):
                raise InvalidBar(
                    f"bar {index} was one of {bar.symbol!r} and {bar.interval} s; the column is of {symbol!r} and {interval} s.",
                    "Give each symbol and interval a column of its own.",
                )
        prices = [value for bar in rows for value in (bar.open, bar.high, bar.low, bar.close)]
        places = Scaled.of(prices).places
        made = cls(
            symbol,
            interval,
            np.array([bar.open_time_ms for bar in rows], dtype=np.int64),
            Scaled.of([bar.open for bar in rows], places),
            Scaled.of([bar.high for bar in rows], places),
            Scaled.of([bar.low for bar in rows], places),
            Scaled.of([bar.close for bar in rows], places),
            Scaled.of([bar.volume for bar in rows]),
        )
        made.require_sound()
        return made

    def __len__(self) -> int:
        return len(self.open_time_ms)

    @property
    def bucket_ms(self) -> Integers:
        """The instants at which the bars close, each that of its bucket."""
        return self.open_time_ms + self.interval * 1000

    def bar(self, index: int) -> Bar:
        """One bar as a message, exact."""
        return Bar(
            self.symbol,
            int(self.open_time_ms[index]),
            self.interval,
            self.open.at(index),
            self.high.at(index),
            self.low.at(index),
            self.close.at(index),
            self.volume.at(index),
        )

    def bars(self) -> Iterator[Bar]:
        """All of them, in their order."""
        return (self.bar(index) for index in range(len(self)))

    def chunk(self, begin: int, end: int) -> BarColumns:
        """Those from `begin` up to `end`, as views of the same memory."""
        return BarColumns(
            self.symbol,
            self.interval,
            self.open_time_ms[begin:end],
            self.open.chunk(begin, end),
            self.high.chunk(begin, end),
            self.low.chunk(begin, end),
            self.close.chunk(begin, end),
            self.volume.chunk(begin, end),
        )

    def require_sound(self) -> None:
        """Hold the columns to what a bar is (`qmtl.foundation.contracts.market.fault_of`), and to their order.

        Raises:
            InvalidBar: the first bar that breaks a rule, with its place from 0, its time and the rule.
        """
        step_ms = self.interval * 1000
        times = self.open_time_ms
        rules: tuple[tuple[Callable[[], Flags], str], ...] = (
            (lambda: times % step_ms != 0, f"its open time is no multiple of {self.interval} s"),
            (lambda: np.concatenate(([False], times[1:] <= times[:-1])), "it is not after the one before"),
            (lambda: self._has_no_bar(), ""),
        )
        for breaks, told in rules:
            found = np.flatnonzero(breaks())
            if len(found):
                index = int(found[0])
                why = told or fault_of(self.bar(index)) or ""
                raise InvalidBar(
                    f"bar {index} of {self.symbol} at {int(times[index])}: {why}.",
                    "Mend or leave out that bar.",
                )

    def _has_no_bar(self) -> Flags:
        """Where the numbers are none that a bar has; exact, as the prices are of the same places."""
        low, high = self.low.units, self.high.units
        wrong: Flags = (low <= 0) | (low > high) | (self.volume.units < 0)
        for price in (self.open.units, self.close.units):
            wrong |= (price < low) | (price > high)
        return wrong


@dataclass(frozen=True, slots=True, eq=False)
class Column:
    """What a node gave in consecutive buckets for one symbol.

    Attributes:
        values: float64, finite wherever something is there.
        there: where the node gave a value; nothing is there during its warm-up, and where it had nothing to say.
    """

    values: Floats
    there: Flags

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self:
        rows = list(values)
        there = np.array([value is not None for value in rows], dtype=np.bool_)
        return cls(np.array([0.0 if value is None else value for value in rows], dtype=np.float64), there)

    @classmethod
    def full(cls, values: Floats) -> Self:
        """One of which every value is there."""
        return cls(values, np.ones(len(values), dtype=np.bool_))

    def __len__(self) -> int:
        return len(self.values)

    def at(self, index: int) -> float | None:
        return float(self.values[index]) if self.there[index] else None

    def items(self) -> list[float | None]:
        """As records have it."""
        return [
            value if there else None
            for value, there in zip(self.values.tolist(), self.there.tolist(), strict=True)
        ]

    def chunk(self, begin: int, end: int) -> Column:
        """Those from `begin` up to `end`, as views of the same memory."""
        return Column(self.values[begin:end], self.there[begin:end])
