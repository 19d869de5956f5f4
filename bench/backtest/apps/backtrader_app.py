"""The benchmark on backtrader: run by the Python of its own environment, which has none of our code.

`python backtrader_app.py JSON`, with bars and out (files of numpy's), strategy and cash; prints one line of JSON. Timed is `Cerebro.run`, as it
is fastest: without its own statistics, bars preloaded, indicators over the whole run at once.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import backtrader as bt
import numpy as np

MINUTES_A_DAY = 1440
FIRST_DAY = 737_681.0
"""Any, as backtrader counts them."""


class Bars(bt.feed.DataBase):
    """The bars as they lie in lists."""

    def __init__(self, columns: dict[str, list[float]]) -> None:
        super().__init__()
        self._columns = columns
        self._at = 0

    def start(self) -> None:
        super().start()
        self._at = 0

    def _load(self) -> bool:
        at, columns = self._at, self._columns
        if at == len(columns["close"]):
            return False
        self.lines.datetime[0] = FIRST_DAY + at / MINUTES_A_DAY
        self.lines.open[0] = columns["open"][at]
        self.lines.high[0] = columns["high"][at]
        self.lines.low[0] = columns["low"][at]
        self.lines.close[0] = columns["close"][at]
        self.lines.volume[0] = columns["volume"][at]
        self.lines.openinterest[0] = 0.0
        self._at = at + 1
        return True


class Cross(bt.Strategy):
    def __init__(self) -> None:
        fast = bt.ind.SMA(self.data.close, period=10)
        slow = bt.ind.SMA(self.data.close, period=30)
        self.turn = bt.ind.CrossOver(fast, slow)

    def next(self) -> None:
        turn = self.turn[0]
        if turn > 0 and not self.position:
            self.buy(size=1)
        elif turn < 0 and self.position:
            self.sell(size=1)


class Ladder(bt.Strategy):
    def __init__(self) -> None:
        self.fast, self.slow, self.slowest = (
            bt.ind.SMA(self.data.close, period=length) for length in (10, 30, 60)
        )

    def next(self) -> None:
        slowest = self.slowest[0]
        up = self.fast[0] > self.slow[0] > slowest and self.data.close[0] > slowest
        if up and not self.position:
            self.buy(size=1)
        elif not up and self.position:
            self.sell(size=1)


def main(told: dict[str, Any]) -> None:
    with np.load(told["bars"]) as bars:
        prices = {name: (bars[name] / 100.0).tolist() for name in ("open", "high", "low", "close")}
        columns = {**prices, "volume": (bars["volume"] / 1e6).tolist()}
    cerebro = bt.Cerebro(stdstats=False)
    cerebro.adddata(Bars(columns))
    cerebro.broker.setcash(float(told["cash"]))
    cerebro.broker.setcommission(0.001)
    cerebro.addstrategy({"cross": Cross, "ladder": Ladder}[told["strategy"]])
    begun = time.perf_counter()
    cerebro.run()
    seconds = time.perf_counter() - begun
    filled = [one for one in cerebro.broker.orders if one.executed.size]
    np.savez(
        told["out"],
        price=np.array([one.executed.price for one in filled]),
        bought=np.array([one.isbuy() for one in filled], dtype=np.bool_),
        # The bar before the one in which it was filled is the one at which it was placed.
        at=np.array([round((one.executed.dt - FIRST_DAY) * MINUTES_A_DAY) - 1 for one in filled]),
        fee=np.array([one.executed.comm for one in filled]),
    )
    said = {
        "seconds": seconds,
        "position": float(sum(one.executed.size for one in filled)),
        "cash_change": cerebro.broker.getcash() - told["cash"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
