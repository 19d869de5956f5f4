"""Bars of workload W1: a seeded random walk of minute bars, defined so that anybody can make the same ones."""

from __future__ import annotations

import numpy as np

from qmtl.runtime.columns import BarColumns, Floats, Scaled

_PLACES = 2
_START_MS = 1_600_000_020_000 // 60_000 * 60_000


def w1_bars(count: int, symbol: str = "BTC-USD") -> BarColumns:
    """So many bars of the walk: closes `30000 * exp(cumsum(normal(0, 0.0005)))`, rounded to cents, each opening at the close before; highs and
    lows beyond both by `|normal(0, 0.0002)|`; volumes `uniform(1, 10)`, rounded to 8 digits. The draws are those of `default_rng(42)`, in this order."""
    draw = np.random.default_rng(42)
    close = np.round(30_000 * np.exp(np.cumsum(draw.normal(0, 0.0005, count))), _PLACES)
    open_ = np.concatenate(([30_000.0], close[:-1]))
    high = np.round(np.maximum(open_, close) * (1 + np.abs(draw.normal(0, 0.0002, count))), _PLACES)
    low = np.round(np.minimum(open_, close) * (1 - np.abs(draw.normal(0, 0.0002, count))), _PLACES)
    volume = draw.uniform(1, 10, count)
    times = _START_MS + np.arange(count, dtype=np.int64) * 60_000
    made = BarColumns(
        symbol, 60, times, _cents(open_), _cents(high), _cents(low), _cents(close), _scaled(volume, 8)
    )
    made.require_sound()
    return made


def _cents(prices: Floats) -> Scaled:
    return _scaled(prices, _PLACES)


def _scaled(values: Floats, places: int) -> Scaled:
    return Scaled(np.rint(values * 10**places).astype(np.int64), places)
