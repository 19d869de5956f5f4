"""Lines of a drawing with characters, between two layers: each kept apart from the others, so that they cross and never run together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

UP: Final = 1
DOWN: Final = 2
LEFT: Final = 4
RIGHT: Final = 8


@dataclass(frozen=True, slots=True)
class Net:
    """All lines from one vertex to the layer below: down from `start`, along a track, and down to each of `ends`, all of them columns.

    No two nets start at one column or end at one, and none ends where another one starts: then a line meets another only where they cross.
    """

    start: int
    ends: tuple[int, ...]

    @property
    def is_straight(self) -> bool:
        return self.ends == (self.start,)

    @property
    def span(self) -> tuple[int, int]:
        return min(self.start, *self.ends), max(self.start, *self.ends)


def tracks(nets: Sequence[Net]) -> list[int]:
    """The track of each net, from 0 down, as few as they fit on; -1 for one that needs none."""
    rights: list[int] = []
    out = [-1] * len(nets)
    for at in sorted(range(len(nets)), key=lambda one: nets[one].span):
        one = nets[at]
        if one.is_straight:
            continue
        low, high = one.span
        free = next((track for track, right in enumerate(rights) if right + 1 < low), len(rights))
        rights[free:] = [high, *rights[free + 1 :]]
        out[at] = free
    return out


def cells(one: Net, track: int, count: int) -> Iterator[tuple[int, int, int]]:
    """Where a net goes, as row, column, and the directions in which it leaves that cell.

    Args:
        count: of the tracks, one below the other.
    """
    for row in range(count):
        if one.is_straight or row < track:
            yield row, one.start, UP | DOWN
        elif row > track:
            yield from ((row, column, UP | DOWN) for column in one.ends)
        else:
            low, high = one.span
            for column in range(low, high + 1):
                way = (LEFT if column > low else 0) | (RIGHT if column < high else 0)
                way |= UP if column == one.start else 0
                yield row, column, way | (DOWN if column in one.ends else 0)
