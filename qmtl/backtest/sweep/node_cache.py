"""Nodes of many strategies in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from qmtl.backtest.python_nodes import Stated
from qmtl.backtest.signals import BySymbol, Given, Nodes
from qmtl.foundation.common.errors import ComputeFailed, InvalidDag
from qmtl.foundation.contracts.dag import TAG_QUERY
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.indicators.columnar import Targets
from qmtl.runtime.sdk.functions import Functions, register
from qmtl.services.dagmanager.graph import Graph, GraphNode

_TARGET_BYTES: Final = 300
"""A target as an object with its two decimals."""


class KeptNodes(Nodes):
    """Nodes that are computed once, as long as there is room to keep them.

    Args:
        bars: by symbol, of one interval.
        most_bytes: of what is kept between two strategies.
    """

    def __init__(self, bars: Mapping[str, BarColumns], most_bytes: int) -> None:
        super().__init__(bars)
        self._most_bytes = most_bytes
        self._failed: dict[str, str] = {}

    def of(self, graph: Graph) -> Mapping[str, BySymbol]:
        _register(graph)
        given = super().of(graph)
        while self.faults:  # told in a sentence: an error holds on to all that its function saw
            fault = self.faults.pop()
            self._failed[fault.node_id] = fault.error.what
        for one in graph.nodes:  # those used last come last
            self._given[one.node.node_id] = self._given.pop(one.node.node_id)
        return given

    def _compute(self, strategy_id: str, one: GraphNode) -> BySymbol:
        """As of any node, but of a tag query: what it gives hangs on who answers, which its id does not say and another combination changes.

        Raises:
            InvalidDag: it is one.
        """
        if one.node.node_type == TAG_QUERY:
            raise InvalidDag(
                f"node {one.name!r} is a tag query; who answers it may differ from combination to combination.",
                "Name the inputs, or run each combination with `qmtl backtest`.",
            )
        return super()._compute(strategy_id, one)

    def require_sound(self, graph: Graph) -> None:
        """See whether any node of a graph has failed, whoever's strategy it was computed for.

        Raises:
            ComputeFailed: one has; what it said before is half a strategy's, and nothing to rank.
        """
        for one in graph.nodes:
            if one.node.node_id in self._failed:
                raise ComputeFailed(f"the function of {one.name!r} failed: {self._failed[one.node.node_id]}")

    def let_go(self, graph: Graph, shared: Collection[str]) -> None:
        """Let go of a graph's nodes that are not shared, and then of those for which there is no room, from what was used longest ago on."""
        for one in graph.nodes:
            if one.node.node_id not in shared:
                self._given.pop(one.node.node_id, None)
        room = self._most_bytes
        for node_id in reversed(list(self._given)):
            room -= sum(_bytes(one) for one in self._given[node_id].values())
            if room < 0:
                del self._given[node_id]

    @property
    def kept(self) -> tuple[str, ...]:
        """The nodes that are kept, those used last at the end."""
        return tuple(self._given)


def _register(graph: Graph) -> None:
    """Find the functions of a graph where its author has them: the graph was made of a class of theirs, by whoever asked for the sweep.

    Raises:
        CodeMissing, CodeDiffers: one is not there, or another.
    """
    for one in graph.nodes:
        if one.code:
            register(Functions((one.code.partition(":")[0],)).find((one.code,), one.node.code_hash))


def _bytes(given: Given) -> int:
    """What a column holds; targets of built-in nodes have one byte for each bucket, as their prices are the bars'."""
    match given:
        case Column():
            return given.values.nbytes + given.there.nbytes
        case Targets():
            return given.index.nbytes
        case Stated():
            return given.at.nbytes + _TARGET_BYTES * len(given.targets)
