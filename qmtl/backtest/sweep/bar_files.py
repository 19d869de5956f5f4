"""The bars of a sweep in files that all its processes map: they lie in memory once, however many read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qmtl.runtime.columns import BarColumns, Scaled

_FIELDS = 6


@dataclass(frozen=True, slots=True)
class BarFile:
    """The bars of one symbol: int64[6, n], rows of open times and of whole units of open, high, low, close and volume.

    Attributes:
        interval: seconds.
        places: of the prices, and of the volume, after the point.
    """

    symbol: str
    interval: int
    path: Path
    places: tuple[int, int, int, int, int]


def write_bars(directory: Path, bars: Mapping[str, BarColumns]) -> tuple[BarFile, ...]:
    """Write each symbol's bars into a file of its own."""
    files = []
    for number, one in enumerate(bars.values()):
        columns = (one.open, one.high, one.low, one.close, one.volume)
        path = directory / f"{number}.npy"
        rows = np.empty((_FIELDS, len(one)), dtype=np.int64)
        rows[0] = one.open_time_ms
        for place, column in enumerate(columns, 1):
            rows[place] = column.units
        np.save(path, rows)
        places = (one.open.places, one.high.places, one.low.places, one.close.places, one.volume.places)
        files.append(BarFile(one.symbol, one.interval, path, places))
    return tuple(files)


def map_bars(files: tuple[BarFile, ...]) -> dict[str, BarColumns]:
    """The bars as they were, in memory that is shared and can't be written."""
    return {one.symbol: _mapped(one) for one in files}


def _mapped(file: BarFile) -> BarColumns:
    rows = np.load(file.path, mmap_mode="r")
    times, *prices = (np.asarray(row) for row in rows)
    columns = (Scaled(units, places) for units, places in zip(prices, file.places, strict=True))
    return BarColumns(file.symbol, file.interval, times, *columns)
