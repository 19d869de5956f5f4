"""Bars of two symbols, the same in every process, and small strategies over them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from random import Random

from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.columns import BarColumns

SYMBOLS = ("BTC-USD", "ETH-USD")
MINUTE_MS = 60_000
START_MS = 1_577_836_800_000
COUNT = 160


def closes_of(symbol: str, count: int = COUNT) -> list[float]:
    return [float(bar.close) for bar in bars_of(symbol, count)]


def bars_of(symbol: str, count: int = COUNT, gaps: Sequence[int] = ()) -> list[Bar]:
    """A walk in cents; the bars at `gaps` are absent."""
    chance = Random(symbol)
    price = 100_00
    out = []
    for at in range(count):
        before = price
        price = max(price + chance.randrange(-60, 61), 1_00)
        high, low = max(price, before) + chance.randrange(20), min(price, before) - chance.randrange(20)
        if at not in gaps:
            open_, top, bottom, close = (Decimal(one) / 100 for one in (before, high, low, price))
            volume = Decimal(chance.randrange(1, 90)) / 10
            out.append(Bar(symbol, START_MS + at * MINUTE_MS, 60, open_, top, bottom, close, volume))
    return out


def market(count: int = COUNT) -> dict[str, BarColumns]:
    """Both symbols; the second lacks some bars."""
    gaps = {"BTC-USD": (), "ETH-USD": (17, 18, 90)}
    return {symbol: BarColumns.of(symbol, 60, bars_of(symbol, count, gaps[symbol])) for symbol in SYMBOLS}
