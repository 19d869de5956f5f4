"""Other bars than those that are there: another future, a later beginning, another calendar. Each is a run that an honest node answers alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

import numpy as np

from qmtl.runtime.columns import MAX_UNITS, BarColumns, Integers, Scaled

Bars = Mapping[str, BarColumns]

_DAYS_OF_400_YEARS: Final = 146_097
CALENDAR_MS: Final = 40 * _DAYS_OF_400_YEARS * 86_400_000
"""16,000 years. The Gregorian calendar repeats after 400, with its weekdays; after 40 times that also whatever counts in 2 to 10 days."""


class Change(Protocol):
    """Makes other bars out of bars."""

    def of(self, bars: Bars) -> Bars: ...


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The bars that there are."""

    def of(self, bars: Bars) -> Bars:
        return bars


UNCHANGED: Final = Unchanged()


class Future(Enum):
    """What becomes of the bars after a cut."""

    DOUBLED = "doubled"
    HALVED = "halved"
    REVERSED = "reversed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class OtherFuture:
    """Every bar that closes after a cut is another one, or absent. All of them are bars that could be."""

    cut_ms: int
    future: Future

    def of(self, bars: Bars) -> Bars:
        return {symbol: self._of(one) for symbol, one in bars.items()}

    def _of(self, bars: BarColumns) -> BarColumns:
        cut = int(np.searchsorted(bars.bucket_ms, self.cut_ms, side="right"))
        if self.future is Future.DROPPED:
            return bars.chunk(0, cut)
        most = max(int(one.units[cut:].max(initial=0)) for one in (bars.high, bars.volume))
        is_doubled = self.future is Future.DOUBLED and 2 * most <= MAX_UNITS

        def after(column: Scaled, least: int) -> Scaled:
            rest = column.units[cut:]
            if self.future is Future.REVERSED:
                rest = rest[::-1]
            elif is_doubled:
                rest = rest * 2
            else:
                rest = np.maximum(rest // 2, least)
            return Scaled(np.concatenate((column.units[:cut], rest)), column.places)

        return replace(
            bars,
            open=after(bars.open, 1),
            high=after(bars.high, 1),
            low=after(bars.low, 1),
            close=after(bars.close, 1),
            volume=after(bars.volume, 0),
        )


@dataclass(frozen=True, slots=True)
class LaterStart:
    """The bars that open before an instant are absent."""

    start_ms: int

    def of(self, bars: Bars) -> Bars:
        return {
            symbol: one.chunk(int(np.searchsorted(one.open_time_ms, self.start_ms)), len(one))
            for symbol, one in bars.items()
        }


@dataclass(frozen=True, slots=True)
class OtherCalendar:
    """The same bars at other times."""

    by_ms: int = CALENDAR_MS

    def of(self, bars: Bars) -> Bars:
        return {
            symbol: replace(one, open_time_ms=one.open_time_ms + self.by_ms) for symbol, one in bars.items()
        }


def all_buckets(bars: Bars) -> Integers:
    """The buckets in which any symbol has a bar, ascending."""
    if not bars:
        return np.zeros(0, dtype=np.int64)
    return np.unique(np.concatenate([one.bucket_ms for one in bars.values()]))
