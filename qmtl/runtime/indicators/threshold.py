"""A signal from a level, with a second level for the way back, so that noise around one of them does not turn it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from qmtl.foundation.common.errors import InvalidParameter
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Floats, Integers
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.parameters import number
from qmtl.runtime.indicators.recursive import Recursive, State

LEVELS: Final = ("lower_enter", "lower_exit", "upper_exit", "upper_enter")
"""In the order in which they lie."""


class _Threshold:
    names = ("side",)
    begin: State = (0.0,)

    def __init__(self, levels: tuple[float, float, float, float]) -> None:
        self._levels = levels

    def move(self, state: State, values: Sequence[float], bar: Bar) -> tuple[State, float | None]:
        side = self._side(state[0], values[0])
        return (side,), side

    def _side(self, side: float, x: float) -> float:
        lower_enter, lower_exit, upper_exit, upper_enter = self._levels
        if x >= upper_enter:
            return 1.0
        if x <= lower_enter:
            return -1.0
        if (side > 0.0 and x > upper_exit) or (side < 0.0 and x < lower_exit):
            return side
        return 0.0

    def reads(self, bar: Bar) -> bytes:
        return b""

    def move_all(
        self, state: State, ports: tuple[Floats, ...], bars: BarColumns, at: Integers
    ) -> tuple[State, Floats]:
        (side,) = state
        (xs,) = ports
        lower_enter, lower_exit, upper_exit, upper_enter = self._levels
        # Beyond a level of entry, and between the levels of exit, the side is known; elsewhere it is that of before, or none: what lies above
        # upper_exit keeps an upper side alone, and what lies below lower_exit a lower one.
        known = (xs >= upper_enter) | (xs <= lower_enter) | ((xs <= upper_exit) & (xs >= lower_exit))
        sides = np.where(xs >= upper_enter, 1.0, np.where(xs <= lower_enter, -1.0, 0.0))
        out = sides.tolist()
        for index, upper in zip(
            np.flatnonzero(~known).tolist(), (xs > upper_exit)[~known].tolist(), strict=True
        ):
            before = out[index - 1] if index else side
            out[index] = before if before and (before > 0.0) is upper else 0.0
        return (out[-1] if out else side,), np.array(out, dtype=np.float64)


def _threshold(params: Parsed, window: NodeWindow | None) -> Recursive:
    lower_enter, lower_exit, upper_exit, upper_enter = (params.values[name] for name in LEVELS)
    return Recursive("threshold", _Threshold((lower_enter, lower_exit, upper_exit, upper_enter)), window)


def _ordered(period: int, values: Mapping[str, Any]) -> Iterator[InvalidParameter]:
    lower_enter, lower_exit, upper_exit, upper_enter = (values[name] for name in LEVELS)
    if not lower_enter < lower_exit <= upper_exit < upper_enter:
        told = ", ".join(f"{values[name]:g}" for name in LEVELS)
        yield InvalidParameter(
            f"{', '.join(LEVELS)} of a threshold node were {told}; lower_enter < lower_exit <= upper_exit < upper_enter is required.",
            "Put the levels of exit between those of entry.",
        )


THRESHOLD: Final = Indicator(
    "threshold", 1, _threshold, rules={name: number() for name in LEVELS}, along=_ordered
)
"""1.0 from `upper_enter` upwards, until the input is at `upper_exit` or below; -1.0 from `lower_enter` downwards, until it is at `lower_exit` or
above; 0.0 otherwise. Emits at every input. Parameters: the four levels."""
