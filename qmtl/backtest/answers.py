"""Who answers the tag queries of a run: the nodes of all its strategies, by the rules of the DAG Manager, as if all were there from the first
bucket on.

A query reads the nodes that answer it in the order of the topics that they would have on a log, so that also what depends on an order (which of two
zeros is the smaller) is the same. A tag query answers none, nor does what is computed from one: nothing reads itself, whatever is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from qmtl.backtest.signals import Found
from qmtl.foundation.common.errors import InvalidDag, TagsTooCommon
from qmtl.foundation.contracts.dag import TAG_QUERY, ComputeNode
from qmtl.services.dagmanager.graph import Graph, GraphNode, in_order
from qmtl.services.dagmanager.naming import asset_of, topic_name
from qmtl.services.dagmanager.tag_queries import MAX_ANSWERS, TagQueries, question_of


def answered(graphs: Sequence[Graph]) -> tuple[Graph, ...]:
    """The graphs in which each tag query reads the nodes that answer it; those of other strategies are in the graph, too, with all that they are
    computed from. A graph without one is as it was. A query that nobody answers reads nothing, and gives nothing.

    Args:
        graphs: in the order of their publication: a node that several have is as the first one says.

    Raises:
        TagsTooCommon: more nodes answer one query than on a log.
    """
    if not any(one.node.node_type == TAG_QUERY for graph in graphs for one in graph.nodes):
        return tuple(graphs)
    nodes: dict[str, Found] = {}
    versions: dict[str, str] = {}
    for graph in graphs:
        for one in graph.nodes:
            node = Found(one.name, one.node, one.schema_hash, one.code, graph.strategy_id)
            nodes.setdefault(one.node.node_id, node)
            versions.setdefault(one.node.node_id, graph.version)
    answers = _answers({node_id: one.node for node_id, one in nodes.items()}, versions)
    for query, found in answers.items():
        if len(found) > MAX_ANSWERS:
            raise TagsTooCommon(
                f"{len(found)} nodes answer the tag query {nodes[query].name!r}; at most {MAX_ANSWERS} do.",
                "Ask for a tag that fewer have.",
            )
    return tuple([_with_answers(graph, nodes, answers) for graph in graphs])


def require_answers(graph: Graph) -> None:
    """Hold a strategy that runs alone to tag queries that its own nodes answer.

    Raises:
        InvalidDag: nobody answers one.
        TagsTooCommon: as `answered`.
    """
    (found,) = answered((graph,))
    for one in found.nodes:
        if one.node.node_type == TAG_QUERY and not one.node.dependencies:
            raise InvalidDag(
                f"node {one.name!r} is a tag query that nobody answers: no node of the strategy has its tags at its interval.",
                "Name the inputs, give those that answer to `simulate`, too, or run it on a log.",
            )


def _answers(nodes: Mapping[str, ComputeNode], versions: Mapping[str, str]) -> Mapping[str, tuple[str, ...]]:
    """The ids of those that answer each query, in the order of their topics."""
    asking = TagQueries()
    asking.learn_all(nodes.values())
    topics: dict[str, str] = {}
    assets: dict[str, str] = {}
    for node_id, node in nodes.items():
        asset = asset_of(node, nodes.get, assets)
        topics[topic_name(node, versions[node_id], topics.__contains__, asset)] = node_id
    able = [nodes[topics[topic]] for topic in sorted(topics)]
    able = [one for one in able if asking.can_answer(one)]
    return {
        query: tuple(
            [
                one.node_id
                for one in able
                if one.interval == question.interval and question.is_answered_by(one.tags)
            ]
        )
        for query, node in nodes.items()
        if (question := question_of(node)) is not None
    }


def _with_answers(graph: Graph, nodes: Mapping[str, Found], answers: Mapping[str, tuple[str, ...]]) -> Graph:
    if not any(one.node.node_id in answers for one in graph.nodes):
        return graph
    own: dict[str, list[GraphNode]] = {}
    for one in graph.nodes:  # content that is there under two names is there twice
        node_id = one.node.node_id
        if node_id in answers:
            one = replace(one, node=replace(one.node, dependencies=answers[node_id]))
        own.setdefault(node_id, []).append(one)
    reads: dict[str, tuple[str, ...]] = {}
    left = list(own)
    for node_id in left:  # grows while it is read
        if node_id not in reads:
            reads[node_id] = (own[node_id][0] if node_id in own else nodes[node_id]).node.dependencies
            left += reads[node_id]
    ordered = [one for node_id in in_order(reads) for one in own.get(node_id, [nodes[node_id]])]
    return replace(graph, nodes=tuple(ordered))
