"""Which tasks of the node workers have to do with a strategy: where its nodes live, and where its intents are given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from qmtl.foundation.common.identity import NODE_ID_PREFIX
from qmtl.foundation.contracts.dag import PORTFOLIO, TAG_QUERY, PlannedNode, StrategyVersion
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.wire.topics import SHARDS

DESK = SHARDS - 1
"""The shard on which all intents are given: from the highest one the signals of every other can be read, so whatever versions come and go,
no strategy's desk ever moves."""


def shards_of(nodes: Iterable[PlannedNode], shards: int) -> dict[str, int]:
    """The shard of each node of a strategy, by node id. What reads the portfolio back lives on the desk: so one task alone waits for trading.

    Args:
        nodes: inputs before the nodes that read them.
    """
    out: dict[str, int] = {}
    for one in nodes:
        if one.node_type in (TAG_QUERY, PORTFOLIO):
            out[one.node_id] = shards - 1
        elif one.dependencies:
            out[one.node_id] = max(out[dependency] for dependency in one.dependencies)
        else:
            out[one.node_id] = int(one.node_id.removeprefix(NODE_ID_PREFIX)[:8], 16) % shards
    return out


def nodes_of(strategy: StrategyVersion) -> tuple[PlannedNode, ...]:
    """All that runs for a strategy, inputs before the nodes that read them: the nodes that answer its tag queries, its own nodes, and
    those of who has its traffic before. A node may be there twice."""
    own = (*strategy.found, *strategy.nodes)
    return (*own, *(one for split in strategy.before for one in split.nodes)) if strategy.before else own


def needed_by(strategy: StrategyVersion, shards: int = SHARDS) -> frozenset[int]:
    """The shards without which the versions of a row can't have their traffic: the homes of their nodes, and the desk."""
    homes = frozenset(shards_of((*strategy.found, *strategy.nodes), shards).values())
    return homes if strategy.desk is None or not homes else homes | {strategy.desk}


def has_read(found: NodeDeployment | None, row: StrategyVersion) -> bool:
    """Whether a shard computes a row as it is, whatever of those who have its traffic before it has seen the end of."""
    return found is not None and replace(found.strategy, before=()) == replace(row, before=())


def is_settled(row: StrategyVersion) -> bool:
    """Whether it is known from which bucket on the versions of a row have its traffic."""
    return not row.before or row.before[-1].until_ms is not None
