"""What a compute function has seen at one port: the last values, in a ring that takes one more at the same cost whatever its length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import fsum
from struct import Struct
from typing import Any, Final, TypeAlias, overload

from blake3 import blake3

from qmtl.foundation.common.errors import ViewMisused
from qmtl.foundation.contracts.node import PortWindow

Slot: TypeAlias = tuple[int, float]
"""The instant at which a bucket closed, epoch ms, and the value of that bucket."""

DIGEST_BYTES: Final = 64
_SLOT: Final = Struct(">qd").pack
_LEAST: Final = 64
_WRAP: Final = 1 << (8 * DIGEST_BYTES)


class Ring:
    """The last `period` values of a port, and a digest of all that is in it.

    The values lie in lists that are cut by a whole period at a time, so a push costs the same on average, and the newest are always one
    slice. The digest is the sum of the BLAKE3 digests of the slots, modulo 2**512: what comes in is added and what goes out is taken off,
    so it costs as much as came in since it was asked for. A slot has its bucket in it, so that a sum without order tells the order too.
    Source: M. Bellare and D. Micciancio, A new paradigm for collision-free hashing, 1997 (AdHash). It tells windows apart; it is no seal.

    Args:
        window: what a ring held that was kept; one of another period gives its newest.

    Attributes:
        end: so many of the values in the lists have come.
        count: so many have come since the ring was made.
    """

    __slots__ = ("_ahead", "_begin", "_end", "_period", "_sum", "buckets_ms", "count", "end", "values")

    def __init__(self, period: int, window: PortWindow | None = None) -> None:
        self._period = period
        self._ahead = 2 * period + _LEAST
        self.buckets_ms: list[int] = [] if window is None else list(window.buckets_ms[-period:])
        self.values: list[float] = [] if window is None else list(window.values[-period:])
        self.count = self.end = len(self.values)
        self._begin = self._end = self._sum = 0

    @property
    def is_full(self) -> bool:
        return self.end >= self._period

    def __len__(self) -> int:
        return min(self.end, self._period)

    def push(self, bucket_ms: int, value: float) -> None:
        """Take the value of a bucket that is newer than all others."""
        self.buckets_ms.append(bucket_ms)
        self.values.append(value)
        self.count += 1
        self.end += 1
        if self.end >= self._ahead:
            # New lists, so that those which a window was made of only ever grow.
            self.buckets_ms = self.buckets_ms[-self._period :]
            self.values = self.values[-self._period :]
            self.end = self._period

    def digest(self) -> bytes:
        """Of the slots that are in it: their number in 8 bytes and the sum in 64, big-endian."""
        end = self.count
        begin = max(0, end - self._period)
        oldest = end - len(self.values)
        if self._end <= begin or self._begin < oldest:
            self._sum, self._begin, self._end = 0, begin, begin
        for number in range(self._begin, begin):
            self._sum -= self._number(number - oldest)
        for number in range(self._end, end):
            self._sum += self._number(number - oldest)
        self._sum %= _WRAP
        self._begin, self._end = begin, end
        return (end - begin).to_bytes(8, "big") + self._sum.to_bytes(DIGEST_BYTES, "big")

    def _number(self, place: int) -> int:
        slot = _SLOT(self.buckets_ms[place], self.values[place])
        return int.from_bytes(blake3(slot).digest(length=DIGEST_BYTES), "big")

    def to_window(self) -> PortWindow:
        return PortWindow(tuple(self.buckets_ms[-self._period :]), tuple(self.values[-self._period :]))


class Cursor(Ring):
    """A ring over values that are all known already: nothing is pushed, and `end` says how far it has come.

    Args:
        buckets_ms, values: all that will ever come, in their order.
    """

    __slots__ = ()

    def __init__(self, period: int, buckets_ms: list[int], values: list[float]) -> None:
        super().__init__(period)
        self.buckets_ms, self.values = buckets_ms, values


class ReadOnly:
    """What a compute function is given: nothing of it can be set or deleted.

    Raises:
        ViewMisused: on each try.
    """

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise _fixed(type(self).__name__, name)

    def __delattr__(self, name: str) -> None:
        raise _fixed(type(self).__name__, name)


class Slots(ReadOnly, Sequence[Slot]):
    """What one port has seen: a sequence of (bucket_ms, value), oldest first, newest last, at most `period` of them."""

    __slots__ = ("_ring",)
    _ring: Ring

    def __init__(self, ring: Ring) -> None:
        object.__setattr__(self, "_ring", ring)

    def __len__(self) -> int:
        return len(self._ring)

    @overload
    def __getitem__(self, index: int) -> Slot: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Slot, ...]: ...

    def __getitem__(self, index: int | slice) -> Slot | tuple[Slot, ...]:
        ring, length = self._ring, len(self._ring)
        first = ring.end - length
        if isinstance(index, slice):
            places = range(first, ring.end)[index]
            return tuple([(ring.buckets_ms[place], ring.values[place]) for place in places])
        if not -length <= index < length:
            raise IndexError(f"slot {index} of {length}")
        place = first + (index if index >= 0 else length + index)
        return ring.buckets_ms[place], ring.values[place]

    def __iter__(self) -> Iterator[Slot]:
        ring = self._ring
        end = ring.end
        begin = end - ring._period if end > ring._period else 0
        return iter(tuple(zip(ring.buckets_ms[begin:end], ring.values[begin:end], strict=True)))

    def __repr__(self) -> str:
        return f"Slots({tuple(self)!r})"

    def latest(self) -> Slot | None:
        """The newest (bucket_ms, value); None while there is none."""
        ring = self._ring
        last = ring.end - 1
        return (ring.buckets_ms[last], ring.values[last]) if last >= 0 else None

    def values(self) -> tuple[float, ...]:
        """The values alone, oldest first."""
        ring = self._ring
        return tuple(ring.values[ring.end - len(ring) : ring.end])

    def newest(self, count: int) -> Window:
        """The newest `count` slots.

        Raises:
            ViewMisused: no positive number, or more than there can ever be.
        """
        return newest_of(self._ring, count)


class Window(ReadOnly):
    """The newest slots of a port as they were at one bucket: a value that nothing changes any more."""

    __slots__ = ("_within",)
    _within: tuple[list[int], list[float], int, int]

    def __init__(self, within: tuple[list[int], list[float], int, int]) -> None:
        """Made at one cost whatever its length: of lists that only ever grow, from one place to another."""
        _set_within(self, within)

    def __len__(self) -> int:
        _, _, begin, end = self._within
        return end - begin

    def latest(self) -> Slot | None:
        """The newest (bucket_ms, value); None of an empty one."""
        buckets_ms, values, begin, end = self._within
        return (buckets_ms[end - 1], values[end - 1]) if end > begin else None

    def rows(self) -> tuple[Slot, ...]:
        """All (bucket_ms, value), oldest first."""
        return tuple(zip(self.buckets_ms(), self.values(), strict=True))

    def values(self) -> tuple[float, ...]:
        """The values alone, oldest first."""
        _, values, begin, end = self._within
        return tuple(values[begin:end])

    def buckets_ms(self) -> tuple[int, ...]:
        """The buckets alone, oldest first."""
        buckets_ms, _, begin, end = self._within
        return tuple(buckets_ms[begin:end])

    def sum(self) -> float:
        """The sum of the values, exact and rounded once."""
        _, values, begin, end = self._within
        return fsum(values[begin:end])

    def mean(self) -> float:
        """The sum divided by how many there are, each rounded once.

        Raises:
            ViewMisused: there are none.
        """
        _, values, begin, end = self._within
        if end == begin:
            raise ViewMisused(
                "the mean of an empty window was asked for; it has none.", "Ask for its length first."
            )
        return fsum(values[begin:end]) / (end - begin)


_set_within: Final = Window.__dict__["_within"].__set__
"""Sets what nothing else of it may set: the slot itself, past what refuses."""


def newest_of(ring: Ring, count: int) -> Window:
    """`Slots.newest` of a ring."""
    if type(count) is not int or not 1 <= count <= ring._period:
        raise ViewMisused(
            f"a window of {count!r} slots was asked for; a whole number from 1 to the node's period {ring._period} is required.",
            "Give the node the period that its function looks back.",
        )
    end = ring.end
    return Window((ring.buckets_ms, ring.values, end - count if end > count else 0, end))


def _fixed(kind: str, name: Any) -> ViewMisused:
    return ViewMisused(
        f"{name!r} of a {kind} was to be changed; what a compute function is given is read only.",
        "Return what is to be kept: the node's window is all that it remembers.",
    )
