"""A selection of bars with what binds a run to it: the commit as of which it was read, and the fingerprint of these very bars."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from qmtl.foundation.common.errors import InvalidValue, NotInCatalogue
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.data.catalogue import Catalogue
from qmtl.runtime.data.journal import Commit


@dataclass(frozen=True, slots=True)
class BoundBars:
    """The bars of some symbols in a range, as of a commit.

    Attributes:
        symbols: sorted, each once; each has a bar in the range.
        interval: seconds.
        start_ms: open time of the first bucket: of the range that was said, else of the first bar.
        end_ms: close time of the last bucket, likewise.
        bars: how many there are.
        fingerprint: as `qmtl.runtime.data.bars.dataset_fingerprint` has it for files with these bars.
    """

    catalogue: Catalogue
    commit: Commit
    symbols: tuple[str, ...]
    interval: int
    start_ms: int
    end_ms: int
    bars: int
    fingerprint: str

    @property
    def as_of(self) -> str:
        """The digest of the commit."""
        return self.commit.digest

    def is_as_of(self, text: str) -> bool:
        """Whether a text names this state of the data: the commit's number or digest, the begin of the digest, or the fingerprint."""
        return text == self.fingerprint or self.commit.is_called(text)

    def read(self, symbols: Iterable[str] | None = None) -> Iterator[Bar]:
        """The bars by open time, then symbol; of these symbols alone, if any are given."""
        chosen = self.symbols if symbols is None else sorted(set(symbols))
        return heapq.merge(*map(self._of, chosen), key=lambda bar: (bar.open_time_ms, bar.symbol))

    def _of(self, symbol: str) -> Iterator[Bar]:
        for chunk in self.catalogue.read(
            symbol, self.interval, self.start_ms, self.end_ms, self.commit.number
        ):
            yield from chunk.bars()


def bound_bars(
    catalogue: Catalogue,
    symbols: Iterable[str],
    interval: int,
    start_ms: int | None = None,
    end_ms: int | None = None,
    as_of: int | str | None = None,
) -> BoundBars:
    """Choose bars, and read them once for what they are.

    Args:
        start_ms, end_ms: open times, from the first on and before the second; None for all that there are.

    Raises:
        InvalidValue: no symbol, or a bound off the grid of the interval.
        NotInCatalogue: no such commit, or a symbol without a bar in the range.
        CatalogueDamaged: a file is missing, or not as it was written.
    """
    step = interval * 1000
    chosen = tuple(sorted(set(symbols)))
    if not chosen or any(one is not None and one % step for one in (start_ms, end_ms)):
        raise InvalidValue(
            f"the selection was {len(chosen)} symbols from {start_ms} to {end_ms}; it has a symbol, and bounds that are multiples of {step} ms.",
            "Name a symbol, and open times of bars.",
        )
    commit = catalogue.commit(as_of)
    count, firsts, lasts = 0, [], []
    for symbol in chosen:
        times = [
            chunk
            for chunk in catalogue.times(symbol, interval, start_ms, end_ms, commit.number)
            if len(chunk)
        ]
        if not times:
            raise NotInCatalogue(
                f"{catalogue.directory} has no bar of {symbol} and {interval} s from {start_ms} to {end_ms}.",
                "Give another range, or fetch it.",
            )
        count += sum(map(len, times))
        firsts.append(int(times[0][0]))
        lasts.append(int(times[-1][-1]))
    begin = min(firsts) if start_ms is None else start_ms
    end = max(lasts) + step if end_ms is None else end_ms
    return BoundBars(
        catalogue,
        commit,
        chosen,
        interval,
        begin,
        end,
        count,
        catalogue.fingerprint(chosen, interval, begin, end, commit.number),
    )
