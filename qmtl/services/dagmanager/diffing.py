"""What a submission would do to the graph, told and not done: which nodes are there, and which topic each one has or would get."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Final

from qmtl.foundation.common.compute_context import Downgrade
from qmtl.foundation.common.errors import InvalidName
from qmtl.foundation.common.evolving import opened
from qmtl.foundation.common.ids import fault_of
from qmtl.foundation.contracts.dag import ComputeNode, DagSubmission
from qmtl.foundation.contracts.diff import DiffRequest, MappedNode, NodeOrigin
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.context import evaluated
from qmtl.services.dagmanager.faults import Faults
from qmtl.services.dagmanager.graph import Graph
from qmtl.services.dagmanager.prescan import Prescan
from qmtl.services.dagmanager.queues import queue_for
from qmtl.services.dagmanager.reuse import Compared, reused
from qmtl.services.dagmanager.submission import Draft, drafted


@dataclass(frozen=True, slots=True)
class Difference:
    """The whole answer to a request.

    Attributes:
        nodes: of the message, inputs before the nodes that read them.
        sentinel_id: of the version that a submission would make; empty where the context does not mark versions.
        downgrade: why the context was made safe; None if it is granted as it was asked for.
    """

    nodes: tuple[MappedNode, ...]
    sentinel_id: str
    version: str
    downgrade: Downgrade | None


def difference(catalogue: Catalogue, request: DiffRequest, prescan: Prescan | None = None) -> Difference:
    """Compare a message with the graph as it is now; nothing is written.

    A topic that is being removed is told by the name that its node gets once it is gone: nobody may count on the old one.

    Args:
        prescan: remembers what nodes say; None, nobody does.

    Raises:
        InvalidDag: a submission of the message would be refused, or the request is at odds with itself; with every reason.
    """
    faults = Faults()
    if (fault := fault_of("request_id", request.request_id)) is not None:
        faults.add_told(InvalidName, fault.path, fault.was, fault.rule, fault.remedy)
    safe = evaluated(catalogue.context(), request, faults)
    found = None if prescan is None or faults.count else reused(catalogue, request, prescan)
    if found is None:
        found = _compared(catalogue, request, faults, prescan)
    sentinel_id = found.sentinel_id if safe.may_mark_versions else ""
    return Difference(found.nodes, sentinel_id, found.version, safe.downgrade)


def _compared(
    catalogue: Catalogue, request: DiffRequest, faults: Faults, prescan: Prescan | None
) -> Compared:
    submission = DagSubmission(
        request.request_id, request.world_id, request.dag_json, request.requested_at_ms
    )
    graph, draft = drafted(catalogue, submission, faults, request.strategy_id, prescan)
    return Compared(_mapped(catalogue, graph, draft), draft.sentinel.sentinel_id, graph.version)


def _mapped(catalogue: Catalogue, graph: Graph, draft: Draft) -> tuple[MappedNode, ...]:
    asked = {queue.node_id: queue.topic for queue in draft.queues}
    buffering = frozenset(draft.outcome.buffering_nodes)
    new, reused = NodeOrigin.NEW, NodeOrigin.REUSED
    rows = []
    for one, node_id, name, there in zip(
        graph.nodes, draft.sentinel.node_ids, draft.sentinel.names, draft.there, strict=True
    ):
        if node_id in asked:
            row = _row(node_id, name, asked[node_id], new)
        else:
            assert there is not None  # else it would be asked for
            if there.removing:
                topic = _next_topic(catalogue, draft, one.node, set(asked.values()))
                row = _row(node_id, name, topic, new)
            else:
                origin = NodeOrigin.BUFFERING if node_id in buffering else reused
                row = _row(node_id, name, there.topic, origin)
        rows.append(row)
    return tuple(rows)


def _row(node_id: str, name: str, topic: str, origin: NodeOrigin) -> MappedNode:
    made: Any = _OpenRow()
    made.node_id, made.name, made.topic, made.origin = node_id, name, topic, origin
    made.__class__ = MappedNode
    row: MappedNode = made
    return row


_OpenRow: Final = opened(MappedNode)


def _next_topic(catalogue: Catalogue, draft: Draft, node: ComputeNode, taken: Collection[str]) -> str:
    """The topic of a node once its present one is gone: named by the first of the versions that wait for it then."""
    mine = draft.sentinel
    waiting = [found for one in catalogue.waiting_for(node.node_id) if (found := catalogue.sentinel(one))]
    others = [one for one in waiting if (one.world_id, one.strategy_id) != (mine.world_id, mine.strategy_id)]
    first = min([mine, *others], key=lambda one: one.sentinel_id)
    return queue_for(catalogue, replace(node, generation=node.generation + 1), first.version, taken).topic
