"""Every combination is told of once, whatever becomes of workers, and only what takes its worker with it each time is told as failed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.backtest.sweep.dispatch import TRIES, Gone, Heard, Ready, dispatched
from qmtl.backtest.sweep.job import Asked, Done, Job
from qmtl.foundation.common.errors import EngineFailed, WorkerLost
from qmtl.services.dagmanager.graph import Graph

GRAPH = Graph("s", "v1", (), (), "")


class Scripted:
    """Workers that die as a script says: at combinations, so many times each, and while they have nothing to do."""

    def __init__(self, deadly: dict[int, int], idle_deaths: int, seed: int) -> None:
        self.deadly = Counter(deadly)
        self.idle_deaths = idle_deaths
        self.chance = random.Random(seed)
        self.said: dict[int, list[Heard]] = {}
        self.alive: set[int] = set()
        self.ran: Counter[int] = Counter()

    def start(self, worker: int) -> None:
        assert worker not in self.alive
        self.alive.add(worker)
        self.said[worker] = [Ready()]

    def give(self, worker: int, job: Job) -> None:
        if worker not in self.alive:
            return
        assert not self.said[worker]
        for one in job.asked:
            self.ran[one.place] += 1
            if self.deadly[one.place]:
                self.deadly[one.place] -= 1
                self.alive.discard(worker)
                self.said[worker].append(Gone("signal SIGKILL"))
                return
            self.said[worker].append(Done(one.place, fills=one.place))

    def hear(self) -> Sequence[tuple[int, Heard]]:
        able = sorted(worker for worker, said in self.said.items() if said)
        if not able:
            idle = sorted(self.alive)
            assert idle, "everybody waits for ever"
            raise AssertionError("workers are idle while there is work")
        chosen = self.chance.sample(able, self.chance.randint(1, len(able)))
        heard = [(worker, self.said[worker].pop(0)) for worker in chosen]
        for worker in sorted(self.alive):
            if (
                self.idle_deaths
                and not self.said[worker]
                and worker not in chosen
                and self.chance.random() < 0.3
            ):
                self.idle_deaths -= 1
                self.alive.discard(worker)
                self.said[worker].append(Gone("signal SIGTERM"))
        return heard


@given(
    st.lists(st.integers(1, 5), min_size=0, max_size=8),
    st.dictionaries(st.integers(0, 30), st.integers(1, 4), max_size=6),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(0, 2**32),
)
def test_each_combination_is_told_of_once_whoever_dies(
    sizes: list[int], deadly: dict[int, int], workers: int, idle_deaths: int, seed: int
) -> None:
    places = iter(range(sum(sizes)))
    jobs = [Job(tuple(Asked(next(places), GRAPH) for _ in range(size))) for size in sizes]
    crew = Scripted(deadly, idle_deaths, seed)
    told = list(dispatched(jobs, crew, workers))
    assert sorted(one.place for one in told) == list(range(sum(sizes)))
    for one in told:
        deaths = deadly.get(one.place, 0)
        if one.code:
            assert (one.code, one.fills) == (WorkerLost.code, 0)
            assert deaths + idle_deaths >= TRIES, "it was blamed for what it had not done"
        else:
            assert one.fills == one.place
            assert deaths < TRIES
    assert all(times <= TRIES for times in crew.ran.values())


def test_a_worker_that_ends_before_it_was_ready_ends_the_sweep() -> None:
    class Stillborn(Scripted):
        def start(self, worker: int) -> None:
            self.said[worker] = [Gone("exit code 1")]

    with pytest.raises(EngineFailed, match="exit code 1"):
        list(dispatched([Job((Asked(0, GRAPH),))], Stillborn({}, 0, 1), 2))
