"""Runs a program over bars in one of the ways in which a deployed system may: in columns of any length, or bucket by bucket, its symbols in either
order. An honest program gives the same in all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby
from typing import Any, Final

import numpy as np

from qmtl.backtest.honesty.change import Bars
from qmtl.backtest.honesty.program import Program, ProgramNode
from qmtl.backtest.honesty.told import Difference, Failure, Told, Trace
from qmtl.backtest.python_nodes import columns
from qmtl.foundation.common.errors import ComputeFailed, InvalidDag
from qmtl.foundation.common.identity import own_params
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue, NodeWindow
from qmtl.runtime.columns import BarColumns, Column, Flags
from qmtl.runtime.indicators.builtin import Inputs, Output, Running
from qmtl.runtime.indicators.columnar import Columnar
from qmtl.runtime.indicators.price import PriceParams
from qmtl.runtime.indicators.registry import COLUMNAR, SOURCE
from qmtl.runtime.sdk.python_node import ComputeFn, Gives, PythonNode, PythonParams, PythonRunning, Target
from qmtl.runtime.sdk.view import CacheView

_PYTHON: Final = PythonNode(NodeValue)


@dataclass(frozen=True, slots=True)
class Way:
    """How a program is gone through.

    Attributes:
        chunk: bars of a chunk of columns, between which each node is written down and resumed; None for all bars at once.
        by_bucket: record by record, all nodes of a bucket before the next one; else node by node, in columns.
        backwards: of several symbols the last one first.
        twice: each function is called a second time with the same view, and has to give the same.
    """

    chunk: int | None = None
    by_bucket: bool = False
    backwards: bool = False
    twice: bool = False


AT_ONCE: Final = Way()


def drive(
    program: Program,
    bars: Bars,
    functions: Mapping[str, ComputeFn],
    way: Way = AT_ONCE,
    builtins: Mapping[str, Columnar] = COLUMNAR,
) -> Trace:
    """What every node gives.

    Args:
        functions: of the Python nodes, by node id.

    Raises:
        InvalidDag: a node that reads a symbol without bars, or bars of another interval.
    """
    unequal: dict[str, Difference] = {}
    chosen = {
        node_id: _twice(node_id, function, unequal) if way.twice else function
        for node_id, function in functions.items()
    }
    made = {one.node_id: _params(one, builtins) for one in program.nodes}
    for one in program.nodes:
        if one.node.node_type == SOURCE:
            _require_bars(one, made[one.node_id], bars)
    run = _by_bucket if way.by_bucket else _by_node
    trace = run(program, bars, chosen, made, way, builtins)
    return Trace(trace.told, trace.failures, trace.remembers, unequal)


def _params(one: ProgramNode, builtins: Mapping[str, Columnar]) -> Any:
    params = own_params(json.loads(one.node.params_canon, parse_float=Decimal))
    kind = _PYTHON if one.is_python else builtins[one.node.node_type]
    return kind.parse(params, one.node.period)


def _require_bars(one: ProgramNode, params: PriceParams, bars: Bars) -> None:
    for symbol in params.symbols:
        found = bars.get(symbol)
        if found is None or found.interval != one.node.interval:
            has = "no bars" if found is None else f"bars of {found.interval} s"
            raise InvalidDag(
                f"node {one.name!r} reads {symbol!r} every {one.node.interval} s; the data have {has} of it.",
                "Give the data that the strategy reads.",
            )


def _ordered(symbols: Iterable[str], way: Way) -> list[str]:
    return sorted(symbols, reverse=way.backwards)


# ---- node by node, in columns ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class _Given:
    """What readers have of a node: its numbers, and where it gave anything at all."""

    numbers: Column
    spoke: Flags

    def until(self, count: int) -> _Given:
        before = np.arange(len(self.spoke)) < count
        return _Given(Column(self.numbers.values, self.numbers.there & before), self.spoke & before)


def _by_node(
    program: Program,
    bars: Bars,
    functions: Mapping[str, ComputeFn],
    made: Mapping[str, Any],
    way: Way,
    builtins: Mapping[str, Columnar],
) -> Trace:
    given: dict[str, dict[str, _Given]] = {}
    told: dict[str, dict[str, Told]] = {}
    failures: dict[str, Failure] = {}
    remembers: set[str] = set()
    for one in program.nodes:
        params, node_id = made[one.node_id], one.node_id
        given[node_id], told[node_id] = {}, {}
        if one.node.node_type == SOURCE:
            for symbol in params.symbols:
                column = Column.full(bars[symbol].close.floats())
                given[node_id][symbol] = _Given(column, column.there)
                told[node_id][symbol] = Told.of(bars[symbol].bucket_ms, column)
            continue
        ports = [given[read] for read in one.node.dependencies]
        for symbol in _ordered({symbol for port in ports for symbol in port}, way):
            market = bars[symbol]
            inputs = [port.get(symbol) or _silent(len(market)) for port in ports]
            if one.is_python:
                called = _at_once if way.chunk is None else _stepped
                given[node_id][symbol], told[node_id][symbol], failed = called(
                    one, params, functions[node_id], inputs, market, way
                )
                known = failures.get(node_id)
                if failed is not None and (
                    known is None or (failed.bucket_ms, symbol) < (known.bucket_ms, known.symbol)
                ):
                    failures[node_id] = failed
            else:
                found, window = _columns(builtins[one.node.node_type], params, inputs, market, way)
                given[node_id][symbol], told[node_id][symbol] = found
                if window is not None and window.memory:
                    remembers.add(node_id)
        if node_id in failures:
            _silence(failures[node_id].bucket_ms, given[node_id], told[node_id], bars)
    return Trace(told, failures, frozenset(remembers))


def _silence(failed_ms: int, given: dict[str, _Given], told: dict[str, Told], bars: Bars) -> None:
    """From the bucket on in which its function failed, a node gives nothing for any symbol."""
    for symbol in given:
        given[symbol] = given[symbol].until(int(np.searchsorted(bars[symbol].bucket_ms, failed_ms)))
        told[symbol] = told[symbol].upto(failed_ms - 1)


def _silent(count: int) -> _Given:
    there = np.zeros(count, dtype=np.bool_)
    return _Given(Column(np.zeros(count), there), there)


def _columns(
    builtin: Columnar, params: Any, inputs: Sequence[_Given], bars: BarColumns, way: Way
) -> tuple[tuple[_Given, Told], NodeWindow | None]:
    window: NodeWindow | None = None
    values, there, spoke, told = [], [], [], []
    for begin, end in _chunks(len(bars), way.chunk):
        part = bars.chunk(begin, end)
        ports = tuple([port.numbers.chunk(begin, end) for port in inputs])
        found, window = builtin.columns(params, ports, part, window)
        told.append(Told.of(part.bucket_ms, found))
        spoke.append(found.there)
        numbers = found if isinstance(found, Column) else _silent(len(part)).numbers
        values.append(numbers.values)
        there.append(numbers.there)
    given = _Given(Column(np.concatenate(values), np.concatenate(there)), np.concatenate(spoke))
    buckets = np.concatenate([one.bucket_ms for one in told])
    return (given, Told(buckets, np.concatenate([one.values for one in told]))), window


def _chunks(count: int, chunk: int | None) -> Iterator[tuple[int, int]]:
    """Begin and end of each; one at least."""
    size = chunk or max(count, 1)
    for begin in range(0, max(count, 1), size):
        yield begin, min(begin + size, count)


def _at_once(
    one: ProgramNode,
    params: PythonParams,
    function: ComputeFn,
    inputs: Sequence[_Given],
    bars: BarColumns,
    way: Way,
) -> tuple[_Given, Told, Failure | None]:
    """What a Python node gives for one symbol as a backtest computes it, and where its function failed, behind which it gives nothing."""
    ports = [port.numbers for port in inputs]
    found, failed = columns(params, one.node.interval, function, ports, bars)
    failure = None if failed is None else Failure(failed.bucket_ms, bars.symbol, failed.error.what)
    if isinstance(found, Column):
        return _Given(found, found.there), Told.of(bars.bucket_ms, found), failure
    buckets = bars.bucket_ms[found.at].tolist()
    told = Told.of_outputs(list(zip(buckets, found.targets, strict=True)))
    spoke = np.zeros(len(bars), dtype=np.bool_)
    spoke[found.at] = True
    return _Given(_silent(len(bars)).numbers, spoke), told, failure


def _stepped(
    one: ProgramNode,
    params: PythonParams,
    function: ComputeFn,
    inputs: Sequence[_Given],
    bars: BarColumns,
    way: Way,
) -> tuple[_Given, Told, Failure | None]:
    """As `_at_once`, step by step as a worker computes it, written down and resumed between two chunks."""
    running = PythonRunning(params, one.node.interval, function, None)
    spoke = np.logical_or.reduce([port.spoke for port in inputs]).tolist()
    rows = zip(*[port.numbers.items() for port in inputs], strict=True)
    outputs: list[tuple[int, Output]] = []
    for place, (bar, is_called, row) in enumerate(zip(bars.bars(), spoke, rows, strict=True)):
        if way.chunk and place and place % way.chunk == 0:
            window = running.to_window(one.node_id, bar.symbol)
            running = PythonRunning(params, one.node.interval, function, window)
        if not is_called:
            continue
        bucket_ms = bar.open_time_ms + bar.interval * 1000
        try:
            value = running.step(row, bar)
        except ComputeFailed as failed:
            failure = Failure(bucket_ms, bar.symbol, failed.what)
            return _of_outputs(outputs, bars), Told.of_outputs(outputs), failure
        if value is not None:
            outputs.append((bucket_ms, value))
    return _of_outputs(outputs, bars), Told.of_outputs(outputs), None


def _of_outputs(outputs: Sequence[tuple[int, Output]], bars: BarColumns) -> _Given:
    at = np.searchsorted(bars.bucket_ms, np.array([bucket_ms for bucket_ms, _ in outputs], dtype=np.int64))
    spoke = np.zeros(len(bars), dtype=np.bool_)
    spoke[at] = True
    values = np.zeros(len(bars), dtype=np.float64)
    numbers = [value for _, value in outputs if isinstance(value, float)]
    if len(numbers) == len(outputs):
        values[at] = numbers
        return _Given(Column(values, spoke), spoke)
    return _Given(Column(values, np.zeros(len(bars), dtype=np.bool_)), spoke)


# ---- bucket by bucket -----------------------------------------------------------------------------------------------


def _by_bucket(
    program: Program,
    bars: Bars,
    functions: Mapping[str, ComputeFn],
    made: Mapping[str, Any],
    way: Way,
    builtins: Mapping[str, Columnar],
) -> Trace:
    running: dict[tuple[str, str], Running] = {}
    outputs: dict[str, dict[str, list[tuple[int, Output]]]] = {one.node_id: {} for one in program.nodes}
    failures: dict[str, Failure] = {}

    def begin(one: ProgramNode) -> Running:
        if one.is_python:
            return PythonRunning(made[one.node_id], one.node.interval, functions[one.node_id], None)
        return builtins[one.node.node_type].resume(made[one.node_id], None)

    for bucket_ms, market in _buckets(bars):
        now: dict[str, dict[str, Output]] = {}
        for one in program.nodes:
            node_id = one.node_id
            if one.node.node_type == SOURCE:
                now[node_id] = {
                    symbol: float(market[symbol].close)
                    for symbol in made[node_id].symbols
                    if symbol in market
                }
            elif node_id in failures:
                now[node_id] = {}
            else:
                ports = [now[read] for read in one.node.dependencies]
                found = now[node_id] = {}
                for symbol in _ordered({symbol for port in ports for symbol in port}, way):
                    fold = running.get((node_id, symbol))
                    if fold is None:
                        fold = running[node_id, symbol] = begin(one)
                    try:
                        value = fold.step(_inputs(ports, symbol), market[symbol])
                    except ComputeFailed as failed:
                        failures[node_id] = Failure(bucket_ms, symbol, failed.what)
                        found.clear()
                        break
                    if value is not None:
                        found[symbol] = value
            for symbol, value in now[node_id].items():
                outputs[node_id].setdefault(symbol, []).append((bucket_ms, value))
    told = {
        node_id: {symbol: Told.of_outputs(each) for symbol, each in by_symbol.items()}
        for node_id, by_symbol in outputs.items()
    }
    return Trace(told, failures)


def _buckets(bars: Bars) -> Iterator[tuple[int, Mapping[str, Bar]]]:
    every = sorted(
        (
            (bar.open_time_ms + bar.interval * 1000, symbol, bar)
            for symbol, one in bars.items()
            for bar in one.bars()
        ),
        key=lambda row: row[:2],
    )
    for bucket_ms, group in groupby(every, key=lambda row: row[0]):
        yield bucket_ms, {symbol: bar for _, symbol, bar in group}


def _inputs(ports: Sequence[Mapping[str, Output]], symbol: str) -> Inputs:
    values = [port.get(symbol) for port in ports]
    return tuple([value if isinstance(value, float) else None for value in values])


# ---- twice ----------------------------------------------------------------------------------------------------------


def _twice(node_id: str, function: ComputeFn, unequal: dict[str, Difference]) -> ComputeFn:
    def called(view: CacheView) -> Gives:
        first = function(view)
        try:
            second = _words(function(view))
        except Exception as error:  # whatever an author's function raises the second time
            second = f"it raised {type(error).__name__}"
        if second != _words(first):
            unequal.setdefault(node_id, Difference(view.symbol, view.bucket_ms, _words(first), second))
        return first

    return called


def _words(found: Gives) -> str:
    """The same words exactly where it is the same."""
    if isinstance(found, Target):
        return f"a target of {found.percent!r} at {found.reference_price!r}"
    return "nothing" if found is None else repr(found)
