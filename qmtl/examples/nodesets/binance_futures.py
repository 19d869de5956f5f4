"""A signal, and behind it Binance's contracts in USDT."""

from __future__ import annotations

from qmtl import Strategy, StreamInput, builtin
from qmtl.runtime.nodesets.registry import make

WORLD_ID = "backtest"
"""Of `qmtl backtest` and `simulate`."""


class BinanceFutures(Strategy):
    """Long while the fast average of the closes is above the slow one, short while it is below."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], interval="1m", name="price")
        fast, slow = builtin("sma", price, 5, name="fast"), builtin("sma", price, 20, name="slow")
        cross = builtin("cross", [fast, slow], name="cross")
        signal = builtin("position_target", cross, name="target", long_percent=0.4, short_percent=-0.4)
        nodeset = make("binance_futures", signal, WORLD_ID, portfolio_scope="world")
        self.add_nodes([price, fast, slow, cross, signal, nodeset])
