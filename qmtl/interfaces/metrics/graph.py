"""What is told of the graph of shared nodes: how large it is, what is wrong with it, and whether anybody writes it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from qmtl.engine.log.port import GroupState, Log
from qmtl.engine.observer import TaskId
from qmtl.interfaces.dag_survey import Survey, Surveyor
from qmtl.interfaces.metrics.sampled import Sample, Sampled
from qmtl.interfaces.metrics.watch import WRITER, Phase, Watch
from qmtl.interfaces.standing import group_of

EVERY_S: Final = 15.0
"""What is younger is told again."""

_WAIT_S: Final = 0.5
_TASK: Final = TaskId(WRITER, 0)


@dataclass(frozen=True, slots=True)
class Taken:
    """The last measurements.

    Attributes:
        absent: whether nobody has the DAG Manager's task; None where that can't be known.
        survey: None where this process does not run the DAG Manager.
    """

    absent: Sample[bool | None]
    survey: Sample[Survey] | None

    def ages(self) -> Iterator[tuple[str, float | None, int]]:
        """By name, how old each is, and how often it could not be measured."""
        yield "writer", self.absent.age_s, self.absent.errors
        if self.survey is not None:
            yield "graph", self.survey.age_s, self.survey.errors


class GraphGauges:
    """Collects for `Gauges`. Counts are given by the process that has the DAG Manager's task, so that they come once."""

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

    def get(self) -> Taken:
        """What was measured last; waits a little for something newer."""
        return Taken(self._absent.get(), None if self._survey is None else self._survey.get())

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
        survey = taken.survey
        if survey is not None and survey.age_s is not None and _TASK in self._watch.tasks():
            yield from _counts(survey.value)


def _counts(found: Survey) -> Iterator[Metric]:
    yield GaugeMetricFamily("compute_nodes_total", "Nodes that the graph knows.", found.nodes)
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
        "compute_nodes_buffering", "Nodes whose topic has a history of an older schema.", found.buffering
    )
    yield GaugeMetricFamily(
        "compute_nodes_buffering_since_seconds",
        "When the node began to buffer that does so for the longest, in seconds of the Unix epoch by the log's clock.",
        None if found.oldest_ms is None else found.oldest_ms / 1000,
    )
    yield CounterMetricFamily("queue_create_success", "Topics of nodes that were made.", found.created)
    yield CounterMetricFamily("queue_create_error", "Topics of nodes that could not be made.", found.failed)
    yield CounterMetricFamily(
        "qmtl_dag_diff_ack_timeouts",
        "Times that nobody acknowledged an answer to a diff request for 30 s of ticks.",
        found.stalled,
    )
    yield CounterMetricFamily(
        "cross_context_cache_hit",
        "Times that a node had kept what was computed in another context; it was not used.",
        found.crossed,
    )
    yield GaugeMetricFamily(
        "cross_context_cache_hits_uncleared",
        "Of these, those that nobody has cleared: nothing is promoted meanwhile.",
        found.uncleared,
    )
