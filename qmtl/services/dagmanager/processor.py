"""The DAG Manager on its topics: submissions and reports in; nodes, queues, edges, versions and strategies out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, assert_never

from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import DagTooLarge, InvalidDag, InvariantBroken, Reason, TooLarge
from qmtl.foundation.contracts.dag import (
    ComputeNode,
    CreateTopic,
    DagOutcome,
    DagSubmission,
    Edge,
    PlannedNode,
    Queue,
    QueueUpdated,
    Relation,
    ReportTopicCreated,
    StrategyStatus,
    StrategyVersion,
    TopicClass,
    VersionSentinel,
)
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import DAY_MS, TopicSpec, get_config, node_topic
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.faults import lines
from qmtl.services.dagmanager.graph import Graph
from qmtl.services.dagmanager.naming import topic_class, topic_name
from qmtl.services.dagmanager.sheet import Sheet

_TTL_MS: Final = {
    TopicClass.RAW: 7 * DAY_MS,
    TopicClass.INDICATOR: 30 * DAY_MS,
    TopicClass.TRADE_EXEC: 90 * DAY_MS,
}


class DagManager:
    """Single writer of the strategy graph: one graph, one partition."""

    name = "dagmanager"
    anchor = "dag.submissions"
    tables = (
        "dag.nodes",
        "dag.queues",
        "dag.edges",
        "dag.sentinels",
        "dag.strategies",
        "dag.diffs",
        "dag.tasks",
    )
    emits = ("queue",)

    def inputs(self) -> tuple[Input, ...]:
        return (Input("dag.submissions"), Input("dag.reports"))

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the tables."""

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise InvariantBroken("the DAG Manager has no bucketed input.")

    def flush(self, step: Step) -> None:
        """Everything is in the tables."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        message: DagSubmission | ReportTopicCreated = arrival.message
        match message:
            case DagSubmission():
                _submit(step, message)
            case ReportTopicCreated():
                _report(step, message)
            case _:
                assert_never(message)


def _submit(step: Step, submission: DagSubmission) -> None:
    outcomes = step.table("dag.diffs")
    if outcomes.get(submission.submission_id) is not None:
        return  # a submission sent twice decides nothing more
    try:
        graph = admit(submission.dag_json, submission.submitted_at_ms, step.table("dag.nodes").get)
    except InvalidDag as error:
        outcomes.put(_refused(submission, error))
        return
    try:
        sheet, strategy = _write_down(step, submission, graph)
    except TooLarge as error:
        outcomes.put(_refused(submission, _too_large(graph, error)))
        return
    known = step.table("dag.strategies").get(submission.world_id, graph.strategy_id)
    sheet.write()
    if known is None or known.sentinel_id != strategy.sentinel_id:
        _deploy(step, strategy, submission.submitted_at_ms)


def _write_down(step: Step, submission: DagSubmission, graph: Graph) -> tuple[Sheet, StrategyVersion]:
    """The rows of a submission that comes in, without its strategy, and that.

    Raises:
        TooLarge: one of them, the strategy among them, can't be written.
    """
    sheet = Sheet(step.table)
    new, reused, queues = _join_nodes(sheet, graph)
    sentinel = _sentinel(sheet, submission, graph)
    plan = tuple(
        _planned(step, name.name, name.node, queues, name.node.node_id in reused) for name in graph.nodes
    )
    strategy = StrategyVersion(
        submission.world_id,
        graph.strategy_id,
        graph.version,
        sentinel.sentinel_id,
        submission.submission_id,
        StrategyStatus.PENDING,
        plan,
        graph.signals,
    )
    codec.encode(strategy)  # as long as it will be with any other status
    sheet.put(
        "dag.diffs",
        DagOutcome(
            submission.submission_id,
            submission.world_id,
            graph.strategy_id,
            True,
            "",
            "",
            sentinel.sentinel_id,
            tuple(new),
            tuple(reused),
        ),
    )
    return sheet, strategy


def _too_large(graph: Graph, error: TooLarge) -> InvalidDag:
    reason = Reason(
        DagTooLarge.code,
        "nodes",
        f"a list of {len(graph.nodes)}",
        f"its {error.what.removeprefix('a ').rstrip('.')}",
        "Split the strategy.",
    )
    return DagTooLarge(reason.what, reason.remedy, (reason,))


def _refused(submission: DagSubmission, error: InvalidDag) -> DagOutcome:
    """The outcome's detail has a line for each reason, and one for how many more there are."""
    return DagOutcome(
        submission.submission_id,
        submission.world_id,
        "",
        False,
        error.code,
        lines(error.reasons, error.more),
    )


