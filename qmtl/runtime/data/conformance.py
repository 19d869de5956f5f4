"""Holds bars from outside to what bars are, and says what is missing. It sorts nothing, fills nothing and drops nothing unsaid."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from qmtl.foundation.common.errors import ConflictingBars, DataIncomplete, InvalidBar
from qmtl.foundation.contracts.market import fault_of
from qmtl.runtime.columns import BarColumns, Integers
from qmtl.runtime.data.merging import differing, pick

Named = Callable[[int], str]
"""Where a row of a chunk comes from, in words: a file and its line, say."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Buckets without a bar: the open times from `from_ms` on and before `to_ms`."""

    from_ms: int
    to_ms: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What was taken.

    Attributes:
        bars: that were passed on.
        duplicates: said again, word for word, and left out.
        first_ms, last_ms: open times of the first and the last bar; None without one.
    """

    bars: int
    duplicates: int
    first_ms: int | None
    last_ms: int | None


class Conformance:
    """Takes the bars of one symbol and interval chunk by chunk, as their source gives them.

    A bar that is said twice in the same words is left out and counted, also across two neighbouring chunks.
    """

    def __init__(self, symbol: str, interval: int) -> None:
        self._symbol = symbol
        self._interval = interval
        self._before: BarColumns | None = None
        self._bars = 0
        self._duplicates = 0
        self._first_ms: int | None = None
        self._last_ms: int | None = None

    def take(self, chunk: BarColumns, named: Named | None = None) -> BarColumns:
        """What is new in the chunk: sound, ascending, each time once.

        Raises:
            InvalidBar: no multiple of the interval, before its neighbour, or not what a bar is (`fault_of`).
            ConflictingBars: a time a second time with other numbers.
        """
        place = named or (lambda row: f"bar {row} of {self._symbol}")
        for row in np.flatnonzero(chunk.open_time_ms % (self._interval * 1000)).tolist():
            raise InvalidBar(
                f"{place(row)}: open_time_ms was {int(chunk.open_time_ms[row])}; it is a multiple of the interval,"
                f" {self._interval * 1000} ms.",
                "Send the start of the bar, or give the interval that the data has.",
            )
        fresh = chunk if self._ascends(chunk) else pick(chunk, self._fresh(chunk, place))
        try:
            fresh.require_sound()
        except InvalidBar as error:
            for row in range(len(chunk)):
                if (fault := fault_of(chunk.bar(row))) is not None:
                    raise InvalidBar(
                        f"{place(row)}, at {int(chunk.open_time_ms[row])}: {fault}.",
                        "Mend or leave out that bar, and check the order of the columns.",
                    ) from None
            raise error
        if len(fresh):
            self._before = fresh
            self._bars += len(fresh)
            self._first_ms = int(fresh.open_time_ms[0]) if self._first_ms is None else self._first_ms
            self._last_ms = int(fresh.open_time_ms[-1])
        return fresh

    def findings(self) -> Findings:
        """Of all chunks so far."""
        return Findings(self._bars, self._duplicates, self._first_ms, self._last_ms)

    def _ascends(self, chunk: BarColumns) -> bool:
        times = chunk.open_time_ms
        if not len(times):
            return True
        return (self._last_ms is None or int(times[0]) > self._last_ms) and bool(
            np.all(times[1:] > times[:-1])
        )

    def _fresh(self, chunk: BarColumns, place: Named) -> Integers:
        """The rows that say something new; walks row by row, which only few chunks need."""
        said: dict[int, BarColumns] = {}
        if self._before is not None:
            before = self._before
            said = {time: before.chunk(at, at + 1) for at, time in enumerate(before.open_time_ms.tolist())}
        newest, kept = self._last_ms, []
        for row, time in enumerate(chunk.open_time_ms.tolist()):
            bar = chunk.chunk(row, row + 1)
            if newest is None or time > newest:
                newest = time
                kept.append(row)
            elif time not in said:
                raise InvalidBar(
                    f"{place(row)}: open_time_ms was {time}; it comes after the one before, {newest}.",
                    "Sort the data by time.",
                )
            elif bool(differing(said[time], bar)[0]):
                raise ConflictingBars(
                    f"{place(row)}: the bar at {time} was said before with other numbers ({_told(said[time])}; now {_told(bar)}).",
                    "Find out which is right, and leave the other one out.",
                )
            else:
                self._duplicates += 1
            said[time] = bar
        return np.array(kept, dtype=np.int64)


def conform(chunks: Iterable[BarColumns], symbol: str, interval: int) -> tuple[list[BarColumns], Findings]:
    """All of it at once, for what fits into memory; `Conformance` takes it chunk by chunk."""
    held = Conformance(symbol, interval)
    kept = [fresh for chunk in chunks if len(fresh := held.take(chunk))]
    return kept, held.findings()


def gaps_of(
    times: Iterable[Integers], interval: int, start_ms: int | None = None, end_ms: int | None = None
) -> Iterator[Gap]:
    """The gaps between ascending open times, and from `start_ms` to the first and from the last to `end_ms` where these are given.

    Args:
        times: multiples of the interval, in chunks; all within the bounds.
        interval: seconds.
    """
    step = interval * 1000
    expected = None if start_ms is None else -(-start_ms // step) * step
    for chunk in times:
        if not len(chunk):
            continue
        if expected is not None and int(chunk[0]) > expected:
            yield Gap(expected, int(chunk[0]))
        for at in np.flatnonzero(np.diff(chunk) != step).tolist():
            yield Gap(int(chunk[at]) + step, int(chunk[at + 1]))
        expected = int(chunk[-1]) + step
    if expected is not None and end_ms is not None and expected < end_ms:
        yield Gap(expected, -(-end_ms // step) * step)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How complete a range of bars is.

    Attributes:
        expected, bars: buckets in the range, and those of them with a bar.
        gaps, longest_gap: how many, and the buckets of the longest.
        last_ms: open time of the newest bar; None without one.
    """

    interval: int
    expected: int
    bars: int
    gaps: int
    longest_gap: int
    last_ms: int | None

    @property
    def percent(self) -> float:
        """Of the buckets, those with a bar; 100 where none is expected."""
        return 100.0 * self.bars / self.expected if self.expected else 100.0

    def stale_ms(self, now_ms: int) -> int | None:
        """How long before `now_ms` the newest bar closed; None without a bar."""
        return None if self.last_ms is None else max(0, now_ms - self.last_ms - self.interval * 1000)


