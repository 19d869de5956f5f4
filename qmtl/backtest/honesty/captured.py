"""Bars that a function carries with it: stretches of numbers among its constants and captured values that are those of the data."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qmtl.backtest.honesty.change import Bars
from qmtl.backtest.honesty.subject import Subject
from qmtl.runtime.columns import BarColumns, Floats

STRETCH: Final = 8
"""So many numbers in a row are bars, if most of them differ."""

_DISTINCT: Final = 6
_DEPTH: Final = 6


@dataclass(frozen=True, slots=True)
class Captured:
    """A stretch of bars.

    Attributes:
        name: under which the function has it.
        column: of the bars, such as `close`.
        bucket_ms: of its first bar.
    """

    node_id: str
    name: str
    symbol: str
    column: str
    bucket_ms: int


@dataclass(frozen=True, slots=True)
class Search:
    """Asks for what the functions of a program carry; the first of each."""

    def answer(self, subject: Subject) -> Sequence[Captured]:
        columns = list(_columns(subject.bars))
        found = []
        params = {one.node_id: one.params for one in subject.program.nodes if one.is_python}
        for node_id, function in subject.functions.items():
            assert isinstance(function, FunctionType)  # as `Functions` finds no others
            first = next(
                (
                    Captured(node_id, name, symbol, column, int(buckets[place]))
                    for name, numbers in chain(_numbers(function), _of_params(params.get(node_id, {})))
                    for symbol, column, buckets, data in columns
                    if (place := _stretch(numbers, data)) is not None
                ),
                None,
            )
            if first is not None:
                found.append(first)
        return found


def _columns(bars: Bars) -> Iterator[tuple[str, str, NDArray[np.int64], Floats]]:
    for symbol, one in bars.items():
        buckets = one.bucket_ms
        yield symbol, "open_time_ms", buckets, one.open_time_ms.astype(np.float64)
        yield symbol, "bucket_ms", buckets, buckets.astype(np.float64)
        for name in ("close", "open", "high", "low", "volume"):
            yield symbol, name, buckets, _floats(one, name)


def _floats(bars: BarColumns, name: str) -> Floats:
    column: Any = getattr(bars, name)
    floats: Floats = column.floats()
    return floats


def _stretch(numbers: Floats, data: Floats) -> int | None:
    """Where in the data a stretch of the numbers begins; the first."""
    if len(numbers) < STRETCH or len(data) < STRETCH:
        return None
    own, theirs = _hashes(numbers), _hashes(data)
    for place in np.flatnonzero(np.isin(own, theirs)).tolist():
        stretch = numbers[place : place + STRETCH]
        if len(np.unique(stretch)) < _DISTINCT:
            continue
        for at in np.flatnonzero(theirs == own[place]).tolist():
            if np.array_equal(stretch, data[at : at + STRETCH]):
                return int(at)
    return None


def _hashes(numbers: Floats) -> NDArray[np.uint64]:
    """One of every stretch: its bits times odd numbers, summed modulo 2**64."""
    windows = sliding_window_view((numbers + 0.0).view(np.uint64), STRETCH)
    odd = np.array([2 * place + 1 for place in range(STRETCH)], dtype=np.uint64) * np.uint64(
        0x9E3779B97F4A7C15
    )
    sums: NDArray[np.uint64] = (windows * odd).sum(axis=1, dtype=np.uint64)
    return sums


# ---- what a function has ---------------------------------------------------------------------------------------------


def _numbers(function: FunctionType) -> Iterator[tuple[str, Floats]]:
    """Each run of numbers that a function, and those that it leads to, captures, with the name of where it lies."""
    met: set[int] = set()
    left: list[tuple[str, object]] = [(function.__qualname__, function)]
    for name, value in left:  # grows while it is read
        if id(value) in met:
            continue
        met.add(id(value))
        if isinstance(value, functools.partial):
            left += [(name, value.func), (name, value.args), (name, value.keywords)]
        elif isinstance(value, FunctionType):
            left += _captured(value)
        else:
            for numbers in _runs(value, 0):
                yield name, numbers


def _of_params(params: Mapping[str, Any]) -> Iterator[tuple[str, Floats]]:
    for name, value in params.items():
        yield from ((f"params[{name!r}]", numbers) for numbers in _runs(value, 0))


def _captured(function: FunctionType) -> Iterator[tuple[str, object]]:
    where = function.__qualname__
    yield from ((f"a default of {where}", one) for one in (function.__defaults__ or ()))
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        yield name, cell.cell_contents
    for code in _codes(function.__code__):
        yield from (
            (f"a constant of {where}", one) for one in code.co_consts if isinstance(one, tuple | frozenset)
        )
        for name in code.co_names:
            value = function.__globals__.get(name)
            yield name, value
            if isinstance(value, ModuleType):
                for attribute in code.co_names:
                    yield f"{name}.{attribute}", getattr(value, attribute, None)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def _runs(value: object, depth: int) -> Iterator[Floats]:
    """The numbers of a sequence, or of each column of a table; those of a mapping by its keys and its values."""
    if isinstance(value, Mapping):
        yield from _runs(tuple(value.keys()), depth + 1)
        yield from _runs(tuple(value.values()), depth + 1)
    elif isinstance(value, np.ndarray):
        if value.ndim == 1 and value.dtype.kind in "fiu":
            yield value.astype(np.float64)
    elif isinstance(value, set | frozenset):
        yield from _runs(tuple(sorted(one for one in value if _is_number(one))), depth + 1)
    elif isinstance(value, list | tuple) and depth < _DEPTH and len(value):
        if all(map(_is_number, value)):
            yield np.array([_float(one) for one in value], dtype=np.float64)
        elif all(isinstance(one, list | tuple) and len(one) == len(value[0]) for one in value):
            for column in zip(*value, strict=True):
                yield from _runs(column, depth + 1)
        else:
            for one in value:
                yield from _runs(one, depth + 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _float(value: int | float | Decimal) -> float:
    try:
        return float(value)
    except OverflowError:
        return 0.0
