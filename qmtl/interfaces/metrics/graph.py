"""What is told of the graph of shared nodes: how large it is, what is wrong with it, whether anybody writes it, what its nodes met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from qmtl.engine.log.port import GroupState, Log
from qmtl.engine.observer import TaskId
from qmtl.engine.view import TableView
from qmtl.foundation.common.errors import NoArchive, TopicChanged
from qmtl.foundation.contracts.context import NodeContext
from qmtl.foundation.contracts.release import ReleaseStage
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.dag_survey import EXPIRING, Survey, Surveyor
from qmtl.interfaces.metrics.sampled import Sample, Sampled
from qmtl.interfaces.metrics.watch import WRITER, Phase, Watch
from qmtl.interfaces.standing import group_of

EVERY_S: Final = 15.0
"""What is younger is told again."""

KEEPING: Final = (NoArchive.code, TopicChanged.code)
"""Why a topic is kept most often: nobody can archive it, or somebody still writes it."""

NODES: Final = "nodes"
"""The processor whose tasks meet what another context has computed."""

_WAIT_S: Final = 0.5
_TASK: Final = TaskId(WRITER, 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """The last measurements.

    Attributes:
        absent: whether nobody has the DAG Manager's task; None where that can't be known.
        survey: None where this process does not run the DAG Manager.
        hits: by shard, as of its row of `node.context`; None where this process runs no node workers.
    """

    absent: Sample[bool | None]
    survey: Sample[Survey] | None
    hits: Sample[Mapping[int, int]] | None

    def ages(self) -> Iterator[tuple[str, float | None, int]]:
        """By name, how old each is, and how often it could not be measured."""
        yield "writer", self.absent.age_s, self.absent.errors
        if self.survey is not None:
            yield "graph", self.survey.age_s, self.survey.errors
        if self.hits is not None:
            yield "contexts", self.hits.age_s, self.hits.errors


class GraphGauges:
    """Collects for `Gauges`. Counts are given by the process that has the task whose they are, so that they come once."""

    def __init__(self, log: Log, watch: Watch) -> None:
        self._log = log
        self._watch = watch
        self._stopping = Event()
        self._writes = WRITER in watch.polls()
        nobody: bool | None = None
        self._absent = Sampled("qmtl-writer", self._ask, nobody, every_s=EVERY_S, wait_s=_WAIT_S)
        surveyor = Surveyor(log, self._stopping.wait)
        self._survey = (
            Sampled("qmtl-graph", surveyor.look, Survey(), every_s=EVERY_S, wait_s=_WAIT_S)
            if self._writes
            else None
        )
        self._contexts: TableView | None = None
        none: Mapping[int, int] = {}
        self._hits = (
            Sampled("qmtl-contexts", self._met, none, every_s=EVERY_S, wait_s=_WAIT_S)
            if NODES in watch.polls()
            else None
        )

    def _met(self) -> Mapping[int, int]:
        """The cross-context hits of each shard that has any row."""
        if self._contexts is None:
            self._contexts = TableView(self._log, "node.context", codec)
        rows: list[NodeContext] = self._contexts.refresh().rows()
        return {row.shard: row.hits for row in rows}

    def _ask(self) -> bool | None:
        """Whether nobody has the DAG Manager's task; None where that can't be known from here."""
        group = self._log.members(group_of(WRITER))
        if group.state is not GroupState.UNKNOWN:
            return not any(member.tasks for member in group.members)
        if not self._writes:
            return None
        mine = self._watch.tasks().get(_TASK)
        return mine is None or mine.phase is not Phase.RUNNING

    def stop(self) -> None:
        self._stopping.set()
        self._absent.stop()
        if self._survey is not None:
            self._survey.stop()
        if self._hits is not None:
            self._hits.stop()

    def get(self) -> Taken:
        """What was measured last; waits a little for something newer."""
        return Taken(
            self._absent.get(),
            None if self._survey is None else self._survey.get(),
            None if self._hits is None else self._hits.get(),
        )

    def collect(self, taken: Taken) -> Iterator[Metric]:
        """What to tell of it now."""
        absent = taken.absent.value
        if absent is not None:
            gauge = GaugeMetricFamily(
                "no_active_writer",
                "1 while nobody has the task of the processor that alone writes the graph.",
                labels=("processor",),
            )
            gauge.add_metric((WRITER,), absent)
            yield gauge
        crossed = CounterMetricFamily(
            "cross_context_cache_hit",
            "Times that a node had what was computed in another context, kept or given; it was not used.",
            labels=("processor", "task"),
        )
        tasks, survey, hits = self._watch.tasks(), taken.survey, taken.hits
        if survey is not None and survey.age_s is not None and _TASK in tasks:
            yield from _counts(survey.value)
            crossed.add_metric((WRITER, str(_TASK.number)), survey.value.crossed)
        if hits is not None and hits.age_s is not None:
            for task in tasks:
                if task.processor == NODES:  # a rate needs the zero before the first
                    crossed.add_metric((NODES, str(task.number)), hits.value.get(task.number, 0))
        if crossed.samples:
            yield crossed


def _counts(found: Survey) -> Iterator[Metric]:
    yield GaugeMetricFamily("compute_nodes_total", "Nodes that the graph knows.", found.nodes)
    yield GaugeMetricFamily(
        "compute_nodes_unneeded",
        "Nodes that no version and no topic has, by the last tick: they go once their time is over.",
        found.unneeded,
    )
    yield GaugeMetricFamily(
        "queues_total", "Topics of nodes, those that are made or removed too.", found.queues
    )
    yield GaugeMetricFamily(
        "orphan_queue_total", "Topics of nodes that no version has, by the last tick.", found.orphans
    )
    yield GaugeMetricFamily(
        "sentinel_gap_count",
        "Strategies whose traffic is not given, all of it and once, to the versions that are active.",
        found.gaps,
    )
    yield GaugeMetricFamily(
        "qmtl_dag_handovers_open",
        "Strategies whose versions have no traffic yet, as not every shard has said that it computes them.",
        found.handovers,
    )
    yield GaugeMetricFamily(
        "compute_nodes_buffering", "Nodes whose topic has a history of an older schema.", found.buffering
    )
    yield GaugeMetricFamily(
        "compute_nodes_buffering_since_seconds",
        "When the node began to buffer that does so for the longest, in seconds of the Unix epoch by the log's clock.",
        None if found.oldest_ms is None else found.oldest_ms / 1000,
    )
    yield CounterMetricFamily("queue_create_success", "Topics of nodes that were made.", found.created)
    yield CounterMetricFamily("queue_create_error", "Topics of nodes that could not be made.", found.failed)
    kept = CounterMetricFamily(
        "queue_remove_error",
        "Times that a topic of a node could not be removed, by the code of the cause.",
        labels=("code",),
    )
    causes = dict.fromkeys(KEEPING, 0) | dict(found.kept)  # a rate needs the zero before the first
    for code, count in causes.items():
        kept.add_metric((code,), count)
    yield kept
    yield CounterMetricFamily(
        "queue_archive_success", "Times that a topic of a node was archived.", found.archived
    )
    yield CounterMetricFamily(
        "queue_archive_error", "Times that a topic of a node could not be archived.", found.unarchived
    )
    yield CounterMetricFamily(
        "qmtl_dag_diff_ack_timeouts",
        "Times that nobody acknowledged an answer to a diff request for 30 s of ticks.",
        found.stalled,
    )
    yield CounterMetricFamily(
        "qmtl_dag_ids_reused",
        "Requests under an id under which something else was asked before; they were refused.",
        found.repeated,
    )
    yield GaugeMetricFamily(
        "cross_context_cache_hits_uncleared",
        "Cross-context hits that nobody has cleared: nothing is promoted meanwhile.",
        found.uncleared,
    )
    yield GaugeMetricFamily(
        "qmtl_topics_under_replicated",
        "Topics that have fewer replicas than they are to have, as of the last look at each.",
        found.thin,
    )
    expired = CounterMetricFamily(
        "qmtl_dag_rows_expired",
        "Rows that went because nobody needed them, by their table.",
        labels=("table",),
    )
    counts = dict.fromkeys(EXPIRING, 0) | dict(found.expired)  # a rate needs the zero before the first
    for table, count in counts.items():
        expired.add_metric((table,), count)
    yield expired
    releases = GaugeMetricFamily(
        "qmtl_dag_releases", "Releases by the stage in which they are.", labels=("stage",)
    )
    for stage, count in zip(ReleaseStage, found.releases, strict=True):
        releases.add_metric((stage.value,), count)
    yield releases
