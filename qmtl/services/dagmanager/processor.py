"""The DAG Manager on its topics: submissions and reports in; nodes, queues, edges, versions and strategies out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, assert_never

from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import InvalidDag, InvariantBroken
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
from qmtl.foundation.wire.topics import DAY_MS, TopicSpec, get_config, node_topic
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.faults import lines
from qmtl.services.dagmanager.graph import Graph
from qmtl.services.dagmanager.naming import topic_class, topic_name

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
    new, reused = _join_nodes(step, graph)
    sentinel = _sentinel(step, submission, graph)
    plan = tuple(_planned(step, name.name, name.node, name.node.node_id in reused) for name in graph.nodes)
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
    known = step.table("dag.strategies").get(submission.world_id, graph.strategy_id)
    if known is None or known.sentinel_id != strategy.sentinel_id:
        _deploy(step, strategy, submission.submitted_at_ms)
    outcomes.put(
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
        )
    )


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


def _join_nodes(step: Step, graph: Graph) -> tuple[list[str], list[str]]:
    """Reuse the nodes that exist, add the others with their queues; returns new and reused ids in graph order."""
    nodes, queues, tasks = step.table("dag.nodes"), step.table("dag.queues"), step.table("dag.tasks")
    new, reused = [], []
    for one in graph.nodes:
        known: ComputeNode | None = nodes.get(one.node.node_id)
        if known is not None:
            if known.node_id not in reused and known.node_id not in new:
                reused.append(known.node_id)
            continue
        nodes.put(one.node)
        new.append(one.node.node_id)
        kind = topic_class(one.node.node_type)
        name = topic_name(one.node, graph.version, lambda name: queues.get(name) is not None)
        spec = node_topic(name, kind)
        queues.put(
            Queue(
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
        )
        step.table("dag.edges").put(Edge(Relation.EMITS, one.node.node_id, name))
        tasks.put(CreateTopic(name, kind, spec.partitions, spec.replication, spec.config()))
    return new, reused


def _sentinel(step: Step, submission: DagSubmission, graph: Graph) -> VersionSentinel:
    sentinels = step.table("dag.sentinels")
    sentinel = VersionSentinel(
        f"{submission.world_id}:{graph.strategy_id}:{graph.version}:{graph.commit_hash[:16]}",
        graph.version,
        graph.commit_hash,
        submission.submitted_at_ms,
        submission.world_id,
        graph.strategy_id,
        tuple(one.node.node_id for one in graph.nodes),
    )
    known: VersionSentinel | None = sentinels.get(sentinel.sentinel_id)
    if known is not None:
        return known
    sentinels.put(sentinel)
    for node_id in sorted(set(sentinel.node_ids)):
        step.table("dag.edges").put(Edge(Relation.HAS, sentinel.sentinel_id, node_id))
    return sentinel


def _planned(step: Step, name: str, node: ComputeNode, reused: bool) -> PlannedNode:
    queue = _queue_of(step, node.node_id)
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
