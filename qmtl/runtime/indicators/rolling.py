"""A node of the last inputs: a window of fixed size, and a statistic that follows it as values enter and leave."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from struct import Struct
from typing import Final, Protocol, TypeAlias

import numpy as np

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Floats, Integers
from qmtl.runtime.indicators.builtin import Inputs
from qmtl.runtime.indicators.exact import blocks, entered
from qmtl.runtime.indicators.remembered import read, written

Row: TypeAlias = tuple[Decimal, ...]
"""The inputs of one bucket, exact."""

_DOUBLE: Final = Struct(">d").pack
_DOUBLE_BYTES: Final = 8


class Statistic(Protocol):
    """What is told of a window. It is a function of the values in the window alone, in their order."""

    def enter(self, row: Row) -> None:
        """A row comes behind the others."""
        ...

    def leave(self, row: Row) -> None:
        """The oldest row goes."""
        ...

    def give(self, rows: Sequence[Row]) -> float | None:
        """Of a full window; finite, or `None` where there is no such number."""
        ...

    def give_all(self, ports: tuple[Floats, ...], size: int) -> Column:
        """Of every `size` neighbours in a column, without a look at what has entered."""
        ...


class Rolling:
    """The window, and a statistic of it.

    As in an sma the window is kept as the bytes of its doubles, too, which an output rests on.
    """

    __slots__ = ("_doubles", "_ends", "_make", "_name", "_ports", "_rows", "_seen", "_size", "_statistic")

    def __init__(
        self,
        name: str,
        ports: int,
        size: int,
        make: Callable[[], Statistic],
        window: NodeWindow | None,
        ends: bool = False,
    ) -> None:
        """
        Args:
            size: rows of a full window.
            make: an empty statistic.
            ends: whether it looks at the oldest and the newest row alone.
        """
        self._name = name
        self._ports = ports
        self._size = size
        self._make = make
        self._ends = ends
        self._seen = 0 if window is None else window.seen
        values = read(window)[-size * ports :]
        self._fill([values[at : at + ports] for at in range(0, len(values), ports)])

    def _fill(self, rows: Sequence[Row]) -> None:
        self._rows = deque(rows)
        self._statistic = self._make()
        for row in rows:
            self._statistic.enter(row)
        self._doubles = bytearray(b"".join([_DOUBLE(float(value) + 0.0) for row in rows for value in row]))

    def step(self, inputs: Inputs, bar: Bar) -> float | None:
        row = []
        for value in inputs:
            if value is None:
                return None
            row.append(entered(self._name, value))
        self._seen += 1
        if len(self._rows) == self._size:
            self._statistic.leave(self._rows.popleft())
            del self._doubles[: _DOUBLE_BYTES * self._ports]
        self._rows.append(tuple(row))
        self._statistic.enter(self._rows[-1])
        for one in row:
            self._doubles += _DOUBLE(float(one))
        return self._statistic.give(self._rows) if len(self._rows) == self._size else None

    def basis(self, bar: Bar) -> bytes:
        return bytes(self._doubles[: _DOUBLE_BYTES * self._ports] if self._ends else self._doubles)

    def to_window(self, node_id: str, symbol: str) -> NodeWindow:
        return written(node_id, symbol, self._seen, [value for row in self._rows for value in row])

    def fold(self, ports: tuple[Floats, ...], bars: BarColumns, at: Integers) -> Column:
        count = len(at)
        values = np.zeros(count, dtype=np.float64)
        there = np.zeros(count, dtype=np.bool_)
        before = tuple(
            np.array([float(row[port]) for row in self._rows], dtype=np.float64)
            for port in range(self._ports)
        )
        fresh = tuple(port + 0.0 for port in ports)  # of the two zeros there is one
        for begin, end in blocks(count):
            joined = tuple(
                np.concatenate((old[max(0, len(old) - self._size + 1) :], new[begin:end]))
                for old, new in zip(before, fresh, strict=True)
            )
            full = len(joined[0]) - self._size + 1
            if full > 0:
                told = self._statistic.give_all(joined, self._size)
                values[end - full : end], there[end - full : end] = told.values, told.there
            before = tuple(
                np.concatenate((old, new[begin:end]))[-self._size :]
                for old, new in zip(before, fresh, strict=True)
            )
        if count:
            self._seen += count
            kept = [port.tolist() for port in before]
            self._fill([tuple([Decimal(repr(value)) for value in row]) for row in zip(*kept, strict=True)])
        return Column(values, there)
