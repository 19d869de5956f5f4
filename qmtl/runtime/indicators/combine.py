"""One number out of two inputs of the same bucket."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers
from qmtl.runtime.indicators.builtin import Inputs
from qmtl.runtime.indicators.exact import finite, require_finite
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.parameters import choice, number, numbers

_Single = Callable[[float, float], float]
_Many = Callable[[Floats, Floats], Floats]


def _sides(a: Any, b: Any) -> tuple[Any, Any, Any, Any]:
    """Of two numbers or two columns: which are above 0, and which below."""
    return a > 0.0, b > 0.0, a < 0.0, b < 0.0


def _and(a: Any, b: Any) -> Any:
    a_up, b_up, a_down, b_down = _sides(a, b)
    return (a_up & b_up) * 1.0 - (a_down & b_down) * 1.0


def _or(a: Any, b: Any) -> Any:
    a_up, b_up, a_down, b_down = _sides(a, b)
    ups, downs = (a_up | b_up) * 1.0, (a_down | b_down) * 1.0
    return ups - downs


_RULES: Final[Mapping[str, tuple[_Single, _Many]]] = {
    "min": (min, np.minimum),
    "max": (max, np.maximum),
    "and": (_and, _and),
    "or": (_or, _or),
}
"""Each for two numbers and for two columns."""


class _Combine:
    __slots__ = ("_many", "_name", "_one", "_seen")

    def __init__(self, name: str, one: _Single, many: _Many, window: NodeWindow | None) -> None:
        self._name = name
        self._one = one
        self._many = many
        self._seen = 0 if window is None else window.seen

    def step(self, inputs: Inputs, bar: Bar) -> float | None:
        a, b = inputs
        if a is None or b is None:
            return None
        require_finite(self._name, a, b)
        self._seen += 1
        value = self._one(a + 0.0, b + 0.0)
        return value if math.isfinite(value) else None

    def basis(self, bar: Bar) -> bytes:
        return b""

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return NodeWindow(node_id, symbol, self._seen)

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        a, b = ports
        self._seen += len(at)
        with np.errstate(all="ignore"):  # what is not finite is not there
            return finite(self._many(a + 0.0, b + 0.0))


def _combine(params: Parsed, window: NodeWindow | None) -> _Combine:
    one, many = _RULES[params.values["rule"]]
    return _Combine("combine", one, many, window)


def _linear(params: Parsed, window: NodeWindow | None) -> _Combine:
    (of_a, of_b), constant = params.values["weights"], params.values["constant"]

    def line(a: Any, b: Any) -> Any:
        return of_a * a + of_b * b + constant

    return _Combine("linear", line, line, window)


COMBINE: Final = Indicator("combine", 2, _combine, rules={"rule": choice(*_RULES)})
"""Of two inputs, `min` or `max`, or as signals: `and` is 1.0 where both are above 0, -1.0 where both are below, 0.0 otherwise; `or` is 1.0 where one
is above and none below, -1.0 where one is below and none above, 0.0 otherwise. Parameters: `rule`."""

LINEAR: Final = Indicator("linear", 2, _linear, rules={"weights": numbers(2), "constant": number()})
"""weights[0] * a + weights[1] * b + constant, in float64, from left to right. Nothing where that is beyond a float. Parameters: `weights`,
`constant`."""
