"""How long a submission takes by how large the graph is, and how soon a DAG Manager with such a graph is up, in how much memory.

All goes through the engine: a submission is read from the embedded log, decided, and committed with all its rows. A submission of a
strategy whose nodes all exist costs what its own nodes cost, whatever else there is: `flat` is the time at the largest graph against
that at the smallest. What is published to be measured is published to a copy, so that each graph is as large as it is said to be.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.dag.admission import PIPELINE, SHARES, Sizes, Timed, pipeline, spread
from bench.dag.twofold import Twofold
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.table import Table
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker, collect_seldom
from qmtl.foundation.contracts.dag import CreateTopic, DagSubmission, ReportTopicCreated
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.services.dagmanager.processor import DagManager


def message(strategy_id: str, numbers: Sequence[int]) -> bytes:
    """A strategy of these pipelines."""
    return json.dumps(
        {
            "schema_version": "v1",
            "strategy_id": strategy_id,
            "meta": {"version": "v1"},
            "nodes": [node for number in numbers for node in pipeline(number)],
            "signals": [f"t_{number}" for number in numbers],
        }
    ).encode()


class Standing:
    """A DAG Manager on an embedded log, with whoever publishes and makes topics; each node has two of them."""

    def __init__(self, place: Path, pipelines: int = 0) -> None:
        self.log = EmbeddedLog(place / "log")
        self.log.ensure_topics(CATALOGUE)
        self._writer = self.log.writer("bench.people")
        self._sent = 0
        self.pipelines = pipelines
        self.worker = Worker(self.log, Twofold, codec, TaskSettings(place / "state"))
        self.run()

    def send(self, name: str, messages: Sequence[Any]) -> None:
        spec = topic(name)
        self._writer.begin()
        for one in messages:
            self._writer.append(name, 0, encode_key(spec.key_of(one)), codec.encode(one))
        self._writer.commit({}, "", None)

    def run(self) -> None:
        while self.worker.step():
            pass

    def submit(self, strategy_id: str, numbers: Sequence[int]) -> Timed:
        """Publish a strategy; returns the time until it was decided and written."""
        self._sent += 1
        name = f"{strategy_id}-{self.pipelines}-{self._sent}"
        self.send(
            "dag.submissions",
            [DagSubmission(name, "w", message(strategy_id, numbers), self._sent, execution_domain="live")],
        )
        began, cpu = time.perf_counter(), time.thread_time()
        self.run()
        took = Timed((time.perf_counter() - began) * 1e3, (time.thread_time() - cpu) * 1e3)
        outcome = self.table("dag.diffs").get(name)
        if not outcome.accepted:
            raise SystemExit(f"refused: {outcome.detail}")
        return took

    @property
    def tables(self) -> Mapping[str, Table]:
        return self.worker.tasks[0]._tables

    def table(self, name: str) -> Any:
        return self.tables[name]

    def make_topics(self) -> None:
        asked = [row.topic for row in self.table("dag.tasks").items() if isinstance(row, CreateTopic)]
        made = {row.topic for row in self.table("dag.queues").items() if row.ready}
        self.send("dag.reports", [ReportTopicCreated(one, True, "", "") for one in asked if one not in made])
        self.run()

    def grow(self, nodes: int, each: int) -> None:
        """Publish strategies of so many nodes each until so many nodes exist, all with their topics."""
        while self.pipelines * PIPELINE < nodes:
            numbers = range(self.pipelines, self.pipelines + each // PIPELINE)
            self.submit(f"s{self.pipelines}", numbers)
            self.pipelines = numbers.stop
        self.make_topics()

    def close(self) -> None:
        self.worker.close()
        self.log.close()


def measure(place: Path, sizes: Sizes) -> dict[str, Any]:
    """Times by how many nodes exist; each row is printed.

    Returns: by size: how many queues there are; seconds to be up again with all of it, and megabytes (`tables_mb` is what that takes of
        those of the process); milliseconds of submissions by what of them is new.
    """
    found: dict[str, Any] = {}
    pipelines = 0
    for known in sorted(sizes.known):
        standing = Standing(place / "graph", pipelines)
        standing.grow(known, sizes.nodes)
        pipelines = standing.pipelines
        queues = sum(1 for _ in standing.table("dag.queues").items())
        standing.close()
        row = {"queues": queues, **_started(place / "graph")}
        shutil.copytree(place / "graph", place / "copy")
        row |= _published(place / "copy", pipelines, sizes)
        shutil.rmtree(place / "copy")
        found[str(known)] = row
        print(json.dumps({str(known): row}), flush=True)
    first, last = (found[str(known)] for known in (min(sizes.known), max(sizes.known)))
    found["flat"] = {share: last[share]["cpu_ms"]["p50"] / first[share]["cpu_ms"]["p50"] for share in SHARES}
    return found


def _published(place: Path, pipelines: int, sizes: Sizes) -> dict[str, Any]:
    """Times of submissions by what of them is new; few of those that make the graph much larger."""
    standing = Standing(place, pipelines)
    draw = random.Random(pipelines)
    fresh, count = 1_000_000_000, sizes.nodes // PIPELINE
    found = {}
    for share, part in SHARES.items():
        took = []
        old = round(count * part)
        for number in range(sizes.rounds if part else sizes.slow):
            numbers = [*draw.sample(range(pipelines), old), *range(fresh, fresh + count - old)]
            fresh += count - old
            took.append(standing.submit(f"{share}-{number}", numbers))
        found[share] = {
            "ms": spread([one.wall for one in took]),
            "cpu_ms": spread([one.cpu for one in took]),
        }
    standing.close()
    return found


STARTS = 3


def _started(place: Path) -> dict[str, Any]:
    """What the middle one of some processes tells that is up with the graph, and the seconds of all of them.

    One start alone tells little: what the disk still writes after a graph has grown falls into the first one.
    """
    line = [sys.executable, "-m", "bench.dag.standing", str(place)]
    told = [json.loads(subprocess.run(line, check=True, capture_output=True).stdout) for _ in range(STARTS)]
    took = [one["start_s"] for one in told]
    middle: dict[str, Any] = sorted(told, key=lambda one: float(one["start_s"]))[STARTS // 2]
    return {**middle, "starts_s": took}


def start(place: Path) -> dict[str, float]:
    """Be up with what is there: seconds until the task is open, and megabytes of this process more than before it."""
    before = memory()
    log = EmbeddedLog(place / "log")
    began = time.perf_counter()
    worker = Worker(log, DagManager, codec, TaskSettings(place / "state"))
    while not worker.tasks:
        worker.step()
    took = time.perf_counter() - began
    return {"start_s": took, "tables_mb": memory() - before, "process_mb": memory()}


def memory() -> float:
    """Megabytes that this process has in memory."""
    with open("/proc/self/statm", encoding="ascii") as told:
        return int(told.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    collect_seldom()  # as whoever runs workers does
    print(json.dumps(start(Path(sys.argv[1]))))
