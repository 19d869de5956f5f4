"""What passes between whoever plans a sweep and whoever computes it: jobs, what became of each combination, and the protocol of an engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Protocol, TypeAlias

from qmtl.backtest.simulation import Terms
from qmtl.runtime.performance.kpi import Convention
from qmtl.services.dagmanager.graph import Graph

Amount: TypeAlias = Decimal | float | int | None
"""A figure's value; None where it is undefined."""

KEPT_BYTES: Final = 256 * 1024 * 1024
"""What a process keeps of nodes that several strategies have; beyond it the ones that were used longest ago go, and are computed anew when asked."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What all jobs of a sweep have in common, beside the bars.

    Attributes:
        source: of the strategy, as `load_class` takes it: a process of its own finds its functions as the first one did. Empty where
            there is nothing to load.
        kept_bytes: as `KEPT_BYTES`.
    """

    terms: Terms
    convention: Convention
    source: str = ""
    kept_bytes: int = KEPT_BYTES


@dataclass(frozen=True, slots=True)
class Asked:
    """One combination that is to be run.

    Attributes:
        place: of it among all combinations of the sweep.
    """

    place: int
    graph: Graph


@dataclass(frozen=True, slots=True)
class Job:
    """Combinations that one process runs, one after the other, in this order.

    Attributes:
        shared: nodes that other combinations of the sweep have, too: worth keeping.
    """

    asked: tuple[Asked, ...]
    shared: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one combination.

    Attributes:
        figures: by name, as `performance_of` has them; empty where it failed.
        code: of the error, where it failed.
        fault: what was wrong, then.
        computed: nodes that were computed for it and had not been kept; the same only where processes and jobs are.
    """

    place: int
    figures: tuple[tuple[str, Amount], ...] = ()
    orders: int = 0
    fills: int = 0
    rejections: int = 0
    code: str = ""
    fault: str = ""
    computed: int = 0


class Engine(Protocol):
    """Computes jobs somewhere."""

    def map(self, jobs: Sequence[Job]) -> Iterator[Done]:
        """What became of each combination of each job, once each, in whatever order they end. A combination that fails is a `Done`, too.

        Raises:
            EngineFailed: nothing can be computed there at all.
        """
        ...

    def close(self) -> None:
        """End all that it started. May be said again."""
        ...
