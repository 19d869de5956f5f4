"""One quotation as one side of an order sees it.

Every rule is written for a buyer. A seller sees the market in a mirror: prices with the other sign, the high as the low.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, negated, total
from qmtl.foundation.contracts.market import Bar, Prices, Quotation, Quote, QuoteBar, Trade
from qmtl.foundation.contracts.trade import Side


@dataclass(frozen=True, slots=True)
class View:
    """Prices as a buyer sees them (a seller's have the other sign), and what stands beside them.

    Attributes:
        start_ms, end_ms: of the data; equal for a quote or a trade.
        volume: how much was traded, or is shown on the other side; None where that is not said.
        is_trade: the prices are those of trades, not of quotes.
        interval: seconds; 0 of a quote or a trade.
    """

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    start_ms: int
    end_ms: int
    volume: Decimal | None
    is_trade: bool
    interval: int

    def at(self, price: Decimal) -> View:
        """The same with one price alone."""
        return View(
            price, price, price, price, self.start_ms, self.end_ms, self.volume, self.is_trade, self.interval
        )


def mirrored(side: Side, price: Decimal) -> Decimal:
    """A price as the side sees it; the way back is the same."""
    return price if side is Side.BUY else negated(price)


def view_of(side: Side, data: Quotation) -> View:
    """A buyer sees asks, a seller bids, and both see trades."""
    match data:
        case Bar():
            prices = Prices(data.open, data.high, data.low, data.close)
            return _view(side, prices, data.open_time_ms, data.interval, data.volume, True)
        case QuoteBar():
            prices = data.ask if side is Side.BUY else data.bid
            return _view(side, prices, data.open_time_ms, data.interval, None, False)
        case Quote():
            is_buy = side is Side.BUY
            price, size = (data.ask, data.ask_size) if is_buy else (data.bid, data.bid_size)
            return _view(side, Prices(price, price, price, price), data.at_ms, 0, size, False)
        case Trade():
            one = data.price
            return _view(side, Prices(one, one, one, one), data.at_ms, 0, data.quantity, True)


def _view(
    side: Side, prices: Prices, start_ms: int, interval: int, volume: Decimal | None, is_trade: bool
) -> View:
    end_ms = start_ms + 1000 * interval
    if side is Side.BUY:
        return View(
            prices.open, prices.high, prices.low, prices.close, start_ms, end_ms, volume, is_trade, interval
        )
    return View(
        negated(prices.open), negated(prices.low), negated(prices.high), negated(prices.close),
        start_ms, end_ms, volume, is_trade, interval,
    )  # fmt: skip


def end_of(data: Quotation) -> int:
    """When it was known, UTC epoch ms."""
    return data.at_ms if isinstance(data, Quote | Trade) else data.open_time_ms + 1000 * data.interval


def bar_of(trades: Sequence[Trade], interval: int) -> Bar:
    """The bar of trades of one symbol, in their order; those of one instant are looked at as one bar.

    Args:
        interval: seconds; the bar ends with the last trade.

    Raises:
        InvalidValue: no trade.
    """
    if not trades:
        raise InvalidValue("a bar was made of no trades; it needs one at least.", "Leave such a bar out.")
    prices = [one.price for one in trades]
    start_ms = trades[-1].at_ms - 1000 * interval
    volume = total(one.quantity for one in trades)
    return Bar(trades[0].symbol, start_ms, interval, prices[0], max(prices), min(prices), prices[-1], volume)


def price_of(side: Side | None, known: Sequence[Quotation]) -> Decimal:
    """What one unit costs by what is known: the newest ask of a buyer, the newest bid of a seller, the newest trade of nobody.

    Where no quotes are known, the newest trade is the price of both sides, and 0 where nothing is known.
    Source: Lean's `FillModel.GetPrices` at commit 24863901.
    """
    quoted = tuple(one for one in known if isinstance(one, Quote | QuoteBar)) if side is not None else ()
    traded = tuple(one for one in known if isinstance(one, Bar | Trade))
    return _newest(side or Side.BUY, quoted or traded)


def latest_price(side: Side, known: Sequence[Quotation]) -> Decimal:
    """The newest price of any kind, 0 where nothing is known; of two of one instant the later in the sequence.

    Source: Lean's `LatestPriceFillModel` at commit 24863901.
    """
    return _newest(side, known)


def _newest(side: Side, known: Sequence[Quotation]) -> Decimal:
    if not known:
        return ZERO
    newest = max(enumerate(known), key=lambda one: (end_of(one[1]), one[0]))[1]
    return mirrored(side, view_of(side, newest).close)
