"""From a signal to the share of equity to hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

import numpy as np

from qmtl.foundation.common.errors import InvalidParameter, InvalidValue
from qmtl.foundation.common.money import ZERO, parse_decimal, text
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow, PositionTarget
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.builtin import (
    Inputs,
    PositionTargetValue,
    bad_period,
    is_period,
    kind,
    refuse_first,
    strangers,
)
from qmtl.runtime.indicators.columnar import NO_TARGET, Targets, after, fires

_GIVEN: Final = "given"


@dataclass(frozen=True, slots=True)
class TargetParams:
    """What to hold on either side.

    Attributes:
        long_percent: 0 to 1.
        short_percent: -1 to 0.
        on_change: a target is given only where it differs from the last one.
    """

    long_percent: Decimal
    short_percent: Decimal
    on_change: bool = False


class _Target:
    """Which target was given last is remembered only where it counts."""

    __slots__ = ("_given", "_params", "_seen")

    def __init__(self, params: TargetParams, window: NodeWindow | None) -> None:
        self._params = params
        self._seen = 0 if window is None else window.seen
        memory = {} if window is None else window.memory or {}
        self._given = Decimal(memory[_GIVEN]) if _GIVEN in memory else None

    def step(self, inputs: Inputs, bar: Bar) -> PositionTargetValue | None:
        (signal,) = inputs
        if signal is None:
            return None
        if signal > 0:
            percent = self._params.long_percent
        elif signal < 0:
            percent = self._params.short_percent
        elif signal == 0:
            percent = ZERO
        else:
            raise InvalidValue(
                "the signal of a position_target node was NaN, which has no sign.", "Check its source."
            )
        self._seen += 1
        if self._params.on_change:
            if percent == self._given:
                return None
            self._given = percent
        return PositionTargetValue(percent, bar.close)

    def basis(self, bar: Bar) -> bytes:
        return text(bar.close).encode()

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        memory = None if self._given is None else {_GIVEN: text(self._given)}
        return NodeWindow(node_id, symbol, self._seen, (), memory)

    def fold(self, inputs: tuple[Column, ...], bars: BarColumns) -> Targets:
        at = fires(inputs, bars)
        signal = inputs[0].values[at]
        long, short = self._params.long_percent, self._params.short_percent
        percents = tuple(dict.fromkeys((long, short, ZERO)))
        of_long, of_short, of_flat = (percents.index(one) for one in (long, short, ZERO))
        chosen = np.where(signal > 0, of_long, np.where(signal < 0, of_short, of_flat)).astype(np.int8)
        index = np.full(len(bars), NO_TARGET, dtype=np.int8)
        self._seen += len(at)
        if self._params.on_change and len(at):
            last = NO_TARGET if self._given is None else percents.index(self._given)
            changes = chosen != np.concatenate((np.array([last], dtype=np.int8), chosen[:-1]))
            index[at[changes]] = chosen[changes]
            self._given = percents[int(chosen[-1])]
        else:
            index[at] = chosen
        return Targets(percents, index, bars.close)


@dataclass(frozen=True, slots=True)
class Target:
    """At each signal: `long_percent` above 0, `short_percent` below 0, flat at 0; the bar's close is the reference price.

    Parameters: `long_percent` from 0 to 1 and `short_percent` from -1 to 0 (0 for a strategy that only exits), as numbers or
    decimal texts. The signs are fixed, so that a short of 0.5 can't become a purchase unnoticed. With `on_change`, which is `true` or not
    there, a target is given only where its share differs from that of the last one given.
    """

    name: str = "position_target"
    version: str = "1"
    ports: int = 1
    output: type[PositionTarget] = PositionTarget

    def parse(self, params: Mapping[str, object], period: int) -> TargetParams:
        if params.keys() != _SHARES.keys() or not is_period(period):
            refuse_first(self.refusals(params, period))
        long, short = (_share(name, params[name]) for name in _SHARES)
        return TargetParams(long, short, _ON_CHANGE in params)

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        yield from strangers(self.name, params, tuple(_SHARES), (_ON_CHANGE,))
        yield from bad_period(self.name, period)
        for name in _SHARES:
            try:
                if name in params:
                    _share(name, params[name])
            except InvalidParameter as refused:
                yield refused
        if params.get(_ON_CHANGE, True) is not True:
            yield InvalidParameter(
                f"{_ON_CHANGE} of a position_target node was {kind(params[_ON_CHANGE])}; true is what it may be.",
                "Leave it out where every signal is to be answered.",
            )

    def resume(self, params: TargetParams, window: NodeWindow | None) -> _Target:
        return _Target(params, window)

    def columns(
        self, params: TargetParams, inputs: tuple[Column, ...], bars: BarColumns, window: NodeWindow | None
    ) -> tuple[Targets, NodeWindow]:
        running = _Target(params, window)
        return running.fold(inputs, bars), after(running, bars, window)


_ON_CHANGE: Final = "on_change"


_SHARES: Final[Mapping[str, tuple[Decimal, Decimal]]] = {
    "long_percent": (Decimal(0), Decimal(1)),
    "short_percent": (Decimal(-1), Decimal(0)),
}
"""The least and the most of each share."""


def _share(name: str, value: object) -> Decimal:
    least, most = _SHARES[name]
    refused = InvalidParameter(
        f"{name} of a position_target node was {kind(value)}; a number from {least} to {most} is required.",
        "Send a share of the equity, such as 0.5 for long and -0.5 for short.",
    )
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise refused
    try:
        share = parse_decimal(repr(value) if isinstance(value, float) else str(value), name)
    except InvalidValue:
        raise refused from None
    if not least <= share <= most:
        raise refused
    return share
