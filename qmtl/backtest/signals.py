"""What the nodes of a strategy give over the bars of a backtest, in columns: each node once, whoever reads it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from qmtl.foundation.common.errors import InvalidDag
from qmtl.foundation.common.identity import own_params
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.columnar import Columnar, Targets
from qmtl.runtime.indicators.price import PriceParams
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, TAG_QUERY
from qmtl.services.dagmanager.graph import Graph

Given: TypeAlias = Column | Targets
BySymbol: TypeAlias = Mapping[str, Given]


class Nodes:
    """Values of nodes by their ids, over one set of bars; a node that several strategies have is computed once.

    Args:
        bars: by symbol, of one interval.
    """

    def __init__(self, bars: Mapping[str, BarColumns]) -> None:
        self.bars = bars
        self.computed = 0
        self._given: dict[str, BySymbol] = {}

    def of(self, graph: Graph) -> Mapping[str, BySymbol]:
        """What each node of a graph gives, by symbol.

        Raises:
            InvalidDag: a node of another interval than the bars, one that reads a symbol without bars, or a tag query: nobody answers it here.
        """
        for one in graph.nodes:
            if one.node.node_id not in self._given:
                self._given[one.node.node_id] = self._compute(one.name, one.node)
                self.computed += 1
        return self._given

    def _compute(self, name: str, node: ComputeNode) -> BySymbol:
        builtin: Any = BUILTINS[node.node_type]
        params = builtin.parse(own_params(json.loads(node.params_canon, parse_float=Decimal)), node.period)
        if node.node_type == TAG_QUERY:
            raise InvalidDag(
                f"node {name!r} is a tag query; a backtest has the nodes of one message alone.",
                "Name the inputs, or run it on a log.",
            )
        if node.node_type == SOURCE:
            assert isinstance(params, PriceParams)
            return {symbol: self._source(name, node, symbol) for symbol in params.symbols}
        ports = [self._given[node_id] for node_id in node.dependencies]
        out: dict[str, Given] = {}
        for symbol in sorted({symbol for port in ports for symbol in port}):
            bars = self.bars[symbol]
            inputs = tuple([_number(port.get(symbol), bars) for port in ports])
            columnar: Columnar = builtin
            out[symbol], _ = columnar.columns(params, inputs, bars, None)
        return out

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


def wants_of(graph: Graph, given: Mapping[str, BySymbol], bars: Mapping[str, BarColumns]) -> list[Want]:
    """What the signals of a graph want, by bucket, then symbol, then the place of the signal."""
    rows: list[Want] = []
    columns = 0
    for index, node_id in enumerate(graph.signals):
        for symbol, targets in given[node_id].items():
            if isinstance(targets, Targets):
                columns += 1
                at = np.flatnonzero(targets.there)
                buckets = bars[symbol].bucket_ms[at].tolist()
                prices = targets.reference_price
                rows += [
                    Want(bucket_ms, symbol, index, place, targets.percents[chosen], prices.at(place), node_id)
                    for bucket_ms, place, chosen in zip(
                        buckets, at.tolist(), targets.index[at].tolist(), strict=True
                    )
                ]
    if columns > 1:
        rows.sort(key=_order)
    return rows


def _order(want: Want) -> tuple[int, str, int]:
    return want[:3]
