"""What a task of the node workers computes now: its share of the union of all deployed strategies, each node once.

A node lives on one shard, and stays there. A source's shard comes from its id; a node lives where its inputs live, and where
they live on several, on the highest of these. So a component of the graph lies together unless a strategy joins two that were
apart, nothing ever moves, and what crosses from shard to shard goes upwards only: no two tasks wait for each other. A tag query,
whose inputs come and go, lives on the highest shard there is, from where every other one can be read. So does a node that reads the portfolio
back: it waits in each bucket for trading, which waits for all shards in the bucket before, and nobody below it waits with it.

All intents are given on one shard, the desk: the highest there is, where the signals of every other one are read. So one task alone
decides which version a symbol belongs to, a weight changes between two of its buckets for all symbols at once, and no version that
comes or goes moves the desk. Who has the traffic before (`StrategyVersion.before`) has it up to a bucket; the versions of the row have it
from there on, when every shard computes them. (The desk of a row of old is the highest shard on which a signal of it lives. While such a row
is taken over, both desks give what it wants, and trading takes the first of two equal intents.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import lru_cache
from typing import Final

from qmtl.foundation.common.identity import own_params
from qmtl.foundation.common.traffic import is_canarys, require_weight
from qmtl.foundation.contracts.dag import Canary, PlannedNode, Split, StrategyVersion, TopicClass
from qmtl.foundation.contracts.node import NodeValue
from qmtl.foundation.wire.shards import nodes_of, shards_of
from qmtl.foundation.wire.topics import TopicSpec, node_topic
from qmtl.runtime.indicators.price import PriceParams
from qmtl.runtime.indicators.registry import BUILTINS, SOURCE, TAG_QUERY
from qmtl.runtime.sdk.portfolio_node import PORTFOLIO, PORTFOLIO_NODE
from qmtl.runtime.sdk.python_node import PYTHON, PythonNode

_PYTHON: Final = PythonNode(NodeValue)

StrategyKey = tuple[str, str]
"""World id, strategy id."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A strategy whose intents a node gives: for every symbol, or for those of one of two versions, and in which buckets.

    Attributes:
        beside: the canary that the strategy has.
        of_canary: the node is the canary's signal.
        index: its place among the signals of its version.
        after_ms, until_ms: the buckets in which its version has the traffic, those between the first, which is not one of them, and the
            last, which is; None where no end is known.
    """

    world_id: str
    strategy_id: str
    beside: Canary | None = None
    of_canary: bool = False
    index: int = 0
    after_ms: int = 0
    until_ms: int | None = None

    def holds(self, bucket_ms: int) -> bool:
        """Whether it gives intents in a bucket."""
        return self.after_ms < bucket_ms and (self.until_ms is None or bucket_ms <= self.until_ms)

    def gives(self, symbol: str) -> bool:
        """Whether the symbol belongs to the version whose signal the node is."""
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
        codes: of a Python node, where the strategies that have it say that its function is, sorted.
        here: whether the node lives on this shard. One that does not is read from its topic.
    """

    node: PlannedNode
    params: object
    signals: tuple[Signal, ...]
    worlds: tuple[str, ...]
    strategies: tuple[StrategyKey, ...]
    sources: tuple[str, ...]
    here: bool = True
    codes: tuple[str, ...] = ()

    @property
    def is_python(self) -> bool:
        """Whether it runs a function that an author wrote."""
        return self.node.node_type == PYTHON

    @property
    def is_source(self) -> bool:
        return self.node.node_type == SOURCE

    @property
    def is_feedback(self) -> bool:
        """Whether it reads the portfolio back, as the bucket before has left it."""
        return self.node.node_type == PORTFOLIO

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
        ends_ms: the first bucket with which somebody's traffic ends, and so what only they need; None where no end is known.
    """

    nodes: tuple[PlanNode, ...] = ()
    topics: Mapping[str, TopicSpec] = field(default_factory=dict)
    deployed: Mapping[str, PlannedNode] = field(default_factory=dict)
    ends_ms: int | None = None

    @property
    def sources(self) -> tuple[PlanNode, ...]:
        return tuple(one for one in self.nodes if one.is_source)


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
    codes: dict[str, set[str]] = {}
    ends: list[int] = []
    for one in sorted(deployments, key=lambda row: (row.world_id, row.strategy_id)):
        key = (one.world_id, one.strategy_id)
        homes = shards_of(nodes_of(one), shards)
        home.update(homes)
        for node in nodes_of(one):
            ordered.setdefault(node.node_id, node)
            strategies.setdefault(node.node_id, set()).add(key)
            if node.code:
                codes.setdefault(node.node_id, set()).add(node.code)
        for node_id in _own(one):
            worlds.setdefault(node_id, set()).add(one.world_id)
        for split, after_ms in _splits(one):
            if split.until_ms is not None:
                ends.append(split.until_ms)
            given = _signals(one, split, after_ms)
            if given and shard in _desks(one, split, homes):
                for node_id, signal in given:
                    signals.setdefault(node_id, []).append(signal)
    sources = _sources(ordered)
    needed = _needed(ordered, home, sources, shard)
    nodes = tuple(
        PlanNode(
            node,
            _parsed(node.node_type, node.params_canon, node.period),
            tuple(signals.get(node_id, ())),
            tuple(sorted(worlds.get(node_id, ()))),
            tuple(sorted(strategies[node_id])),
            sources[node_id] if node_id in needed else (),
            home[node_id] == shard,
            tuple(sorted(codes.get(node_id, ()))),
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
    return Plan(nodes, topics, ordered, min(ends, default=None))


@lru_cache(maxsize=1 << 16)
def _parsed(node_type: str, params_canon: str, period: int) -> object:
    """The parameters in the form of the node's type; whatever a Python node gives, they have one form. They are remembered, as a plan is made of all
    nodes each time that one comes."""
    params = own_params(json.loads(params_canon, parse_float=Decimal))
    if node_type == PYTHON:
        return _PYTHON.parse(params, period)
    if node_type == PORTFOLIO:
        return PORTFOLIO_NODE.parse(params, period)
    return BUILTINS[node_type].parse(params, period)


def begun_anew(before: Plan, after: Plan) -> frozenset[str]:
    """The nodes of both plans that forget what they have seen: those that have another topic, and all that are computed from one."""
    found: set[str] = set()
    for node_id, node in after.deployed.items():
        known = before.deployed.get(node_id)
        if known is not None and (known.topic != node.topic or found.intersection(node.dependencies)):
            found.add(node_id)
    return frozenset(found)


def taken_over(strategy: StrategyVersion, closed_ms: int) -> StrategyVersion:
    """A row without those whose traffic has ended by a bucket, for a task that has closed it."""
    left = tuple([one for one in strategy.before if one.until_ms is None or one.until_ms > closed_ms])
    return strategy if left == strategy.before else replace(strategy, before=left)


def _own(one: StrategyVersion) -> Iterator[str]:
    """The nodes of a strategy's own graphs, in no more than their order."""
    yield from (node.node_id for node in one.nodes)
    for split in one.before:
        yield from (node.node_id for node in split.nodes if node.node_id not in split.found)


