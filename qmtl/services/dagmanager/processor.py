"""The DAG Manager on its topics: submissions, diffs, commands, reports and ticks in; nodes, queues, edges, versions and strategies out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

from qmtl.engine.letters import Cause, letter_of
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.ids import unanswerable
from qmtl.foundation.contracts.context import ClearContextHits, NodeContext, SetComputeContext
from qmtl.foundation.contracts.dag import (
    CollectGarbage,
    DagCommand,
    DagSubmission,
    QueueRole,
    RedoDiff,
    ReportTopicCreated,
    ReportTopicRemoved,
    RetireStrategy,
    RollBack,
    SetTrafficWeight,
    TopicReport,
)
from qmtl.foundation.contracts.diff import AckChunk, DiffRequest
from qmtl.foundation.contracts.node import DagReader, NodeDeployment
from qmtl.foundation.contracts.release import AbandonRelease, ReportBacktest, StartRelease
from qmtl.foundation.contracts.retention import ReportTopicArchived, SetRetention
from qmtl.foundation.wire.shards import is_settled, nodes_of
from qmtl.foundation.wire.topics import TopicSpec
from qmtl.services.dagmanager import buffering, context, diff_stream, expiry, garbage, handover, release
from qmtl.services.dagmanager.act import Act, bounded
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.commands import command
from qmtl.services.dagmanager.prescan import Prescan
from qmtl.services.dagmanager.queues import queue_updated
from qmtl.services.dagmanager.reports import report
from qmtl.services.dagmanager.submission import submit
from qmtl.services.dagmanager.versions import answer_anew

CLOCK: Final = Input("clock", bucketed=True)
READERS: Final = Input("node.deployments", broadcast=True)
CONTEXTS: Final = Input("node.context", broadcast=True)


class DagManager:
    """Single writer of the strategy graph: one graph, one partition."""

    name = "dagmanager"
    anchor = "dag.submissions"
    tables = (
        "dag.diff.streams",  # the first one is stamped by every transaction, and this one is written by most
        "dag.nodes",
        "dag.queues",
        "dag.edges",
        "dag.sentinels",
        "dag.strategies",
        "dag.diffs",
        "dag.outcomes",
        "dag.pace",
        "dag.lives",
        "dag.context",
        "dag.releases",
        "dag.release.messages",
        "dag.readers",
        "dag.tags",
        "dag.tasks",
        "dag.artifacts",
        "dag.diff.chunks",
    )
    emits = ("dag.admin.log", "queue", "sentinel_weight")

    def __init__(self) -> None:
        self._catalogue = Catalogue({})
        self._prescan = Prescan()
        self._streams = diff_stream.Streams()

    def inputs(self) -> tuple[Input, ...]:
        free = ("dag.submissions", "dag.commands", "dag.reports", "dag.diff.requests", "dag.diff.acks")
        return (*map(Input, free), READERS, CONTEXTS, CLOCK)

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._catalogue = Catalogue(tables)
        self._streams.restore(tables["dag.diff.streams"].load())

    def on_record(self, step: Step, arrival: Arrival) -> None:
        acts: list[Act] = []

        def act(cause: str, said_ms: int = 0) -> Act:
            acts.append(self._act(step, cause, step.closed_ms or bounded(said_ms)))
            return acts[-1]

        message: (
            DagSubmission | DagCommand | TopicReport | NodeDeployment | NodeContext | DiffRequest | AckChunk
        )
        message = arrival.message
        match message:
            case DagSubmission():
                if self._can_answer(step, arrival, "submission_id", message.submission_id):
                    submit(act(message.submission_id, message.submitted_at_ms), message, arrival.value)
            case (
                SetTrafficWeight()
                | RollBack()
                | RedoDiff()
                | RetireStrategy()
                | CollectGarbage()
                | SetComputeContext()
                | ClearContextHits()
                | StartRelease()
                | ReportBacktest()
                | AbandonRelease()
                | SetRetention()
            ):
                if self._can_answer(step, arrival, "command_id", message.command_id):
                    command(act(message.command_id, message.issued_at_ms), message, arrival.value)
            case ReportTopicCreated() | ReportTopicRemoved() | ReportTopicArchived():
                report(act(message.topic), message)
            case NodeDeployment():
                self._catalogue.put_reader(_reader(message, self._catalogue))
                row = self._catalogue.strategy(message.strategy.world_id, message.strategy.strategy_id)
                if row is not None and not is_settled(row):
                    handover.settle(act("nodes"), row)
            case NodeContext():
                context.hear(act("nodes"), message)
            case DiffRequest():
                if self._can_answer(step, arrival, "request_id", message.request_id):
                    asked = act(message.request_id, message.requested_at_ms)
                    diff_stream.ask(asked, self._streams, message, arrival.value or b"")
            case AckChunk():
                if self._can_answer(step, arrival, "request_id", message.request_id):
                    diff_stream.acknowledge(act(message.request_id), self._streams, message)
            case _:
                assert_never(message)
        if acts:
            self._tell(acts[-1])

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        act = self._act(step, "clock", bucket.bucket_ms)
        garbage.stamp(act)
        garbage.archive(act)
        garbage.collect(act)
        garbage.forget_versions(act)
        buffering.mind(act)
        diff_stream.mind(act, self._streams)
        release.mind(act)
        expiry.mind(act)
        self._tell(act)

    def flush(self, step: Step) -> None:
        """Everything was told record by record: what a transaction takes in decides nothing."""

    def _can_answer(self, step: Step, arrival: Arrival, field: str, text: str) -> bool:
        """Whether an answer can be kept under an id. A record whose id is blank or too long for that is a dead letter, which says so: as an
        event and not as an error, of which many in a row would stop the task."""
        fault = unanswerable(field, text)
        if fault is not None:
            cause = Cause(fault.code, f"{fault.what} {fault.remedy}")
            step.emit("dead.letters", letter_of(self.name, 0, arrival, cause))
        return fault is None

    def _tell(self, act: Act) -> None:
        """Whoever reads the queues of some tags hears once of all that a record or a tick has changed, and so does a release."""
        release.heed(act)
        answer_anew(act)
        for row in self._catalogue.untold():
            act.step.emit("queue", queue_updated(self._catalogue, row))
            self._catalogue.told(row)

    def _act(self, step: Step, cause: str, at_ms: int) -> Act:
        return Act(step, self._catalogue, self._prescan, cause, at_ms)


def _reader(message: NodeDeployment, catalogue: Catalogue) -> DagReader:
    row = message.strategy
    has = [(row.sentinel_id, row.canary), *((one.sentinel_id, one.canary) for one in row.before)]
    sentinels = dict.fromkeys(
        one for mine, canary in has for one in (mine, *((canary.sentinel_id,) if canary else ()))
    )
    known = (catalogue.queue(one.topic) for one in nodes_of(row))
    behind = {one.topic for one in known if one is not None and one.role is QueueRole.FORMER}
    earlier = [one for split in row.before for one in split.nodes]
    return DagReader(
        message.shard,
        row.world_id,
        row.strategy_id,
        tuple(sentinels) if row.nodes else (),
        tuple(sorted(behind)),
        tuple([one.node_id for one in (*row.found, *earlier)]),
        row.revision,
        message.closed_ms,
    )
