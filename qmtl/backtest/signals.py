"""What the nodes of a strategy give over the bars of a backtest, in columns: each node once, whoever reads it. A tag query reads what its graph says
that answers it (`qmtl.backtest.answers`)."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from qmtl.backtest.python_nodes import Failed, Stated, columns, until
from qmtl.foundation.common.errors import ComputeFailed, InvalidDag
from qmtl.foundation.common.identity import own_params
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.columnar import Columnar, Targets
from qmtl.runtime.indicators.price import PriceParams
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, TAG_QUERY
from qmtl.runtime.indicators.tag_query import AGGREGATES, TagQueryParams
from qmtl.runtime.sdk.functions import Functions
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO
from qmtl.runtime.sdk.python_node import PYTHON, ComputeFn, PythonNode
from qmtl.services.dagmanager.graph import Graph, GraphNode

CHUNK: Final = 4096
"""So many wants of a column are made at once."""

Given: TypeAlias = Column | Targets | Stated
BySymbol: TypeAlias = Mapping[str, Given]


@dataclass(frozen=True, slots=True)
class Found(GraphNode):
    """A node of one strategy of the run in the graph of another one, whose tag query it answers; or an input of such a node.

    Attributes:
        strategy_id: whose it is.
    """

    strategy_id: str = ""


class Fault(NamedTuple):
    """A node that failed: from a bucket on it gives nothing.

    Attributes:
        name: as the strategy calls it.
    """

    strategy_id: str
    name: str
    node_id: str
    bucket_ms: int
    error: ComputeFailed


class Values(Protocol):
    """What nodes gave in earlier runs over the same bars (`qmtl.backtest.reuse`)."""

    def find(self, node: ComputeNode, symbols: Sequence[str]) -> Mapping[str, Column] | None:
        """Its columns of these symbols, in their order; None where they are not known."""
        ...

    def keep(self, node: ComputeNode, columns: Mapping[str, Column]) -> None:
        """Remember its columns."""
        ...


class Nodes:
    """Values of nodes by their ids, over one set of bars; a node that several strategies have is computed once.

    Args:
        bars: by symbol, of one interval.
        functions: those that Python nodes may run; without any only what is registered in this process.
        values: asked before a node is computed, and told after; without any all nodes are computed.

    Attributes:
        computed: how many different nodes were computed.
        reused: how many were not, as their values were known.
        faults: the nodes that failed, as they were met.
    """

    def __init__(
        self,
        bars: Mapping[str, BarColumns],
        functions: Functions | None = None,
        values: Values | None = None,
    ) -> None:
        self.bars = bars
        self.computed = self.reused = 0
        self.faults: list[Fault] = []
        self._functions = Functions() if functions is None else functions
        self._given: dict[str, BySymbol] = {}
        self._values = values
        self._loose: set[str] = set()  # nodes whose values do not follow from their ids and the bars alone

    def of(self, graph: Graph) -> Mapping[str, BySymbol]:
        """What each node of a graph gives, by symbol.

        Raises:
            InvalidDag: a node of another interval than the bars, one that reads a symbol without bars, or one that reads the portfolio back:
                nothing is traded yet.
            CodeMissing, CodeDiffers: a function is not where the message says, or another one lies there.
        """
        for one in graph.nodes:
            if one.node.node_id not in self._given:
                whose = one.strategy_id if isinstance(one, Found) else graph.strategy_id
                found = None if self._values is None else self._find(self._values, one)
                if found is not None:
                    self._given[one.node.node_id] = found
                    self.reused += 1
                    continue
                made = self._given[one.node.node_id] = self._compute(whose, one)
                self.computed += 1
                if self._values is not None:
                    self._keep(self._values, one.node, made)
        return self._given

    def _find(self, values: Values, one: GraphNode) -> BySymbol | None:
        """What is known of a node; a function that would be missing is missing then, too."""
        node = one.node
        if node.node_type == TAG_QUERY or not self._loose.isdisjoint(node.dependencies):
            self._loose.add(node.node_id)  # no id says who answers a query
        if node.node_id in self._loose or node.node_type in (SOURCE, PORTFOLIO):
            return None
        if node.node_type == PYTHON:
            self._function(one)
        symbols = _symbols([self._given[node_id] for node_id in node.dependencies])
        return values.find(node, symbols) if symbols else None

    def _keep(self, values: Values, node: ComputeNode, made: BySymbol) -> None:
        if self.faults and self.faults[-1].node_id == node.node_id:
            self._loose.add(node.node_id)
        columns = {symbol: given for symbol, given in made.items() if isinstance(given, Column)}
        if (
            columns
            and len(columns) == len(made)
            and node.node_type != SOURCE
            and node.node_id not in self._loose
        ):
            values.keep(node, columns)

    def _function(self, one: GraphNode) -> ComputeFn:
        return self._functions.find((one.code,) if one.code else (), one.node.code_hash)

    def _compute(self, strategy_id: str, one: GraphNode) -> BySymbol:
        node = one.node
        if node.node_type == PORTFOLIO:
            raise InvalidDag(
                f"node {one.name!r} reads the portfolio; here all nodes are computed before anything is traded.",
                "Run the strategy by itself with `qmtl backtest`, or on a log.",
            )
        ports = [self._given[node_id] for node_id in node.dependencies]
        said = own_params(json.loads(node.params_canon, parse_float=Decimal))
        if node.node_type == PYTHON:
            return self._call(strategy_id, one, said, ports)
        builtin: Any = BUILTINS[node.node_type]
        params = builtin.parse(said, node.period)
        if node.node_type == SOURCE:
            assert isinstance(params, PriceParams)
            return {symbol: self._source(one.name, node, symbol) for symbol in params.symbols}
        if node.node_type == TAG_QUERY:
            assert isinstance(params, TagQueryParams)
            of = AGGREGATES[params.aggregate]
            return {symbol: _asked(of, self._inputs(ports, symbol)) for symbol in _symbols(ports)}
        out: dict[str, Given] = {}
        for symbol in _symbols(ports):
            bars = self.bars[symbol]
            columnar: Columnar = builtin
            out[symbol], _ = columnar.columns(params, self._inputs(ports, symbol), bars, None)
        return out

    def _call(
        self, strategy_id: str, one: GraphNode, said: Mapping[str, object], ports: Sequence[BySymbol]
    ) -> BySymbol:
        node = one.node
        params = PythonNode(NodeValue).parse(said, node.period)
        function = self._function(one)
        out: dict[str, Column | Stated] = {}
        failed: Failed | None = None
        for symbol in _symbols(ports):
            inputs = self._inputs(ports, symbol)
            out[symbol], found = columns(params, node.interval, function, inputs, self.bars[symbol])
            if found is not None and (failed is None or found.bucket_ms < failed.bucket_ms):
                failed = found
        if failed is not None:
            self.faults.append(Fault(strategy_id, one.name, node.node_id, failed.bucket_ms, failed.error))
            out = {symbol: until(given, self.bars[symbol], failed.bucket_ms) for symbol, given in out.items()}
        return out

    def _inputs(self, ports: Sequence[BySymbol], symbol: str) -> tuple[Column, ...]:
        return tuple([_number(port.get(symbol), self.bars[symbol]) for port in ports])

    def _source(self, name: str, node: ComputeNode, symbol: str) -> Column:
        bars = self.bars.get(symbol)
        if bars is None or bars.interval != node.interval:
            has = "no bars" if bars is None else f"bars of {bars.interval} s"
            raise InvalidDag(
                f"node {name!r} reads {symbol!r} every {node.interval} s; the data have {has} of it.",
                "Give the data that the strategy reads.",
            )
        return Column.full(bars.close.floats())


def _number(given: Given | None, bars: BarColumns) -> Column:
    """A port's column; nothing is there where the input gives no numbers, or nothing for the symbol."""
    if isinstance(given, Column):
        return given
    return Column(np.zeros(len(bars)), np.zeros(len(bars), dtype=np.bool_))


