"""What a function must not hang on, held in one process: where the clock stands, what chance gives, how texts hash, where things lie in memory.

A process of a check is told all of these, so that two of them differ in exactly one. It has to be done before the author's modules are imported, as
they may take a function of the clock by its name.
"""

from __future__ import annotations

import datetime
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

_READINGS: Final = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
_OF_NOW: Final = ("localtime", "gmtime", "ctime")


@dataclass(frozen=True, slots=True)
class Conditions:
    """Of one process.

    Attributes:
        hash_seed: of `hash` of texts, and so of the order of sets of them.
        clock_ms: where the clock stands at first, epoch ms.
        tick_ns: by how much it goes on whenever it is read; so it is the same in every process that reads it as often.
        chance: what generators of random numbers begin with that are told nothing else.
        ballast: objects that are made before anything else, so that what comes after them lies elsewhere.
        elsewhere: the working directory, the time zone and the language are others.
    """

    hash_seed: int = 1
    clock_ms: int = 1_600_000_000_000
    tick_ns: int = 1_000_000
    chance: int = 1
    ballast: int = 0
    elsewhere: bool = False

    def hold(self) -> list[object]:
        """Let them hold in this process, from now on.

        Returns: the ballast, to be kept.
        """
        ballast: list[object] = [bytes(100 + place % 900) for place in range(self.ballast)]
        _hold_clock(self.clock_ms * 1_000_000, self.tick_ns)
        _hold_chance(self.chance)
        return ballast


def _hold_clock(at_ns: int, tick_ns: int) -> None:
    clock = _Clock(at_ns, tick_ns)
    for name in _READINGS:
        _put(time, name, lambda: clock.ns() / 1e9)
        _put(time, f"{name}_ns", clock.ns)
    _put(time, "clock_gettime", lambda which: clock.ns() / 1e9)
    _put(time, "clock_gettime_ns", lambda which: clock.ns())
    for name in _OF_NOW:
        _put(time, name, _of_now(getattr(time, name), clock))
    local, asctime, strftime = time.localtime, time.asctime, time.strftime
    _put(time, "asctime", lambda t=None: asctime(local() if t is None else t))
    _put(time, "strftime", lambda form, t=None: strftime(form, local() if t is None else t))
    _hold_dates(clock)


class _Clock:
    def __init__(self, at_ns: int, tick_ns: int) -> None:
        self._at_ns = at_ns
        self._tick_ns = tick_ns

    def ns(self) -> int:
        self._at_ns += self._tick_ns
        return self._at_ns


def _of_now(told: Callable[[float], Any], clock: _Clock) -> Callable[..., Any]:
    return lambda seconds=None: told(clock.ns() / 1e9 if seconds is None else seconds)


def _hold_dates(clock: _Clock) -> None:
    """`datetime` and `date` with another now; what is made of them is the real one for whoever asks what it is."""
    real_datetime, real_date = datetime.datetime, datetime.date

    class Kind(type):
        def __instancecheck__(cls, one: object) -> bool:
            return isinstance(one, real_datetime if cls is made_datetime else real_date)

        def __subclasscheck__(cls, one: type) -> bool:
            return issubclass(one, real_datetime if cls is made_datetime else real_date)

    def now(cls: Any, tz: datetime.tzinfo | None = None) -> Any:
        return cls.fromtimestamp(clock.ns() / 1e9, tz)

    def utcnow(cls: Any) -> Any:
        return cls.fromtimestamp(clock.ns() / 1e9, datetime.UTC).replace(tzinfo=None)

    def today(cls: Any) -> Any:
        return cls.fromtimestamp(clock.ns() / 1e9)

    of_datetime = {"now": classmethod(now), "utcnow": classmethod(utcnow), "today": classmethod(today)}
    named = {"__module__": "datetime"}
    made_datetime = Kind("datetime", (real_datetime,), {**named, **of_datetime})
    made_date = Kind("date", (real_date,), {**named, "today": classmethod(today)})
    setattr(datetime, "datetime", made_datetime)  # noqa: B010 - a name that mypy knows as a class
    setattr(datetime, "date", made_date)  # noqa: B010


def _hold_chance(chance: int) -> None:
    stream = random.Random(chance)
    begin = random.Random.seed

    def seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        begin(self, stream.getrandbits(64) if a is None else a, version)

    setattr(random.Random, "seed", seed)  # noqa: B010
    for module, name in ((os, "urandom"), (random, "_urandom")):
        _put(module, name, stream.randbytes)
    hidden: random.Random = getattr(random, "_inst")  # noqa: B009 - the one whose methods are the module's functions
    _put(random, "seed", hidden.seed)
    random.seed(chance)
    np.random.seed(chance)


def _put(module: object, name: str, function: Callable[..., Any]) -> None:
    """In place of a function, under its name."""
    if hasattr(module, name):
        setattr(module, name, function)
