"""What the node workers compute now: the union of all deployed strategies, each node once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from qmtl.foundation.contracts.dag import PlannedNode, StrategyVersion, TopicClass
from qmtl.foundation.wire.topics import TopicSpec, node_topic
from qmtl.runtime.indicators.price import PriceParams
from qmtl.runtime.indicators.registry import BUILTINS

StrategyKey = tuple[str, str]
"""World id, strategy id."""


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node that is computed, with who reads it.

    Attributes:
        signals: the strategies whose intents it gives, sorted.
        worlds: the worlds that it serves, sorted; they see a source's bars.
        strategies: every strategy that it is part of, sorted.
    """

    node: PlannedNode
    params: object
    signals: tuple[StrategyKey, ...]
    worlds: tuple[str, ...]
    strategies: tuple[StrategyKey, ...]

    @property
    def is_source(self) -> bool:
        return BUILTINS[self.node.node_type].ports == 0

    def reads(self, symbol: str) -> bool:
        """Whether a source reads a symbol."""
        return isinstance(self.params, PriceParams) and symbol in self.params.symbols


@dataclass(frozen=True, slots=True)
class Plan:
    """All nodes, inputs before the nodes that read them; an order that only the deployments decide."""

    nodes: tuple[PlanNode, ...] = ()
    topics: Mapping[str, TopicSpec] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[PlanNode, ...]:
        return tuple(one for one in self.nodes if one.is_source)


def make_plan(deployments: Iterable[StrategyVersion]) -> Plan:
    """The plan of a set of deployed strategies; a node that several share is in it once."""
    ordered: dict[str, PlannedNode] = {}
    signals: dict[str, set[StrategyKey]] = {}
    strategies: dict[str, set[StrategyKey]] = {}
    for one in sorted(deployments, key=lambda row: (row.world_id, row.strategy_id)):
        key = (one.world_id, one.strategy_id)
        for node in one.nodes:
            ordered.setdefault(node.node_id, node)
            strategies.setdefault(node.node_id, set()).add(key)
        for node_id in one.signals:
            signals.setdefault(node_id, set()).add(key)
    nodes = tuple(
        PlanNode(
            node,
            BUILTINS[node.node_type].parse(json.loads(node.params_canon, parse_float=Decimal), node.period),
            tuple(sorted(signals.get(node_id, ()))),
            tuple(sorted({world for world, _ in strategies[node_id]})),
            tuple(sorted(strategies[node_id])),
        )
        for node_id, node in ordered.items()
    )
    topics = {
        one.node.topic: node_topic(
            one.node.topic, TopicClass.RAW if one.is_source else TopicClass.INDICATOR, one.node.partitions
        )
        for one in nodes
    }
    return Plan(nodes, topics)
