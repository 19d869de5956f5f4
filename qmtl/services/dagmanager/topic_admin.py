"""The effect beside the DAG Manager: makes the topics that were asked for, and reports what it found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import InvariantBroken, TopicMismatch
from qmtl.foundation.contracts.dag import CreateTopic, ReportTopicCreated
from qmtl.foundation.wire.topics import TopicSpec, node_topic

EnsureTopics: TypeAlias = Callable[[Sequence[TopicSpec]], None]
"""Creates what is missing and compares what exists; safe to repeat, so a death between effect and report does no harm."""


class TopicAdmin:
    """Turns each `CreateTopic` into a topic and a report.

    Args:
        ensure: the log's own way to make topics.
    """

    name = "topicadmin"
    anchor = "dag.tasks"
    tables = ()
    emits = ("dag.reports",)

    def __init__(self, ensure: EnsureTopics) -> None:
        self._ensure = ensure

    def inputs(self) -> tuple[Input, ...]:
        return (Input("dag.tasks"),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """It keeps nothing."""

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise InvariantBroken("the topic admin has no bucketed input.")

    def flush(self, step: Step) -> None:
        """It keeps nothing."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        task: CreateTopic = arrival.message
        try:
            self._ensure([node_topic(task.topic, task.topic_class, task.partitions)])
        except TopicMismatch as error:
            step.emit("dag.reports", ReportTopicCreated(task.topic, False, error.code, error.what))
        else:
            step.emit("dag.reports", ReportTopicCreated(task.topic, True, "", ""))