@dataclass(frozen=True, slots=True)
class Terms:
    """What is agreed for data; None is not agreed.

    Attributes:
        min_percent: of the buckets with a bar.
        max_gap: buckets of the longest gap.
        max_stale_ms: between the close of the newest bar and now.
    """

    min_percent: float | None = None
    max_gap: int | None = None
    max_stale_ms: int | None = None

    def require(self, name: str, found: Coverage, now_ms: int | None = None) -> None:
        """Hold a coverage to the terms.

        Raises:
            DataIncomplete: the first term that it breaks; staleness only where `now_ms` is given.
        """
        remedy = "Repair the gaps from another source, fetch what is newer, or agree on other terms."
        if self.min_percent is not None and found.percent < self.min_percent:
            raise DataIncomplete(
                f"{name} has {found.bars} of {found.expected} bars, {found.percent:.4f} %; at least {self.min_percent:g} % are agreed.",
                remedy,
            )
        if self.max_gap is not None and found.longest_gap > self.max_gap:
            raise DataIncomplete(
                f"{name} has a gap of {found.longest_gap} bars; at most {self.max_gap} are agreed.", remedy
            )
        if self.max_stale_ms is not None and now_ms is not None:
            stale = found.stale_ms(now_ms)
            if stale is None or stale > self.max_stale_ms:
                age = "no bar" if stale is None else f"bars that end {stale} ms before {now_ms}"
                raise DataIncomplete(f"{name} has {age}; {self.max_stale_ms} ms are agreed.", remedy)


def coverage_of(
    times: Iterable[Integers], interval: int, start_ms: int | None = None, end_ms: int | None = None
) -> Coverage:
    """Of ascending open times; without bounds from the first to the last of them."""
    step = interval * 1000
    bars, last = 0, None

    def counted() -> Iterator[Integers]:
        nonlocal bars, last
        for chunk in times:
            if len(chunk):
                bars += len(chunk)
                last = int(chunk[-1])
            yield chunk

    widths = [(gap.to_ms - gap.from_ms) // step for gap in gaps_of(counted(), interval, start_ms, end_ms)]
    return Coverage(interval, bars + sum(widths), bars, len(widths), max(widths, default=0), last)


def _told(bar: BarColumns) -> str:
    fields = (bar.open, bar.high, bar.low, bar.close, bar.volume)
    return ", ".join(str(field.at(0)) for field in fields)
