"""What an execution manager shows of its runs, over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from qmtl.interfaces.execution.policy import BAD_ENDS, Phase
from qmtl.interfaces.execution.state_dir import RunStatus
from qmtl.interfaces.metrics.serve import listening

_RUN = ("run",)


class RunGauges(Collector):
    """Collects.

    Args:
        look: how the runs stand; asked in the thread of a scrape.
    """

    def __init__(self, look: Callable[[], Sequence[RunStatus]]) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("qmtl_run_up", "1 while the run has a process.", labels=_RUN)
        phase = GaugeMetricFamily("qmtl_run_phase", "1 for what the run does now.", labels=("run", "phase"))
        restarts = CounterMetricFamily(
            "qmtl_run_restarts", "How often the run was started again by itself.", labels=_RUN
        )
        last = GaugeMetricFamily(
            "qmtl_run_last_exit_code",
            "Exit code of its last process; negative for the signal that it died of.",
            labels=_RUN,
        )
        started = GaugeMetricFamily(
            "qmtl_run_start_timestamp_seconds",
            "When its process, or the last one, was started.",
            labels=_RUN,
        )
        for one in self._look():
            up.add_metric((one.run,), one.pid is not None)
            for each in Phase:
                phase.add_metric((one.run, each.value), one.phase is each)
            restarts.add_metric((one.run,), one.restarts)
            if one.last_exit is not None:
                last.add_metric((one.run,), one.last_exit)
            if one.started_ms is not None:
                started.add_metric((one.run,), one.started_ms / 1000)
        yield from (up, phase, restarts, last, started)


def health_of(runs: Sequence[RunStatus]) -> tuple[bool, dict[str, Any]]:
    """Whether no run was given up or has failed, and what each does."""
    reasons = [f"{one.run} is {one.phase.value}" for one in runs if one.phase in BAD_ENDS]
    return not reasons, {
        "ready": not reasons,
        "reasons": reasons,
        "runs": {one.run: one.phase.value for one in runs},
    }


def showing(look: Callable[[], Sequence[RunStatus]], host: str, port: int) -> AbstractContextManager[str]:
    """Serve /metrics and /healthz while the context is open; gives the address.

    Args:
        port: 0 for any that is free.

    Raises:
        UsageError: nobody can listen there.
    """
    disable_created_metrics()  # type: ignore[no-untyped-call] # as of a worker
    registry = CollectorRegistry()
    registry.register(RunGauges(look))
    ProcessCollector(registry=registry)
    return listening(registry, lambda: health_of(look()), host, port)
