"""The topics of nodes: asked for, there, asked to go, gone; and who is told of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Final

from qmtl.foundation.common.errors import InvariantBroken, TopicChanged
from qmtl.foundation.contracts.dag import (
    AdminAct,
    ComputeNode,
    CreateTopic,
    Edge,
    Queue,
    QueueCollected,
    QueueRole,
    QueueUpdated,
    Relation,
    RemoveTopic,
    ReportTopicRemoved,
    TagSet,
    TopicClass,
)
from qmtl.foundation.contracts.retention import ArchiveTopic, ReportTopicArchived, TopicArchive
from qmtl.foundation.wire.topics import DAY_MS, get_config, node_topic
from qmtl.services.dagmanager.act import Act, told_time
from qmtl.services.dagmanager.catalogue import Catalogue, used_again
from qmtl.services.dagmanager.naming import asset_of, release_of, topic_class, topic_name

TTL_MS: Final = {
    TopicClass.RAW: 7 * DAY_MS,
    TopicClass.INDICATOR: 30 * DAY_MS,
    TopicClass.TRADE_EXEC: 90 * DAY_MS,
}


def queue_for(
    catalogue: Catalogue,
    node: ComputeNode,
    version: str,
    also: Collection[str] = (),
    asset: str | None = None,
) -> Queue:
    """The topic that a node gets, which is not there yet; the first of a node, or one after others were removed.

    Args:
        also: names that are taken besides those of the catalogue.
        asset: of the node, if that is known.
    """
    kind = topic_class(node.node_type)
    asset = asset_of(node, catalogue.node) if asset is None else asset
    name = topic_name(node, version, lambda name: name in also or catalogue.queue(name) is not None, asset)
    return Queue(
        name,
        node.node_id,
        kind,
        get_config(kind).partitions,
        node.interval,
        TTL_MS[kind],
        get_config(kind).retention_ms,
        node.created_at_ms,
        node.tags,
    )


def next_queue(catalogue: Catalogue, node: ComputeNode, queue: Queue, at_ms: int) -> Queue:
    """The topic that takes the place of a node's present one, and inherits all of it but its name and its history."""
    asset = asset_of(node, catalogue.node)
    name = topic_name(node, release_of(queue.topic), lambda name: catalogue.queue(name) is not None, asset)
    again = used_again(queue)
    return replace(again, topic=name, created_at_ms=at_ms, ready=False, role=QueueRole.NEXT, archivals=0)


def lacking(
    catalogue: Catalogue,
    node: ComputeNode,
    version: str,
    also: Collection[str] = (),
    asset: str | None = None,
) -> Queue | None:
    """The topic that has to be asked for so that a node has one; None where it has, or somebody waits for it already."""
    known = catalogue.queue_of(node.node_id)
    if known is None:
        return queue_for(catalogue, node, version, also, asset)
    settled = known.ready or known.removing or catalogue.waiting_for(node.node_id)
    return None if settled else known  # it could not be made the last time


def ask_for(act: Act, queue: Queue) -> None:
    """Have a topic made."""
    act.catalogue.put_queue(queue, act.at_ms)
    act.step.table("dag.edges").put(Edge(Relation.EMITS, queue.node_id, queue.topic))
    spec = node_topic(queue.topic, queue.topic_class, queue.partitions)
    task = CreateTopic(queue.topic, queue.topic_class, spec.partitions, spec.replication, spec.config())
    act.step.table("dag.tasks").put(task)
    act.note(AdminAct.REQUESTED, queue.topic, queue.node_id)


def forget(act: Act, queue: Queue) -> None:
    """Know nothing any more of a topic that is not there, or is not ours: it is neither used nor removed."""
    act.catalogue.drop_queue(queue)
    act.step.table("dag.edges").delete(Relation.EMITS.value, queue.node_id, queue.topic)
    act.step.table("dag.tasks").delete(queue.topic)


def renamed(act: Act, queue: Queue, *, wanted: bool) -> None:
    """A topic was not made because somebody else's looks like it: the node's row remembers that this name is over, and the node gets the
    next one, at once if somebody waits for it.

    A topic that is to take the place of another is asked for by the next tick, which counts it.
    """
    forget(act, queue)
    if queue.role is not QueueRole.CURRENT:
        return
    node = _known(act.catalogue, queue)
    again = replace(node, generation=node.generation + 1)
    act.catalogue.put_node(again)
    if wanted:
        ask_for(act, replace(queue, topic=queue_for(act.catalogue, again, release_of(queue.topic)).topic))


