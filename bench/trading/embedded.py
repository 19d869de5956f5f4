"""Orders a second of one task on the embedded log, with every record of it written, beside the log alone.

What is timed is trading: its inputs are written before, some buckets at a time. The floor is the same log that is given the records
that trading wrote, byte for byte and as many to a transaction, by whoever need not think: what is left above it is gate, sizing, execution,
books, and reading.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from bench.engine.gauge import Failed
from bench.trading import workload
from bench.trading.workload import CASH, Size, Source
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.trade import Account, Fill, Side
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.services.trading.processor import Trading

AHEAD: Final = 4000
"""Orders whose intents are written before trading goes on."""

WARM_UP: Final = 4000
"""Orders that are not counted: the first ones compile what reads and writes messages."""

FLOOR_MOST: Final = 100_000
"""Orders up to which the log alone is measured: its records are held in memory meanwhile."""

_MARKS: Final = (10_000, 30_000, 100_000, 300_000, 1_000_000)


def run(place: Path, size: Size) -> dict[str, Any]:
    """Orders a second, and how the cost of one went as they became more.

    Raises:
        Failed: what was ordered and filled is not what was counted, or money is not conserved.
    """
    log = EmbeddedLog(place / "log")
    log.ensure_topics(CATALOGUE)
    worker = Worker(log, Trading, codec, TaskSettings(place / "tasks"))
    source = Source(log.writer("bench"))
    try:
        source.write(0, workload.first(size))
        course = _course(worker, source, size)
        _check(log, size)
        floor_s = _floor(log, place / "floor") if size.orders <= FLOOR_MOST else None
    finally:
        worker.close()
        log.close()
    counted = [one for one in course if one[0] > WARM_UP]
    begun = max(one for one in course if one[0] <= WARM_UP)
    orders, seconds = counted[-1][0] - begun[0], counted[-1][1] - begun[1]
    return {
        "strategies": size.strategies,
        "symbols": size.symbols,
        "orders": size.orders,
        "orders_per_s": orders / seconds,
        "us_per_order": seconds / orders * 1e6,
        "cost_us_by_orders": _by_orders(course),
        "log_alone_orders_per_s": None if floor_s is None else size.orders / floor_s,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _course(worker: Worker, source: Source, size: Size) -> list[tuple[int, float]]:
    """After each stretch: how many orders, and the seconds of trading so far."""
    per_bucket = size.strategies * size.symbols
    stretch = max(1, AHEAD // per_bucket)
    seconds, course = 0.0, [(0, 0.0)]
    for begin in range(1, size.buckets + 1, stretch):
        numbers = range(begin, min(begin + stretch, size.buckets + 1))
        for number in numbers:
            source.write(number, list(workload.bucket(size, number)))
        begun = time.perf_counter()
        while worker.step():
            pass
        seconds += time.perf_counter() - begun
        course.append((numbers[-1] * per_bucket, seconds))
    return course


def _by_orders(course: list[tuple[int, float]]) -> dict[str, float]:
    """Microseconds of an order over the second half of so many."""
    out = {}
    for mark in _MARKS:
        before = [one for one in course if one[0] <= mark]
        if not before or before[-1][0] < mark * 0.75:
            continue
        first = max(one for one in course if one[0] <= mark * 0.5)
        orders = before[-1][0] - first[0]
        if orders:
            out[str(mark)] = (before[-1][1] - first[1]) / orders * 1e6
    return out


def _check(log: EmbeddedLog, size: Size) -> None:
    """Count anew, and add up the money from the fills alone."""
    orders = sum(1 for _ in TableView(log, "trade.orders", codec).refresh().rows())
    fills = 0
    moved: Fraction = Fraction(0)
    for record in read_all(log, all_partitions(log, "trade.fills")):
        if record.value is None or record.key[:1] == b"\x00":
            continue
        fill: Fill = codec.decode(record.value)
        worth = Fraction(fill.quantity) * Fraction(fill.price)
        moved += (worth if fill.side is Side.SELL else -worth) - Fraction(fill.fee)
        fills += 1
    if (orders, fills) != (size.orders, size.fills):
        raise Failed(
            f"{orders} orders and {fills} fills came of {size.orders} and {size.fills} that were counted"
        )
    rows = TableView(log, "trade.portfolio", codec).refresh().rows()
    cash = sum((Fraction(row.cash) for row in rows if isinstance(row, Account)), Fraction(0))
    if cash != size.strategies * Fraction(CASH) + moved:
        raise Failed(f"the accounts hold {cash}, their fills say {size.strategies * Fraction(CASH) + moved}")


def _floor(log: EmbeddedLog, place: Path) -> float:
    """The seconds in which the log alone takes what trading wrote."""
    records: Mapping[str, list[Any]] = {
        name: list(read_all(log, all_partitions(log, name))) for name in (*Trading.tables, *Trading.emits)
    }
    most = max(len(found) for found in records.values())
    other = EmbeddedLog(place)
    other.ensure_topics(CATALOGUE)
    writer = other.writer("floor")
    begun = time.perf_counter()
    for at in range(0, most, AHEAD):
        writer.begin()
        for name, found in records.items():
            share = len(found) * AHEAD // most + 1
            for record in found[at // AHEAD * share : (at // AHEAD + 1) * share]:
                writer.append(name, record.partition, record.key, record.value)
        writer.commit({}, "floor", None)
    seconds = time.perf_counter() - begun
    writer.close()
    other.close()
    return seconds
