"""What the market said."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from qmtl.foundation.common.money import MAX_FACTOR_DIGITS, MAX_FACTOR_POINT, is_factor, text


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
class Quote:
    """The best bid and ask at an instant.

    Attributes:
        bid, ask: quote currency per unit of base; the bid is below the ask.
        bid_size, ask_size: base currency.
    """

    symbol: str
    at_ms: int
    bid: Decimal
    ask: Decimal
    bid_size: Decimal
    ask_size: Decimal


@dataclass(frozen=True, slots=True)
class Prices:
    """How a price went in one interval, quote currency per unit of base."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal


@dataclass(frozen=True, slots=True)
class QuoteBar:
    """The best bids and asks of one interval.

    Attributes:
        open_time_ms, interval: as of `Bar`.
    """

    symbol: str
    open_time_ms: int
    interval: int
    bid: Prices
    ask: Prices


@dataclass(frozen=True, slots=True)
class Trade:
    """One trade of the market.

    Attributes:
        price: quote currency per unit of base.
        quantity: unsigned, base currency.
    """

    symbol: str
    at_ms: int
    price: Decimal
    quantity: Decimal


@dataclass(frozen=True, slots=True)
class WorldBar:
    """A bar as one world sees it: the market data of a world's key."""

    world_id: str
    bar: Bar


@dataclass(frozen=True, slots=True)
class EndOfInput:
    """Says in the topic of a source that its bars are done: of no symbol does one come after this bucket. The next bar, whenever it comes, takes
    it back.

    Attributes:
        interval: of the source, seconds.
        bucket_ms: the close of the last bucket.
    """

    interval: int
    bucket_ms: int

    @property
    def symbol(self) -> str:
        """What a bar has its key and partition by; it is of all symbols, and so of none."""
        return ""


MarketData: TypeAlias = Bar | WorldBar | EndOfInput
Quotation: TypeAlias = Bar | QuoteBar | Quote | Trade
"""What an order may be filled against."""


def fault_of(bar: Bar) -> str | None:
    """What keeps the numbers of a bar from being those of a bar, as a sentence; None where nothing does.

    Prices are positive, the high is not below the low, open and close lie between the two, a volume is not negative, and
    each number is short enough to be multiplied without loss.
    """
    prices = (("open", bar.open), ("high", bar.high), ("low", bar.low), ("close", bar.close))
    for name, value in (*prices, ("volume", bar.volume)):
        if not is_factor(value):
            return (
                f"{name} of {bar.symbol} was too long; a number has at most {MAX_FACTOR_DIGITS} significant digits and"
                f" {MAX_FACTOR_POINT} on each side of the point"
            )
    for name, value in prices:
        if value <= 0:
            return f"{name} of {bar.symbol} was {text(value)}; a price is positive"
    for name, value in prices:
        if not bar.low <= value <= bar.high:
            return f"{name} of {bar.symbol} was {text(value)}, outside {text(bar.low)} to {text(bar.high)}, its low and high"
    if bar.volume < 0:
        return f"volume of {bar.symbol} was {text(bar.volume)}; a volume is not negative"
    return None
