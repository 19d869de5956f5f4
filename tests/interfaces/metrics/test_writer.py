"""The graph has one writer: while it is gone nothing is decided and the gauge says so; the next worker goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from qmtl.bootstrap import make_workers
from qmtl.engine.log.port import Log
from qmtl.engine.simulate.cluster import Cluster
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.network import Died, Fate, Lose, Process, Request
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.contracts.dag import AdminAct, AdminEntry, DagOutcome, DagSubmission
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.interfaces.metrics import graph
from qmtl.interfaces.metrics.graph import GraphGauges
from qmtl.interfaces.metrics.watch import Watch
from qmtl.topology import NOWHERE
from tests.contract.driving import until
from tests.replay.logs import commit, row
from tests.services.graphs import crossing, strategy, submission

LONG_MS = 120_000
"""Outlasts every session and every transaction."""


class Client:
    """A worker of the DAG Manager in a process of its own, which may die."""

    def __init__(self, cluster: Cluster, directory: Path, slot: str) -> None:
        self.process = Process(slot)
        log = SimulatedLog(cluster, self.process)
        settings = TaskSettings(directory / slot)
        (self.worker,) = make_workers(log, settings, ["dagmanager"], slot, NOWHERE)

    def step(self) -> None:
        if self.process.alive:
            self.worker.step()

    def writes(self) -> bool:
        return bool(self.worker.tasks)


@contextmanager
def asking(log: Log) -> Iterator[GraphGauges]:
    """What a worker of another processor tells of the writer."""
    gauges = GraphGauges(log, Watch(["trading"], CollectorRegistry()))
    try:
        yield gauges
    finally:
        gauges.stop()


def absent(gauges: GraphGauges) -> float | None:
    until(lambda: gauges.get().absent.age_s is not None)
    (found,) = [one for one in gauges.collect(gauges.get()) if one.name == "no_active_writer"]
    return found.samples[0].value


def send(log: Log, period: int) -> DagSubmission:
    one = submission(strategy(crossing(3, period), f"s{period}"))
    commit(log, [row("dag.submissions", one)], "people")
    return one


def outcome(log: Log, of: DagSubmission) -> DagOutcome | None:
    found: DagOutcome | None = TableView(log, "dag.diffs", codec).refresh().get(of.submission_id)
    return found


def decided(log: Log) -> list[str]:
    """The versions that the admin log has a decision of, in its order."""
    found = read_all(log, all_partitions(log, "dag.admin.log"))
    entries: list[AdminEntry] = [
        codec.decode(one.value) for one in found if one.value and not is_reserved(one.key)
    ]
    return [
        one.subject for one in entries if one.act is AdminAct.DIFFED and one.detail.startswith("response")
    ]


@pytest.mark.parametrize(
    "fate", [None, *Fate], ids=lambda fate: "idle" if fate is None else fate.name.lower()
)
def test_when_the_writer_of_the_graph_dies_another_worker_decides_on_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: Fate | None
) -> None:
    """It dies idle, or in the midst of a commit that arrives, arrives late, or never does."""
    monkeypatch.setattr(graph, "EVERY_S", 0.0)
    log = SimulatedLog()
    log.ensure_topics(CATALOGUE)
    with asking(log) as gauges:
        assert absent(gauges) == 1
        both = [Client(log.cluster, tmp_path, slot) for slot in "01"]

        def work() -> None:
            for one in both:
                one.step()
            log.cluster.pass_ms(100)

        def works_until(outcome_of: DagSubmission) -> bool:
            work()
            return outcome(log, outcome_of) is not None

        first = send(log, 8)
        until(lambda: works_until(first))
        (writer,) = [one for one in both if one.writes()]
        (other,) = [one for one in both if one is not writer]
        assert absent(gauges) == 0
        second = send(log, 9)
        if fate is not None:
            writer.process.hitches = [Lose(Request.END, fate)]
            until(lambda: writer.worker.step() and not writer.process.hitches)
        writer.process.alive = False
        with pytest.raises(Died):
            writer.worker.step()
        other.step()
        assert not other.writes()
        if fate is not Fate.APPLIED:
            assert outcome(log, second) is None
        log.cluster.pass_ms(LONG_MS)
        assert absent(gauges) == 1
        third = send(log, 10)
        until(lambda: works_until(third))
        assert other.writes()
        assert absent(gauges) == 0
    told = [outcome(log, one) for one in (first, second, third)]
    assert all(one is not None and one.accepted for one in told)
    assert decided(log) == [one.sentinel_id for one in told if one is not None]
    assert told[2] is not None
    assert len(told[2].reused_nodes) == 2  # the source and the fast mean, which the dead one wrote down
    other.worker.close()
