"""The strategy of W1 in functions of an author's: the same averages, turns and targets as the built-in nodes give."""

from __future__ import annotations

from decimal import Decimal

from bench.backtest.count import FAST, SLOW
from bench.backtest.market import INTERVAL, SYMBOL
from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target, dag_message


def spread(view: CacheView) -> float:
    """How far the fast average lies above the slow one."""
    return view.window("price", 60, FAST).mean() - view.window("price", 60, SLOW).mean()


def turn(view: CacheView) -> float | None:
    """1.0 where the fast average rises above the slow one, -1.0 where it falls below."""
    (_, before), (_, now) = view["spread"][60]
    if now > 0 and before <= 0:
        return 1.0
    if now < 0 and before >= 0:
        return -1.0
    return None


def hold(view: CacheView) -> Target:
    """A share of equity after a turn upwards, else nothing."""
    _, side = view["turn"][60][-1]
    return Target(view.params["share"] if side > 0 else 0)


def message(share: Decimal) -> bytes:
    """The strategy as a DAG message."""

    class PythonCross(Strategy):
        strategy_id = "cross"

        def setup(self) -> None:
            price = StreamInput(symbols=[SYMBOL], name="price")
            apart = ProcessingNode(price, spread, name="spread", period=SLOW)
            turns = ProcessingNode(apart, turn, name="turn", period=2)
            target = ProcessingNode(
                turns, hold, name="target", gives="target", params={"share": float(share)}
            )
            self.add_nodes([price, apart, turns, target])

    return dag_message(PythonCross(INTERVAL))
