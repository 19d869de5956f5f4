"""Nodes of many strategies in bounded memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from qmtl.backtest.signals import BySymbol, Nodes
from qmtl.runtime.columns import BarColumns, Column
from qmtl.services.dagmanager.graph import Graph


class KeptNodes(Nodes):
    """Nodes that are computed once, as long as there is room to keep them.

    Args:
        bars: by symbol, of one interval.
        most_bytes: of what is kept between two strategies.
    """

    def __init__(self, bars: Mapping[str, BarColumns], most_bytes: int) -> None:
        super().__init__(bars)
        self._most_bytes = most_bytes

    def of(self, graph: Graph) -> Mapping[str, BySymbol]:
        given = super().of(graph)
        for one in graph.nodes:  # those used last come last
            self._given[one.node.node_id] = self._given.pop(one.node.node_id)
        return given

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


def _bytes(given: object) -> int:
    """What a column holds; a column of targets has one byte for each bucket beside the prices, which are the bars'."""
    if isinstance(given, Column):
        return given.values.nbytes + given.there.nbytes
    return len(given) if hasattr(given, "__len__") else 0