def _splits(one: StrategyVersion) -> Iterator[tuple[Split, int]]:
    """Who has a strategy's traffic one after the other, each with the last bucket that is not yet theirs; nobody comes after one whose
    end is not known."""
    after_ms = 0
    for split in one.before:
        yield split, after_ms
        if split.until_ms is None:
            return
        after_ms = max(after_ms, split.until_ms)
    yield Split(one.sentinel_id, one.signals, one.canary, (), desk=one.desk), after_ms


def _desks(one: StrategyVersion, split: Split, homes: Mapping[str, int]) -> set[int]:
    """Where the intents of a split are given: on its desk, and on another one that takes over."""
    canarys = () if split.canary is None else split.canary.signals
    mine = max(homes[node_id] for node_id in (*split.signals, *canarys)) if split.desk is None else split.desk
    return {mine, mine if one.desk is None else one.desk}


def _signals(one: StrategyVersion, split: Split, after_ms: int) -> list[tuple[str, Signal]]:
    """What each signal node of the versions gives intents for."""
    canary, lies = split.canary, (after_ms, split.until_ms)
    key = (one.world_id, one.strategy_id)
    stable = [
        (node_id, Signal(*key, canary, False, index, *lies)) for index, node_id in enumerate(split.signals)
    ]
    if canary is None:
        return stable
    require_weight(canary.traffic_weight)
    return stable + [
        (node_id, Signal(*key, canary, True, index, *lies)) for index, node_id in enumerate(canary.signals)
    ]


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
