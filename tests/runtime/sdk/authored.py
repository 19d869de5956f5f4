"""Compute functions and strategies of an author, for the tests: a worker finds them by this module's name."""

from __future__ import annotations

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target
from qmtl.runtime.sdk.builtins import builtin

LONG, SHORT = Target(0.4), Target(-0.4)


def average(view: CacheView) -> float:
    """The mean of the whole window."""
    return view[0][60].newest(view.params["length"]).mean()


def side(view: CacheView) -> Target:
    """Long above zero, else short."""
    _, sign = view["turn"][60][-1]
    return LONG_SHARE(sign)


def LONG_SHARE(sign: float) -> Target:
    return Target(0.4 if sign > 0 else -0.4)


def crossing(view: CacheView) -> float | None:
    """Of two averages of the closes: 1.0 where the fast one rises above the slow one, -1.0 where it falls below."""
    slow, fast = view.params["slow"], view.params["fast"]
    closes = view.window(0, 60, slow + 1).values()
    now = sum(closes[-fast:]) / fast - sum(closes[1:]) / slow
    before = sum(closes[-fast - 1 : -1]) / fast - sum(closes[:-1]) / slow
    if now > 0 >= before:
        return 1.0
    if now < 0 <= before:
        return -1.0
    return None


class PythonCross(Strategy):
    """The crossing of two averages, these and the target in Python."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], tags=["crypto"], name="price")
        fast = ProcessingNode(price, average, name="fast", period=3, params={"length": 3})
        slow = ProcessingNode(price, average, name="slow", period=8, params={"length": 8})
        turn = builtin("cross", [fast, slow])
        target = ProcessingNode({"turn": turn}, side, name="target", gives="target")
        self.add_nodes([price, [fast, slow], turn, target])


class BuiltinCross(Strategy):
    """The same of built-in nodes."""

    def setup(self) -> None:
        price = StreamInput(symbols=["BTC-USD"], tags=["crypto"], name="price")
        fast, slow = builtin("sma", price, 3), builtin("sma", price, 8)
        turn = builtin("cross", [fast, slow])
        self.add_nodes([price, fast, slow, turn])
        self.add_nodes(builtin("position_target", turn, long_percent=0.4, short_percent=-0.4))


def fails_above(view: CacheView) -> float:
    """The close, up to a limit."""
    (_, close) = view[0][60][-1]
    if close > view.params["limit"]:
        raise ValueError(f"{close} is too high")
    return close


def both(view: CacheView) -> float:
    """What two inputs of whole numbers below 100 showed last, and for how many minutes they have been silent: four numbers in one."""
    at, one = view[0][60][-1]
    other_at, other = view[1][60][-1]
    silent, other_silent = view.bucket_ms - at, view.bucket_ms - other_at
    return one + 100 * other + (silent // 60_000) * 10_000 + (other_silent // 60_000) * 1_000_000
