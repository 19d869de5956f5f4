"""How many strategies a second a sweep makes, and what sharing saves: `python -m bench.sweep [--bars N] [--processes N] [--out FILE]`, kept as JSON.

`w1`: 500 combinations of the crossing of two averages over 100,000 bars of workload W1, in this process with its parts apart, and once more in
processes. `matrix`: 1, 10 and 100 strategies of 20 nodes beside their source, of which they share 0, 50 or 90 %.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from bench.backtest.market import market
from bench.backtest.workload import columns
from bench.engine.run import RESULTS, code, processor
from qmtl import Strategy, StreamInput, builtin
from qmtl.backtest.simulation import Terms
from qmtl.backtest.sweep.asking import Maker
from qmtl.backtest.sweep.job import Setting
from qmtl.backtest.sweep.plan import Plan, plan_of
from qmtl.backtest.sweep.processes import Processes
from qmtl.backtest.sweep.running import JobRunner
from qmtl.backtest.sweep.space import Space, parameter, read_parameter
from qmtl.backtest.sweep.sweep import swept
from qmtl.examples.crossing import Crossing
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.kpi import Convention

SOURCE: Final = "qmtl.examples.crossing:Crossing"
W1: Final = ("fast=2:40:2", "slow=50:290:10")
STRATEGIES: Final = (1, 10, 100)
SHARES: Final = (0.0, 0.5, 0.9)
NODES: Final = 20


class Sharing(Strategy):
    """One of many that have a part of their nodes in common: 18 averages, the crossing of two of them, and a target.

    Args:
        number: which of them it is; its own averages are of other periods than those of any other one.
        share: of its 20 nodes that all have.
    """

    def __init__(self, number: int, share: float) -> None:
        super().__init__()
        self.number, self.own = number, round(NODES * (1 - share))

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        averages = NODES - 2
        mine = self.own - 2
        common = [builtin("sma", price, 50 + 10 * at) for at in range(averages - mine)]
        own = [builtin("sma", price, 300 + self.number * averages + at) for at in range(mine)]
        read = [*own, *common]
        pairs = list(combinations(range(averages), 2))
        first, second = pairs[self.number % len(pairs)]
        cross = builtin("cross", [read[first], read[second]])
        self.add_nodes(
            [price, read, cross, builtin("position_target", cross, long_percent=0.4, short_percent=0)]
        )


class Timed:
    """Seconds of the parts of a run, by their names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun


def in_parts(plan: Plan, bars: Mapping[str, BarColumns], setting: Setting) -> dict[str, Any]:
    """A plan in this process: nodes, intents and trading, and figures apart."""
    timed, runner, fills = Timed(), JobRunner(setting, bars), 0
    begun = time.perf_counter()
    for job in plan.jobs():
        for one in job.asked:
            with timed.part("nodes_s"):
                runner.nodes.of(one.graph)
            with timed.part("trading_s"):
                part, wants = runner.signalled(one.graph)
                outcome = runner.traded(one.graph, part, wants)
            with timed.part("figures_s"):
                runner.judged(one.graph.strategy_id, part, outcome)
            fills += len(outcome.fills)
            runner.nodes.let_go(one.graph, job.shared)
    seconds = time.perf_counter() - begun
    return timed.seconds | {
        "seconds": seconds,
        "strategies": len(plan.made),
        "strategies_per_s": len(plan.made) / seconds,
        "nodes_asked": plan.nodes_asked,
        "nodes_unique": plan.nodes_unique,
        "nodes_computed": runner.nodes.computed,
        "fills": fills,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    asked = argparse.ArgumentParser(prog="python -m bench.sweep", description=__doc__)
    asked.add_argument("--bars", type=int, default=100_000)
    asked.add_argument("--processes", type=int, default=2)
    asked.add_argument("--out", type=Path, default=None)
    options = asked.parse_args(arguments)
    bars = {"BTC-USD": columns(market(options.bars))}
    setting = Setting(Terms(), Convention(), SOURCE)
    result: dict[str, Any] = surroundings() | {"bars": options.bars}
    result["w1"] = w1(bars, setting, options.processes)
    result["matrix"] = [matrix(bars, setting, count, share) for count in STRATEGIES for share in SHARES]
    out = options.out or RESULTS / f"sweep-{result['date']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    print(json.dumps(result["w1"], indent=2, sort_keys=True))
    for one in result["matrix"]:
        print(
            f"{one['strategies']:>4} strategies, {one['share']:.0%} shared: {one['nodes_unique']:>5} of {one['nodes_asked']:>5} nodes,"
            f" nodes {one['nodes_s']:7.2f} s ({1000 * one['nodes_s'] / one['nodes_unique']:.2f} ms each),"
            f" trading {one['trading_s']:7.2f} s, figures {one['figures_s']:6.2f} s"
        )
    print(f"kept in {out.name}")


def w1(bars: Mapping[str, BarColumns], setting: Setting, processes: int) -> dict[str, Any]:
    """500 combinations, in one process and in several."""
    space = Space.of(map(read_parameter, W1))
    begun = time.perf_counter()
    plan = plan_of(space, Maker(Crossing, space, 60))
    planned = time.perf_counter() - begun
    found = in_parts(plan, bars, setting) | {"plan_s": planned, "peak_rss_mb": peak_mb()}
    begun = time.perf_counter()
    engine = Processes(setting, bars, processes)
    try:
        again = swept(plan, engine, processes)
    finally:
        engine.close()
    seconds = time.perf_counter() - begun
    assert again.failed == 0
    assert sum(one.done.fills for one in again.rows) == found["fills"]
    return found | {
        "processes": processes,
        "processes_s": seconds,
        "processes_strategies_per_s": len(plan.made) / seconds,
        "processes_computed": again.computed,
    }


def matrix(bars: Mapping[str, BarColumns], setting: Setting, count: int, share: float) -> dict[str, Any]:
    """So many strategies that share a part of their nodes."""
    space = Space.of([parameter("number", list(range(count))), parameter("share", [share])])
    plan = plan_of(space, Maker(Sharing, space, 60))
    return in_parts(plan, bars, setting) | {"share": share}


def peak_mb() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def surroundings() -> dict[str, Any]:
    """When, on what and with which versions."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {
            "cpus": os.cpu_count(),
            "processor": processor(),
            "python": platform.python_version(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {name: version(name) for name in ("numpy",)} | {"code": code()},
    }


if __name__ == "__main__":
    main()
