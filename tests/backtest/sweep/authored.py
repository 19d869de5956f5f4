"""Strategies with parameters, for the tests; processes of a sweep find them by this module's name."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target
from qmtl.backtest.kept import Outcome
from qmtl.backtest.sweep.running import JobRunner, Part
from qmtl.backtest.sweep.space import Combination
from qmtl.runtime.performance.kpi import Performance
from qmtl.runtime.sdk.builtins import builtin

SYMBOLS = ("BTC-USD", "ETH-USD")


class Cross(Strategy):
    """The crossing of two averages, of one symbol or of both."""

    def __init__(self, fast: int = 5, slow: int = 20, share: float = 0.4, both: bool = False) -> None:
        super().__init__()
        if fast == 13:
            raise ValueError("thirteen is  unlucky\nby law")
        self.fast, self.slow, self.share, self.both = fast, slow, share, both

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS if self.both else SYMBOLS[:1], name="price")
        fast, slow = builtin("sma", price, self.fast), builtin("sma", price, self.slow)
        turn = builtin("cross", [fast, slow])
        target = builtin("position_target", turn, long_percent=self.share, short_percent=-self.share)
        self.add_nodes([price, fast, slow, turn, target])


def spread(view: CacheView) -> float:
    """How far the close is from the mean of a window, in parts of it; 13 of them are one too many."""
    closes = view["price"][60].values()
    return float((closes[-1] / (sum(closes) / len(closes)) - 1) / (13 - view.params["length"]))


def side(view: CacheView) -> Target | None:
    """Long where the close is below the mean, short where it is above, nothing in between."""
    _, distance = view["spread"][60][-1]
    if abs(distance) < view.params["least"]:
        return None
    return Target(-0.4 if distance > 0 else 0.4)


class Reverting(Strategy):
    """Two functions of an author's, of which many strategies have the first."""

    def __init__(self, length: int, least: float) -> None:
        super().__init__()
        self.length, self.least = length, least

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price")
        away = ProcessingNode(
            price, spread, name="spread", period=self.length, params={"length": self.length}
        )
        target = ProcessingNode(away, side, name="target", gives="target", params={"least": self.least})
        self.add_nodes([price, away, target])


class Deadly(Cross):
    """One of which a combination ends the process that runs it."""


class Positional(Cross):
    def __init__(self, fast: int, /) -> None:
        super().__init__(fast)


class Wordless(Cross):
    def __init__(self) -> None:
        super().__init__()


class Open(Cross):
    def __init__(self, **said: int) -> None:
        super().__init__(said["fast"], said["slow"])


class Nameless(Cross):
    strategy_id = "no name"


class Foreign(Cross):
    """One that reads what there are no bars of."""

    def setup(self) -> None:
        price = StreamInput(symbols=["XRP-USD"], name="price")
        self.add_nodes([price, builtin("position_target", price, long_percent=1, short_percent=0)])


DEADLY: Mapping[str, int] = {Combination((("fast", 4), ("slow", 20))).strategy_id("deadly"): 9}
"""Strategies that end their process, with this exit code."""


def _replace(name: str) -> None:
    """In a process of a sweep only: what judges a combination ends it, as a crash would."""
    judged = JobRunner.judged

    def judge(runner: JobRunner, strategy_id: str, part: Part, outcome: Outcome) -> Performance:
        if strategy_id in DEADLY:
            os._exit(DEADLY[strategy_id])
        return judged(runner, strategy_id, part, outcome)

    setattr(JobRunner, name, judge)


if multiprocessing.parent_process() is not None:
    _replace("judged")
