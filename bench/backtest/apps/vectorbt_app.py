"""The benchmark on vectorbt: run by the Python of its own environment, which has none of our code.

`python vectorbt_app.py JSON`, with bars and out (files of numpy's), strategy and cash; prints one line of JSON. Timed are averages, signals and
the simulation, after one run over the same bars in which numba compiles; what that run took is told apart.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np
import pandas as pd
import vectorbt as vbt

TOUCHING = 1e-6
"""Averages that are nearer to each other are the same, but for what floats make of them: others are three ten-thousandths apart."""


def signals(strategy: str, close: Any) -> tuple[Any, Any]:
    """Where to buy and where to sell; the last bar has no next one to be filled in."""

    def average(length: int) -> Any:
        return vbt.MA.run(close, length).ma.to_numpy()

    if strategy == "ladder":
        fast, slow, slowest = average(10), average(30), average(60)
        up = (fast > slow) & (slow > slowest) & (close.to_numpy() > slowest)
        turned = up != np.concatenate(([False], up[:-1]))
    else:
        apart = average(10) - average(30)
        known = np.abs(apart) > TOUCHING  # nothing is known of lines that touch, and before both are there
        last = np.maximum.accumulate(np.where(known, np.arange(len(apart)), 0))
        up = apart[last] > 0
        turned = up != np.concatenate((up[:1], up[:-1]))
        turned[:30] = False
    turned[-1] = False
    return turned & up, turned & ~up


def run(told: dict[str, Any], close: Any) -> Any:
    entries, exits = signals(told["strategy"], close)
    return vbt.Portfolio.from_signals(
        close, entries, exits, size=1.0, fees=0.001, init_cash=float(told["cash"]), freq="1min"
    )


def main(told: dict[str, Any]) -> None:
    with np.load(told["bars"]) as bars:
        units = bars["close"]
    # Without a zone: with one, vectorbt makes an object of every minute, which takes it 50 times as long.
    minutes = pd.date_range("2020-09-13 12:27", periods=len(units), freq="1min")
    close = pd.Series(units / 100.0, index=minutes)
    begun = time.perf_counter()
    run(told, close)
    first_s = time.perf_counter() - begun
    begun = time.perf_counter()
    found = run(told, close)
    orders = found.orders.records
    seconds = time.perf_counter() - begun
    trades = found.trades.records
    np.savez(
        told["out"],
        price=orders["price"].to_numpy(),
        bought=orders["side"].to_numpy() == 0,
        at=orders["idx"].to_numpy(),
        fee=orders["fees"].to_numpy(),
        size=orders["size"].to_numpy(),
        trade_pnl=trades["pnl"].to_numpy(),
        trade_entry=trades["entry_price"].to_numpy(),
        trade_exit=trades["exit_price"].to_numpy(),
        cash=found.cash().to_numpy(),
    )
    said = {
        "seconds": seconds,
        "first_s": first_s,
        "position": float(found.assets().iloc[-1]),
        "cash_change": float(found.cash().iloc[-1]) - told["cash"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
