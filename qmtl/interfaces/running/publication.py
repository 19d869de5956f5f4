"""Publishes a strategy for a run: the same content is the same submission, however often it is said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qmtl.foundation.common.errors import CommandRefused
from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagOutcome, DagSubmission, VersionSentinel
from qmtl.foundation.contracts.diff import NodeOrigin
from qmtl.interfaces.client import Client, safe_mode_refusal, submission_id
from qmtl.interfaces.running.events import PublishedNode, Submitted
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import Graph


def publish(
    client: Client, message: bytes, world_id: str, context: Sequence[str], now_ms: int
) -> tuple[Submitted, DagOutcome]:
    """Publish a message, or find what became of it when it was published before.

    Its id follows from its content, world and context alone. So who runs a strategy again, a supervisor for example, asks for nothing that was not asked for
    before: a newer version that has come meanwhile stays.

    Args:
        context: domain, `as_of`, partition and fingerprint; empty texts alone for the log's.

    Raises:
        InvalidDag: with all reasons; nothing was published.
        UnknownWorld: nothing was published.
        CommandRefused: the DAG Manager refused it, or took it in safe mode, in which nothing is deployed.
        NoAnswer: the DAG Manager does not run.
    """
    graph = admit(message, 0)
    client.require_world(world_id)
    said = client.in_log(DagSubmission("", world_id, message, now_ms, FULL_WEIGHT, *context))
    meant = (said.execution_domain, said.as_of, said.partition, said.dataset_fingerprint)
    name = submission_id(world_id, message, context=meant)
    is_new = client.view("dag.diffs").get(name) is None
    outcome = client.submit(replace(said, submission_id=name))
    if outcome.safe_mode:
        raise safe_mode_refusal(outcome)
    version: VersionSentinel | None = client.view("dag.sentinels").get(outcome.sentinel_id)
    if version is None:
        raise CommandRefused(
            f"version {outcome.sentinel_id!r} of strategy {graph.strategy_id!r} was published before, and is forgotten since.",
            "Publish it anew with `qmtl strategy publish`.",
        )
    nodes = _nodes(graph, version, outcome)
    submitted = Submitted(
        name, world_id, graph.strategy_id, version.version, version.sentinel_id, is_new, nodes
    )
    return submitted, outcome


def _nodes(graph: Graph, version: VersionSentinel, outcome: DagOutcome) -> tuple[PublishedNode, ...]:
    """The nodes of the version, inputs first, as the message calls them: one that differs from it in names alone is the same version."""
    said = {one.node.node_id: (one.name, one.node.node_type) for one in graph.nodes}
    types = {one.name: one.node.node_type for one in graph.nodes}
    origins = _origins(outcome.new_nodes, outcome.reused_nodes, outcome.buffering_nodes)
    return tuple(
        PublishedNode(
            *said.get(node_id, (name, types.get(name, ""))), node_id, origins.get(node_id, NodeOrigin.REUSED)
        )
        for name, node_id in zip(version.names, version.node_ids, strict=True)
    )


def _origins(new: Sequence[str], reused: Sequence[str], buffering: Sequence[str]) -> dict[str, NodeOrigin]:
    return {
        **dict.fromkeys(new, NodeOrigin.NEW),
        **dict.fromkeys(reused, NodeOrigin.REUSED),
        **dict.fromkeys(buffering, NodeOrigin.BUFFERING),
    }
