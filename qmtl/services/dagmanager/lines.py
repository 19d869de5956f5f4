"""Rows that go after a time: by since when it runs, so that a tick touches those whose time is over and no others."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from dataclasses import dataclass, field
from heapq import nsmallest
from operator import itemgetter


@dataclass(slots=True)
class Line:
    """Keys of rows in the order in which their time is over; apart from them, those whose time no tick has begun yet."""

    _fresh: dict[str, None] = field(default_factory=dict)
    _since: dict[str, int] = field(default_factory=dict)
    _order: list[tuple[int, str]] = field(default_factory=list)

    def put(self, key: str, since_ms: int | None) -> None:
        """Take a key, or take it anew.

        Args:
            since_ms: from when on its time runs; None where no tick has said so.
        """
        self.drop(key)
        if since_ms is None:
            self._fresh[key] = None
        else:
            self._since[key] = since_ms
            insort(self._order, (since_ms, key))

    def drop(self, key: str) -> None:
        """Know nothing of a key, whether it is there or not."""
        self._fresh.pop(key, None)
        since_ms = self._since.pop(key, None)
        if since_ms is not None:
            del self._order[bisect_left(self._order, (since_ms, key))]

    def fresh(self, most: int | None = None) -> list[str]:
        """The keys whose time no tick has begun, in their order; so many at most."""
        return sorted(self._fresh) if most is None else nsmallest(most, self._fresh)

    def due(self, by_ms: int, most: int | None = None) -> list[str]:
        """The keys whose time runs since then or before, the longest first; so many at most."""
        end = bisect_right(self._order, by_ms, key=itemgetter(0))
        return [key for _, key in self._order[: end if most is None else min(end, most)]]
