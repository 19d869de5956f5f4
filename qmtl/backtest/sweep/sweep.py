"""A sweep from its parts: plan, engine, and the result of each combination in one order, whoever computed it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np

from qmtl.backtest.sweep.job import Amount, Done, Engine, Setting
from qmtl.backtest.sweep.plan import Plan, job_size
from qmtl.backtest.sweep.processes import Here, Processes
from qmtl.backtest.sweep.space import Combination
from qmtl.foundation.common.errors import InvalidSweep, InvariantBroken, NothingSwept
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.curve import EquityCurve
from qmtl.runtime.performance.kpi import Figure, Unit, performance_of
from qmtl.runtime.performance.result import RunResult, RunSettings

MAX_PROCESSES: Final = 256

Kind: TypeAlias = Literal["local", "ray"]
Told: TypeAlias = Callable[[int, int], None]
"""Called with how many are done, and how many there are."""


@dataclass(frozen=True, slots=True)
class Row:
    """What became of one combination.

    Attributes:
        done: its figures, or why it has none.
    """

    combination: Combination
    strategy_id: str
    done: Done

    def amount(self, figure: str) -> Amount:
        """One of its figures; None where it is undefined, and where the combination failed."""
        return dict(self.done.figures).get(figure)


@dataclass(frozen=True, slots=True, eq=False)
class Swept:
    """A sweep that is done.

    Attributes:
        rows: of all combinations, in their order.
        computed: nodes that were computed in all processes together.
    """

    plan: Plan
    rows: tuple[Row, ...]
    computed: int

    def ranked(self, by: str, *, ascending: bool = False) -> tuple[Row, ...]:
        """The rows by a figure, the greatest first; then those where it is undefined, then those that failed; equal ones in the order of the combinations."""

        def place(row: Row) -> tuple[int, float]:
            amount = row.amount(by)
            if row.done.code:
                return 2, 0.0
            return (1, 0.0) if amount is None else (0, float(amount) if ascending else -float(amount))

        return tuple(sorted(self.rows, key=place))

    @property
    def failed(self) -> int:
        """How many combinations have no result."""
        return sum(1 for one in self.rows if one.done.code)


def engine_of(
    kind: Kind, setting: Setting, bars: Mapping[str, BarColumns], processes: int, address: str | None = None
) -> Engine:
    """What computes a sweep.

    Args:
        kind: `local`: this process or processes of this machine; `ray`: a cluster of Ray's.
        processes: at least 1; with `ray` how many workers.
        address: of the cluster; None for one that is begun here.

    Raises:
        MissingExtra: Ray is not installed.
        EngineFailed: there is no room for the bars, or the cluster is not there.
    """
    if kind == "ray":
        from qmtl.backtest.sweep.ray_cluster import RayCluster

        return RayCluster(setting, bars, processes, address)
    return Here(setting, bars) if processes == 1 else Processes(setting, bars, processes)


def swept(plan: Plan, engine: Engine, processes: int = 1, told: Told | None = None) -> Swept:
    """Run all that could be made; the result is the same whatever the engine and the number of processes.

    Raises:
        NothingSwept: every combination failed.
        EngineFailed: nothing can be computed there.
    """
    done: dict[int, Done] = {
        place: Done(place, code=one.code, fault=one.fault)
        for place, one in enumerate(plan.made)
        if one.graph is None
    }
    count = len(plan.made)
    jobs = plan.jobs(job_size(count - len(done), processes)) if len(done) < count else ()
    for one in engine.map(jobs):
        if one.place in done:
            raise InvariantBroken(f"combination {one.place} was run twice.")
        done[one.place] = one
        if told is not None:
            told(len(done), count)
    rows = tuple(
        Row(combination, made.strategy_id, done[place])
        for place, (combination, made) in enumerate(zip(plan.combinations, plan.made, strict=True))
    )
    first = rows[0].done
    if all(one.done.code for one in rows):
        raise NothingSwept(
            f"all {count} combinations failed; the first, {rows[0].combination.told()}: [{first.code}] {first.fault}",
            "Mend the strategy, or give other values.",
        )
    return Swept(plan, rows, sum(one.done.computed for one in rows))


def figures_of(setting: Setting, interval: int | None = None) -> tuple[Figure, ...]:
    """The figures that a row has, with their formulas: those of a run in which nothing was traded.

    Args:
        interval: of the bars, seconds; None where it is not known, and formulas don't count.

    Raises:
        InvalidValue: a convention that does not fit the bars.
    """
    terms, nothing = setting.terms, np.zeros(1)
    step = interval or setting.convention.period or 1
    curve = EquityCurve(
        0, np.array([step * 1000]), nothing + float(terms.cash), nothing, terms.cash, terms.cash
    )
    settings = RunSettings(terms.currency, terms.cash, terms.fee_rate, terms.slippage_rate)
    idle = RunResult("", terms.world_id, (), step, settings, (), (), (), curve)
    return performance_of(idle, setting.convention).figures


def require_figure(name: str, figures: tuple[Figure, ...]) -> Figure:
    """The figure by which a sweep is ranked.

    Raises:
        InvalidSweep: none of that name, or an instant.
    """
    known = [one for one in figures if one.unit is not Unit.INSTANT]
    for one in known:
        if one.name == name:
            return one
    raise InvalidSweep(
        f"there is no figure {name[:60]!r} to rank by.", f"Figures: {', '.join(one.name for one in known)}."
    )
