"""Writes many bars as text at once: the rows of a CSV file, each number in its one text, as `qmtl.foundation.common.money.text` gives it."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from qmtl.runtime.columns import BarColumns, Flags, Integers, Scaled

Characters: TypeAlias = NDArray[np.uint8]

_ZERO, _POINT, _MINUS, _COMMA, _END = b"0.-,\n"


def rows_of(bars: BarColumns) -> bytes:
    """`open_time_ms,open,high,low,close,volume` and a line end for each bar.

    All numbers are written in as many characters as the longest one of their column needs, and what a number has too many is left out in the end: so each step is one over
    all rows.
    """
    pieces: list[tuple[Characters, Flags]] = []
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    for column in (Scaled(bars.open_time_ms, 0), *columns):
        pieces += [_written(column), _always(_COMMA, len(bars))]
    pieces[-1] = _always(_END, len(bars))
    characters = np.concatenate([one for one, _ in pieces], axis=1)
    kept = np.concatenate([one for _, one in pieces], axis=1)
    found: Characters = characters[kept]
    return found.tobytes()


def _written(column: Scaled) -> tuple[Characters, Flags]:
    """Sign, digits before the point, point, digits after it; and which of them are a part of the number."""
    digits = _digits(np.abs(column.units), column.places + 1)
    before = digits.shape[1] - column.places
    whole, rest = digits[:, :before], digits[:, before:]
    kept_whole = np.logical_or.accumulate(whole != _ZERO, axis=1)  # no zero before the first other digit,
    kept_whole[:, -1] = True  # save the one that stands before the point
    signs, point = _always(_MINUS, len(column))[0], _always(_POINT, len(column))[0]
    negative = (column.units < 0)[:, np.newaxis]
    if not column.places:
        return np.concatenate([signs, whole], axis=1), np.concatenate([negative, kept_whole], axis=1)
    kept_rest = np.logical_or.accumulate((rest != _ZERO)[:, ::-1], axis=1)[:, ::-1]
    return (
        np.concatenate([signs, whole, point, rest], axis=1),
        np.concatenate([negative, kept_whole, kept_rest[:, :1], kept_rest], axis=1),
    )


def _digits(units: Integers, least: int) -> Characters:
    """As many for each number: those of the longest, and not fewer than `least`."""
    width = max(least, len(str(int(units.max(initial=0)))))
    out: Characters = np.empty((len(units), width), dtype=np.uint8)
    left = units
    for at in range(width - 1, -1, -1):
        rest = left // 10
        out[:, at] = left - rest * 10 + _ZERO
        left = rest
    return out


def _always(character: int, rows: int) -> tuple[Characters, Flags]:
    return np.full((rows, 1), character, dtype=np.uint8), np.ones((rows, 1), dtype=np.bool_)
