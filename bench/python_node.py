"""How many bars a second a Python node takes in a bare loop: the crossing of SMA(10) and SMA(30) as one function, over 100,000 bars.

`python -m bench.python_node`. No log and no worker: the view, the window and the function alone, and with the hash of the input window where
the function gives something.
"""

from __future__ import annotations

import time
from decimal import Decimal
from typing import Final

from qmtl import CacheView
from qmtl.foundation.common.commit_log import input_window_hash
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue
from qmtl.runtime.sdk.python_node import ComputeFn, PythonNode, PythonRunning

BARS: Final = 100_000


def crossing(view: CacheView) -> float | None:
    """1.0 where the fast average rises above the slow one, -1.0 where it falls below."""
    closes = view.window("price", 60, 31).values()
    now = sum(closes[21:]) * 3 - sum(closes[1:])
    before = sum(closes[20:30]) * 3 - sum(closes[:30])
    if now > 0 >= before:
        return 1.0
    if now < 0 <= before:
        return -1.0
    return None


def side(view: CacheView) -> float:
    """1.0 where the fast average is above the slow one, else -1.0: an output at every bar."""
    closes = view.window("price", 60, 30).values()
    return 1.0 if sum(closes[20:]) * 3 > sum(closes) else -1.0


def newest(view: CacheView) -> None:
    """Nothing but a look at the newest close."""
    view["price"][60].latest()


def bars_per_s(function: ComputeFn, period: int) -> float:
    said = {"gives": "value", "when": "all", "ports": ["price"], "bars": 0, "params": {}}
    running = PythonRunning(PythonNode(NodeValue).parse(said, period), 60, function, None)
    closes = [Decimal(10_000 + at * 7919 % 1009) / 100 for at in range(BARS)]
    bars = [Bar("BTC-USD", at * 60_000, 60, one, one, one, one, Decimal(1)) for at, one in enumerate(closes)]
    values = [float(one) for one in closes]
    begun = time.process_time()
    for bar, value in zip(bars, values, strict=True):
        found = running.step((value,), bar)
        if found is not None:
            input_window_hash("BTC-USD", (value,), running.basis(bar))
    return BARS / (time.process_time() - begun)


def main() -> None:
    for function, period in ((newest, 31), (newest, 10_000), (crossing, 31), (side, 30)):
        print(f"{function.__name__} over {period}: {bars_per_s(function, period):,.0f} bars/s")


if __name__ == "__main__":
    main()
