"""Exponential averages, and what two of them say: ema and macd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any, Final

import numpy as np

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Floats, Integers
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.parameters import choice, whole
from qmtl.runtime.indicators.recursive import Recursive, State

OUTPUTS: Final = ("value", "signal", "histogram")


def _move(count: float, value: float, x: float, period: int, alpha: float) -> tuple[float, float]:
    """One step of an average: while `count` inputs are fewer than the period, `value` is their sum."""
    if count == period:
        return count, value + alpha * (x - value)
    count, value = count + 1, value + x
    return count, value / period if count == period else value


def _run(
    count: float, value: float, xs: Sequence[float], period: int, alpha: float
) -> tuple[float, float, list[float]]:
    """`_move` of each, with the averages that are there, which are the last ones."""
    warming = min(len(xs), max(0, int(period - count)))
    for x in xs[:warming]:
        count, value = _move(count, value, x, period, alpha)
    out = [value] if warming and count == period else []
    give = out.append
    for x in xs[warming:]:
        value = value + alpha * (x - value)
        give(value)
    return count, value, out


def _alpha(period: int) -> float:
    return 2.0 / (period + 1)


def _ahead(count: int, values: list[float]) -> Floats:
    """The values at the end of so many, and nothing before them."""
    return np.array([nan] * (count - len(values)) + values, dtype=np.float64)


class _Ema:
    names = ("count", "value")
    begin: State = (0.0, 0.0)

    def __init__(self, period: int) -> None:
        self._period = period
        self._alpha = _alpha(period)

    def move(self, state: State, values: Sequence[float], bar: Bar) -> tuple[State, float | None]:
        count, value = _move(state[0], state[1], values[0], self._period, self._alpha)
        return (count, value), value if count == self._period else None

    def reads(self, bar: Bar) -> bytes:
        return b""

    def move_all(
        self, state: State, ports: tuple[Floats, ...], bars: BarColumns, at: Integers
    ) -> tuple[State, Floats]:
        count, value, out = _run(state[0], state[1], ports[0].tolist(), self._period, self._alpha)
        return (count, value), _ahead(len(at), out)


class _Macd:
    names = ("fast_count", "fast", "slow_count", "slow", "signal_count", "signal")
    begin: State = (0.0,) * 6

    def __init__(self, fast: int, slow: int, signal: int, output: str) -> None:
        self._fast, self._slow, self._signal = fast, slow, signal
        self._output = output

    def move(self, state: State, values: Sequence[float], bar: Bar) -> tuple[State, float | None]:
        (x,) = values
        fast = _move(state[0], state[1], x, self._fast, _alpha(self._fast))
        slow = _move(state[2], state[3], x, self._slow, _alpha(self._slow))
        signal = (state[4], state[5])
        if slow[0] < self._slow:
            return (*fast, *slow, *signal), None
        value = fast[1] - slow[1]
        signal = _move(*signal, value, self._signal, _alpha(self._signal))
        moved = (*fast, *slow, *signal)
        if self._output == "value":
            return moved, value
        if signal[0] < self._signal:
            return moved, None
        return moved, signal[1] if self._output == "signal" else value - signal[1]

    def reads(self, bar: Bar) -> bytes:
        return b""

    def move_all(
        self, state: State, ports: tuple[Floats, ...], bars: BarColumns, at: Integers
    ) -> tuple[State, Floats]:
        xs = ports[0].tolist()
        *fast, fasts = _run(state[0], state[1], xs, self._fast, _alpha(self._fast))
        *slow, slows = _run(state[2], state[3], xs, self._slow, _alpha(self._slow))
        both = len(slows)
        with np.errstate(
            invalid="ignore"
        ):  # an infinity in a state is passed over by whoever takes the steps
            values = np.array(fasts[len(fasts) - both :]) - np.array(slows)
        *signal, signals = _run(state[4], state[5], values.tolist(), self._signal, _alpha(self._signal))
        moved = (*fast, *slow, *signal)
        if self._output == "value":
            return moved, _ahead(len(at), values.tolist())
        if self._output == "histogram":
            signals = (values[both - len(signals) :] - np.array(signals)).tolist()
        return moved, _ahead(len(at), signals)


def _ema(params: Parsed, window: NodeWindow | None) -> Recursive:
    return Recursive("ema", _Ema(params.period), window)


def _macd(params: Parsed, window: NodeWindow | None) -> Recursive:
    values = params.values
    return Recursive("macd", _Macd(values["fast"], params.period, values["signal"], values["output"]), window)


def _faster(period: int, values: Mapping[str, Any]) -> Iterator[InvalidParameter]:
    if values["fast"] >= period:
        yield InvalidParameter(
            f"fast of a macd node was the number {values['fast']}; it is less than the period, which was {period} and is the slow one.",
            "Send the shorter of the two as fast.",
        )


EMA: Final = Indicator("ema", 1, _ema, least=1)
"""The exponential average with alpha = 2 / (period + 1): first the mean of `period` inputs, then value + alpha * (x - value)."""

MACD: Final = Indicator(
    "macd",
    1,
    _macd,
    least=2,
    rules={"fast": whole(1, 100_000), "signal": whole(1, 100_000), "output": choice(*OUTPUTS)},
    along=_faster,
)
"""Appel's convergence and divergence: `value`, the ema of `fast` inputs less that of `period`; `signal`, the ema of so many values; `histogram`, value
less signal. Each average begins with its own first inputs. Parameters: `fast`, `signal`, `output`."""