def _join_nodes(sheet: Sheet, graph: Graph) -> tuple[list[str], list[str], Mapping[str, Queue]]:
    """Reuse the nodes that exist, add the others; returns new and reused ids in graph order, and the queues of the new ones."""
    reused = []
    queues: dict[str, Queue] = {}
    for one in graph.nodes:
        known: ComputeNode | None = sheet.get("dag.nodes", one.node.node_id)
        if known is not None:
            if known.node_id not in reused and known.node_id not in queues:
                reused.append(known.node_id)
            continue
        sheet.put("dag.nodes", one.node)
        kind = topic_class(one.node.node_type)
        name = topic_name(one.node, graph.version, lambda name: sheet.get("dag.queues", name) is not None)
        spec = node_topic(name, kind)
        queues[one.node.node_id] = Queue(
            name,
            one.node.node_id,
            kind,
            spec.partitions,
            one.node.interval,
            _TTL_MS[kind],
            get_config(kind).retention_ms,
            one.node.created_at_ms,
            one.node.tags,
        )
        sheet.put("dag.queues", queues[one.node.node_id])
        sheet.put("dag.edges", Edge(Relation.EMITS, one.node.node_id, name))
        sheet.put("dag.tasks", CreateTopic(name, kind, spec.partitions, spec.replication, spec.config()))
    return list(queues), reused, queues


def _sentinel(sheet: Sheet, submission: DagSubmission, graph: Graph) -> VersionSentinel:
    sentinel = VersionSentinel(
        f"{submission.world_id}:{graph.strategy_id}:{graph.version}:{graph.commit_hash[:16]}",
        graph.version,
        graph.commit_hash,
        submission.submitted_at_ms,
        submission.world_id,
        graph.strategy_id,
        tuple(one.node.node_id for one in graph.nodes),
    )
    known: VersionSentinel | None = sheet.get("dag.sentinels", sentinel.sentinel_id)
    if known is not None:
        return known
    sheet.put("dag.sentinels", sentinel)
    for node_id in sorted(set(sentinel.node_ids)):
        sheet.put("dag.edges", Edge(Relation.HAS, sentinel.sentinel_id, node_id))
    return sentinel


def _planned(step: Step, name: str, node: ComputeNode, new: Mapping[str, Queue], reused: bool) -> PlannedNode:
    queue = new.get(node.node_id) or _queue_of(step, node.node_id)
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
    )


def _queue_of(step: Step, node_id: str) -> Queue:
    for edge in step.table("dag.edges").items(Relation.EMITS.value, node_id):
        queue: Queue = step.table("dag.queues").get(edge.target)
        return queue
    raise InvariantBroken(f"node {node_id} has no queue.")


def _deploy(step: Step, strategy: StrategyVersion, at_ms: int) -> None:
    """Write a strategy, ready if all its topics are there."""
    queues: Sequence[Queue] = [step.table("dag.queues").get(one.topic) for one in strategy.nodes]
    if not all(queue.ready for queue in queues):
        step.table("dag.strategies").put(strategy)
        return
    step.table("dag.strategies").put(replace(strategy, status=StrategyStatus.READY))
    for queue in _unique(queues):
        step.emit("queue", _queue_updated(step, queue, at_ms))


def _unique(queues: Iterable[Queue]) -> list[Queue]:
    return list({queue.topic: queue for queue in queues}.values())


def _queue_updated(step: Step, queue: Queue, at_ms: int) -> QueueUpdated:
    """The full set of ready queues with exactly these tags at this interval; the etag counts them."""
    same = [
        one.topic
        for one in step.table("dag.queues").items()
        if one.ready and one.tags == queue.tags and one.interval == queue.interval
    ]
    label = ".".join(queue.tags)
    stamp = datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return QueueUpdated(
        "QueueUpdated",
        queue.tags,
        queue.interval,
        tuple(same),
        f"q:{label}:{queue.interval}:{len(same)}",
        stamp,
    )


def _report(step: Step, report: ReportTopicCreated) -> None:
    queues, strategies = step.table("dag.queues"), step.table("dag.strategies")
    queue: Queue | None = queues.get(report.topic)
    if queue is None or queue.ready:
        return
    waiting: list[StrategyVersion] = [
        one
        for one in strategies.items()
        if one.status is StrategyStatus.PENDING and any(node.topic == report.topic for node in one.nodes)
    ]
    if not report.created:
        for one in waiting:
            strategies.put(replace(one, status=StrategyStatus.FAILED))
        return
    queues.put(replace(queue, ready=True))
    for one in waiting:
        _deploy(step, one, queue.created_at_ms)
