"""Python nodes over columns: the function of an author is called where a worker would call it, with a view that moves along them.

A worker pushes what comes into rings. Here all values are known already, so the view's rings are cursors over them, and only the buckets are
gone through in which the function is called. What it sees and what it gives is what `PythonRunning` shows it and takes from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import overload

import numpy as np

from qmtl.foundation.common.errors import ComputeFailed
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.columns import BarColumns, Column, Integers
from qmtl.runtime.indicators.builtin import PositionTargetValue
from qmtl.runtime.sdk.python_node import ALL, VALUE, ComputeFn, PythonParams, called
from qmtl.runtime.sdk.slots import Cursor
from qmtl.runtime.sdk.view import CacheView, Sight


@dataclass(frozen=True, slots=True, eq=False)
class Stated:
    """Position targets of one symbol, each as a function stated it.

    Attributes:
        at: the places of their bars, ascending.
        targets: one for each place.
    """

    at: Integers
    targets: tuple[PositionTargetValue, ...]

    def until(self, place: int) -> Stated:
        """Those before a place."""
        count = int(np.searchsorted(self.at, place))
        return Stated(self.at[:count], self.targets[:count])


@dataclass(frozen=True, slots=True)
class Failed:
    """Where a function failed first.

    Attributes:
        bucket_ms: from this bucket on the node gives nothing, for any symbol.
    """

    bucket_ms: int
    error: ComputeFailed


class _Seen(Sequence[Bar]):
    """The bars of the buckets in which a node took a step, up to the one that is computed; made when they are asked for."""

    def __init__(self, bars: BarColumns, steps: list[int]) -> None:
        self._bars, self._steps = bars, steps
        self.end = 0

    def __len__(self) -> int:
        return self.end

    @overload
    def __getitem__(self, index: int) -> Bar: ...
    @overload
    def __getitem__(self, index: slice) -> list[Bar]: ...

    def __getitem__(self, index: int | slice) -> Bar | list[Bar]:
        places = range(self.end)[index]
        if isinstance(places, int):
            return self._bars.bar(self._steps[places])
        return [self._bars.bar(self._steps[place]) for place in places]


class _Sight(Sight):
    """What lies behind a view that moves along columns: its bar is made when it is asked for."""

    __slots__ = ("_columns", "at")

    def __init__(self, kept: int, bars: BarColumns) -> None:
        super().__init__(kept)
        self._columns, self.at = bars, 0
        self.symbol = bars.symbol

    @property
    def bar(self) -> Bar:
        return self._columns.bar(self.at)

    @property
    def close(self) -> Decimal:
        return self._columns.close.at(self.at)


def columns(
    params: PythonParams, interval: int, function: ComputeFn, inputs: Sequence[Column], bars: BarColumns
) -> tuple[Column | Stated, Failed | None]:
    """What a Python node gives of one symbol.

    Args:
        interval: of the node, seconds.
        inputs: one per port, of as many buckets as there are bars.

    Returns:
        The outputs up to where it failed, if it did.
    """
    count, period = len(bars), params.period
    buckets = bars.bucket_ms
    there = np.array([port.there for port in inputs])
    has_any = there.any(axis=0)
    come = there.cumsum(axis=1)  # per port, up to each bucket
    steps = np.flatnonzero(has_any)
    calls = (come >= period).all(axis=0) & (there.all(axis=0) if params.when == ALL else has_any)
    if params.bars:
        calls &= has_any.cumsum() >= params.bars
    at = np.flatnonzero(calls)
    cursors = [
        Cursor(period, buckets[port.there].tolist(), port.values[port.there].tolist()) for port in inputs
    ]
    sight = _Sight(params.bars, bars)
    seen = _Seen(bars, steps.tolist() if params.bars else [])
    sight.bars = seen
    view = CacheView(params.ports, interval, cursors, sight, params.params)
    ends = come[:, at].T.tolist()
    taken = has_any.cumsum()[at].tolist() if params.bars else [0] * len(at)
    gives, single = params.gives, cursors[0] if len(cursors) == 1 else None
    places: list[int] = []
    given: list[float | PositionTargetValue] = []
    failed: Failed | None = None
    for place, bucket_ms, end, step in zip(at.tolist(), buckets[at].tolist(), ends, taken, strict=True):
        sight.at, sight.bucket_ms, seen.end = place, bucket_ms, step
        if single is not None:
            single.end = end[0]
        else:
            for cursor, one in zip(cursors, end, strict=True):
                cursor.end = one
        try:
            value = called(function, view, sight, gives)
        except ComputeFailed as error:
            failed = Failed(bucket_ms, error)
            break
        if value is not None:
            places.append(place)
            given.append(value)
    where = np.array(places, dtype=np.int64)
    if gives != VALUE:
        targets = tuple([one for one in given if isinstance(one, PositionTargetValue)])
        return Stated(where, targets), failed
    out = Column(np.zeros(count), np.zeros(count, dtype=np.bool_))
    out.values[where] = [one for one in given if isinstance(one, float)]
    out.there[where] = True
    return out, failed


def until(given: Column | Stated, bars: BarColumns, bucket_ms: int) -> Column | Stated:
    """What was given before a bucket."""
    place = int(np.searchsorted(bars.bucket_ms, bucket_ms))
    if isinstance(given, Stated):
        return given.until(place)
    there = given.there.copy()
    there[place:] = False
    return Column(given.values, there)
