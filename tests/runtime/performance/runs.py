"""Small runs to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Fill, Side
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.curve import curve_of
from qmtl.runtime.performance.result import RunResult, RunSettings

MINUTE_MS = 60_000


def columns(symbol: str, closes: Sequence[Decimal | int], start_ms: int = 0) -> BarColumns:
    rows = []
    for at, close in enumerate(map(Decimal, closes)):
        rows.append(
            Bar(symbol, start_ms + at * MINUTE_MS, 60, close, close + 1, close / 2, close, Decimal(1))
        )
    return BarColumns.of(symbol, 60, rows)


def fill(symbol: str, minute: int, side: Side, quantity: str, price: str, fee: str = "0") -> Fill:
    return Fill(
        "w", "s", f"o{minute}{symbol}", 1, symbol, side, Decimal(quantity), Decimal(price), Decimal(fee), "USD", Decimal("0.01"), minute * MINUTE_MS
    )  # fmt: skip


def result(fills: Sequence[Fill], bars: Sequence[BarColumns], cash: str = "1000") -> RunResult:
    settings = RunSettings("USD", Decimal(cash), Decimal("0.001"), Decimal("0.0005"))
    curve = curve_of(settings.initial_cash, fills, bars, 60)
    return RunResult(
        "s",
        "w",
        tuple(one.symbol for one in bars),
        60,
        settings,
        tuple(bars),
        tuple(fills),
        (),
        curve,
        {"as_of": "7"},
    )


def larger(one: Fill, times: int) -> Fill:
    return replace(one, quantity=one.quantity * times, fee=one.fee * times)