def _asked(aggregate: Callable[[Sequence[float]], float], answers: Sequence[Column]) -> Column:
    """What becomes of the answers that are there, bucket by bucket."""
    there = np.logical_or.reduce([one.there for one in answers])
    values = np.zeros(len(there))
    said = [(one.there.tolist(), one.values.tolist()) for one in answers]
    for place in np.flatnonzero(there).tolist():
        values[place] = aggregate([found[place] for has, found in said if has[place]])
    return Column(values, there)


def _symbols(ports: Sequence[BySymbol]) -> list[str]:
    return sorted({symbol for port in ports for symbol in port})


class Want(NamedTuple):
    """What a signal wants of one symbol at the close of one bucket: an intent, with the place of its bar.

    Attributes:
        signal: which of the strategy's it is, from 0.
        place: of the bar among the symbol's.
        percent: the share of the equity to hold.
        price: what the decision saw.
    """

    bucket_ms: int
    symbol: str
    signal: int
    place: int
    percent: Decimal
    price: Decimal
    node_id: str

    def to_intent(self, world_id: str, strategy_id: str) -> OrderIntent:
        return OrderIntent(
            world_id,
            strategy_id,
            self.symbol,
            self.bucket_ms,
            self.percent,
            self.price,
            self.node_id,
            self.signal,
        )


class Wants:
    """What the signals of a strategy want, by bucket, then symbol, then signal.

    Each time it is gone through they are made anew, some at a time: a run may have more of them than should be in memory.

    Args:
        columns: what each signal gave of each symbol, with its number.
    """

    def __init__(
        self, columns: Sequence[tuple[int, str, str, Targets | Stated]], bars: Mapping[str, BarColumns]
    ) -> None:
        self._columns, self._bars = columns, bars

    def __iter__(self) -> Iterator[Want]:
        runs = [self._run(*one) for one in self._columns]
        return runs[0] if len(runs) == 1 else heapq.merge(*runs, key=_order)

    def _run(self, signal: int, node_id: str, symbol: str, targets: Targets | Stated) -> Iterator[Want]:
        places = targets.at if isinstance(targets, Stated) else np.flatnonzero(targets.there)
        buckets = self._bars[symbol].bucket_ms
        for begin in range(0, len(places), CHUNK):
            at = places[begin : begin + CHUNK]
            times = buckets[at].tolist()
            if isinstance(targets, Stated):
                said = [
                    (one.target_percent, one.reference_price)
                    for one in targets.targets[begin : begin + CHUNK]
                ]
            else:
                percents, prices = targets.percents, targets.reference_price
                chosen = targets.index[at].tolist()
                said = [
                    (percents[one], prices.at(place)) for one, place in zip(chosen, at.tolist(), strict=True)
                ]
            for bucket_ms, place, (percent, price) in zip(times, at.tolist(), said, strict=True):
                yield Want(bucket_ms, symbol, signal, place, percent, price, node_id)


def wants_of(graph: Graph, given: Mapping[str, BySymbol], bars: Mapping[str, BarColumns]) -> Wants:
    """What the signals of a graph want."""
    columns = [
        (signal, node_id, symbol, targets)
        for signal, node_id in enumerate(graph.signals)
        for symbol, targets in given[node_id].items()
        if not isinstance(targets, Column)  # numbers are no signal
    ]
    return Wants(columns, bars)


def _order(want: Want) -> tuple[int, str, int]:
    return want[:3]
