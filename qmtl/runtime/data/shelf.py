"""Finds the parts of a series by the times that they hold, without a look at all the others."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """A file of bars that is never changed; its name is its digest.

    Attributes:
        digest: 64 hex digits, BLAKE3 of the file.
        from_ms, to_ms: open times of its first and its last bar.
    """

    symbol: str
    interval: int
    digest: str
    bars: int
    size_bytes: int
    from_ms: int
    to_ms: int


class Shelf:
    """The parts of one symbol and interval, each with the number of the commit that brought it."""

    def __init__(self) -> None:
        self._keys: list[tuple[int, int, str, int]] = []
        self._parts: list[Part] = []
        self._longest_ms = 0

    def put(self, number: int, part: Part) -> None:
        key = (part.from_ms, part.to_ms, part.digest, number)
        at = bisect_right(self._keys, key)
        self._keys.insert(at, key)
        self._parts.insert(at, part)
        self._longest_ms = max(self._longest_ms, part.to_ms - part.from_ms)

    def meeting(
        self, start_ms: int | None = None, end_ms: int | None = None, number: int | None = None
    ) -> Iterator[Part]:
        """The parts that may have a bar that opens from `start_ms` on and before `end_ms`, ascending by their first one.

        Args:
            number: of the commit as of which it is asked; None for the newest.
        """
        # No part is longer than the longest: what ends at `start_ms` or later begins at most so much before.
        first = 0 if start_ms is None else bisect_left(self._keys, (start_ms - self._longest_ms, -1, "", 0))
        last = len(self._keys) if end_ms is None else bisect_left(self._keys, (end_ms, -1, "", 0))
        for at in range(first, last):
            if (start_ms is None or self._keys[at][1] >= start_ms) and (
                number is None or self._keys[at][3] <= number
            ):
                yield self._parts[at]