def store(act: Act, queue: Queue) -> None:
    """Have a topic archived, which stays as it is."""
    number = queue.archivals + 1
    act.catalogue.put_queue(replace(queue, archiving=True, archivals=number), act.at_ms)
    act.step.table("dag.tasks").put(ArchiveTopic(queue.topic, queue.node_id, number))


def stored(act: Act, queue: Queue, report: ReportTopicArchived) -> None:
    """A topic is archived, or it is gone, and nothing is left of it to be archived. The pauses go on growing: one that somebody writes is
    archived, and does not go, again and again."""
    kept = TopicArchive(act.at_ms, report.archive, report.digest, report.records)
    again = replace(queue, archiving=False, archive=kept)
    act.catalogue.put_queue(again, act.at_ms)
    act.step.table("dag.tasks").delete(queue.topic)
    is_there = report.archive != ""
    told = f"{report.records} records at {report.archive}" if is_there else f"[{report.code}] {report.detail}"
    act.note(AdminAct.ARCHIVED, queue.topic, queue.node_id, told, report.digest)


def not_stored(act: Act, queue: Queue, report: ReportTopicArchived) -> None:
    """A topic could not be archived."""
    again = replace(queue, archiving=False, spared=queue.spared + 1, spared_at_ms=act.at_ms)
    act.catalogue.put_queue(again, act.at_ms)
    act.step.table("dag.tasks").delete(queue.topic)
    act.note(AdminAct.NOT_ARCHIVED, queue.topic, queue.node_id, f"[{report.code}] {report.detail}")


def condemn(act: Act, queue: Queue, *, archive: bool) -> None:
    """Have a topic removed: from now on nobody is told of it.

    Args:
        archive: only if what its row names as its archive is there and has all that is in it.
    """
    act.catalogue.put_queue(replace(queue, removing=True, archiving=False), act.at_ms)
    act.step.table("dag.tasks").put(
        RemoveTopic(queue.topic, queue.node_id, archive, queue.archive if archive else None)
    )
    act.note(AdminAct.CONDEMNED, queue.topic, queue.node_id, "archive" if archive else "delete")


def removed(act: Act, queue: Queue, report: ReportTopicRemoved) -> None:
    """A topic is gone; its node's row stays, and knows how many topics it had. The history is gone with the present one."""
    forget(act, queue)
    node = _known(act.catalogue, queue)
    if queue.role is QueueRole.CURRENT:
        again = replace(node, generation=node.generation + 1, buffering_since_ms=None)
        act.catalogue.put_node(again)
    done = "archive" if report.archive else "delete"
    act.note(AdminAct.REMOVED, queue.topic, queue.node_id, report.archive or done, report.digest)
    etag = f"gc:{queue.topic}:{done}"
    gone = QueueCollected("QueueCollected", queue.topic, queue.tags, queue.interval, done, etag, act.ts)
    act.step.emit("queue", gone)


def spared(act: Act, queue: Queue, report: ReportTopicRemoved) -> None:
    """A removal has failed and left the topic as it was; where the topic has more than its archive, it is archived again before the next."""
    archive = None if report.code == TopicChanged.code else queue.archive
    again = replace(queue, removing=False, spared=queue.spared + 1, spared_at_ms=act.at_ms, archive=archive)
    act.catalogue.put_queue(again, act.at_ms)
    act.step.table("dag.tasks").delete(queue.topic)
    act.note(AdminAct.NOT_REMOVED, queue.topic, queue.node_id, f"[{report.code}] {report.detail}")


def _known(catalogue: Catalogue, queue: Queue) -> ComputeNode:
    node = catalogue.node(queue.node_id)
    if node is None:
        raise InvariantBroken(f"queue {queue.topic} is of no node.")
    return node


_ESCAPED: Final = str.maketrans({char: f"%{ord(char):02X}" for char in "%.:"})


def etag_head(tags: Iterable[str], interval: int) -> str:
    """What the etags of a set begin with, which no other set's do: `q:BTC.price:60:`. A point within a tag is `%2E`."""
    return f"q:{'.'.join([tag.translate(_ESCAPED) for tag in tags])}:{interval}:"


def queue_updated(catalogue: Catalogue, row: TagSet) -> QueueUpdated:
    """The full set of ready queues with exactly these tags at this interval; the etag counts its changes."""
    return QueueUpdated(
        "QueueUpdated",
        row.tags,
        row.interval,
        catalogue.tagged((row.tags, row.interval)),
        f"{etag_head(row.tags, row.interval)}{row.changes}",
        told_time(row.changed_at_ms),
    )
