"""Small sweeps for the tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from bench.backtest.market import market
from bench.backtest.workload import columns
from qmtl import Strategy
from qmtl.backtest.simulation import Terms
from qmtl.backtest.sweep.asking import Maker
from qmtl.backtest.sweep.job import KEPT_BYTES, Done, Job, Setting
from qmtl.backtest.sweep.plan import Plan, plan_of
from qmtl.backtest.sweep.processes import Here
from qmtl.backtest.sweep.space import Space, read_condition, read_parameter
from qmtl.backtest.sweep.sweep import Swept, figures_of, swept
from qmtl.interfaces.report.export import write_csv
from qmtl.interfaces.report.sweep_table import results_of
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.kpi import Convention
from tests.backtest.sweep.authored import Cross

BARS = 400
SETTING = Setting(Terms(), Convention())


@cache
def bars() -> Mapping[str, BarColumns]:
    """Two walks of which the second begins later."""
    first = columns(market(BARS))
    return {"BTC-USD": first, "ETH-USD": columns(market(BARS + 50), "ETH-USD").chunk(100, BARS)}


def plan(*parameters: str, where: Sequence[str] = (), strategy: type[Strategy] = Cross) -> Plan:
    space = Space.of(map(read_parameter, parameters), map(read_condition, where))
    return plan_of(space, Maker(strategy, space, 60))


class Sized(Here):
    """The engine of this process, with the jobs cut anew."""

    def __init__(self, setting: Setting, over: Mapping[str, BarColumns], jobs: Sequence[Job]) -> None:
        super().__init__(setting, over)
        self.jobs = jobs

    def map(self, jobs: Sequence[Job]) -> Iterator[Done]:
        return super().map(self.jobs)


def run(made: Plan, size: int = 16, kept_bytes: int = KEPT_BYTES, *, backwards: bool = False) -> Swept:
    """In this process, by jobs of a size."""
    jobs = made.jobs(size)
    setting = replace(SETTING, kept_bytes=kept_bytes)
    return swept(made, Sized(setting, bars(), jobs[::-1] if backwards else jobs))


def csv_of(found: Swept, directory: Path) -> bytes:
    """The bytes of its table."""
    path = directory / "results.csv"
    write_csv(results_of(found, figures_of(SETTING, 60)), path)
    return path.read_bytes()
