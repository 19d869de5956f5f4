"""Nodes whose topic has a history of an older schema: reused as they are, and after a week computed anew into a topic of their own.

A schema that changes compatibly keeps the node's id, and with it the topic, in which records of both schemas lie from then on. It changes
with the code, and the first submission of a node to a version of QMTL that writes another one notes it. A week later the node gets its
next topic; at the first tick that finds it there, the plans of all strategies that have the node name it, and the old topic goes like an
orphan. Time is that of the clock's ticks alone.

Nodes that read such a node keep their topics: their own schema has not changed, and the code that computed what they hold is a part of
their inputs' ids. Their windows begin anew, as none of them may span the warm-up of an input; the node workers see to that.

A source's history is made outside, so nothing can be computed anew: its topic stays, and is of one schema once it has forgotten the
rest.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.dag import (
    AdminAct,
    ComputeNode,
    PlannedNode,
    Queue,
    QueueRole,
    Relation,
    StrategyVersion,
    TopicClass,
)
from qmtl.foundation.wire.shards import nodes_of
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.services.dagmanager import handover
from qmtl.services.dagmanager.act import Act
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.garbage import batch_size
from qmtl.services.dagmanager.queues import ask_for, next_queue

AFTER_MS: Final = 7 * DAY_MS
"""How long a node is buffering before it is computed anew."""

AGAIN_MS: Final = DAY_MS
"""A topic that is not there after so long is asked for again."""


def is_buffering(catalogue: Catalogue, known: ComputeNode, schema_hash: str) -> bool:
    """Whether a node's topic, which it keeps, has a history of an older schema if the node has this one from now on."""
    if known.buffering_since_ms is None and not _is_other(known, schema_hash):
        return False
    return catalogue.is_ready(known.node_id)


def change_schema(act: Act, node: ComputeNode) -> None:
    """Note another schema of a node that is there, and where its function is now, and since when it is buffering, if its topic may have records already.

    A schema is the node's and not a version's: one that fails or is retired takes nothing back.
    """
    known = _known(act.catalogue, node.node_id)
    queue = act.catalogue.queue_of(node.node_id)
    since_ms = known.buffering_since_ms
    if queue is not None and queue.ready and _is_other(known, node.schema_hash):
        since_ms = act.step.closed_ms if since_ms is None else since_ms
        detail = f"{known.schema_hash} to {node.schema_hash}"
        act.note(AdminAct.BUFFERED, node.node_id, node.node_id, detail)
    act.catalogue.put_node(
        replace(known, schema_hash=node.schema_hash, buffering_since_ms=since_ms, code=node.code)
    )


def _is_other(known: ComputeNode, schema_hash: str) -> bool:
    """Of a node whose schema nobody has told, nothing is known to have changed."""
    return known.schema_hash not in ("", schema_hash)


def mind(act: Act) -> None:
    """At a tick: move nodes to their next topics as far as these are there, and ask for those that are due, a batch at most."""
    _move(act)
    room = batch_size(act)
    for node_id in act.catalogue.buffering(act.at_ms - AFTER_MS):
        room -= _advance(act, _known(act.catalogue, node_id), room)


def _advance(act: Act, node: ComputeNode, room: int) -> int:
    """Go on with a node that is buffering for long, or since before the first tick; returns how many topics were asked for."""
    queue, coming = act.catalogue.queue_of(node.node_id), act.catalogue.next_of(node.node_id)
    if not node.buffering_since_ms:
        act.catalogue.put_node(replace(node, buffering_since_ms=act.at_ms))
    elif queue is None or queue.removing:
        pass  # what is removed takes its history with it
    elif queue.topic_class is TopicClass.RAW:
        if act.at_ms >= node.buffering_since_ms + queue.retention_ms:
            act.catalogue.put_node(replace(node, buffering_since_ms=None))
            act.note(AdminAct.SETTLED, queue.topic, node.node_id, "what was older is gone")
    elif not room or not act.catalogue.is_held(node.node_id):
        pass
    elif coming is None:
        again = replace(node, generation=node.generation + 1)
        act.catalogue.put_node(again)
        ask_for(act, next_queue(act.catalogue, again, queue, act.at_ms))
        return 1
    elif not coming.removing and act.at_ms >= coming.created_at_ms + AGAIN_MS:
        ask_for(act, replace(coming, created_at_ms=act.at_ms))
        return 1
    return 0


def _move(act: Act) -> None:
    """Let nodes emit to their next topics, where these are there, and name them in every plan."""
    moved: dict[str, Queue] = {}
    left: dict[str, str] = {}
    for coming in act.catalogue.arrived():
        node, queue = _known(act.catalogue, coming.node_id), act.catalogue.queue_of(coming.node_id)
        if node.buffering_since_ms is None or queue is None or not act.catalogue.is_ready(node.node_id):
            _leave(act, coming)  # nobody needs it any more
            continue
        _leave(act, queue)
        moved[node.node_id] = replace(coming, role=QueueRole.CURRENT)
        left[node.node_id] = queue.topic
        act.catalogue.put_queue(moved[node.node_id], act.at_ms)
        act.catalogue.put_node(replace(node, buffering_since_ms=None))
        act.note(AdminAct.RECOMPUTED, coming.topic, node.node_id, f"instead of {queue.topic}")
    if moved:
        _plan(act, moved)
        act.catalogue.note_behind(left)


def _leave(act: Act, queue: Queue) -> None:
    """From now on a node has left a topic, which goes after its time as any orphan does."""
    act.catalogue.put_queue(replace(queue, role=QueueRole.FORMER, orphaned_at_ms=act.at_ms), act.at_ms)
    act.step.table("dag.edges").delete(Relation.EMITS.value, queue.node_id, queue.topic)


def _plan(act: Act, moved: dict[str, Queue]) -> None:
    """Name the topics of nodes in every plan that has them; nothing else of a plan changes."""
    rows: list[StrategyVersion] = list(act.step.table("dag.strategies").items())
    for row in rows:
        if any(one.node_id in moved for one in nodes_of(row)):
            before = tuple([replace(one, nodes=_moved(one.nodes, moved)) for one in row.before])
            nodes, found = _moved(row.nodes, moved), _moved(row.found, moved)
            handover.put_again(act, replace(row, nodes=nodes, found=found, before=before))


def _moved(nodes: tuple[PlannedNode, ...], moved: dict[str, Queue]) -> tuple[PlannedNode, ...]:
    return tuple(
        replace(one, topic=queue.topic, partitions=queue.partitions)
        if (queue := moved.get(one.node_id)) is not None
        else one
        for one in nodes
    )


def _known(catalogue: Catalogue, node_id: str) -> ComputeNode:
    found = catalogue.node(node_id)
    if found is None:
        raise InvariantBroken(f"node {node_id} has a topic and is not known.")
    return found
