"""Gives jobs to workers and hears what became of them, whoever the workers are, and whatever becomes of these."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from qmtl.backtest.sweep.job import Asked, Done, Job
from qmtl.foundation.common.errors import EngineFailed, InvariantBroken, WorkerLost

TRIES: Final = 2
"""A combination whose worker is lost so often has failed: once may be anybody's doing."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A worker that has begun, and takes jobs."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A worker that is no more, and how it ended."""

    how: str


Heard: TypeAlias = Ready | Done | Gone


class Crew(Protocol):
    """Workers, by number."""

    def start(self, worker: int) -> None:
        """Begin a worker, in the place of one that has gone. It says `Ready` or `Gone`."""
        ...

    def give(self, worker: int, job: Job) -> None:
        """Have a worker that is ready, and has no job left, run one: it says `Done` of each combination in the job's order."""
        ...

    def hear(self) -> Sequence[tuple[int, Heard]]:
        """What workers say, in the order in which each says it; waits until one does."""
        ...


def dispatched(jobs: Sequence[Job], crew: Crew, workers: int) -> Iterator[Done]:
    """What became of each combination, once each.

    A worker that is lost is begun anew. The combination at which it was is tried again, first of all, and the second time is told as failed;
    the rest of its job is run as if nothing had been.

    Args:
        workers: how many, at least 1.

    Raises:
        EngineFailed: a worker was lost before it was ready.
    """
    waiting = deque(jobs)
    left: dict[int, tuple[deque[Asked], Job]] = {}
    idle: deque[int] = deque()
    ready: set[int] = set()
    lost: dict[int, int] = {}
    for worker in range(min(workers, len(jobs))):
        crew.start(worker)
    while waiting or left:
        while waiting and idle:
            worker, job = idle.popleft(), waiting.popleft()
            left[worker] = (deque(job.asked), job)
            crew.give(worker, job)
        for worker, heard in crew.hear():
            match heard:
                case Ready():
                    ready.add(worker)
                    idle.append(worker)
                case Done():
                    asked, _ = left[worker]
                    if asked.popleft().place != heard.place:
                        raise InvariantBroken(
                            f"worker {worker} told of combination {heard.place} out of turn."
                        )
                    if not asked:
                        del left[worker]
                        idle.append(worker)
                    yield heard
                case Gone(how):
                    if worker not in ready:
                        raise EngineFailed(
                            f"a process of the sweep ended before it was ready: {how}.",
                            "Run it with --processes 1 to see why; a program that calls it needs `if __name__ == '__main__'`.",
                        )
                    ready.discard(worker)
                    if worker in left:
                        asked, job = left.pop(worker)
                        place = asked[0].place
                        lost[place] = lost.get(place, 0) + 1
                        if lost[place] == TRIES:
                            asked.popleft()
                            yield Done(
                                place,
                                code=WorkerLost.code,
                                fault=f"its process was lost {TRIES} times: {how}",
                            )
                        if asked:
                            waiting.appendleft(Job(tuple(asked), job.shared))
                    else:
                        idle.remove(worker)
                    if waiting:
                        crew.start(worker)
