"""A strategy with parameters: what `qmtl sweep` tries many values of."""

from __future__ import annotations

from qmtl import Strategy, StreamInput, builtin


class Crossing(Strategy):
    """Long while the fast average of the closes is above the slow one, short while it is below.

    Args:
        fast, slow: how many closes each average is of.
        share: of the equity that is held.
    """

    def __init__(self, fast: int = 30, slow: int = 120, share: float = 0.4) -> None:
        super().__init__()
        self.fast, self.slow, self.share = fast, slow, share

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], name="price")
        fast = builtin("sma", price, self.fast, name="fast")
        slow = builtin("sma", price, self.slow, name="slow")
        cross = builtin("cross", [fast, slow], name="cross")
        target = builtin(
            "position_target", cross, name="target", long_percent=self.share, short_percent=-self.share
        )
        self.add_nodes([price, fast, slow, cross, target])
