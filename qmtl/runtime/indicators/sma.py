"""The simple moving average: the mean of the last `period` inputs, from an exact running sum."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from struct import Struct
from typing import Final

import numpy as np

from qmtl.foundation.common.errors import InvalidParameter, InvalidValue
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers
from qmtl.runtime.indicators.builtin import Inputs, bad_period, is_period, refuse_first, strangers
from qmtl.runtime.indicators.columnar import folded
from qmtl.runtime.indicators.exact import blocks, mean, means, units, window_totals
from qmtl.runtime.indicators.remembered import read, written

_SUM = Context(prec=1000, traps=[Inexact, InvalidOperation])
"""Wide enough for the exact sum of any floats, which lie between 5e-324 and 2e308, so that the trap never springs."""

_DOUBLE: Final = Struct(">d").pack
_DOUBLE_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class SmaParams:
    """How many inputs are averaged."""

    period: int


class _Sma:
    """The window as a deque and its sum. What enters the sum leaves it as the same decimal, so it never drifts.

    The window is kept as the bytes of its doubles, too: hashing these costs nanoseconds a value, making them anew hundreds.
    Of the two zeros there is one, as a window that was written down and read again has no other.
    """

    __slots__ = ("_divisor", "_doubles", "_period", "_seen", "_sum", "_values")

    def __init__(self, period: int, window: NodeWindow | None) -> None:
        self._period = period
        self._divisor = Decimal(period)
        self._seen = 0 if window is None else window.seen
        self._fill(read(window)[-period:])

    def _fill(self, values: Sequence[Decimal]) -> None:
        self._values = deque(values)
        self._doubles = bytearray(b"".join([_DOUBLE(float(value) + 0.0) for value in values]))
        self._sum = Decimal(0)
        for value in values:
            self._sum = _SUM.add(self._sum, value)

    def step(self, inputs: Inputs, bar: Bar) -> float | None:
        (value,) = inputs
        if value is None:
            return None
        entered = _entered(value)
        self._seen += 1
        self._values.append(entered)
        self._doubles += _DOUBLE(value + 0.0)
        self._sum = _SUM.add(self._sum, entered)
        if len(self._values) > self._period:
            self._sum = _SUM.subtract(self._sum, self._values.popleft())
            del self._doubles[:_DOUBLE_BYTES]
        if len(self._values) < self._period:
            return None
        return mean(self._sum, self._divisor)

    def basis(self, bar: Bar) -> bytes:
        return bytes(self._doubles)

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return written(node_id, symbol, self._seen, self._values)

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        """The sum as a difference of two sums over the column. It is the same number, and so its mean (`exact.means`) has the same bits."""
        period, count = self._period, len(at)
        kept = [float(value) for value in self._values][-period + 1 :] if period > 1 else []
        joined = np.concatenate((np.array(kept, dtype=np.float64), ports[0]))
        told = np.zeros(count, dtype=np.float64)
        there = np.zeros(count, dtype=np.bool_)
        full = max(0, len(joined) - period + 1)
        silent = count - full
        for begin, end in blocks(full):
            whole, places = units(joined[begin : end + period - 1])
            told[silent + begin : silent + end] = means(window_totals(whole, period), places, period)
        there[silent:] = True
        self._seen += count
        newest = [Decimal(repr(value)) for value in ports[0][-period:].tolist()]
        self._fill([*self._values, *newest][-period:])
        return Column(told, there)


@dataclass(frozen=True, slots=True)
class Sma:
    """Silent until `period` inputs were seen, then the mean of the last `period` at every input.

    A float enters as the decimal of its shortest text. No parameters: the window is the node's `period`.
    """

    name: str = "sma"
    version: str = "1"
    ports: int = 1
    output: type[NodeValue] = NodeValue

    def parse(self, params: Mapping[str, object], period: int) -> SmaParams:
        if params or not is_period(period, least=1):
            refuse_first(self.refusals(params, period))
        return SmaParams(period)

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        yield from strangers(self.name, params, ())
        yield from bad_period(self.name, period, least=1)

    def resume(self, params: SmaParams, window: NodeWindow | None) -> _Sma:
        return _Sma(params.period, window)

    def columns(
        self, params: SmaParams, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Column, NodeWindow]:
        return folded(_Sma(params.period, window), inputs, bars, window)


def _entered(value: float) -> Decimal:
    entered = Decimal(repr(value))
    if not entered.is_finite():
        raise InvalidValue(
            f"an input of an sma node was {value}; only finite numbers are averaged.", "Check its source."
        )
    return entered
