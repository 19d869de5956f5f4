"""Brings a provider's history into a catalogue, chunk by chunk, and fills gaps of one source from another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from qmtl.foundation.common.errors import InvalidValue
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.catalogue import Writer
from qmtl.runtime.data.conformance import Conformance, Gap, gaps_of
from qmtl.runtime.data.journal import Asked, Commit
from qmtl.runtime.data.merging import cut
from qmtl.runtime.data.provider import Provider

CHUNK_BARS: Final = 20_000

Progress = Callable[[int, int], None]
"""Called with the buckets that were asked for, and all that are to be."""


@dataclass(frozen=True, slots=True)
class Backfilled:
    """What a backfill has done.

    Attributes:
        commit: the newest of the catalogue; None where nothing could be asked for.
        bars, known: new ones, and those that were there already.
        skipped: buckets that an earlier backfill from this source has asked for.
        to_ms: end of what could be asked for: the asked end, or that of the closed bars.
    """

    commit: Commit | None
    bars: int
    known: int
    skipped: int
    to_ms: int


def backfill(
    writer: Writer,
    provider: Provider,
    symbol: str,
    interval: int,
    start_ms: int,
    end_ms: int,
    *,
    chunk_bars: int = CHUNK_BARS,
    progress: Progress | None = None,
) -> Backfilled:
    """Ask for a range what was not asked for yet. Each chunk is a commit that says what was asked for, so that the next call goes on after
    it, whatever stopped this one: nothing is fetched twice, and nothing left out.

    Raises:
        InvalidValue: a range that is empty or off the grid of the interval.
        Whatever the provider and the catalogue raise; the chunks before stay.
    """
    step = interval * 1000
    if start_ms % step or end_ms % step or not 0 <= start_ms < end_ms or chunk_bars <= 0:
        raise InvalidValue(
            f"the range was {start_ms} to {end_ms} in chunks of {chunk_bars} bars; it begins before it ends, both multiples of {step} ms.",
            "Give the open time of the first bar, and that of the first one after the range.",
        )
    closed = provider.closed_ms(symbol, interval)
    end = end_ms if closed is None else min(end_ms, closed // step * step)
    source = provider.source()
    done = [
        commit.asked
        for commit in writer.catalogue.commits()
        if commit.asked is not None and dict(commit.source) == dict(source)
    ]
    asked = [one for one in done if (one.symbol, one.interval) == (symbol, interval)]
    left = list(_left(asked, start_ms, end))
    total = max(0, end - start_ms) // step
    skipped = over = total - sum((gap.to_ms - gap.from_ms) // step for gap in left)
    bars = known = 0
    for gap in left:
        for begin in range(gap.from_ms, gap.to_ms, chunk_bars * step):
            until = min(begin + chunk_bars * step, gap.to_ms)
            added = writer.add(
                symbol,
                interval,
                _conform(provider, symbol, interval, begin, until),
                source,
                Asked(symbol, interval, begin, until),
            )
            bars, known = bars + added.bars, known + added.known
            over += (until - begin) // step
            if progress is not None:
                progress(over, total)
    commits = writer.catalogue.commits()
    return Backfilled(commits[-1] if commits else None, bars, known, skipped, max(start_ms, end))


@dataclass(frozen=True, slots=True)
class Repaired:
    """What a repair has done.

    Attributes:
        bars: real ones that the other source had.
        left: gaps that it has not filled, or not whole.
    """

    commit: Commit | None
    bars: int
    left: tuple[Gap, ...]


def repair(
    writer: Writer,
    provider: Provider,
    symbol: str,
    interval: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
) -> Repaired:
    """Fill the gaps of a series with the bars that another source has there, in one commit. No bar is made up: what that source lacks, too, stays
    absent.

    Raises:
        NotInCatalogue: nothing of that series is there.
        Whatever the provider and the catalogue raise; nothing has changed then.
    """
    there = writer.catalogue.find(symbol, interval)
    bounds = (start_ms, end_ms)
    found = list(gaps_of(writer.catalogue.times(symbol, interval, *bounds), interval, *bounds))
    source = {**provider.source(), "purpose": "repair"}

    def real() -> Iterator[BarColumns]:
        for gap in found:
            yield from _conform(provider, symbol, interval, gap.from_ms, gap.to_ms)

    added = writer.add(there.symbol, interval, real(), source)
    left = gaps_of(writer.catalogue.times(symbol, interval, *bounds), interval, *bounds)
    return Repaired(added.commit, added.bars, tuple(left))


def _conform(
    provider: Provider, symbol: str, interval: int, start_ms: int, end_ms: int
) -> Iterator[BarColumns]:
    held = Conformance(symbol, interval)
    for chunk in provider.history(symbol, interval, start_ms, end_ms):
        fresh = held.take(chunk)
        if len(found := cut(fresh, start_ms, end_ms)):
            yield found


def _left(asked: Iterable[Asked], start_ms: int, end_ms: int) -> Iterator[Gap]:
    """What of a range is in none of these."""
    at = start_ms
    for one in sorted(asked, key=lambda one: one.from_ms):
        if one.from_ms > at and at < end_ms:
            yield Gap(at, min(one.from_ms, end_ms))
        at = max(at, one.to_ms)
    if at < end_ms:
        yield Gap(at, end_ms)
