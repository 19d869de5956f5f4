"""Functions that hang on more than their view, and that no look at their names finds: each with what a check has to say of it."""

from __future__ import annotations

import dataclasses
import functools
import statistics
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target, builtin
from qmtl.backtest.honesty.findings import Cause
from tests.backtest.honesty.markets import MINUTE_MS, START_MS, SYMBOLS, closes_of

CLOSES = tuple(closes_of("BTC-USD"))
SIGNS = tuple([1 if after > now else -1 for now, after in pairwise(CLOSES)])
NEXT = MappingProxyType(dict(pairwise(CLOSES)))
NAMES = frozenset({"a", "bb", "ccc", "dddd", "eeeee", "ffffff", "ggggggg"})
FIRST: Any = MappingProxyType({symbol: [] for symbol in SYMBOLS})
LAST_RUN: Any = MappingProxyType({"close": {}})
BY_BUCKET: Any = MappingProxyType({"close": {}})


def _close(view: CacheView) -> float:
    return view["price"][60][-1][1]


def table_of_closes(view: CacheView) -> float:
    """The close of the next bar, out of a tuple of the module."""
    return CLOSES[(view.bucket_ms - START_MS) // MINUTE_MS]


def table_of_signs(view: CacheView) -> float:
    """Whether it rises, by the place of the bucket; no number of the data is there."""
    return float(SIGNS[((view.bucket_ms - START_MS) // MINUTE_MS - 1) % len(SIGNS)])


def last_of_the_ring(view: CacheView) -> float:
    """What lies at the end of what a backtest holds behind its view: the last value of all."""
    ring: Any = getattr(view["price"][60], "_" + "ring")
    return float(ring.values[-1])


def table_by_price(view: CacheView) -> float | None:
    """The close of the next bar, by the close of this one: the same in any calendar and before any future."""
    return NEXT.get(_close(view))


def table_of_params(view: CacheView) -> float:
    """The highest close of the day, which its author has told it."""
    return float(max(view.params["closes"]))


def _push(seen: list[float], value: float) -> float:
    seen.append(value)
    return float(len(seen))


PUSH = functools.partial(_push, [])


def counted(view: CacheView) -> float:
    """How often it was called: a list in a partial function."""
    return PUSH(_close(view))


def _kept(value: float, kept: Any = MappingProxyType({"sum": []})) -> float:
    kept["sum"].append(value)
    return float(sum(kept["sum"]))


def running_sum(view: CacheView) -> float:
    """Of all closes that it has ever seen: a default that can be changed, within one that can't."""
    return _kept(_close(view))


def since_the_first(view: CacheView) -> float:
    """The close against the first one that it was given of its symbol."""
    first = FIRST[view.symbol]
    if not first:
        first.append(_close(view))
    return _close(view) / float(first[0]) - 1


def by_whoever_came_first(view: CacheView) -> float:
    """The close of the symbol that was computed first in this bucket."""
    found: float = BY_BUCKET["close"].setdefault(view.bucket_ms, _close(view))
    return found


def out_of_an_earlier_run(view: CacheView) -> float:
    """The close of the next bar, if it has seen it before."""
    known = LAST_RUN["close"]
    found: float = known.get((view.symbol, view.bucket_ms + MINUTE_MS), _close(view))
    known[view.symbol, view.bucket_ms] = _close(view)
    return found


def clock(view: CacheView) -> float:
    """Seconds of the clock, through a module that may be named."""
    found: float = getattr(dataclasses, "sys").modules["time"].time() % 1000  # noqa: B009
    return found


def date(view: CacheView) -> float:
    """The year on the calendar."""
    modules = getattr(dataclasses, "sys").modules  # noqa: B009
    found: float = modules["datetime"].datetime.now().year
    return found


def elapsed(view: CacheView) -> float:
    """How long it takes to ask how late it is."""
    time = getattr(dataclasses, "sys").modules["time"]  # noqa: B009
    begun: float = time.perf_counter()
    return round(float(time.perf_counter()) - begun, 6)


def entropy(view: CacheView) -> float:
    """A byte of the system's."""
    found: float = getattr(dataclasses, "sys").modules["os"].urandom(1)[0]  # noqa: B009
    return found


def generator(view: CacheView) -> float:
    """A generator of numpy that was told no seed."""
    return float(getattr(np, "ran" + "dom").default_rng().random())


def chance(view: CacheView) -> float:
    """A draw, by a method that doesn't sound like one."""
    return statistics.NormalDist(0.0, 1.0).samples(1)[0]


def order_of_a_set(view: CacheView) -> float:
    return float(len(next(iter(NAMES))))


def address(view: CacheView) -> float:
    """Where the view lies in memory."""
    return float(int(repr(view).rpartition("x")[2].rstrip(">"), 16))


def directory(view: CacheView) -> float:
    found: str = getattr(dataclasses, "sys").modules["os"].getcwd()  # noqa: B009
    return float(len(found))


def honest(view: CacheView) -> float:
    """Of a window, the time of the day and the bar."""
    mean = view.window("price", 60, 5).mean()
    return _close(view) - mean + (view.bucket_ms // MINUTE_MS % 60) / 60 + float(view.bar.volume)


def lean(view: CacheView) -> Target:
    _, value = view[0][60][-1]
    return Target(0.5 if value > 0 else -0.5)


CHEATS: dict[str, tuple[Any, set[Cause]]] = {
    "table_of_closes": (table_of_closes, {Cause.CAPTURED_DATA, Cause.CALENDAR}),
    "table_of_signs": (table_of_signs, {Cause.CALENDAR}),
    "last_of_the_ring": (last_of_the_ring, {Cause.LOOK_AHEAD, Cause.ORDER}),
    "table_by_price": (table_by_price, {Cause.CAPTURED_DATA}),
    "table_of_params": (table_of_params, {Cause.CAPTURED_DATA}),
    "counted": (counted, {Cause.HIDDEN_STATE}),
    "running_sum": (running_sum, {Cause.HIDDEN_STATE}),
    "since_the_first": (since_the_first, {Cause.START_OF_DATA}),
    "by_whoever_came_first": (by_whoever_came_first, {Cause.ORDER}),
    "out_of_an_earlier_run": (out_of_an_earlier_run, {Cause.HIDDEN_STATE}),
    "elapsed": (elapsed, {Cause.CLOCK}),
    "entropy": (entropy, {Cause.CHANCE}),
    "generator": (generator, {Cause.CHANCE}),
    "clock": (clock, {Cause.CLOCK}),
    "date": (date, {Cause.CLOCK}),
    "chance": (chance, {Cause.CHANCE}),
    "order_of_a_set": (order_of_a_set, {Cause.HASH_ORDER}),
    "address": (address, {Cause.PROCESS}),
    "directory": (directory, {Cause.SURROUNDINGS}),
    "honest": (honest, set()),
}


class Cheats(Strategy):
    """All of them beside each other, and what reads one."""

    def setup(self) -> None:
        price = StreamInput(symbols=SYMBOLS, name="price", interval=60)
        made = {
            name: ProcessingNode(
                price,
                function,
                name=name,
                period=5 if name == "honest" else 1,
                params={"closes": CLOSES[:20]} if name == "table_of_params" else {},
            )
            for name, (function, _) in CHEATS.items()
        }
        smooth = builtin("sma", made["table_of_signs"], 2, name="smooth")
        target = ProcessingNode(smooth, lean, name="target", gives="target")
        self.add_nodes([price, *made.values(), smooth, target])
