"""From a DAG message to content-addressed nodes: order, identity, and everything that makes a graph refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes, canonical_json
from qmtl.foundation.common.errors import (
    DagCycle,
    InvalidDag,
    MissingDependency,
    NodeIdMismatch,
    UnknownNodeType,
)
from qmtl.foundation.common.identity import functional_params, node_id, require_node_id
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.foundation.contracts.node import PositionTarget
from qmtl.runtime.indicators.registry import BUILTINS, code_hash
from qmtl.services.dagmanager.message import DagMessage, DagNode


@dataclass(frozen=True, slots=True)
class GraphNode:
    """A node with the name that its message gave it."""

    name: str
    node: ComputeNode


@dataclass(frozen=True, slots=True)
class Graph:
    """A strategy's graph: inputs before the nodes that read them; `signals` and `node_ids` in the message's order."""

    strategy_id: str
    version: str
    nodes: tuple[GraphNode, ...]
    signals: tuple[str, ...]
    commit_hash: str


def resolve(message: DagMessage, at_ms: int) -> Graph:
    """Check a message and give every node its identity.

    Raises:
        InvalidDag or one of its kinds: a name twice, an unknown type, a missing input, a cycle, a wrong number of inputs,
            intervals that differ along an edge, a parameter out of its rule, an id or hash that does not fit its content.
    """
    by_name = _by_name(message.nodes)
    done: dict[str, ComputeNode] = {}
    ordered = []
    for one in _in_order(message.nodes, by_name):
        node = _identified(one, done, at_ms)
        done[one.name] = node
        ordered.append(GraphNode(one.name, node))
    for name in message.signals:
        if name not in done:
            raise MissingDependency(
                f"signals names {name!r}, which is no node of the message.", "Name one of its nodes."
            )
        if BUILTINS[done[name].node_type].output is not PositionTarget:
            raise InvalidDag(
                f"signals names {name!r} of type {done[name].node_type!r}, which gives no position target.",
                "Let a position_target node end the strategy.",
            )
    signals = tuple(done[name].node_id for name in message.signals)
    facts = {
        "nodes": sorted(node.node_id for node in done.values()),
        "signals": signals,
        "version": message.meta.version,
    }
    commit = blake3_hex(canonical_bytes(facts))
    return Graph(message.strategy_id, message.meta.version, tuple(ordered), signals, commit)


def _by_name(nodes: Sequence[DagNode]) -> Mapping[str, DagNode]:
    out: dict[str, DagNode] = {}
    for one in nodes:
        if one.name in out:
            raise InvalidDag(f"two nodes are named {one.name!r}.", "Give each its own name.")
        out[one.name] = one
    return out


def _in_order(nodes: Sequence[DagNode], by_name: Mapping[str, DagNode]) -> list[DagNode]:
    """Kahn's algorithm (1962); among nodes that are free at the same time the message's order decides."""
    for one in nodes:
        for name in one.inputs:
            if name not in by_name:
                raise MissingDependency(
                    f"node {one.name!r} reads {name!r}, which is no node of the message.", "Add it."
                )
    left = {one.name: len(one.inputs) for one in nodes}
    readers: dict[str, list[str]] = {one.name: [] for one in nodes}
    for one in nodes:
        for name in one.inputs:
            readers[name].append(one.name)
    free = [one.name for one in nodes if not one.inputs]
    out = []
    for name in free:  # grows while it is read
        out.append(by_name[name])
        for reader in readers[name]:
            left[reader] -= 1
            if left[reader] == 0:
                free.append(reader)
    if len(out) < len(nodes):
        circle = sorted(name for name, count in left.items() if count)
        raise DagCycle(
            f"the nodes {', '.join(circle[:10])} depend on themselves.",
            "Express feedback as a lagged input; a graph has no cycles.",
        )
    return out


def _identified(one: DagNode, done: Mapping[str, ComputeNode], at_ms: int) -> ComputeNode:
    builtin = BUILTINS.get(one.node_type)
    if builtin is None:
        raise UnknownNodeType(
            f"node {one.name!r} has the type {one.node_type!r}.",
            f"Built in are {', '.join(sorted(BUILTINS))}.",
        )
    if len(one.inputs) != builtin.ports:
        raise InvalidDag(
            f"node {one.name!r} of type {one.node_type!r} has {len(one.inputs)} inputs; it takes {builtin.ports}.",
            "Give one node per port, in the order of the ports.",
        )
    for name in one.inputs:
        if done[name].interval != one.interval:
            raise InvalidDag(
                f"node {one.name!r} has interval {one.interval} s but reads {name!r} of {done[name].interval} s.",
                "Use one interval along an edge.",
            )
    params = functional_params(one.params)
    builtin.parse(params, one.period)
    if builtin.ports == 0:
        params = {
            **params,
            "symbols": sorted(params["symbols"]),
        }  # a source is what it reads, in whatever order
    expected = code_hash(one.node_type)
    if one.code_hash is not None and one.code_hash != expected:
        raise NodeIdMismatch(
            f"node {one.name!r} carries code_hash {one.code_hash!r}; the built-in {one.node_type!r} has {expected!r}.",
            "Leave it out, or publish with the version that computed it.",
        )
    compat = one.schema_compat_id if one.schema_compat_id is not None else f"qmtl.{one.node_type}.v1"
    dependencies = tuple(done[name].node_id for name in one.inputs)
    found = node_id(one.node_type, one.interval, one.period, params, dependencies, compat, expected)
    if one.node_id is not None and require_node_id(one.node_id) != found:
        raise NodeIdMismatch(
            f"node {one.name!r} carries the id {one.node_id!r}; its content gives {found!r}.",
            "Leave node_id out.",
        )
    return ComputeNode(
        found,
        one.node_type,
        one.interval,
        one.period,
        expected,
        compat,
        canonical_json(params),
        dependencies,
        tuple(dict.fromkeys(one.tags)),
        at_ms,
    )
