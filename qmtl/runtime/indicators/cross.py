"""The crossing of two lines: a signal whenever the sign of their difference turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qmtl.foundation.common.errors import InvalidParameter, InvalidValue
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers
from qmtl.runtime.indicators.builtin import Inputs, bad_period, is_period, refuse_first, strangers
from qmtl.runtime.indicators.columnar import folded

_SIGN = "sign"


class _Cross:
    __slots__ = ("_before", "_seen", "_sign")

    def __init__(self, window: NodeWindow | None) -> None:
        self._before = 0
        self._seen = 0 if window is None else window.seen
        self._sign = int((window.memory or {}).get(_SIGN, "0")) if window is not None else 0

    def step(self, inputs: Inputs, bar: Bar) -> float | None:
        fast, slow = inputs
        if fast is None or slow is None:
            return None
        if fast != fast or slow != slow:
            raise InvalidValue(
                f"the inputs of a cross node were {fast} and {slow}; NaN has no sign.", "Check its source."
            )
        self._seen += 1
        sign = (fast > slow) - (fast < slow)
        if not sign or sign == self._sign:
            return None
        self._before, self._sign = self._sign, sign
        return float(sign)

    def basis(self, bar: Bar) -> bytes:
        return b"%d" % self._before

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return NodeWindow(node_id, symbol, self._seen, (), {_SIGN: str(self._sign)} if self._sign else None)

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        fast, slow = ports
        self._seen += len(at)
        signs = (fast > slow) * 1 - (fast < slow) * 1
        apart = np.flatnonzero(signs)  # lines that touch say nothing and are not forgotten either
        there = np.zeros(len(at), dtype=np.bool_)
        if len(apart):
            known = signs[apart]
            turned = known != np.concatenate(([self._sign], known[:-1]))
            there[apart[turned]] = True
            if turned.any():
                before = known[:-1][turned[1:]]
                self._before = int(before[-1]) if len(before) else self._sign
            self._sign = int(known[-1])
        return Column(signs.astype(np.float64), there)


@dataclass(frozen=True, slots=True)
class Cross:
    """Ports: fast, slow. Emits 1.0 when fast rises above slow, -1.0 when it falls below, nothing otherwise.

    The first sign is a signal too: the strategy learns on which side it starts instead of waiting, flat, for the first turn.
    Lines that touch (difference 0) say nothing and are not forgotten either: above, equal, above is no turn. A bucket where one
    input is silent is passed over. No parameters.
    """

    name: str = "cross"
    version: str = "1"
    ports: int = 2
    output: type[NodeValue] = NodeValue

    def parse(self, params: Mapping[str, object], period: int) -> None:
        if params or not is_period(period):
            refuse_first(self.refusals(params, period))

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        yield from strangers(self.name, params, ())
        yield from bad_period(self.name, period)

    def resume(self, params: None, window: NodeWindow | None) -> _Cross:
        return _Cross(window)

    def columns(
        self, params: None, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Column, NodeWindow]:
        return folded(_Cross(window), inputs, bars, window)
