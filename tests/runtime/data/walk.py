"""Bars that differ everywhere, exact and the same each time."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.columns import BarColumns

SYMBOL = "BTC/USD"
START_MS = 1_522_800_000_000


def minute(at: int) -> Bar:
    low = Decimal(7000 + at % 90) + Decimal(at % 7) / 4
    close = low + Decimal(at % 11) / 8
    return Bar(SYMBOL, START_MS + at * 60_000, 60, low, close + 1, low, close, Decimal(at % 13) / 1000)


def walk(begin: int, end: int) -> BarColumns:
    """Of these minutes; of every tenth there is no bar."""
    return of([minute(at) for at in range(begin, end) if at % 10 != 9])


def of(bars: Sequence[Bar]) -> BarColumns:
    return BarColumns.of(SYMBOL, 60, bars)


def as_csv(path: Path, bars: Sequence[Bar]) -> Path:
    rows = [f"{bar.open_time_ms},{bar.open},{bar.high},{bar.low},{bar.close},{bar.volume}\n" for bar in bars]
    path.write_text("open_time_ms,open,high,low,close,volume\n" + "".join(rows))
    return path
