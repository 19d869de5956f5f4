"""The bars of the benchmark: a random walk by the minute, the same on every machine, in whole units as exact engines have them.

Nothing here knows an engine, so that the count (`bench.backtest.count`) and all of them can read the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

SYMBOL: Final = "BTC-USD"
INTERVAL: Final = 60
START_MS: Final = 1_600_000_020_000
"""Open time of the first bar, a full minute."""

SEED: Final = 42
FIRST_PRICE: Final = 30_000.0
PRICE_PLACES: Final = 2
VOLUME_PLACES: Final = 6

Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """Bars of one symbol, one after the other without a gap.

    Attributes:
        open, high, low, close: hundredths.
        volume: millionths.
    """

    open: Integers
    high: Integers
    low: Integers
    close: Integers
    volume: Integers

    def __len__(self) -> int:
        return len(self.close)

    def first(self, count: int) -> Market:
        """So many from the first on."""
        return Market(*(getattr(self, name)[:count] for name in COLUMNS))

    def repeated(self, count: int) -> Market:
        """So many, over and over from the first on: prices stay where they are, however many there are."""
        return Market(*(np.resize(getattr(self, name), count) for name in COLUMNS))

    def write(self, path: Path) -> None:
        """As a file of numpy's, for programs that have none of this code."""
        np.savez(path, **{name: getattr(self, name) for name in COLUMNS})


COLUMNS: Final = ("open", "high", "low", "close", "volume")


def market(count: int) -> Market:
    """The bars of workload W1, drawn in the order in which they are written here."""
    chance = np.random.default_rng(SEED)
    close = np.round(FIRST_PRICE * np.exp(np.cumsum(chance.normal(0, 0.0005, count))), PRICE_PLACES)
    opened = np.concatenate(([FIRST_PRICE], close[:-1]))
    above = 1 + np.abs(chance.normal(0, 0.0002, count))
    high = np.round(np.maximum(opened, close) * above, PRICE_PLACES)
    below = 1 - np.abs(chance.normal(0, 0.0002, count))
    low = np.round(np.minimum(opened, close) * below, PRICE_PLACES)
    volume = chance.uniform(1, 10, count)
    return Market(
        _units(opened, PRICE_PLACES),
        _units(high, PRICE_PLACES),
        _units(low, PRICE_PLACES),
        _units(close, PRICE_PLACES),
        _units(volume, VOLUME_PLACES),
    )


def _units(values: NDArray[np.float64], places: int) -> Integers:
    found: Integers = np.rint(values * 10**places).astype(np.int64)
    return found
