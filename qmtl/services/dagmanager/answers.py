"""The plan of a strategy that has tag queries: who answers each, and what these are computed from.

It is a function of the graph as it is now, but for a query with more answers than a row can name. That one keeps those that the
strategy's row has given it, or has none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from qmtl.foundation.common.errors import InvariantBroken, TooLarge
from qmtl.foundation.contracts.dag import ComputeNode, PlannedNode, Queue, StrategyVersion
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import SHARDS
from qmtl.runtime.indicators.registry import TAG_QUERY
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.graph import in_order
from qmtl.services.dagmanager.tag_queries import MAX_ANSWERS, TagQueries, question_of

_LAST_MS: Final = 2**53
"""No bucket has more digits."""

Answers: TypeAlias = Mapping[str, tuple[str, ...]]
"""Ids of nodes, in the order of their topics, by the id of the tag query that they answer."""


def planned(node: ComputeNode, queue: Queue | None, name: str, reused: bool) -> PlannedNode:
    """A node of a plan.

    Raises:
        InvariantBroken: it has no topic.
    """
    if queue is None:
        raise InvariantBroken(f"node {node.node_id} has no queue.")
    return PlannedNode(
        name,
        node.node_id,
        node.node_type,
        node.interval,
        node.period,
        node.params_canon,
        node.dependencies,
        queue.topic,
        queue.partitions,
        reused,
        node.code,
        node.code_hash if node.code else "",
    )


def queries_of(nodes: Iterable[PlannedNode]) -> dict[str, PlannedNode]:
    """The tag queries of a plan, by id."""
    return {one.node_id: one for one in nodes if one.node_type == TAG_QUERY}


def answered(catalogue: Catalogue, row: StrategyVersion) -> StrategyVersion:
    """A row with the answers to its tag queries, of versions that are active."""
    queries = queries_of(row.nodes)
    if not queries:
        return row
    now = {query: catalogue.tag_queries.answers_to(query) for query in queries}
    before = catalogue.strategy(row.world_id, row.strategy_id)
    known = {} if before is None else queries_of(before.nodes)
    kept = {
        query: tuple([one for one in known[query].dependencies if catalogue.is_ready(one)])
        for query in queries
        if query in known
    }
    too_many = [query for query, found in now.items() if len(found) > MAX_ANSWERS]
    for crowded in (too_many, list(queries)):
        mixed = {query: kept.get(query, ()) if query in crowded else now[query] for query in queries}
        made = with_answers(catalogue, row, mixed, crowded)
        if is_writable(made):
            return made
    return with_answers(catalogue, row, {}, queries)


def with_answers(
    catalogue: Catalogue,
    row: StrategyVersion,
    answers: Answers,
    crowded: Collection[str] = (),
) -> StrategyVersion:
    """A row in which tag queries have these answers: after the strategy's own nodes that answer them, and with those of others.

    Args:
        answers: ids of nodes by query; none to those that are left out.
    """
    nodes = [
        replace(one, dependencies=answers.get(one.node_id, ())) if one.node_type == TAG_QUERY else one
        for one in row.nodes
    ]
    own: dict[str, list[PlannedNode]] = {}
    for one in nodes:  # content that is there under two names is there twice
        own.setdefault(one.node_id, []).append(one)
    order = in_order(
        {node_id: [read for read in named[0].dependencies if read in own] for node_id, named in own.items()}
    )
    others = [one for found in answers.values() for one in found if one not in own]
    return replace(
        row,
        nodes=tuple([one for node_id in order for one in own[node_id]]),
        found=_with_inputs(catalogue, others),
        crowded=tuple(sorted(crowded)),
    )


def answers_in(catalogue: Catalogue, graph: Sequence[ComputeNode]) -> Answers:
    """Who would answer the tag queries of a graph if it were active now; those that are not there yet come last.

    Args:
        graph: inputs before the nodes that read them.
    """
    questions = {one.node_id: found for one in graph if (found := question_of(one)) is not None}
    if not questions:
        return {}
    alone = TagQueries()
    for one in graph:
        alone.learn(one)
    own = {one.node_id: one for one in graph if alone.can_answer(one)}
    out = {}
    for query, question in questions.items():
        mine = [
            node_id
            for node_id, one in own.items()
            if one.interval == question.interval and question.is_answered_by(one.tags)
        ]
        out[query] = tuple(dict.fromkeys((*catalogue.tag_queries.answers(question), *mine)))
    return out


def _with_inputs(catalogue: Catalogue, node_ids: Iterable[str]) -> tuple[PlannedNode, ...]:
    """These nodes and all that they are computed from, inputs before the nodes that read them."""
    done: dict[str, PlannedNode] = {}
    left = list(node_ids)[::-1]
    while left:
        node_id = left[-1]
        node = catalogue.node(node_id)
        if node is None:
            raise InvariantBroken(f"node {node_id} answers a tag query and is not known.")
        if lacks := [one for one in node.dependencies if one not in done]:
            left += lacks[::-1]
            continue
        left.pop()
        if node_id not in done:
            done[node_id] = planned(node, catalogue.queue_of(node_id), "", True)
    return tuple(done.values())


def is_writable(row: StrategyVersion) -> bool:
    """Whether a shard of the node workers can keep a row."""
    try:
        codec.encode(NodeDeployment(SHARDS, row, _LAST_MS))
    except TooLarge:
        return False
    return True
