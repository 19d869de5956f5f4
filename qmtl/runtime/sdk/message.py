"""From a strategy to the DAG message that is published: the same bytes for the same strategy, wherever it is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from qmtl.foundation.common.canonical import canonical_json
from qmtl.foundation.common.errors import DuplicateName, InvalidStrategy
from qmtl.foundation.common.names import MAX_NAME
from qmtl.runtime.sdk.functions import code_path
from qmtl.runtime.sdk.nodes import Node, PortfolioInput, ProcessingNode
from qmtl.runtime.sdk.strategy import Strategy

SCHEMA_VERSION: Final = "v1"
MAX_NODES: Final = 10_000


def dag_message(strategy: Strategy) -> bytes:
    """The DAG message of a strategy: canonical JSON, nodes in the order in which they were added.

    Nodes without a name are called after what they compute, the second of a name `<name>_2`. A node without an interval has that of its inputs,
    or the strategy's default.

    Raises:
        InvalidStrategy: no nodes, no signal, an input that was not added, a node without an interval or with another than its inputs.
        DuplicateName: two nodes with one name.
    """
    return canonical_json(_message(strategy)).encode()


def node_names(strategy: Strategy) -> dict[Node, str]:
    """What each node is called in its message.

    Raises:
        DuplicateName: two were given one name.
    """
    nodes = strategy.nodes
    given: dict[str, Node] = {}
    for node in nodes:
        if node.name is None:
            continue
        if node.name in given:
            raise DuplicateName(
                f"the name {node.name!r} was given to two nodes of {strategy.name}; each has a name of its own.",
                "Rename one of them.",
            )
        given[node.name] = node
    names: dict[Node, str] = {}
    taken = set(given)
    for node in nodes:
        name = node.name
        if name is None:
            name = next(one for one in _candidates(node.stem) if one not in taken)
            taken.add(name)
        names[node] = name
    return names


def signals_of(strategy: Strategy) -> tuple[Node, ...]:
    """The nodes whose targets are traded: all that give targets.

    Raises:
        InvalidStrategy: there is none.
    """
    found = tuple([node for node in strategy.nodes if node.gives_targets])
    if not found:
        raise InvalidStrategy(
            f"the strategy {strategy.name} has no signal; one of its nodes gives position targets.",
            "Add position_target(node, long_percent=…, short_percent=…), or a ProcessingNode with gives='target'.",
        )
    return found


def _message(strategy: Strategy) -> dict[str, Any]:
    nodes = strategy.nodes
    if not 1 <= len(nodes) <= MAX_NODES:
        raise InvalidStrategy(
            f"the strategy {strategy.name} has {len(nodes)} nodes; 1 to {MAX_NODES} are allowed.",
            "Add them in setup with add_nodes.",
        )
    names = node_names(strategy)
    intervals: dict[Node, int] = {}
    for node in nodes:
        _interval(strategy, node, names, intervals)
    meta = {"version": strategy.version}
    if strategy.description:
        meta["description"] = strategy.description
    return {
        "schema_version": SCHEMA_VERSION,
        "strategy_id": strategy.name,
        "meta": meta,
        "nodes": [_node(strategy, node, names, intervals[node]) for node in nodes],
        "signals": [names[node] for node in signals_of(strategy)],
    }


def _candidates(stem: str) -> Iterator[str]:
    plain = stem[: MAX_NAME - 10]
    yield plain
    for number in range(2, MAX_NODES + 2):
        yield f"{plain}_{number}"


def _interval(strategy: Strategy, node: Node, names: dict[Node, str], known: dict[Node, int]) -> None:
    """Find the intervals of a node and of all that it reads, without recursion: a chain may be long."""
    left = [node]
    while left:
        one = left[-1]
        for read in one.inputs:
            if read not in names:
                raise InvalidStrategy(
                    f"the node {names[one]!r} reads {read.called!r}, which was not added to {strategy.name}; it may be another strategy's.",
                    "Add it with add_nodes.",
                )
        waits = [read for read in one.inputs if read not in known]
        if waits:
            left += waits
            continue
        left.pop()
        if one not in known:
            known[one] = _settled(strategy, one, names, [(names[read], known[read]) for read in one.inputs])


def _settled(strategy: Strategy, node: Node, names: dict[Node, str], reads: Sequence[tuple[str, int]]) -> int:
    interval = node.interval or (reads[0][1] if reads else strategy.default_interval)
    if interval is None:
        raise InvalidStrategy(
            f"the node {names[node]!r} has no interval, and neither has the strategy {strategy.name}; one is required.",
            "Give the node interval='1m', or the strategy default_interval.",
        )
    for name, other in reads:
        if other != interval:
            raise InvalidStrategy(
                f"the node {names[node]!r} has an interval of {interval} s and reads {name!r} with one of {other} s; an edge has one.",
                "Use one interval along an edge.",
            )
    return interval


def _node(strategy: Strategy, node: Node, names: dict[Node, str], interval: int) -> dict[str, Any]:
    inputs = [names[read] for read in node.inputs]
    said: dict[str, Any] = {
        "name": names[node],
        "node_type": node.node_type,
        "interval": interval,
        "period": node.period or (strategy.default_period if inputs else None) or 1,
        "params": _params(strategy, node, inputs, interval),
    }
    if inputs:
        said["inputs"] = inputs
    if node.tags:
        said["tags"] = list(node.tags)
    if isinstance(node, ProcessingNode):
        said["code"] = code_path(node.compute_fn)
        said["code_hash"] = node.code_hash
    return said


def _params(strategy: Strategy, node: Node, inputs: Sequence[str], interval: int) -> dict[str, Any]:
    if isinstance(node, ProcessingNode):
        return node.params_with(inputs)
    return node.params_in(strategy.name) if isinstance(node, PortfolioInput) else node.params_of(interval)
