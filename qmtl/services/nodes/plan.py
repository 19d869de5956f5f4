"""What a task of the node workers computes now: its share of the union of all deployed strategies, each node once.

A node lives on one shard, and stays there. A source's shard comes from its id; a node lives where its inputs live, and where
they live on several, on the highest of these. So a component of the graph lies together unless a strategy joins two that were
apart, nothing ever moves, and what crosses from shard to shard goes upwards only: no two tasks wait for each other. A tag query,
whose inputs come and go, lives on the highest shard there is, from where every other one can be read.

All intents of a strategy are given on one shard, its desk: the highest on which a signal of one of its versions lives. Signals of
lower shards are read there. So one task alone decides which version a symbol belongs to, and a weight changes between two of
its buckets for all symbols at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from qmtl.foundation.common.identity import NODE_ID_PREFIX, own_params
from qmtl.foundation.common.traffic import is_canarys, require_weight
from qmtl.foundation.contracts.dag import Canary, PlannedNode, StrategyVersion, TopicClass
from qmtl.foundation.wire.topics import TopicSpec, node_topic
from qmtl.runtime.indicators.price import PriceParams
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, TAG_QUERY

StrategyKey = tuple[str, str]
"""World id, strategy id."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A strategy whose intents a node gives: for every symbol, or for those of one of two versions.

    Attributes:
        beside: the canary that the strategy has, where the node is the signal of one version and not of both.
        of_canary: the node is the canary's signal.
    """

    world_id: str
    strategy_id: str
    beside: Canary | None = None
    of_canary: bool = False

    def gives(self, symbol: str) -> bool:
        """Whether the symbol belongs to a version whose signal the node is."""
        if self.beside is None:
            return True
        return is_canarys(self.beside.sentinel_id, symbol, self.beside.traffic_weight) is self.of_canary


@dataclass(frozen=True, slots=True)
class PlanNode:
    """A node that the task computes, or only reads, with who reads it.

    Attributes:
        signals: the strategies whose intents it gives on this shard, by world and strategy.
        worlds: the worlds of the strategies that have it in their own graphs, sorted; they see a source's bars.
        strategies: every strategy that it is part of, sorted.
        sources: ids of the sources that it is computed from, as its ports lead to them; a source's own id alone. Empty where it is
            read for the intents alone and nothing is computed with it: then no bars of theirs are read here.
        here: whether the node lives on this shard. One that does not is read from its topic.
    """

    node: PlannedNode
    params: object
    signals: tuple[Signal, ...]
    worlds: tuple[str, ...]
    strategies: tuple[StrategyKey, ...]
    sources: tuple[str, ...]
    here: bool = True

    @property
    def is_source(self) -> bool:
        return self.node.node_type == SOURCE

    @property
    def is_query(self) -> bool:
        """Whether any number of nodes answers it, each for some symbols, instead of one per port."""
        return self.node.node_type == TAG_QUERY

    def reads(self, symbol: str) -> bool:
        """Whether a source reads a symbol."""
        return isinstance(self.params, PriceParams) and symbol in self.params.symbols


@dataclass(frozen=True, slots=True)
class Plan:
    """The nodes of a shard and what they read, inputs before the nodes that read them; the deployments alone decide the order.

    Attributes:
        deployed: all nodes of the deployments by their ids, those of other shards too, in that order.
    """

    nodes: tuple[PlanNode, ...] = ()
    topics: Mapping[str, TopicSpec] = field(default_factory=dict)
    deployed: Mapping[str, PlannedNode] = field(default_factory=dict)

    @property
    def sources(self) -> tuple[PlanNode, ...]:
        return tuple(one for one in self.nodes if one.is_source)


def shards_of(nodes: Iterable[PlannedNode], shards: int) -> dict[str, int]:
    """The shard of each node of a strategy, by node id.

    Args:
        nodes: inputs before the nodes that read them.
    """
    out: dict[str, int] = {}
    for one in nodes:
        if one.node_type == TAG_QUERY:
            out[one.node_id] = shards - 1
        elif one.dependencies:
            out[one.node_id] = max(out[dependency] for dependency in one.dependencies)
        else:
            out[one.node_id] = int(one.node_id.removeprefix(NODE_ID_PREFIX)[:8], 16) % shards
    return out


def nodes_of(strategy: StrategyVersion) -> tuple[PlannedNode, ...]:
    """All that runs for a strategy, inputs before the nodes that read them: its own nodes, and those that answer its tag queries.
    A node may be there twice."""
    return (*strategy.found, *strategy.nodes)


def make_plan(deployments: Iterable[StrategyVersion], shard: int = 0, shards: int = 1) -> Plan:
    """A shard's plan of a set of deployed strategies; a node that several share is in it once.

    Raises:
        InvalidValue: a canary's weight is none.
    """
    ordered: dict[str, PlannedNode] = {}
    home: dict[str, int] = {}
    signals: dict[str, list[Signal]] = {}
    strategies: dict[str, set[StrategyKey]] = {}
    worlds: dict[str, set[str]] = {}
    for one in sorted(deployments, key=lambda row: (row.world_id, row.strategy_id)):
        key = (one.world_id, one.strategy_id)
        homes = shards_of(nodes_of(one), shards)
        home.update(homes)
        for node in nodes_of(one):
            ordered.setdefault(node.node_id, node)
            strategies.setdefault(node.node_id, set()).add(key)
        for node in one.nodes:
            worlds.setdefault(node.node_id, set()).add(one.world_id)
        given = _signals(one)
        if given and shard == max(homes[node_id] for node_id in given):
            for node_id, signal in given.items():
                signals.setdefault(node_id, []).append(signal)
    sources = _sources(ordered)
    needed = _needed(ordered, home, sources, shard)
    nodes = tuple(
        PlanNode(
            node,
            BUILTINS[node.node_type].parse(
                own_params(json.loads(node.params_canon, parse_float=Decimal)), node.period
            ),
            tuple(signals.get(node_id, ())),
            tuple(sorted(worlds.get(node_id, ()))),
            tuple(sorted(strategies[node_id])),
            sources[node_id] if node_id in needed else (),
            home[node_id] == shard,
        )
        for node_id, node in ordered.items()
        if node_id in needed or node_id in signals
    )
    topics = {
        one.node.topic: node_topic(
            one.node.topic, TopicClass.RAW if one.is_source else TopicClass.INDICATOR, one.node.partitions
        )
        for one in nodes
    }
    return Plan(nodes, topics, ordered)


def begun_anew(before: Plan, after: Plan) -> frozenset[str]:
    """The nodes of both plans that forget what they have seen: those that have another topic, and all that are computed from one."""
    found: set[str] = set()
    for node_id, node in after.deployed.items():
        known = before.deployed.get(node_id)
        if known is not None and (known.topic != node.topic or found.intersection(node.dependencies)):
            found.add(node_id)
    return frozenset(found)


def _signals(one: StrategyVersion) -> dict[str, Signal]:
    """What each signal node of a strategy's versions gives intents for; one of both versions gives them for every symbol."""
    canary = one.canary
    if canary is None:
        return {node_id: Signal(one.world_id, one.strategy_id) for node_id in one.signals}
    require_weight(canary.traffic_weight)
    return {
        node_id: Signal(one.world_id, one.strategy_id)
        if node_id in one.signals and node_id in canary.signals
        else Signal(one.world_id, one.strategy_id, canary, node_id in canary.signals)
        for node_id in (*one.signals, *canary.signals)
    }


def _sources(ordered: Mapping[str, PlannedNode]) -> dict[str, tuple[str, ...]]:
    """The sources above each node, each once: the order of the ports decides, and so the node's identity alone; of a tag query that
    of the topics that answer it."""
    out: dict[str, tuple[str, ...]] = {}
    for node_id, node in ordered.items():
        above = (source for read in node.dependencies for source in out[read])
        out[node_id] = (node_id,) if node.node_type == SOURCE else tuple(dict.fromkeys(above))
    return out


def _needed(
    ordered: Mapping[str, PlannedNode],
    home: Mapping[str, int],
    sources: Mapping[str, tuple[str, ...]],
    shard: int,
) -> frozenset[str]:
    """What is needed to compute: the nodes of a shard, their inputs from other shards, and the sources above them, whose bars
    the nodes see."""
    needed: set[str] = set()
    for node_id, node in ordered.items():
        if home[node_id] == shard:
            needed.update((node_id, *node.dependencies, *sources[node_id]))
    return frozenset(needed)
