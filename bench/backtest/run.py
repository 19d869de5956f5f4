"""Backtests beside those of other engines: `python -m bench.backtest.run [--parts …] [--peers …] [--long] [--out FILE]`, kept as JSON.

A figure is there only where the fills are those of an independent count (`bench.backtest.count`), with position and cash: ours to the last
digit, those of others as near as their own digits come, which is told. What was not asked for is missing, and what could not be measured
stands under `left_out` with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.backtest import floats, orders, sharing, through, workload
from bench.backtest import rounds as runs
from bench.backtest.count import expected
from bench.backtest.market import market
from bench.backtest.ours import Asked, market_of
from bench.backtest.ours import run as run_ours
from bench.backtest.peers import PEERS
from bench.engine.gauge import Failed
from bench.engine.run import RESULTS, code, processor
from qmtl.testing.broker import any_broker

PARTS: Final = ("w1", "orders", "sharing", "log", "world")
ORDERS: Final = (1_000, 10_000, 100_000)
MORE_ORDERS: Final = 1_000_000


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="python -m bench.backtest.run", description=__doc__)
    asked.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    asked.add_argument(
        "--peers", default=",".join(one.name for one in PEERS), help="some of them; none where empty"
    )
    asked.add_argument("--bars", type=int, default=100_000, help="of W1")
    asked.add_argument("--rounds", type=int, default=3, help="of what takes long; the rest is run five times")
    asked.add_argument("--orders", type=int, nargs="+", default=list(ORDERS), help="ascending")
    asked.add_argument("--long", action="store_true", help=f"{MORE_ORDERS:,} orders, too")
    asked.add_argument("--many", type=int, nargs="+", default=list(sharing.MANY), help="strategies in a run")
    asked.add_argument("--sharing-bars", type=int, default=20_000)
    asked.add_argument("--log-bars", type=int, default=5_000, help="that go through a broker")
    asked.add_argument(
        "--world-strategies", type=int, default=500, help="of one world, through one embedded log"
    )
    asked.add_argument("--world-bars", type=int, default=200)
    asked.add_argument("--out", type=Path, default=None)
    return asked.parse_args(arguments)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All figures of the parts that were asked for.

    Raises:
        Failed: W1 of ours does not come to what was counted, or an unknown part or peer.
    """
    parts = [part for part in asked.parts.split(",") if part]
    if unknown := sorted({*parts} - {*PARTS}):
        raise Failed(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    names = [name for name in asked.peers.split(",") if name]
    runs.peers_named(names)
    left_out: dict[str, str] = {}
    result: dict[str, Any] = {**surroundings(asked), "left_out": left_out}
    if "w1" in parts:
        result |= workload_one(asked, names, left_out)
    counts = [*asked.orders, MORE_ORDERS] if asked.long else asked.orders
    rounds = asked.rounds
    independent: dict[str, Callable[[], dict[str, Any]]] = {
        "orders": lambda: orders.measure(counts, rounds, say),
        "sharing": lambda: sharing.measure(asked.sharing_bars, asked.many, names, rounds, left_out, say),
        "log": lambda: logs(asked.log_bars),
        "world": lambda: one_world(asked.world_strategies, asked.world_bars),
    }
    for part, run in independent.items():
        if part in parts:
            try:
                result[part] = run()
            except Failed as failure:
                left_out[part] = str(failure)
                say(f"LEFT OUT {part}: {failure}")
    return result


def workload_one(asked: argparse.Namespace, names: Sequence[str], left_out: dict[str, str]) -> dict[str, Any]:
    """W1 by ours and by the peers, and the difference of our exact numbers to floats."""
    data = market(asked.bars)
    want = expected("cross", data)
    rounds = asked.rounds if asked.rounds < 2 else max(asked.rounds, runs.QUICK_ROUNDS)
    builtin = runs.ours(Asked("cross", asked.bars, recorded=True, again=True), want, rounds)
    say(f"ours, built-in nodes, {builtin['rows']} rows on a log: {builtin['bars_per_s']:,.0f} bars/s")
    memory = runs.ours(Asked("cross", asked.bars), want, rounds)
    say(f"ours, built-in nodes, all rows in memory: {memory['bars_per_s']:,.0f} bars/s")
    python = runs.ours(Asked("cross", asked.bars, recorded=True, python=True), want, asked.rounds)
    say(f"ours, functions in Python, {python['rows']} rows on a log: {python['bars_per_s']:,.0f} bars/s")
    found: dict[str, Any] = {
        "w1_bars": asked.bars,
        "w1_fills": want.fills,
        "w1_builtin_bars_per_s": builtin["bars_per_s"],
        "w1_builtin_again_bars_per_s": asked.bars / builtin["again_s"],
        "w1_builtin_in_memory_bars_per_s": memory["bars_per_s"],
        "w1_python_bars_per_s": python["bars_per_s"],
    }
    rows = {"builtin": builtin, "builtin_in_memory": memory, "python": python}
    others = runs.each_peer(names, data, "cross", asked.rounds, left_out, say)
    for name, (told, _) in others.items():
        rows[name] = told
        found[f"w1_{name}_bars_per_s"] = told["bars_per_s"]
        found[f"w1_vs_{name}"] = builtin["bars_per_s"] / told["bars_per_s"]
    if "vectorbt" in others:
        asked_once = Asked("cross", asked.bars)
        mine = run_ours(asked_once, market_of(asked_once))
        try:
            found["w1_floats"] = floats.compare(mine.fills(), others["vectorbt"][1])
        except Failed as failure:
            left_out["floats"] = str(failure)
            say(f"LEFT OUT floats: {failure}")
    return {**found, "w1": rows}


def logs(bars: int) -> dict[str, Any]:
    """W1 through the processors on both logs, and by the backtest over columns; all of them order and fill the same.

    Raises:
        Failed: they do not.
    """
    with tempfile.TemporaryDirectory(prefix="bench-backtest-") as name:
        place = Path(name)
        where = f"embedded:{place / 'log'}"
        asked = Asked("cross", bars)
        embedded = through.measure(where, place / "embedded", asked, "embedded log")
        say(f"through the embedded log: {embedded['bars_per_s']:,.0f} bars/s")
        with any_broker(lasting=True) as bootstrap:
            address = f"kafka://{bootstrap}/bench-{os.getpid()}-{time.time_ns()}"
            kafka = through.measure(address, place / "kafka", asked, "Kafka")
        say(f"through Kafka: {kafka['bars_per_s']:,.0f} bars/s")
    want = expected("cross", market(bars))
    columns = runs.ours(Asked("cross", bars, recorded=True), want, runs.QUICK_ROUNDS)
    return {
        "bars": bars,
        "kafka": kafka,
        "embedded": embedded,
        "columns_s": columns["seconds"],
        "kafka_to_embedded": kafka["seconds"] / embedded["seconds"],
        "kafka_to_columns": kafka["seconds"] / columns["seconds"],
    }


def one_world(strategies: int, bars: int) -> dict[str, Any]:
    """Many strategies of one world, that share half of their nodes, through all processors in one process; they order what the backtest says.

    Raises:
        Failed: they do not.
    """
    asked = Asked("ladder", bars, 0, strategies, 50)
    with tempfile.TemporaryDirectory(prefix="bench-backtest-") as name:
        place = Path(name)
        found = through.measure(f"embedded:{place / 'log'}", place / "state", asked, "one world")
    say(
        f"{strategies} strategies in one world: deployed in {found['published_s']:.1f} s, {found['bars_per_s']:.1f} bars/s"
    )
    nodes = workload.unique_nodes(strategies, 50)
    return {"strategies": strategies, "bars": bars, "nodes": nodes, **found}


def surroundings(asked: argparse.Namespace) -> dict[str, Any]:
    """When, on what and with which versions and options."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {
            "cpus": os.cpu_count(),
            "processor": processor(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {name: version(name) for name in ("numpy", "fastavro", "rocksdict")}
        | {"kafka": "4.3.1", "code": code()},
        "options": {name: str(value) for name, value in vars(asked).items() if name != "out"},
    }


def summary(result: Mapping[str, Any]) -> list[str]:
    """The single figures, and what was left out, as lines for a person."""
    lines = [
        _line(name, value)
        for name, value in result.items()
        if name.startswith("w1_") and not isinstance(value, dict)
    ]
    for part, names in (
        ("w1_floats", ("price_ulps", "fee_ulps", "pnl_ulps_of_price", "pnl_ulps_of_itself", "cash_ulps")),
        (
            "orders",
            ("cpu_us_last_to_first", "cpu_us_last_to_before", "kb_last_to_first", "kb_last_to_before"),
        ),
        ("log", ("kafka_to_embedded", "kafka_to_columns")),
        ("world", ("strategies", "published_s", "bars_per_s", "orders", "peak_mb")),
    ):
        lines += [_line(f"{part}: {name}", result[part][name]) for name in names if part in result]
    if "sharing" in result:
        found = result["sharing"]
        for shared, by_many in found["ours"].items():
            told = ", ".join(f"{many}: {row['strategies_per_s']:.1f}" for many, row in by_many.items())
            lines.append(f"{shared} % shared, strategies/s by their number: {told}")
        for name, row in found["one_by_one"].items():
            lines.append(f"{name}, one by one: {row['strategies_per_s']:.2f} strategies/s")
    return [*lines, *(f"LEFT OUT {name}: {reason}" for name, reason in result["left_out"].items())]


def _line(name: str, value: float | None) -> str:
    return f"{name:<30} {'not measured' if value is None else f'{value:,.2f}'}"


def main(arguments: Sequence[str] | None = None) -> int:
    asked = options(arguments)
    try:
        result = measure(asked)
    except Failed as failure:
        print(f"no figures: {failure}", file=sys.stderr)
        return 1
    out = asked.out or RESULTS / f"backtest-{result['date']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    for line in summary(result):
        print(line)
    print(f"kept in {out.name}")
    return 1 if {*PARTS} & result["left_out"].keys() else 0


if __name__ == "__main__":
    sys.exit(main())
