"""One run of our backtest in a process of its own: `python -m bench.backtest.ours JSON` prints what it took and what came out, as JSON.

Timed is the first run of the process and all that somebody gets from a run: the messages are admitted, each node is computed, and intents go through gates, sizing and
execution into orders, fills, positions and accounts. Imports, and the making of the bars, are not.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from bench.backtest import authored, workload
from bench.backtest.count import CASH_PLACES, Expected, expected
from bench.backtest.market import INTERVAL, PRICE_PLACES, START_MS, Market, market
from qmtl.backtest.recording import Recorder
from qmtl.backtest.run import Run
from qmtl.backtest.signals import Nodes
from qmtl.backtest.simulation import Simulated, simulate
from qmtl.bootstrap import open_log
from qmtl.engine.log.port import Log
from qmtl.foundation.contracts.trade import Account, Fill, Order, Position, Side
from qmtl.runtime.sdk.functions import Functions

FUNCTIONS: Final = Functions(["bench"])


@dataclass(frozen=True, slots=True)
class Asked:
    """What is run.

    Attributes:
        strategy: a name out of `bench.backtest.count.HOLDINGS`.
        bars: how many.
        of: how many bars the market has before it begins again; 0, as many as there are bars.
        many: strategies in the run; of ladders there may be several.
        shared: per cent of the nodes that these have in common.
        python: the nodes are functions of an author's (`bench.backtest.authored`), and not built in; of `cross` alone.
        recorded: every row is written to an embedded log; else all are messages in memory in the end.
        again: a second run follows in the same process, whose seconds are told beside those of the first.
    """

    strategy: str
    bars: int
    of: int = 0
    many: int = 1
    shared: int = 0
    recorded: bool = False
    python: bool = False
    again: bool = False


def market_of(asked: Asked) -> Market:
    if asked.of:
        return market(asked.of).repeated(asked.bars)
    return market(asked.bars)


@dataclass(frozen=True, slots=True)
class Ran:
    """A run that is done.

    Attributes:
        recorder: has written the rows to a log; None where all are in memory.
    """

    done: Simulated
    seconds: float
    recorder: Recorder | None

    @property
    def run(self) -> Run:
        return self.done.run

    def fills(self) -> list[Fill]:
        """All strategies', each one's in their order."""
        return self.run.fills if self.recorder is None else list(self.recorder.read("trade.fills"))

    def orders(self) -> list[Order]:
        """All strategies', each in its last state."""
        if self.recorder is None:
            return list(self.run.orders.values())
        return list({one.order_id: one for one in self.recorder.read("trade.orders")}.values())

    def ordered(self) -> int:
        """How many orders there are."""
        if self.recorder is None:
            return len(self.run.orders)
        return len({one.order_id for one in self.recorder.read("trade.orders")})


def messages_of(asked: Asked, data: Market) -> list[bytes]:
    """What is published: a message for each strategy."""
    share = workload.share_of_one(data)
    if asked.strategy == "ladder":
        return workload.ladders(asked.many, asked.shared, share)
    return [authored.message(share) if asked.python else workload.message(asked.strategy, share)]


def run(asked: Asked, data: Market, log: Log | None = None) -> Ran:
    """A run, timed from the first message to the last row: a record that is committed, or a message in memory.

    Args:
        log: an empty one, to which the rows are written.
    """
    symbols = workload.symbols_of(asked.many, asked.shared)
    bars = {symbol: workload.columns(data, symbol) for symbol in sorted(symbols)}
    messages = messages_of(asked, data)
    terms = workload.terms(symbols)
    recorder = None if log is None else Recorder(log)
    begun = time.perf_counter()
    found = simulate(
        messages,
        bars,
        terms,
        fingerprint=workload.FINGERPRINT,
        functions=FUNCTIONS,
        recorder=recorder,
    )
    if recorder is None:
        for one in found.run.outcomes:
            _ = one.intents, one.orders, one.fills, one.rejections, list(one.rows())
    else:
        recorder.close()
    seconds = time.perf_counter() - begun
    return Ran(found, seconds, recorder)


def nodes_alone(found: Ran) -> float:
    """The seconds that the nodes of a run take by themselves, computed anew."""
    begun = time.perf_counter()
    nodes = Nodes(found.done.bars, FUNCTIONS)
    for graph in found.done.graphs:
        nodes.of(graph)
    return time.perf_counter() - begun


def fault(found: Ran, want: Expected, filled: Sequence[Fill] | None = None) -> str | None:
    """What is not as it was counted, exactly and to the last digit; None where all of it is.

    Args:
        filled: its fills, where they were read already.
    """
    if found.run.faults:
        return f"a node has failed: {found.run.faults[0]}"
    for strategy_id, fills, rows in _by_strategy(found, found.fills() if filled is None else filled):
        if (wrong := _fault_of_one(fills, rows, want)) is not None:
            return f"{strategy_id}: {wrong}"
    return None


def _by_strategy(
    found: Ran, filled: Sequence[Fill]
) -> Iterator[tuple[str, Sequence[Fill], Sequence[Account | Position]]]:
    """Each strategy with its fills and its rows of the portfolio."""
    fills: dict[str, list[Fill]] = {one.strategy_id: [] for one in found.done.graphs}
    for fill in filled:
        fills[fill.strategy_id].append(fill)
    for graph, outcome in zip(found.done.graphs, found.run.outcomes, strict=True):
        yield graph.strategy_id, fills[graph.strategy_id], list(outcome.rows())


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
    with tempfile.TemporaryDirectory(prefix="bench-backtest-") as name:
        place = Path(name)
        with _log(asked, place / "first") as log:
            gc.collect()
            before_mb, before_s = memory_mb(), time.process_time()
            found = run(asked, data, log)
            cpu_s, after_mb, most_mb = time.process_time() - before_s, memory_mb(), peak_mb()
            fills = found.fills()
            told = {
                "seconds": found.seconds,
                "cpu_s": cpu_s,
                "fills": len(fills),
                "orders": found.ordered(),
                "rows": 0 if found.recorder is None else found.recorder.rows,
                "computed": found.run.computed,
                "nodes_s": nodes_alone(found),
                "peak_mb": most_mb,
                "grown_mb": after_mb - before_mb,
                "columns_mb": columns_mb(found),
                "fault": fault(found, expected(asked.strategy, data), fills),
            }
        if asked.again:
            with _log(asked, place / "again") as log:
                told["again_s"] = run(asked, data, log).seconds
    return told


@contextmanager
def _log(asked: Asked, place: Path) -> Iterator[Log | None]:
    """An embedded log of its own, where rows are to be written."""
    log = open_log(f"embedded:{place}") if asked.recorded else None
    try:
        yield log
    finally:
        if log is not None:
            log.close()


def columns_mb(found: Ran) -> float:
    """Megabytes of the bars of a run, and of the values of its nodes: what it holds whatever is ordered."""
    total = 0
    for bars in found.done.bars.values():
        prices = (bars.open, bars.high, bars.low, bars.close, bars.volume)
        total += bars.open_time_ms.nbytes + sum(one.units.nbytes for one in prices)
    values = len(next(iter(found.done.bars.values()))) * 9  # a float, and whether it is there
    return (total + found.run.computed * values) / 1e6


def memory_mb() -> float:
    """Megabytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_mb() -> float:
    """The most that it has had; what `getrusage` tells has been that of the process which made this one, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError("the system does not tell the memory of a process")


if __name__ == "__main__":
    print(json.dumps(measure(Asked(**json.loads(sys.argv[1])))))
