"""One run of our backtest in a process of its own: `python -m bench.backtest.ours JSON` prints what it took and what came out, as JSON.

Timed is all that somebody gets from a run: the messages are admitted, each node is computed, and intents go through gates, sizing and
execution into orders, fills, positions and accounts. Imports, and the making of the bars, are not.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from bench.backtest import workload
from bench.backtest.count import CASH_PLACES, Expected, expected
from bench.backtest.market import INTERVAL, PRICE_PLACES, START_MS, Market, market
from qmtl.backtest.run import Run
from qmtl.backtest.signals import Nodes
from qmtl.backtest.simulation import Simulated, simulate
from qmtl.foundation.contracts.trade import Account, Fill, Position, Side


@dataclass(frozen=True, slots=True)
class Asked:
    """What is run.

    Attributes:
        strategy: a name out of `bench.backtest.count.HOLDINGS`.
        bars: how many.
        of: how many bars the market has before it begins again; 0, as many as there are bars.
        many: strategies in the run; of ladders there may be several.
        shared: per cent of the nodes that these have in common.
    """

    strategy: str
    bars: int
    of: int = 0
    many: int = 1
    shared: int = 0


def market_of(asked: Asked) -> Market:
    if asked.of:
        return market(asked.of).repeated(asked.bars)
    return market(asked.bars)


def run(asked: Asked, data: Market) -> tuple[Simulated, float]:
    """What came out, and the seconds that it took."""
    share = workload.share_of_one(data)
    symbols = workload.symbols_of(asked.many, asked.shared)
    bars = {symbol: workload.columns(data, symbol) for symbol in symbols}
    if asked.strategy == "ladder":
        messages = workload.ladders(asked.many, asked.shared, share)
    else:
        messages = [workload.message(asked.strategy, share)]
    terms = workload.terms(symbols)
    begun = time.perf_counter()
    found = simulate(messages, bars, terms, fingerprint=workload.FINGERPRINT)
    return found, time.perf_counter() - begun


def nodes_alone(found: Simulated) -> float:
    """The seconds that the nodes of a run take by themselves, computed anew."""
    begun = time.perf_counter()
    nodes = Nodes(found.bars)
    for graph in found.graphs:
        nodes.of(graph)
    return time.perf_counter() - begun


def fault(found: Run, want: Expected, strategies: int) -> str | None:
    """What is not as it was counted, exactly and to the last digit; None where all of it is."""
    book = found.book
    if book.rejections:
        return f"an intent was rejected: {book.rejections[0]}"
    by_strategy: dict[str, list[Fill]] = {one: [] for one in book.strategies}
    for fill in book.fills:
        by_strategy[fill.strategy_id].append(fill)
    if len(by_strategy) != strategies:
        return f"{len(by_strategy)} strategies have an account; there were {strategies}"
    rows = list(book.rows())
    for strategy_id, fills in by_strategy.items():
        mine = [row for row in rows if row.scope == f"strategy:{strategy_id}"]
        if (wrong := _fault_of_one(fills, mine, want)) is not None:
            return f"{strategy_id}: {wrong}"
    return None


def _fault_of_one(fills: Sequence[Fill], rows: Sequence[Account | Position], want: Expected) -> str | None:
    if len(fills) != want.fills:
        return f"{len(fills)} fills, counted were {want.fills}"
    for number, (fill, at, units) in enumerate(
        zip(fills, want.at.tolist(), want.price.tolist(), strict=True)
    ):
        price = Decimal(units).scaleb(-PRICE_PLACES)
        must = (
            Side.SELL if number % 2 else Side.BUY,
            workload.UNIT,
            price,
            price * workload.FEE_RATE,
            START_MS + (at + 1) * INTERVAL * 1000,
        )
        if (fill.side, fill.quantity, fill.price, fill.fee, fill.fill_time_ms) != must:
            return f"fill {number + 1} is {fill}, counted was {must}"
    held = sum((row.quantity for row in rows if isinstance(row, Position)), Decimal(0))
    if held != want.position:
        return f"{held} units are held at the end, counted were {want.position}"
    (account,) = [row for row in rows if isinstance(row, Account)]
    cash = account.cash - workload.CASH
    if cash != Decimal(want.cash).scaleb(-CASH_PLACES):
        return f"cash has changed by {cash}, counted was {Decimal(want.cash).scaleb(-CASH_PLACES)}"
    return None


def measure(asked: Asked) -> dict[str, Any]:
    """Seconds, fills and megabytes of a run, and what is wrong with it; what it has grown by are the bars in columns and all that came out."""
    data = market_of(asked)
    gc.collect()
    before_mb, before_s = memory_mb(), time.process_time()
    simulated, seconds = run(asked, data)
    cpu_s, after_mb = time.process_time() - before_s, memory_mb()
    found = simulated.run
    return {
        "seconds": seconds,
        "cpu_s": cpu_s,
        "fills": len(found.book.fills),
        "orders": len(found.book.orders),
        "computed": found.computed,
        "nodes_s": nodes_alone(simulated),
        "peak_mb": peak_mb(),
        "grown_mb": after_mb - before_mb,
        "fault": fault(found, expected(asked.strategy, data), asked.many),
    }


def memory_mb() -> float:
    """Megabytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """The most that it has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(measure(Asked(**json.loads(sys.argv[1])))))
