"""Compute functions that name what they may not, each with the name that its refusal tells."""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from collections.abc import Callable
from datetime import datetime
from random import random as chance
from time import time as now
from typing import Any

import numpy as np

from qmtl import CacheView

SEEN: list[float] = []
KNOWN = {"a": 1.0}
NESTED = (1.0, [2.0])
SHARES = (0.1, 0.2)
COUNT = 0


def clock(view: CacheView) -> float:
    return time.time()


def clock_by_name(view: CacheView) -> float:
    return now()


def date(view: CacheView) -> float:
    return datetime.now().timestamp()  # noqa: DTZ005


def date_of_module(view: CacheView) -> float:
    return dt.datetime.now().timestamp()  # noqa: DTZ005


def dice(view: CacheView) -> float:
    return random.random()


def dice_by_name(view: CacheView) -> float:
    return chance()


def dice_of_arrays(view: CacheView) -> float:
    return float(np.random.rand())


def clock_of_arrays(view: CacheView) -> float:
    return float(np.datetime64("now").astype("int64"))


def dice_inside(view: CacheView) -> float:
    import random as hidden

    return hidden.random()


def dice_within(view: CacheView) -> float:
    return sum([random.random() for _ in view[0][60]])


def environment(view: CacheView) -> float:
    return float(os.environ.get("X", "0"))


def file(view: CacheView) -> float:
    with open("/dev/null") as found:
        return float(len(found.read()))


def hashed(view: CacheView) -> float:
    return float(hash(view.symbol))


def evaluated(view: CacheView) -> float:
    return float(eval("1"))


def remembered(view: CacheView) -> float:
    SEEN.append(1.0)
    return len(SEEN)


def looked_up(view: CacheView) -> float:
    return KNOWN["a"]


def nested(view: CacheView) -> float:
    return NESTED[0]


def private(view: CacheView) -> float:
    return float(len(view._sight.symbol))


def kept(view: CacheView, *, memory: Any = ()) -> float:
    return 1.0


def of_another(view: CacheView) -> float:
    return helper() + 1.0


def helper() -> float:
    return time.monotonic()


def counting(view: CacheView) -> float:
    global COUNT
    COUNT += 1
    return COUNT


def marked(view: CacheView) -> float:
    marked.__doc__ = "seen"
    return 1.0


REFUSED: list[tuple[Callable[..., Any], str]] = [
    (clock, "the module time in clock"),
    (clock_by_name, "now of the module time"),
    (date, "datetime of the module datetime"),
    (date_of_module, "the module datetime"),
    (clock_of_arrays, "the clock, as datetime64 of now"),
    (dice, "the module random"),
    (dice_by_name, "chance of the module random"),
    (dice_of_arrays, "the module numpy.random"),
    (dice_inside, "the module random"),
    (dice_within, "the module random"),
    (environment, "the module os"),
    (file, "the built-in open"),
    (hashed, "the built-in hash"),
    (evaluated, "the built-in eval"),
    (remembered, "SEEN, a list that can be changed"),
    (looked_up, "KNOWN, a dict that can be changed"),
    (nested, "NESTED, a list that can be changed"),
    (private, "'_sight', which is private"),
    (of_another, "the module time in helper"),
    (counting, "COUNT"),
    (marked, "'__doc__' of an object"),
]


def pure(view: CacheView) -> float:
    """Names what it may: constants, arrays, dates of its view, functions of its own and of allowed modules."""
    day = np.datetime64(view.bucket_ms, "ms").astype("datetime64[D]")
    return float(np.mean(view[0][60].values())) * SHARES[0] + other(view) + float(day.astype(int))


def other(view: CacheView) -> float:
    return max(0.0, min(SHARES))
