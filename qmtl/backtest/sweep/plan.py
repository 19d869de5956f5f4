"""The plan of a sweep: which strategies there are, which nodes they share, and in which jobs they are run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qmtl.backtest.sweep.asking import Made, Maker
from qmtl.backtest.sweep.job import Asked, Job
from qmtl.backtest.sweep.space import Combination, Space
from qmtl.foundation.common.errors import InvariantBroken

JOB_SIZE: Final = 16
"""Combinations of a job at most; so many are tried again on another process where theirs is lost."""

Told = Callable[[int, int], None]
"""Called with how many are done, and how many there are."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """All strategies of a sweep.

    Attributes:
        made: one of each combination, in their order.
        readers: of each node how many strategies have it.
    """

    space: Space
    combinations: tuple[Combination, ...]
    made: tuple[Made, ...]
    readers: Counter[str]

    @property
    def nodes_asked(self) -> int:
        """Nodes of all strategies that could be made, each as often as a strategy has it."""
        return self.readers.total()

    @property
    def nodes_unique(self) -> int:
        """Different nodes of these."""
        return len(self.readers)

    def jobs(self, size: int = JOB_SIZE) -> tuple[Job, ...]:
        """The strategies that could be made, in jobs: those that share most nodes beside each other.

        Args:
            size: of a job at most.
        """
        asked: list[tuple[tuple[str, ...], Asked]] = []
        for place, one in enumerate(self.made):
            if one.graph is not None:
                own = {node.node.node_id for node in one.graph.nodes}
                shared = [node_id for node_id in own if self.readers[node_id] > 1]
                shared.sort(key=lambda node_id: (-self.readers[node_id], node_id))
                asked.append((tuple(shared), Asked(place, one.graph)))
        asked.sort(key=lambda pair: (pair[0], pair[1].place))
        groups = [asked[begin : begin + size] for begin in range(0, len(asked), size)]
        return tuple(
            Job(
                tuple(one for _, one in group),
                frozenset(node_id for shared, _ in group for node_id in shared),
            )
            for group in groups
        )


def plan_of(space: Space, maker: Maker, told: Told | None = None) -> Plan:
    """Make every strategy of a space."""
    combinations = space.combinations()
    made: list[Made] = []
    for done, one in enumerate(combinations):
        if told is not None:
            told(done, len(combinations))
        made.append(maker.make(one))
    if len({one.strategy_id for one in made}) < len(made):
        raise InvariantBroken("two combinations of a sweep have one strategy id.")
    readers = Counter(node.node.node_id for one in made if one.graph is not None for node in one.graph.nodes)
    return Plan(space, combinations, tuple(made), readers)


def job_size(strategies: int, processes: int) -> int:
    """How many combinations a job has: enough jobs for all processes to end at about the same time, each as long as it may be."""
    return max(1, min(JOB_SIZE, -(-strategies // (4 * processes))))
