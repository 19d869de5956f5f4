"""What is measured at the moment of a scrape: lags, positions, watermarks, restores, sizes, membership."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from qmtl.engine.lag import Asked, InputLag, LagMeter
from qmtl.engine.log.port import Connected, Log
from qmtl.engine.observer import StallKind, TaskId
from qmtl.engine.watermark import Wait
from qmtl.interfaces.metrics.graph import GraphGauges
from qmtl.interfaces.metrics.live import LiveGauges
from qmtl.interfaces.metrics.sampled import Sampled
from qmtl.interfaces.metrics.sizes import StoreSize, store_sizes
from qmtl.interfaces.metrics.watch import Phase, Standing, Watch
from qmtl.services.clock.rule import NAME as CLOCK

SERIES: Final = 200
"""So many input partitions of a process get series of their own; the others of a task are folded into one, `OTHERS`."""

OTHERS: Final = "others"

_LAG_WAIT_S: Final = 2.0
_SIZES_EVERY_S: Final = 15.0
_SIZES_WAIT_S: Final = 1.0
_METER_PATIENCE_S: Final = 5.0

_LOST: Final = ("_TRANSPORT", "_ALL_BROKERS_DOWN")
"""What a Kafka client calls a connection that was lost or refused, and that it has none left; a rate needs the zero before the first."""

_TASK: Final = ("processor", "task")
_INPUT: Final = (*_TASK, "topic", "partition")


@dataclass(frozen=True, slots=True)
class TaskInput:
    """One input partition of one task: its lag from where the task has come to, and what it has committed."""

    task: TaskId
    committed: int
    lag: InputLag


class Gauges(Collector):
    """Collects. The threads that measure end with `stop`.

    Args:
        state_dir: where the stores of the tasks lie.
        series: as `SERIES`.
    """

    def __init__(self, log: Log, watch: Watch, state_dir: Path, *, series: int = SERIES) -> None:
        self._log = log
        self._watch = watch
        self._series = series
        self._stopping = Event()
        self._meter = LagMeter(log, patience_s=_METER_PATIENCE_S)
        nothing: tuple[TaskInput, ...] = ()
        no_sizes: Mapping[TaskId, StoreSize] = {}
        self._lags = Sampled(
            "qmtl-lags", self._measure, nothing, every_s=0.0, wait_s=_LAG_WAIT_S, ended=self._meter.close
        )
        self._sizes = Sampled(
            "qmtl-sizes",
            lambda: store_sizes(state_dir, _running(watch.tasks()), self._stopping),
            no_sizes,
            every_s=_SIZES_EVERY_S,
            wait_s=_SIZES_WAIT_S,
        )
        self._graph = GraphGauges(log, watch)
        self._live = LiveGauges(log, watch)

    def _measure(self) -> tuple[TaskInput, ...]:
        places = [
            (
                task,
                look.committed[where],
                Asked(where, reached, where in look.bucketed, look.buckets, look.bucketed.get(where, 0)),
            )
            for task, standing in self._watch.tasks().items()
            if (look := standing.look) is not None
            for where, reached in sorted(look.reached.items())
        ]
        found = self._meter.measure([asked for _, _, asked in places])
        return tuple(
            TaskInput(task, committed, lag) for (task, committed, _), lag in zip(places, found, strict=True)
        )

    def stop(self) -> None:
        self._stopping.set()
        self._lags.stop()
        self._sizes.stop()
        self._graph.stop()
        self._live.stop()

    # ---- collecting -----------------------------------------------------------------------------------------------

    def describe(self) -> Iterator[Metric]:
        """The names alone: at registration nothing is measured."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        sampled = self._lags.get()
        sizes = self._sizes.get()
        graph = self._graph.get()
        live = self._live.get()
        tasks = self._watch.tasks()
        yield from self._membership()
        yield from _phases(tasks, self._watch.clock())
        yield from _watermarks(tasks)
        yield from _resident(tasks)
        yield from self._graph.collect(graph)
        yield from self._live.collect(live)
        yield from _waits(tasks, self._series)
        yield from _inputs([one for one in sampled.value if one.task in tasks], self._series)
        yield from _clock([one.lag for one in sampled.value if one.task in tasks])
        yield from _sizes({task: size for task, size in sizes.value.items() if task in tasks})
        ages = GaugeMetricFamily(
            "qmtl_sample_age_seconds", "Age of what the gauges of inputs and tables say.", labels=("sample",)
        )
        failures = CounterMetricFamily(
            "qmtl_sample_failures", "Measurements that failed.", labels=("sample",)
        )
        for name, age_s, errors in (
            ("inputs", sampled.age_s, sampled.errors),
            ("tables", sizes.age_s, sizes.errors),
            *graph.ages(),
            *([] if live is None else [("live", live.age_s, live.errors)]),
        ):
            if age_s is not None:
                ages.add_metric((name,), age_s)
            failures.add_metric((name,), errors)
        yield ages
        yield failures
        yield self._client_errors()

    def _client_errors(self) -> Metric:
        out = CounterMetricFamily(
            "qmtl_log_client_errors",
            "What the clients of the log have met, and mend by themselves.",
            labels=("error",),
        )
        told = self._log.client_errors() if isinstance(self._log, Connected) else {}
        for name, count in sorted({**dict.fromkeys(_LOST, 0), **told}.items()):
            out.add_metric((name,), count)
        return out

    def _membership(self) -> Iterator[Metric]:
        owned = GaugeMetricFamily(
            "qmtl_worker_tasks", "Tasks that this worker owns of a processor.", labels=("processor",)
        )
        polled = GaugeMetricFamily(
            "qmtl_worker_last_poll_timestamp_seconds",
            "When the worker last took part in its group.",
            labels=("processor",),
        )
        for name, poll in self._watch.polls().items():
            owned.add_metric((name,), len(poll.tasks))
            if poll.at is not None:
                polled.add_metric((name,), time.time() - (self._watch.clock() - poll.at))
        yield owned
        yield polled


