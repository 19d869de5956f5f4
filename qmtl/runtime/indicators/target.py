"""From a signal to the share of equity to hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.errors import InvalidParameter, InvalidValue
from qmtl.foundation.common.money import ZERO, parse_decimal, text
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow, PositionTarget
from qmtl.runtime.indicators.builtin import (
    Inputs,
    PositionTargetValue,
    bad_period,
    is_period,
    kind,
    refuse_first,
    strangers,
)


@dataclass(frozen=True, slots=True)
class TargetParams:
    """What to hold on either side.

    Attributes:
        long_percent: 0 to 1.
        short_percent: -1 to 0.
    """

    long_percent: Decimal
    short_percent: Decimal


class _Target:
    __slots__ = ("_params", "_seen")

    def __init__(self, params: TargetParams, window: NodeWindow | None) -> None:
        self._params = params
        self._seen = 0 if window is None else window.seen

    def step(self, inputs: Inputs, bar: Bar) -> PositionTargetValue | None:
        (signal,) = inputs
        if signal is None:
            return None
        self._seen += 1
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
        return PositionTargetValue(percent, bar.close)

    def basis(self, bar: Bar) -> bytes:
        return text(bar.close).encode()

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return NodeWindow(node_id, symbol, self._seen)


@dataclass(frozen=True, slots=True)
class Target:
    """At each signal: `long_percent` above 0, `short_percent` below 0, flat at 0; the bar's close is the reference price.

    Parameters: `long_percent` from 0 to 1 and `short_percent` from -1 to 0 (0 for a strategy that only exits), as numbers or
    decimal texts. The signs are fixed, so that a short of 0.5 can't become a purchase unnoticed.
    """

    name: str = "position_target"
    version: str = "1"
    ports: int = 1
    output: type[PositionTarget] = PositionTarget

    def parse(self, params: Mapping[str, object], period: int) -> TargetParams:
        if params.keys() != _SHARES.keys() or not is_period(period):
            refuse_first(self.refusals(params, period))
        return TargetParams(*(_share(name, params[name]) for name in _SHARES))

    def refusals(self, params: Mapping[str, object], period: int) -> Iterator[InvalidParameter]:
        yield from strangers(self.name, params, tuple(_SHARES))
        yield from bad_period(self.name, period)
        for name in _SHARES:
            try:
                if name in params:
                    _share(name, params[name])
            except InvalidParameter as refused:
                yield refused

    def resume(self, params: TargetParams, window: NodeWindow | None) -> _Target:
        return _Target(params, window)


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
