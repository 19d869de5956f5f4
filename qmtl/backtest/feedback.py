"""Strategies that trade by what they hold themselves: bucket by bucket, nodes and trading in turn, as on a log.

Whatever else a strategy computes is known before anything is traded, so it is computed in columns. What a node reads back is not: the next
bucket's values follow from the last one's orders. So here every node takes a step per bucket, as in a worker, and the rules of trading take theirs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any, Final, TypeAlias

from qmtl.backtest.book import Book
from qmtl.backtest.by_rules import ByRules, Steps, Tell
from qmtl.backtest.kept import Outcome
from qmtl.backtest.recording import Recorder
from qmtl.backtest.run import Course, Run
from qmtl.backtest.signals import Fault, Nodes, wants_of
from qmtl.backtest.signals import Values as KeptValues
from qmtl.foundation.common.errors import ComputeFailed, InvalidDag
from qmtl.foundation.common.identity import own_params
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.contracts.world import Activation, World
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.indicators.builtin import Inputs, Output, PositionTargetValue, Running
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, TAG_QUERY
from qmtl.runtime.sdk.functions import Functions
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO, PORTFOLIO_NODE, WORLD, PortfolioParams
from qmtl.runtime.sdk.python_node import PYTHON, PythonNode, PythonRunning
from qmtl.services.dagmanager.feedback import reads_portfolio
from qmtl.services.dagmanager.graph import Graph, GraphNode

_PYTHON: Final = PythonNode(NodeValue)

Values: TypeAlias = dict[str, Output]
"""What a node gives in a bucket, by symbol."""

Held: TypeAlias = Callable[[PortfolioParams, str], Decimal | None]
"""What the bucket before has left, of a field and a symbol."""


def reads_back(graph: Graph) -> bool:
    """Whether a node of the graph reads the portfolio."""
    return reads_portfolio(one.node for one in graph.nodes)


def backtest_with_feedback(
    graphs: Sequence[Graph],
    bars: Mapping[str, BarColumns],
    world: World,
    gates: Sequence[Activation],
    opened_ms: int,
    step_ms: int,
    *,
    functions: Functions | None = None,
    recorder: Recorder | None = None,
    values: KeptValues | None = None,
) -> Run:
    """As `qmtl.backtest.run.backtest`, where nodes may read the portfolio.

    Raises:
        InvalidDag: as there; several strategies, of which one reads what all of them hold, as each is gone through alone; or a tag query in
            one that reads the portfolio.
    """
    nodes = Nodes(bars, functions, values)
    last_ms = max(int(one.bucket_ms[-1]) for one in bars.values() if len(one))
    course = Course(bars, world, opened_ms, step_ms, last_ms, recorder)
    if recorder is not None:
        recorder.begun(world, gates)
    tell: Tell = _untold if recorder is None else recorder.put
    faults: list[Fault] = []
    outcomes: list[Outcome] = []
    stepped: dict[str, None] = {}
    for graph in graphs:
        own = [gate for gate in gates if gate.strategy_id == graph.strategy_id]
        if not reads_back(graph):
            wants = wants_of(graph, nodes.of(graph), bars)
            outcomes.append(course.go(graph.strategy_id, wants, own, alone=False))
            continue
        _require_no_query(graph)
        outside = [one for one in graph.nodes if one.node.node_type == SOURCE]
        nodes.of(replace(graph, nodes=tuple(outside)))  # refuses what has no bars here
        steps = Steps(world, own, opened_ms, bars, step_ms, tell)
        program = _Program(graph, Functions() if functions is None else functions, alone=len(graphs) == 1)
        intents = tuple(_traded(program, steps, bars, world.world_id, step_ms))
        steps.end(last_ms)
        outcomes.append(ByRules(intents, steps.book))
        faults += program.faults
        stepped.update(dict.fromkeys(one.node.node_id for one in graph.nodes if one not in outside))
    return Run(tuple(outcomes), nodes.computed + len(stepped), (*nodes.faults, *faults), nodes.reused)


def _require_no_query(graph: Graph) -> None:
    for one in graph.nodes:
        if one.node.node_type == TAG_QUERY:
            raise InvalidDag(
                f"node {one.name!r} is a tag query of a strategy that reads the portfolio; its nodes are computed by themselves, bucket by bucket.",
                "Name the inputs, or run it on a log.",
            )


def _traded(
    program: _Program,
    steps: Steps,
    bars: Mapping[str, BarColumns],
    world_id: str,
    step_ms: int,
) -> Iterator[OrderIntent]:
    """Go through all buckets, and give the intents."""
    held = partial(_held, steps.book, program.strategy_id)
    for bucket_ms, market in _buckets(bars):
        steps.settle_before(bucket_ms)
        steps.book.value(bucket_ms - step_ms)
        intents = program.step(world_id, bucket_ms, market, held)
        yield from intents
        steps.decide(bucket_ms, intents)


def _held(book: Book, strategy_id: str, params: PortfolioParams, symbol: str) -> Decimal | None:
    one = book.strategies.get(strategy_id)
    if one is None:
        return params.of(None)
    return params.of(one.account if params.is_of_account else one.positions.get(symbol))


class _Program:
    """The nodes of one strategy, each stepped as a worker steps it.

    Args:
        alone: whether no other strategy trades in its world.

    Attributes:
        faults: the nodes that failed, as they were met.
    """

    def __init__(self, graph: Graph, functions: Functions, *, alone: bool) -> None:
        self.strategy_id = graph.strategy_id
        self.faults: list[Fault] = []
        self._nodes = graph.nodes
        self._signals = graph.signals
        self._running: dict[tuple[str, str], Running] = {}
        self._failed: set[str] = set()
        self._params: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}
        for one in graph.nodes:
            params = self._params[one.node.node_id] = _parsed(one)
            if one.node.node_type == PYTHON:
                codes = (one.code,) if one.code else ()
                self._functions[one.node.node_id] = functions.find(codes, one.node.code_hash)
            if isinstance(params, PortfolioParams) and params.scope == WORLD and not alone:
                raise InvalidDag(
                    f"node {one.name!r} reads what all strategies of its world hold; a backtest goes through each of several alone.",
                    "Run this strategy by itself, or all of them on a log.",
                )

    def step(self, world_id: str, bucket_ms: int, market: Mapping[str, Bar], held: Held) -> list[OrderIntent]:
        """Take one bucket; the intents come by symbol, then signal."""
        now: dict[str, Values] = {}
        for one in self._nodes:
            now[one.node.node_id] = self._values(one, bucket_ms, market, now, held)
        wanted = [
            (symbol, signal, node_id, value)
            for signal, node_id in enumerate(self._signals)
            for symbol, value in now[node_id].items()
            if isinstance(value, PositionTargetValue)
        ]
        return [
            OrderIntent(
                world_id,
                self.strategy_id,
                symbol,
                bucket_ms,
                value.target_percent,
                value.reference_price,
                node_id,
                signal,
            )
            for symbol, signal, node_id, value in sorted(wanted, key=lambda row: row[:2])
        ]

    def _values(
        self, one: GraphNode, bucket_ms: int, market: Mapping[str, Bar], now: Mapping[str, Values], held: Held
    ) -> Values:
        node, params = one.node, self._params[one.node.node_id]
        if node.node_type == SOURCE:
            return {symbol: float(market[symbol].close) for symbol in params.symbols if symbol in market}
        if node.node_id in self._failed:
            return {}
        out: Values = {}
        for symbol, inputs in _inputs([now[read] for read in node.dependencies]):
            if isinstance(params, PortfolioParams):
                found = None if inputs[0] is None else held(params, symbol)
                value: Output | None = None if found is None else float(found)
            else:
                try:
                    value = self._fold(one, symbol).step(inputs, market[symbol])
                except ComputeFailed as error:
                    self._failed.add(node.node_id)
                    self.faults.append(Fault(self.strategy_id, one.name, node.node_id, bucket_ms, error))
                    return {}
            if value is not None:
                out[symbol] = value
        return out

    def _fold(self, one: GraphNode, symbol: str) -> Running:
        key = (one.node.node_id, symbol)
        found = self._running.get(key)
        if found is None:
            params = self._params[one.node.node_id]
            if one.node.node_type == PYTHON:
                function = self._functions[one.node.node_id]
                found = PythonRunning(params, one.node.interval, function, None)
            else:
                found = BUILTINS[one.node.node_type].resume(params, None)
            self._running[key] = found
        return found


def _parsed(one: GraphNode) -> Any:
    params = own_params(json.loads(one.node.params_canon, parse_float=Decimal))
    if one.node.node_type == PYTHON:
        return _PYTHON.parse(params, one.node.period)
    if one.node.node_type == PORTFOLIO:
        return PORTFOLIO_NODE.parse(params, one.node.period)
    return BUILTINS[one.node.node_type].parse(params, one.node.period)


def _inputs(ports: Sequence[Values]) -> list[tuple[str, Inputs]]:
    """What a node takes of each symbol that an input has a value of, in their order."""
    out: list[tuple[str, Inputs]] = []
    for symbol in sorted({symbol for port in ports for symbol in port}):
        values = [port.get(symbol) for port in ports]
        out.append((symbol, tuple([value if isinstance(value, float) else None for value in values])))
    return out


def _buckets(bars: Mapping[str, BarColumns]) -> Iterator[tuple[int, Mapping[str, Bar]]]:
    """The bars of each bucket that has any, by symbol."""
    places = {
        symbol: dict(zip(one.bucket_ms.tolist(), range(len(one)), strict=True))
        for symbol, one in bars.items()
    }
    for bucket_ms in sorted({bucket_ms for found in places.values() for bucket_ms in found}):
        yield (
            bucket_ms,
            {
                symbol: bars[symbol].bar(found[bucket_ms])
                for symbol, found in places.items()
                if bucket_ms in found
            },
        )


def _untold(topic_name: str, row: object) -> None:
    return None
