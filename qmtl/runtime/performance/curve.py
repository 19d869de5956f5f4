"""The equity of a run over time, from its fills and the bars, or as whoever has it hands it over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, minus, negated, plus, product, total
from qmtl.foundation.contracts.trade import Fill, Side
from qmtl.runtime.columns import BarColumns, Floats, Integers

MAX_BUCKETS: Final = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Drawdown:
    """The deepest fall of a curve from its height.

    Attributes:
        depth: `equity / height - 1`, 0 or below.
        peak_ms: when the height was last reached; the start where it was never above it.
        recovered_ms: when it was reached again; None where it never was.
    """

    depth: float
    peak_ms: int
    trough_ms: int
    recovered_ms: int | None


@dataclass(frozen=True, slots=True, eq=False)
class EquityCurve:
    """Equity at the close of consecutive buckets.

    Attributes:
        start_ms: the instant for which `initial` holds, before the first bucket.
        bucket_ms: int64[n], closes, ascending.
        equity: float64[n], account currency, after fees.
        exposure: float64[n], `sum(|quantity * mark|)`.
        initial, final: exact equity at the start and at the last bucket.
    """

    start_ms: int
    bucket_ms: Integers
    equity: Floats
    exposure: Floats
    initial: Decimal
    final: Decimal

    def __post_init__(self) -> None:
        n = len(self.bucket_ms)
        if len(self.equity) != n or len(self.exposure) != n:
            raise InvalidValue(
                "an equity curve had columns of different lengths.", "Give one value per bucket."
            )
        if n and (self.bucket_ms[0] <= self.start_ms or bool(np.any(np.diff(self.bucket_ms) <= 0))):
            raise InvalidValue("an equity curve had times that do not ascend.", "Sort it, each time once.")
        if not (np.isfinite(self.equity).all() and np.isfinite(self.exposure).all()):
            raise InvalidValue("an equity curve had a value that is not finite.", "Mend its source.")

    def __len__(self) -> int:
        return len(self.bucket_ms)

    @property
    def times_ms(self) -> Integers:
        """The start and all buckets, int64[n+1]."""
        return np.concatenate((np.array([self.start_ms], dtype=np.int64), self.bucket_ms))

    @property
    def values(self) -> Floats:
        """The initial equity and that of all buckets, float64[n+1]."""
        return np.concatenate((np.array([float(self.initial)]), self.equity))

    def returns(self) -> Floats | None:
        """Simple returns per bucket, float64[n]; None where equity was 0 or below, from which nothing is a return."""
        values = self.values
        if bool(np.any(values[:-1] <= 0)):
            return None
        return values[1:] / values[:-1] - 1.0

    def drawdowns(self) -> Floats:
        """`equity / highest equity so far - 1` at the start and each bucket, float64[n+1], 0 or below; 0 where no equity was positive."""
        values = self.values
        heights = np.maximum.accumulate(values)
        return np.divide(values - heights, heights, out=np.zeros_like(values), where=heights > 0)

    def deepest(self) -> Drawdown | None:
        """The deepest drawdown, the first of equal ones; None where equity never fell."""
        depths, times, values = self.drawdowns(), self.times_ms, self.values
        if not len(self) or float(depths.min()) >= 0:
            return None
        trough = int(np.argmin(depths))
        height = values[: trough + 1].max()
        peak = int(np.flatnonzero(values[: trough + 1] == height)[-1])
        after = np.flatnonzero(values[trough:] >= height)
        back = int(times[trough + int(after[0])]) if len(after) else None
        return Drawdown(float(depths[trough]), int(times[peak]), int(times[trough]), back)

    def under_water_ms(self, *, recovered_only: bool = False) -> int:
        """The longest time from a height to when it was reached again, or to the end; 0 where equity never fell.

        Args:
            recovered_only: leave out a fall that has no end (as Lean does).
        """
        below = self.drawdowns() < 0
        return _longest(below, self.times_ms, open_end=not recovered_only)

    def flat_ms(self) -> int:
        """The longest time without exposure."""
        idle = np.concatenate(([False], self.exposure == 0))
        return _longest(idle, self.times_ms, open_end=True, until_last=True)

    def sampled(self, step_ms: int) -> EquityCurve:
        """The curve at the last bucket of each period of `step_ms` since 1970."""
        if not len(self):
            return self
        period = (self.bucket_ms - 1) // step_ms
        last = np.flatnonzero(np.concatenate((period[1:] != period[:-1], [True])))
        return EquityCurve(
            self.start_ms,
            self.bucket_ms[last],
            self.equity[last],
            self.exposure[last],
            self.initial,
            self.final,
        )


def _longest(
    marked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    times: Integers,
    *,
    open_end: bool,
    until_last: bool = False,
) -> int:
    """The longest run of marks: from the time before it to the first one after it, or to the last of the run."""
    edges = np.diff(np.concatenate(([0], marked.astype(np.int8), [0])))
    begins, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if not open_end:
        keep = ends < len(times)
        begins, ends = begins[keep], ends[keep]
    if not len(begins):
        return 0
    stop = ends - 1 if until_last else np.minimum(ends, len(times) - 1)
    return int(np.max(times[stop] - times[np.maximum(begins - 1, 0)]))


def in_order(fills: Sequence[Fill]) -> list[Fill]:
    """Fills by time, symbol, order and number: the order in which this package reads them, whatever order they come in."""
    return sorted(fills, key=lambda one: (one.fill_time_ms, one.symbol, one.order_id, one.seq))


def signed(fill: Fill) -> Decimal:
    """The quantity of a fill, negative where it was sold."""
    return fill.quantity if fill.side is Side.BUY else negated(fill.quantity)


def curve_of(
    initial_cash: Decimal, fills: Sequence[Fill], bars: Sequence[BarColumns], interval: int
) -> EquityCurve:
    """The curve that fills and bars give: `cash + sum(quantity * last close)` at the close of every bucket from the first bar to the last.

    A fill counts in the bucket in which its time lies: one at the instant of a close belongs to the next. Before the first close of its symbol a
    position is worth what it was last traded at. The endpoints are exact.

    Args:
        interval: seconds.

    Raises:
        InvalidValue: no bars, a fill of a symbol without bars, one outside the time of the bars, or more than `MAX_BUCKETS` buckets.
    """
    held = {one.symbol: one for one in bars if len(one)}
    if not held:
        raise InvalidValue("there were no bars to value the run by.", "Give the bars that it ran on.")
    step = interval * 1000
    start = min(int(one.open_time_ms[0]) for one in held.values())
    end = max(int(one.bucket_ms[-1]) for one in held.values())
    if (end - start) // step > MAX_BUCKETS:
        raise InvalidValue(
            f"the bars spanned {(end - start) // step} buckets; at most {MAX_BUCKETS} are drawn.",
            "Give a longer interval.",
        )
    ordered = in_order(fills)
    for one in ordered:
        if one.symbol not in held or not start <= one.fill_time_ms < end:
            raise InvalidValue(
                f"fill {one.seq} of order {one.order_id} was of {one.symbol!r} at {one.fill_time_ms}, where there are no bars.",
                "Give the bars that the run was on.",
            )
    times = np.arange(start + step, end + 1, step, dtype=np.int64)
    spent = [minus(product(negated(signed(one)), one.price), one.fee) for one in ordered]
    cash = _steps([one.fill_time_ms for one in ordered], spent, times)
    equity, exposure = float(initial_cash) + cash, np.zeros(len(times))
    worth = [initial_cash, *spent]
    for symbol in sorted(held):
        own = [one for one in ordered if one.symbol == symbol]
        if not own:
            continue
        moved = [signed(one) for one in own]
        quantity = _steps([one.fill_time_ms for one in own], moved, times)
        value = quantity * _marks(held[symbol], own, times)
        equity, exposure = equity + value, exposure + np.abs(value)
        worth.append(product(total(moved), held[symbol].close.at(-1)))
    return EquityCurve(start, times, equity, exposure, initial_cash, total(worth))


def _steps(at_ms: Sequence[int], changes: Iterable[Decimal], times: Integers) -> Floats:
    """The running total at each time, of what came before it; each level is rounded once."""
    levels, level = [0.0], ZERO
    for change in changes:
        level = plus(level, change)
        levels.append(float(level))
    at = np.array(at_ms, dtype=np.int64)
    return np.array(levels)[np.searchsorted(at, times, side="left")]


def _marks(bars: BarColumns, fills: Sequence[Fill], times: Integers) -> Floats:
    """The last close at each time; before the first close the price of the last fill."""
    found = np.searchsorted(bars.bucket_ms, times, side="right") - 1
    closes = bars.close.floats()[np.maximum(found, 0)]
    at = np.array([one.fill_time_ms for one in fills], dtype=np.int64)
    prices = np.array([float(one.price) for one in fills])
    last = prices[np.maximum(np.searchsorted(at, times, side="left") - 1, 0)]
    return np.where(found < 0, last, closes)
