"""The average price of the last bars, each by its volume."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import numpy as np

from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers, Scaled
from qmtl.runtime.indicators.builtin import Inputs
from qmtl.runtime.indicators.exact import (
    EXACT,
    Whole,
    python_integers,
    quotients,
    ratio,
    require_finite,
    sums,
)
from qmtl.runtime.indicators.indicator import Indicator, Parsed

_ZERO: Final = Decimal(0)
_THREE: Final = Decimal(3)


class _Vwap:
    """The bars of the window as high + low + close, and volume; the sums of volumes and of products of the two are exact."""

    __slots__ = ("_amount", "_period", "_rows", "_seen", "_volume")

    def __init__(self, period: int, window: NodeWindow | None) -> None:
        self._period = period
        self._seen = 0 if window is None else window.seen
        values = () if window is None else window.values[-2 * period :]
        self._fill([*zip(values[::2], values[1::2], strict=True)])

    def _fill(self, rows: Sequence[tuple[Decimal, Decimal]]) -> None:
        self._rows = deque(rows)
        self._amount = self._volume = _ZERO
        for prices, volume in rows:
            self._amount = EXACT.add(self._amount, EXACT.multiply(prices, volume))
            self._volume = EXACT.add(self._volume, volume)

    def step(self, inputs: Inputs, bar: Bar) -> float | None:
        if inputs[0] is None:
            return None
        require_finite("vwap", inputs[0])
        self._seen += 1
        if len(self._rows) == self._period:
            prices, volume = self._rows.popleft()
            self._amount = EXACT.subtract(self._amount, EXACT.multiply(prices, volume))
            self._volume = EXACT.subtract(self._volume, volume)
        prices = EXACT.add(EXACT.add(bar.high, bar.low), bar.close)
        self._rows.append((prices, bar.volume))
        self._amount = EXACT.add(self._amount, EXACT.multiply(prices, bar.volume))
        self._volume = EXACT.add(self._volume, bar.volume)
        if len(self._rows) < self._period or not self._volume:
            return None
        return ratio(self._amount, EXACT.multiply(_THREE, self._volume))

    def basis(self, bar: Bar) -> bytes:
        return "\0".join([text(value) for row in self._rows for value in row]).encode()

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return NodeWindow(node_id, symbol, self._seen, tuple([value for row in self._rows for value in row]))

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        count = len(at)
        if not count:
            return Column(np.zeros(0), np.zeros(0, dtype=np.bool_))
        kept = list(self._rows)[-self._period + 1 :] if self._period > 1 else []
        prices, price_places = _joined([row[0] for row in kept], _prices(bars, at), bars.high.places)
        volumes, _ = _joined([row[1] for row in kept], bars.volume.units[at], bars.volume.places)
        values, there = np.zeros(count), np.zeros(count, dtype=np.bool_)
        full = len(prices) - self._period + 1
        if full > 0:
            amount, volume = sums(prices * volumes, self._period), sums(volumes, self._period)
            told = quotients(amount, volume * (3 * 10**price_places))
            values[count - full :], there[count - full :] = told.values, told.there
        self._seen += count
        self._fill([*self._rows, *_rows(bars, at[-self._period :])][-self._period :])
        return Column(values, there)


def _prices(bars: BarColumns, at: Integers) -> Whole:
    """high + low + close in units; each has up to 18 digits, so their sum fits."""
    return bars.high.units[at] + bars.low.units[at] + bars.close.units[at]


def _rows(bars: BarColumns, at: Integers) -> list[tuple[Decimal, Decimal]]:
    prices, volumes = (
        Scaled(_prices(bars, at), bars.high.places),
        Scaled(bars.volume.units[at], bars.volume.places),
    )
    return [(prices.at(index), volumes.at(index)) for index in range(len(at))]


def _joined(old: Sequence[Decimal], new: Whole, places: int) -> tuple[Whole, int]:
    """Numbers that are kept before those of a column, as Python's integers in the places of both."""
    shown = max([places, *(-int(value.as_tuple().exponent) for value in old)])
    out = np.empty(len(old) + len(new), dtype=object)
    out[: len(old)] = [int(value.scaleb(shown, EXACT)) for value in old]
    out[len(old) :] = python_integers(new) * 10 ** (shown - places)
    return out, shown


def _vwap(params: Parsed, window: NodeWindow | None) -> _Vwap:
    return _Vwap(params.period, window)


VWAP: Final = Indicator("vwap", 1, _vwap, least=1)
"""Of the last `period` bars: the sum of (high + low + close) * volume by that of 3 * volume, rounded once. Nothing where no volume was traded. The
input says in which buckets a bar counts; its value is not read."""
