"""What the market said."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Bar:
    """One trade bar.

    Attributes:
        open_time_ms: start of the bar, UTC epoch ms, a multiple of the interval.
        interval: length in seconds.
        open, high, low, close: quote currency per unit of base.
        volume: base currency.
    """

    symbol: str
    open_time_ms: int
    interval: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


@dataclass(frozen=True, slots=True)
class WorldBar:
    """A bar as one world sees it: the market data of a world's key."""

    world_id: str
    bar: Bar


MarketData: TypeAlias = Bar | WorldBar
