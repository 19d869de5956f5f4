"""Fewer points that draw the same line: of each column of pixels the first, the lowest, the highest and the last."""

from __future__ import annotations

from typing import Final

import numpy as np

from qmtl.runtime.columns import Floats, Integers

COLUMNS: Final = 720
"""Columns of pixels of a chart; a line has at most four points in each."""


def thinned(times: Integers, values: Floats, columns: int = COLUMNS) -> tuple[Integers, Floats]:
    """The points that a line of so many columns of pixels needs, in order; all of them where there are few.

    Args:
        times: ascending.
    """
    if len(times) <= 4 * columns:
        return times, values
    span = int(times[-1] - times[0])
    column = (times - times[0]) * columns // (span + 1)
    starts = np.flatnonzero(np.concatenate(([True], column[1:] != column[:-1])))
    ends = np.concatenate((starts[1:], [len(times)]))
    kept: list[int] = []
    for begin, end in zip(starts.tolist(), ends.tolist(), strict=True):
        chunk = values[begin:end]
        kept += sorted({begin, begin + int(chunk.argmin()), begin + int(chunk.argmax()), end - 1})
    return times[kept], values[kept]