def _running(tasks: Mapping[TaskId, Standing]) -> list[TaskId]:
    return [task for task, one in tasks.items() if one.phase is Phase.RUNNING]


def _names(task: TaskId) -> tuple[str, str]:
    return task.processor, str(task.number)


def _phases(tasks: Mapping[TaskId, Standing], now: float) -> Iterator[Metric]:
    phase = GaugeMetricFamily("qmtl_task_phase", "1 for what the task does now.", labels=(*_TASK, "phase"))
    running = GaugeMetricFamily(
        "qmtl_restore_running_seconds", "How long the restore of a task runs; 0 when none does.", labels=_TASK
    )
    done = GaugeMetricFamily("qmtl_restore_done_offsets", "Offsets that a restore has read.", labels=_TASK)
    total = GaugeMetricFamily(
        "qmtl_restore_target_offsets", "Offsets that a restore has to read.", labels=_TASK
    )
    stalled = GaugeMetricFamily(
        "qmtl_restore_stalled_seconds",
        "How long a restore makes no progress, or its task is kept closed, for what cause; 0 when neither.",
        labels=(*_TASK, "cause"),
    )
    for task, one in tasks.items():
        for kind in StallKind:
            stands = one.stall is not None and one.stall.kind is kind
            stalled.add_metric((*_names(task), kind.value), now - one.stalled_at if stands else 0)
        for each in Phase:
            phase.add_metric((*_names(task), each.value), one.phase is each)
        running.add_metric(_names(task), now - one.since if one.phase is Phase.RESTORING else 0)
        done.add_metric(_names(task), one.done)
        total.add_metric(_names(task), one.total)
    yield from (phase, running, done, total, stalled)


def _watermarks(tasks: Mapping[TaskId, Standing]) -> Iterator[Metric]:
    watermark = GaugeMetricFamily(
        "qmtl_task_watermark_timestamp_seconds",
        "The newest bucket that the task has closed, by its close.",
        labels=_TASK,
    )
    inputs = GaugeMetricFamily("qmtl_task_inputs", "Input partitions of the task.", labels=_TASK)
    held = GaugeMetricFamily(
        "qmtl_task_held_records", "Records that were read and wait for their bucket.", labels=_TASK
    )
    paused = GaugeMetricFamily(
        "qmtl_task_paused_inputs", "Input partitions that are too far ahead to be read now.", labels=_TASK
    )
    for task, one in tasks.items():
        if one.look is None:
            continue
        inputs.add_metric(_names(task), len(one.look.committed))
        held.add_metric(_names(task), one.look.held)
        paused.add_metric(_names(task), len(one.look.paused))
        if one.look.buckets:
            watermark.add_metric(_names(task), one.look.buckets[-1] / 1000)
    yield from (watermark, inputs, held, paused)


def _resident(tasks: Mapping[TaskId, Standing]) -> Iterator[Metric]:
    """Of the tasks whose processor says how much it remembers."""
    out = GaugeMetricFamily(
        "nodecache_resident_bytes", "Bytes of the nodes' windows that the task has in memory.", labels=_TASK
    )
    for task, one in tasks.items():
        if one.look is not None and one.look.resident_bytes is not None:
            out.add_metric(_names(task), one.look.resident_bytes)
    if out.samples:
        yield out


