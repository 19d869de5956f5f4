"""Takes what a worker tells: counts it for Prometheus, and keeps where every owned task stands for health and gauges."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from qmtl.engine.log.port import TopicPartition
from qmtl.engine.observer import Commit, Look, Outcome, Stall, StallKind, TaskId

SETTLED_S: Final = 20.0
"""A task whose transactions failed again and again is well once one was committed, or none has failed for so long."""
LOOK_EVERY_S: Final = 0.2
"""A task is looked at no more often: under load a step takes milliseconds, and a look copies its positions."""

WRITER: Final = "dagmanager"
"""The single writer of the graph, which is watched for its diffs and for being there at all."""

DIFFS: Final = ("dag.submissions", "dag.diff.requests")
"""Where diffs are asked for."""

_DIFF_MS: Final = (1, 2, 5, 10, 20, 40, 60, 80, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10_000)
"""80 is what the engine is built for, 100 what is promised, 200 what is alarmed at."""

_LATENCIES: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Phase(Enum):
    """What an owned task does."""

    RESTORING = "restoring"
    RUNNING = "running"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Standing:
    """One open task, as of the last that was told of it.

    Attributes:
        since: when the phase began, by the monotonic clock.
        done, total: offsets restored and to restore; both 0 where nothing is missing.
        stall: why the restore stands still; None while it does not.
        stalled_at: since when, by the monotonic clock.
        look: None until the first step is done.
    """

    phase: Phase
    since: float
    done: int = 0
    total: int = 0
    stall: Stall | None = None
    stalled_at: float = 0.0
    look: Look | None = None
    looked_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Polled:
    """The last time that the worker took part in a processor's group.

    Attributes:
        at: by the monotonic clock; None before the first time.
    """

    at: float | None = None
    tasks: frozenset[int] = frozenset()


class Watch:
    """An observer for Prometheus. Told by one thread, asked by others.

    Args:
        processors: what this process runs.
        clock: gives seconds that only grow.
    """

    def __init__(
        self,
        processors: Sequence[str],
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._tasks: dict[TaskId, Standing] = {}
        self._polled = {name: Polled() for name in processors}
        task = ("processor", "task")

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, (*task, *labels), registry=registry)

        self._read = counter("qmtl_records_read", "Records of any kind read; read again after an abort.")
        self._taken = counter(
            "qmtl_records_processed", "Data records in committed transactions, late ones too."
        )
        self._outputs = counter(
            "qmtl_records_written", "Records appended in committed transactions, markers and stamps too."
        )
        self._rows = counter(
            "qmtl_table_rows_written", "Rows that committed transactions changed in the store."
        )
        self._buckets = counter("qmtl_buckets_closed", "Buckets closed by committed transactions.")
        self._late = counter("qmtl_late_records", "Records whose bucket was closed already.")
        self._expired = counter(
            "qmtl_expired_cuts",
            "Buckets of a table that were read when versions of their rows may have been cleaned away.",
            "topic",
        )
        self._paused = counter(
            "qmtl_input_pauses", "Times that partitions of an input were too far ahead to be read.", "topic"
        )
        self._dead = counter("qmtl_dead_letters", "Other dead letters, by the code of their cause.", "code")
        self._ends = counter("qmtl_transactions", "Transactions by how they ended.", "outcome")
        self._seconds = Histogram(
            "qmtl_transaction_duration_seconds",
            "Committed transactions, from their begin to the end of the write to the store.",
            task,
            buckets=_LATENCIES,
            registry=registry,
        )
        self._restores = Summary(
            "qmtl_restore_duration_seconds", "Finished restores of a task.", task, registry=registry
        )
        self._read_at: dict[TaskId, float] = {}
        self._diffs: Histogram | None = None
        if WRITER in self._polled:
            self._diffs = Histogram(
                "diff_duration_ms",
                "Diffs, from the reading of a submission or a diff request to the end of the transaction that decided on it.",
                buckets=_DIFF_MS,
                registry=registry,
            )

    # ---- told -----------------------------------------------------------------------------------------------------

    def polled(self, processor: str, tasks: Collection[int]) -> None:
        self._polled[processor] = Polled(self.clock(), frozenset(tasks))

    def opening(self, task: TaskId) -> None:
        with self._lock:
            self._tasks[task] = Standing(Phase.RESTORING, self.clock())
        for outcome in Outcome:
            self._ends.labels(*_names(task), outcome.value)  # a rate needs the zero before the first
        for plain in (self._read, self._taken, self._outputs, self._rows, self._buckets, self._late):
            plain.labels(*_names(task))

    def restoring(self, task: TaskId, done: int, total: int) -> None:
        with self._lock:
            known = replace(self._tasks[task], done=done, total=total)
            if done:  # a restore that begins anew behind a standstill has not moved yet
                known = replace(_in(known, Phase.RESTORING, self.clock()), stall=None)
            self._tasks[task] = known

    def stalled(self, task: TaskId, stall: Stall) -> None:
        with self._lock:
            known, since = self._tasks[task], self.clock() - stall.seconds
            since = since if known.stall is None else min(since, known.stalled_at)
            phase = Phase.REFUSED if stall.kind is StallKind.REFUSED else Phase.RESTORING
            self._tasks[task] = replace(_in(known, phase, self.clock()), stall=stall, stalled_at=since)

    def opened(self, task: TaskId) -> None:
        now = self.clock()
        with self._lock:
            before = self._tasks[task]
            stall = before.stall if _fails(before) else None  # whether it is over, its next transaction tells
            self._tasks[task] = replace(before, phase=Phase.RUNNING, since=now, stall=stall)
        self._restores.labels(*_names(task)).observe(now - before.since)

    def closed(self, task: TaskId) -> None:
        self._read_at.pop(task, None)
        with self._lock:
            self._tasks.pop(task, None)

    def expired(self, task: TaskId, topic: str) -> None:
        self._expired.labels(*_names(task), topic).inc()

    def paused(self, task: TaskId, partitions: Collection[TopicPartition]) -> None:
        for where in partitions:
            self._paused.labels(*_names(task), where.topic).inc()

    def read(self, task: TaskId, records: int) -> None:
        if records:
            self._read.labels(*_names(task)).inc(records)
            self._read_at.setdefault(task, self.clock())

    def committed(self, task: TaskId, commit: Commit) -> None:
        names = _names(task)
        self._well(task)
        self._taken.labels(*names).inc(commit.records)
        self._outputs.labels(*names).inc(commit.outputs)
        self._rows.labels(*names).inc(commit.rows)
        self._buckets.labels(*names).inc(commit.buckets)
        self._late.labels(*names).inc(commit.late)
        for code, count in commit.dead.items():
            self._dead.labels(*names, code).inc(count)
        self._ends.labels(*names, Outcome.COMMITTED.value).inc()
        self._seconds.labels(*names).observe(commit.seconds)
        read_at = self._read_at.pop(task, None)
        if self._diffs is not None and task.processor == WRITER and read_at is not None:
            for _ in range(sum(commit.topics.get(name, 0) for name in DIFFS)):
                self._diffs.observe((self.clock() - read_at) * 1000)

    def ended(self, task: TaskId, outcome: Outcome) -> None:
        self._ends.labels(*_names(task), outcome.value).inc()

    def stepped(self, task: TaskId, look: Callable[[], Look]) -> None:
        now = self.clock()
        self._read_at.pop(task, None)
        known = self._tasks[task]
        if known.phase is not Phase.RUNNING or (known.stall is not None and now - known.since > SETTLED_S):
            # Nobody opens a task that begins again by itself, at a record that it can't use.
            known = self._well(task)
        if known.look is None or now - known.looked_at >= LOOK_EVERY_S:
            with self._lock:
                self._tasks[task] = replace(known, look=look(), looked_at=now)

    def _well(self, task: TaskId) -> Standing:
        with self._lock:
            known = self._tasks[task]
            if known.stall is not None or known.phase is not Phase.RUNNING:
                known = self._tasks[task] = replace(_in(known, Phase.RUNNING, self.clock()), stall=None)
            return known

    # ---- asked ----------------------------------------------------------------------------------------------------

    def tasks(self) -> dict[TaskId, Standing]:
        """The open tasks, sorted."""
        with self._lock:
            return dict(sorted(self._tasks.items()))

    def polls(self) -> dict[str, Polled]:
        """Per processor of this process."""
        return dict(self._polled)


def _fails(standing: Standing) -> bool:
    return standing.stall is not None and standing.stall.kind is StallKind.FAILED_TRANSACTIONS


def _in(standing: Standing, phase: Phase, now: float) -> Standing:
    return standing if standing.phase is phase else replace(standing, phase=phase, since=now)


def _names(task: TaskId) -> tuple[str, str]:
    return task.processor, str(task.number)
