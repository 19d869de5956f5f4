"""What keeps questions from costing too much: how long one may take, and how many are answered in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import ceil
from threading import Lock

from qmtl.foundation.common.errors import QueryTimedOut, TooManyQueries


class Budget:
    """The time that a question has, from now on. Whoever answers looks at it between two calls of the log, of which each ends by itself.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until = clock() + seconds

    @property
    def left_s(self) -> float:
        """Never below 0."""
        return max(0.0, self._until - self._clock())

    def check(self) -> None:
        """Raises: QueryTimedOut, when the time is over."""
        if not self.left_s:
            raise self.exceeded()

    def exceeded(self) -> QueryTimedOut:
        """What to raise when the time is over."""
        return QueryTimedOut(
            f"the question was not answered within {self._seconds * 1000:g} ms.",
            "Ask for fewer (by tags, an interval or a limit), or allow more time.",
        )


class TokenBucket:
    """So many questions a second, and after a rest as many at once. Thread-safe.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, per_s: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._clock = clock
        self._lock = Lock()
        self._tokens = float(per_s)
        self._at = clock()

    def take(self) -> None:
        """Raises: TooManyQueries, where that would be one too many; it does not count."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._per_s, self._tokens + (now - self._at) * self._per_s)
            self._at = now
            if self._tokens < 1:
                wait_ms = (1 - self._tokens) / self._per_s * 1000
                raise TooManyQueries(
                    f"more than {self._per_s} questions a second were asked.",
                    f"Ask again in {ceil(wait_ms)} ms.",
                )
            self._tokens -= 1
