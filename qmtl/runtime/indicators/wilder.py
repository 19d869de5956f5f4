"""Wilder's averages, of gains and losses and of ranges: rsi and atr (New Concepts in Technical Trading Systems, 1978)."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Final

import numpy as np

from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Floats, Integers
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.recursive import Recursive, State


def _smooth(count: float, value: float, x: float, period: int) -> tuple[float, float]:
    """One step of an average: while `count` inputs are fewer than the period, `value` is their sum."""
    if count == period:
        return count, (value * (period - 1) + x) / period
    count, value = count + 1, value + x
    return count, value / period if count == period else value


def _run(count: float, value: float, xs: Sequence[float], period: int) -> tuple[float, float, list[float]]:
    """`_smooth` of each, with the averages that are there, which are the last ones."""
    warming = min(len(xs), max(0, int(period - count)))
    for x in xs[:warming]:
        count, value = _smooth(count, value, x, period)
    out = [value] if warming and count == period else []
    give = out.append
    before = period - 1
    for x in xs[warming:]:
        value = (value * before + x) / period
        give(value)
    return count, value, out


class _Rsi:
    """Of the changes from input to input: the average gain as a share of average gain and average loss."""

    names = ("seen", "last", "count", "gain", "loss")
    begin: State = (0.0,) * 5

    def __init__(self, period: int) -> None:
        self._period = period

    def move(self, state: State, values: Sequence[float], bar: Bar) -> tuple[State, float | None]:
        seen, last, count, gain, loss = state
        (x,) = values
        if not seen:
            return (1.0, x, count, gain, loss), None
        change = x - last
        _, gain = _smooth(count, gain, change if change > 0.0 else 0.0, self._period)
        count, loss = _smooth(count, loss, -change if change < 0.0 else 0.0, self._period)
        moves = gain + loss
        value = 100.0 * (gain / moves) if count == self._period and moves > 0.0 else None
        return (1.0, x, count, gain, loss), value

    def reads(self, bar: Bar) -> bytes:
        return b""

    def move_all(
        self, state: State, ports: tuple[Floats, ...], bars: BarColumns, at: Integers
    ) -> tuple[State, Floats]:
        seen, last, count, gain, loss = state
        out = np.full(len(at), nan)
        if not len(at):
            return state, out
        xs = ports[0] if not seen else np.concatenate(([last], ports[0]))
        with np.errstate(all="ignore"):  # what is not finite is not there
            change = xs[1:] - xs[:-1]
            ups = np.where(change > 0.0, change, 0.0).tolist()
            downs = np.where(change < 0.0, -change, 0.0).tolist()
            _, gain, gains = _run(count, gain, ups, self._period)
            count, loss, losses = _run(count, loss, downs, self._period)
            if gains:
                gained = np.array(gains)
                moves = gained + np.array(losses)
                out[len(at) - len(gains) :] = np.where(moves > 0.0, 100.0 * (gained / moves), nan)
        return (1.0, float(xs[-1]), count, gain, loss), out


class _Atr:
    """Of the true ranges: max(high - low, |high - c|, |low - c|) with c the close of the bar before."""

    names = ("seen", "close", "count", "value")
    begin: State = (0.0,) * 4

    def __init__(self, period: int) -> None:
        self._period = period

    def move(self, state: State, values: Sequence[float], bar: Bar) -> tuple[State, float | None]:
        seen, before, count, value = state
        close = float(bar.close)
        if not seen:
            return (1.0, close, count, value), None
        high, low = float(bar.high), float(bar.low)
        true_range = max(high - low, abs(high - before), abs(low - before))
        count, value = _smooth(count, value, true_range, self._period)
        return (1.0, close, count, value), value if count == self._period else None

    def reads(self, bar: Bar) -> bytes:
        return "\0".join(map(text, (bar.high, bar.low, bar.close))).encode()

    def move_all(
        self, state: State, ports: tuple[Floats, ...], bars: BarColumns, at: Integers
    ) -> tuple[State, Floats]:
        seen, before, count, value = state
        out = np.full(len(at), nan)
        if not len(at):
            return state, out
        high, low, close = (price.floats()[at] for price in (bars.high, bars.low, bars.close))
        if not seen:
            high, low = high[1:], low[1:]
        befores = np.concatenate(([before], close[:-1])) if seen else close[:-1]
        true_range = np.maximum(np.maximum(high - low, np.abs(high - befores)), np.abs(low - befores))
        count, value, told = _run(count, value, true_range.tolist(), self._period)
        out[len(at) - len(told) :] = told
        return (1.0, float(close[-1]), count, value), out


def _rsi(params: Parsed, window: NodeWindow | None) -> Recursive:
    return Recursive("rsi", _Rsi(params.period), window)


def _atr(params: Parsed, window: NodeWindow | None) -> Recursive:
    return Recursive("atr", _Atr(params.period), window)


RSI: Final = Indicator("rsi", 1, _rsi, least=1)
"""The relative strength index, 0 to 100: 100 * gain / (gain + loss), averages of the changes between inputs: first the mean of `period` of them, then
(average * (period - 1) + x) / period. Nothing where nothing has moved."""

ATR: Final = Indicator("atr", 1, _atr, least=1)
"""The average true range of the bars, by Wilder's average as an rsi has it. The input says in which buckets; its value is not read."""
