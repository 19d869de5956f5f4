"""By what share a value has changed: simple and logarithmic returns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import Column, Floats
from qmtl.runtime.indicators.exact import EXACT, finite, quotients, ratio, units
from qmtl.runtime.indicators.indicator import Indicator, Parsed
from qmtl.runtime.indicators.parameters import choice
from qmtl.runtime.indicators.rolling import Rolling, Row

KINDS: Final = ("simple", "log")

_LN2_HIGH: Final = float.fromhex("0x1.62e42fee00000p-1")
"""The upper digits of ln 2: so few that its products with exponents are exact."""
_LN2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
"""What is missing from there to ln 2."""
_SERIES: Final = tuple(2.0 / (2 * at + 1) for at in range(11, 0, -1))
"""Of z = s*s: 2*z/3 + 2*z*z/5 + …; s is at most 0.172 in size, so what is left out is less than a hundredth of the last digit."""
_NEAR: Final = (-0.25, 0.4)
_ROOT_HALF: Final = math.sqrt(0.5)


def _log_of(f: float, exponent: int) -> float:
    """ln((1 + f) * 2**exponent) for f from -0.3 to 0.42, by the series of the area tangent: with s = f / (2 + f), ln(1 + f) = 2 * artanh(s).

    The logarithm of a C library differs from machine to machine in its last digit. This one has no operations but those that IEEE 754
    rounds in one way, so it gives the same bits everywhere, off by less than one in the last place.
    """
    s = f / (2.0 + f)
    z = s * s
    series = 0.0
    for term in _SERIES:
        series = (series + term) * z
    half = 0.5 * f * f
    return exponent * _LN2_HIGH - ((half - (s * (half + series) + exponent * _LN2_LOW)) - f)


def log(change: float, quotient: float) -> float:
    """ln(1 + change), where `quotient` is 1 + change, each rounded by itself; as exact for the smallest changes as for great ones."""
    if _NEAR[0] < change < _NEAR[1]:
        return _log_of(change, 0)
    fraction, exponent = math.frexp(quotient)
    if fraction < _ROOT_HALF:
        fraction, exponent = 2.0 * fraction, exponent - 1
    return _log_of(fraction - 1.0, exponent)


def logs(changes: Floats, quotients_: Floats) -> Floats:
    """`log` of each, by the same operations in the same order."""
    near = (changes > _NEAR[0]) & (changes < _NEAR[1])
    fraction, exponent = np.frexp(quotients_)
    low = fraction < _ROOT_HALF
    fraction = np.where(low, 2.0 * fraction, fraction)
    exponent = np.where(near, 0, np.where(low, exponent - 1, exponent))
    f = np.where(near, changes, fraction - 1.0)
    s = f / (2.0 + f)
    z = s * s
    series = np.zeros(len(f), dtype=np.float64)
    for term in _SERIES:
        series = (series + term) * z
    half = 0.5 * f * f
    told: Floats = exponent * _LN2_HIGH - ((half - (s * (half + series) + exponent * _LN2_LOW)) - f)
    return told


class _Return:
    """Of the newest value x and the oldest y of the window: (x - y) / y, of the exact decimals, rounded once."""

    __slots__ = ("_is_log",)

    def __init__(self, is_log: bool) -> None:
        self._is_log = is_log

    def enter(self, row: Row) -> None:
        """Only the ends of the window count."""

    def leave(self, row: Row) -> None:
        """As above."""

    def give(self, rows: Sequence[Row]) -> float | None:
        (y,), (x,) = rows[0], rows[-1]
        if not y:
            return None
        change = ratio(EXACT.subtract(x, y), y)
        if not self._is_log or change is None:
            return change
        quotient = ratio(x, y)
        return log(change, quotient) if quotient is not None and quotient > 0.0 else None

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        values, _ = units(ports[0])
        x, y = values[size - 1 :], values[: len(values) - size + 1]
        change = quotients(x - y, y)
        if not self._is_log:
            return change
        quotient = quotients(x, y)
        there = change.there & quotient.there & (quotient.values > 0.0)
        return finite(logs(np.where(there, change.values, 0.0), np.where(there, quotient.values, 1.0)), there)


def _returns(params: Parsed, window: NodeWindow | None) -> Rolling:
    is_log = params.values["kind"] == "log"
    return Rolling("returns", 1, params.period + 1, lambda: _Return(is_log), window, ends=True)


RETURNS: Final = Indicator("returns", 1, _returns, least=1, rules={"kind": choice(*KINDS)})
"""The change from the input y that was `period` inputs before to the newest one x: `simple`, (x - y) / y, rounded once; `log`, ln(x / y). Nothing
where y is 0, for a log where x / y is not above 0, and where the quotient is beyond a float. Parameters: `kind`."""
