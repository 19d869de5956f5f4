"""Lets a command that goes on for ever end by Ctrl-C or SIGTERM as by its own will."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Final

_ENDINGS: Final = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopped() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether one of the signals came; a second one of them acts as if nobody caught it.

    Outside the main thread signals can't be caught, and nothing stops the command but its caller.
    """
    came = False
    before: dict[signal.Signals, Any] = {}

    def take(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        for one, handler in before.items():
            signal.signal(one, handler)

    try:
        for one in _ENDINGS:
            before[one] = signal.signal(one, take)
    except ValueError:
        before.clear()
    try:
        yield lambda: came
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
