"""Puts columns of bars together, cuts them, and compares them: nothing is computed but places of decimals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qmtl.runtime.columns import BarColumns, Flags, Integers, Scaled
from qmtl.runtime.data.decimals import rescaled


def cut(bars: BarColumns, start_ms: int | None, end_ms: int | None) -> BarColumns:
    """Those that open from `start_ms` on and before `end_ms`; None is no bound."""
    begin = 0 if start_ms is None else int(np.searchsorted(bars.open_time_ms, start_ms))
    end = len(bars) if end_ms is None else int(np.searchsorted(bars.open_time_ms, end_ms))
    return bars if (begin, end) == (0, len(bars)) else bars.chunk(begin, max(begin, end))


def pick(bars: BarColumns, rows: Flags | Integers) -> BarColumns:
    """The chosen rows, in the order of the choice."""

    def of(column: Scaled) -> Scaled:
        return Scaled(column.units[rows], column.places)

    return BarColumns(
        bars.symbol,
        bars.interval,
        bars.open_time_ms[rows],
        of(bars.open),
        of(bars.high),
        of(bars.low),
        of(bars.close),
        of(bars.volume),
    )


def joined(parts: Sequence[BarColumns]) -> BarColumns:
    """All rows of one symbol and interval in ascending order; no time may be in two parts.

    Raises:
        InvalidValue: the numbers fit into no common places.
    """
    if len(parts) == 1:
        return parts[0]

    def of(columns: Sequence[Scaled], places: int) -> Scaled:
        return Scaled(np.concatenate([rescaled(column, places).units for column in columns]), places)

    prices = max(part.open.places for part in parts)
    whole = BarColumns(
        parts[0].symbol,
        parts[0].interval,
        np.concatenate([part.open_time_ms for part in parts]),
        of([part.open for part in parts], prices),
        of([part.high for part in parts], prices),
        of([part.low for part in parts], prices),
        of([part.close for part in parts], prices),
        of([part.volume for part in parts], max(part.volume.places for part in parts)),
    )
    times = whole.open_time_ms
    if len(times) > 1 and not bool(np.all(times[1:] > times[:-1])):
        return pick(whole, np.argsort(times, kind="stable"))
    return whole


def differing(one: BarColumns, other: BarColumns) -> Flags:
    """Where two columns of the same times say something else; exact, whatever their places."""
    out: Flags = one.open_time_ms != other.open_time_ms
    for left, right in zip(_fields(one), _fields(other), strict=True):
        if left.places == right.places:
            out |= left.units != right.units
        else:
            places = max(left.places, right.places)
            out |= _wide(left, places) != _wide(right, places)
    return out


def shortest(bars: BarColumns) -> BarColumns:
    """The same bars in the fewest places: equal bars are equal columns."""
    prices = _places((bars.open, bars.high, bars.low, bars.close))
    return BarColumns(
        bars.symbol,
        bars.interval,
        bars.open_time_ms,
        _shortened(bars.open, prices),
        _shortened(bars.high, prices),
        _shortened(bars.low, prices),
        _shortened(bars.close, prices),
        _shortened(bars.volume, _places((bars.volume,))),
    )


def _places(columns: Sequence[Scaled]) -> int:
    places = columns[0].places
    while places and not any(bool(np.any(column.units % 10)) for column in columns):
        places -= 1
        columns = [Scaled(column.units // 10, places) for column in columns]
    return places


def _shortened(column: Scaled, places: int) -> Scaled:
    return (
        column if places == column.places else Scaled(column.units // 10 ** (column.places - places), places)
    )


def _wide(column: Scaled, places: int) -> Flags:
    """Whole numbers of any size, where 64 bits might not hold both columns in common places."""
    wide: Flags = column.units.astype(object) * 10 ** (places - column.places)
    return wide


def _fields(bars: BarColumns) -> tuple[Scaled, ...]:
    return bars.open, bars.high, bars.low, bars.close, bars.volume