def _waits(tasks: Mapping[TaskId, Standing], series: int) -> Iterator[Metric]:
    count = GaugeMetricFamily(
        "qmtl_task_waits_for_inputs",
        "Input partitions that have not closed the bucket for which the task waits.",
        labels=_TASK,
    )
    needed = GaugeMetricFamily(
        "qmtl_gate_needed_timestamp_seconds",
        "While the task waits for an input: the bucket that it has to close; 0 is genesis.",
        labels=_INPUT,
    )
    have = GaugeMetricFamily(
        "qmtl_gate_have_timestamp_seconds",
        "While the task waits for an input: the newest bucket that the task has read there since it was opened.",
        labels=_INPUT,
    )
    waits: list[tuple[TaskId, Wait]] = []
    for task, one in tasks.items():
        if one.look is None:
            continue
        count.add_metric(_names(task), len(one.look.waits))
        waits += [(task, wait) for wait in one.look.waits]
    for task, wait in waits[:series]:
        names = (*_names(task), wait.where.topic, str(wait.where.partition))
        needed.add_metric(names, wait.needed_ms / 1000)
        if wait.have_ms is not None:
            have.add_metric(names, wait.have_ms / 1000)
    yield from (count, needed, have)


def _inputs(found: Sequence[TaskInput], series: int) -> Iterator[Metric]:
    def gauge(name: str, about: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"qmtl_input_{name}", about, labels=_INPUT)

    position = gauge("position", "The next offset after the last committed transaction.")
    stable = gauge("stable_offset", "The last stable offset: as far as anybody can read now.")
    high = gauge("high_watermark", "One past the last record of any kind.")
    lag = gauge("lag_offsets", "Offsets between what the task is done with and the high watermark.")
    lag_stable = gauge("lag_stable_offsets", "The same to the last stable offset: what can be read now.")
    closed = gauge(
        "watermark_timestamp_seconds", "The newest bucket that the input has closed, by its close."
    )
    buckets = gauge("lag_buckets", "Buckets that the input has closed and the task has not.")
    seconds = gauge("lag_seconds", "Event time between the newest bucket of the input and that of the task.")
    rest: dict[TaskId, list[InputLag]] = {}
    for index, one in enumerate(found):
        if index >= series:
            rest.setdefault(one.task, []).append(one.lag)
            continue
        names = (*_names(one.task), one.lag.where.topic, str(one.lag.where.partition))
        position.add_metric(names, one.committed)
        stable.add_metric(names, one.lag.stable)
        high.add_metric(names, one.lag.high_watermark)
        lag.add_metric(names, one.lag.lag)
        lag_stable.add_metric(names, one.lag.lag_stable)
        if one.lag.closed_ms is not None:
            closed.add_metric(names, one.lag.closed_ms / 1000)
        if one.lag.buckets is not None:
            buckets.add_metric(names, one.lag.buckets)
        if one.lag.seconds is not None:
            seconds.add_metric(names, one.lag.seconds)
    for task, lags in rest.items():
        names = (*_names(task), OTHERS, "")
        lag.add_metric(names, sum(one.lag for one in lags))
        lag_stable.add_metric(names, sum(one.lag_stable for one in lags))
        buckets.add_metric(names, max((one.buckets or 0 for one in lags), default=0))
        seconds.add_metric(names, max((one.seconds or 0.0 for one in lags), default=0.0))
    yield from (position, stable, high, lag, lag_stable, closed, buckets, seconds)


def _clock(found: Sequence[InputLag]) -> Iterator[Metric]:
    """The newest tick, where a task reads the clock. A clock that has nothing to show has never ticked, or stands for longer than the topic
    keeps a tick."""
    out = GaugeMetricFamily(
        "qmtl_clock_newest_timestamp_seconds", "The newest tick of the clock; 0 where the log has none."
    )
    ticks = [
        0 if one.closed_ms is None else one.closed_ms
        for one in found
        if one.where.topic == CLOCK and (one.closed_ms is not None or one.stable <= one.begin)
    ]
    if ticks:
        out.add_metric((), max(ticks) / 1000)
        yield out


def _sizes(found: Mapping[TaskId, StoreSize]) -> Iterator[Metric]:
    rows = GaugeMetricFamily("qmtl_table_rows", "Keys with a value in a table.", labels=(*_TASK, "table"))
    size = GaugeMetricFamily("qmtl_store_bytes", "Bytes of the files of a task's local store.", labels=_TASK)
    for task, one in found.items():
        size.add_metric(_names(task), one.size)
        for table, count in sorted(one.rows.items()):
            rows.add_metric((*_names(task), table), count)
    yield from (rows, size)
