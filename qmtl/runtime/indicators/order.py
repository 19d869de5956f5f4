"""What the order of the values in a window says: the least, the greatest, and any quantile."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import Column, Floats
from qmtl.runtime.indicators.exact import given
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.parameters import number
from qmtl.runtime.indicators.rolling import Rolling, Row


class _Extreme:
    """The values that may still become the extreme, each better than all behind it, with the numbers of their steps."""

    __slots__ = ("_best", "_entered", "_greatest", "_left")

    def __init__(self, greatest: bool) -> None:
        self._greatest = greatest
        self._best: deque[tuple[int, Decimal]] = deque()
        self._entered = 0
        self._left = 0

    def enter(self, row: Row) -> None:
        (value,) = row
        while self._best and (self._best[-1][1] <= value if self._greatest else self._best[-1][1] >= value):
            self._best.pop()
        self._best.append((self._entered, value))
        self._entered += 1

    def leave(self, row: Row) -> None:
        if self._best[0][0] == self._left:
            self._best.popleft()
        self._left += 1

    def give(self, rows: Sequence[Row]) -> float | None:
        return float(self._best[0][1])

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        """Doubling: of 1, 2, 4, … neighbours, and then of two such stretches that cover the window."""
        better = np.maximum if self._greatest else np.minimum
        best = ports[0]
        span = 1
        while 2 * span <= size:
            best = better(best[span:], best[:-span])
            span *= 2
        if span < size:
            best = better(best[size - span :], best[: span - size])
        return Column.full(best)


class _Quantile:
    """With the values in order x0 … xn-1 and h = (n - 1) * q: between the two of the places around h, in proportion (type 7 of Hyndman and Fan,
    Sample Quantiles in Statistical Packages, 1996). A place is found in O(log n) steps; to make room there moves a block of memory."""

    __slots__ = ("_after", "_place", "_sorted")

    def __init__(self, q: float, size: int) -> None:
        h = Decimal(repr(q)) * (size - 1)
        self._place = int(h)
        self._after = float(h - self._place)
        self._sorted: list[float] = []

    def enter(self, row: Row) -> None:
        insort(self._sorted, float(row[0]))

    def leave(self, row: Row) -> None:
        del self._sorted[bisect_left(self._sorted, float(row[0]))]

    def give(self, rows: Sequence[Row]) -> float | None:
        return self._told(self._sorted)

    def _told(self, ordered: list[float]) -> float | None:
        low = ordered[self._place]
        if not self._after:
            return low
        high = ordered[self._place + 1]
        # From the nearer end, so that no rounding leads beyond either.
        apart = high - low
        value = low + apart * self._after if self._after < 0.5 else high - apart * (1.0 - self._after)
        return value if math.isfinite(value) else None

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        values = ports[0].tolist()
        ordered = sorted(values[:size])
        out = [self._told(ordered)]
        for oldest, newest in zip(values, values[size:], strict=False):
            del ordered[bisect_left(ordered, oldest)]
            insort(ordered, newest)
            out.append(self._told(ordered))
        return given(out)


def _least(params: Parsed, window: NodeWindow | None) -> Rolling:
    return Rolling("min", 1, params.period, lambda: _Extreme(greatest=False), window)


def _greatest(params: Parsed, window: NodeWindow | None) -> Rolling:
    return Rolling("max", 1, params.period, lambda: _Extreme(greatest=True), window)


def _quantile(params: Parsed, window: NodeWindow | None) -> Rolling:
    q, size = params.values["q"], params.period
    return Rolling("quantile", 1, size, lambda: _Quantile(q, size), window)


MIN: Final = Indicator("min", 1, _least, least=1)
"""The least of the last `period` inputs."""

MAX: Final = Indicator("max", 1, _greatest, least=1)
"""The greatest of the last `period` inputs."""

QUANTILE: Final = Indicator("quantile", 1, _quantile, least=1, rules={"q": number(0, 1)})
"""The value below which a share `q`, 0 to 1, of the last `period` inputs lies; 0.5 is the median. Nothing where two values are further apart
than any float."""
