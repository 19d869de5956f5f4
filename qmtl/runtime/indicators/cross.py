"""The crossing of two lines: a signal whenever the sign of their difference turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from qmtl.foundation.common.errors import InvalidParameter, InvalidValue
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers
from qmtl.runtime.indicators.builtin import Inputs, bad_period, is_period, kind, refuse_first, strangers
from qmtl.runtime.indicators.columnar import folded

_SIGN: Final = "sign"
_TURNS_ONLY: Final = "turns_only"


@dataclass(frozen=True, slots=True)
class CrossParams:
    """When the node speaks.

    Attributes:
        turns_only: the first sign is none: nothing has turned yet.
    """

    turns_only: bool = False


class _Cross:
    __slots__ = ("_before", "_seen", "_sign", "_turns_only")

    def __init__(self, params: CrossParams, window: NodeWindow | None) -> None:
        self._turns_only = params.turns_only
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
        if self._turns_only and not self._before:
            return None
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
            if self._turns_only and not self._sign:
                there[apart[0]] = False
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
    input is silent is passed over.

    Parameters: `turns_only`, which is `true` or not there. With it the first sign is no signal: a strategy begins flat and waits for the first turn.
    """

    name: str = "cross"
    version: str = "1"
    ports: int = 2
    output: type[NodeValue] = NodeValue

    def parse(self, params: Mapping[str, object], period: int) -> CrossParams:
        if params or not is_period(period):
            refuse_first(self.refusals(params, period))
        return CrossParams(_TURNS_ONLY in params)

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        yield from strangers(self.name, params, (), (_TURNS_ONLY,))
        yield from bad_period(self.name, period)
        if params.get(_TURNS_ONLY, True) is not True:
            yield InvalidParameter(
                f"{_TURNS_ONLY} of a cross node was {kind(params[_TURNS_ONLY])}; true is what it may be.",
                "Leave it out where the first sign is a signal, too.",
            )

    def resume(self, params: CrossParams, window: NodeWindow | None) -> _Cross:
        return _Cross(params, window)

    def columns(
        self, params: CrossParams, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Column, NodeWindow]:
        return folded(_Cross(params, window), inputs, bars, window)
