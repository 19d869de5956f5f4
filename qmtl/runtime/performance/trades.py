"""Trades: what fills that opened and fills that closed make together, exact.

A trade is one order's reduction of a position: what it closed, against what that had cost. A position that is closed in two orders gives two
trades; an order that flips a position closes all of it, which is a trade, and opens the rest, which is none yet.

What a closed part had cost depends on the matching. `FIFO` takes the oldest fills first. `AVERAGE` takes its share of the cost of all that is held,
as the portfolio does. Both give the same sum of all trades and of what is open.

Where a share can't be written with `SHARE_PLACES` digits it is rounded half-even, and what was rounded away stays with what remains. So no digit is
lost: the net profit of all trades and of all that is open is the change of equity, without tolerance.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import Enum
from itertools import groupby
from typing import Final

import numpy as np

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import (
    ZERO,
    magnitude,
    minus,
    negated,
    plus,
    product,
    quotient,
    total,
)
from qmtl.foundation.contracts.trade import Fill, Side
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.curve import in_order

SHARE_PLACES: Final = 18
"""Digits after the point of a share of a cost or fee; as the portfolio's."""

PRICE_PLACES: Final = 12
"""Digits after the point of an average price, which is for people."""


class Matching(Enum):
    """Which cost a closed part takes with it."""

    FIFO = "fifo"
    AVERAGE = "average"


class Direction(Enum):
    LONG = "long"
    SHORT = "short"


@dataclass(frozen=True, slots=True)
class Trade:
    """One order's reduction of a position.

    Attributes:
        order_id: of the order that closed.
        quantity: base currency, positive.
        entry_ms: of the oldest fill that it closes; with average costs, of the one that opened the position.
        exit_ms: of its last fill.
        entry_price, exit_price: averages, rounded to `PRICE_PLACES`.
        entry_value, exit_value: `quantity * price`, exact sums over the fills, positive.
        gross: what it made before fees; slippage is in the prices.
        fees: of the closing fills and the share of the opening ones.
        mae, mfe: the worst and the best unrealised profit before fees, 0 or below and 0 or above; None where no bars were given. Of the bars that
            lie wholly between entry and exit, and the prices of entry and exit; as if all of the quantity had been held all the time.
    """

    symbol: str
    direction: Direction
    order_id: str
    quantity: Decimal
    entry_ms: int
    exit_ms: int
    entry_value: Decimal
    exit_value: Decimal
    fees: Decimal
    mae: Decimal | None = None
    mfe: Decimal | None = None

    @property
    def entry_price(self) -> Decimal:
        return quotient(self.entry_value, self.quantity, PRICE_PLACES)

    @property
    def exit_price(self) -> Decimal:
        return quotient(self.exit_value, self.quantity, PRICE_PLACES)

    @property
    def gross(self) -> Decimal:
        sold, bought = self.exit_value, self.entry_value
        return minus(sold, bought) if self.direction is Direction.LONG else minus(bought, sold)

    @property
    def net(self) -> Decimal:
        return minus(self.gross, self.fees)

    @property
    def held_ms(self) -> int:
        return self.exit_ms - self.entry_ms


@dataclass(frozen=True, slots=True)
class OpenPart:
    """What of a symbol is not closed.

    Attributes:
        quantity: signed, base currency.
        cost: signed cost of it, quote currency.
        fees: the share of the fees of the fills that opened it.
    """

    symbol: str
    quantity: Decimal
    cost: Decimal
    fees: Decimal
    opened_ms: int

    def net(self, price: Decimal) -> Decimal:
        """The unrealised profit at a price, after the fees of its entry."""
        return minus(minus(product(self.quantity, price), self.cost), self.fees)


@dataclass(frozen=True, slots=True)
class Trades:
    """All that fills came to.

    Attributes:
        closed: by the time of exit, then symbol and order.
        open: by symbol; flat symbols are left out.
    """

    matching: Matching
    closed: tuple[Trade, ...]
    open: tuple[OpenPart, ...]


@dataclass(slots=True)
class _Lot:
    """Unsigned quantity and cost of what came in together."""

    quantity: Decimal
    cost: Decimal
    fees: Decimal
    at_ms: int

    def take(self, quantity: Decimal) -> _Lot:
        """A part out of it; what rounding leaves stays here."""
        if quantity == self.quantity:
            part = _Lot(quantity, self.cost, self.fees, self.at_ms)
            self.quantity = self.cost = self.fees = ZERO
            return part
        cost = quotient(product(self.cost, quantity), self.quantity, SHARE_PLACES)
        fees = quotient(product(self.fees, quantity), self.quantity, SHARE_PLACES)
        self.quantity = minus(self.quantity, quantity)
        self.cost, self.fees = minus(self.cost, cost), minus(self.fees, fees)
        return _Lot(quantity, cost, fees, self.at_ms)


@dataclass(slots=True)
class _Book:
    """The position of one symbol, as lots: many of them first in first out, or one of all."""

    symbol: str
    matching: Matching
    is_long: bool = True
    lots: deque[_Lot] = field(default_factory=deque)
    closed: list[Trade] = field(default_factory=list)
    can_extend: bool = False

    def apply(self, fill: Fill) -> None:
        rest = _Lot(fill.quantity, product(fill.quantity, fill.price), fill.fee, fill.fill_time_ms)
        buys = fill.side is Side.BUY
        if not self.lots or self.is_long == buys:
            self._add(rest, buys)
            return
        taken: list[_Lot] = []
        out = ZERO
        while self.lots and rest.quantity > out:
            lot = self.lots[0]
            taken.append(lot.take(min(lot.quantity, minus(rest.quantity, out))))
            out = plus(out, taken[-1].quantity)
            if not lot.quantity:
                self.lots.popleft()
        self._close(fill, rest.take(out), taken)
        if rest.quantity:
            self._add(rest, buys)

    def _add(self, lot: _Lot, is_long: bool) -> None:
        self.is_long, self.can_extend = is_long, False
        if self.matching is Matching.FIFO or not self.lots:
            self.lots.append(lot)
            return
        held = self.lots[0]
        held.quantity = plus(held.quantity, lot.quantity)
        held.cost, held.fees = plus(held.cost, lot.cost), plus(held.fees, lot.fees)

    def _close(self, fill: Fill, exit_part: _Lot, taken: Sequence[_Lot]) -> None:
        entered_ms, cost, fees = taken[0].at_ms, taken[0].cost, taken[0].fees
        for one in taken[1:]:
            entered_ms = min(entered_ms, one.at_ms)
            cost, fees = plus(cost, one.cost), plus(fees, one.fees)
        made = Trade(
            self.symbol,
            Direction.LONG if self.is_long else Direction.SHORT,
            fill.order_id,
            exit_part.quantity,
            entered_ms,
            fill.fill_time_ms,
            cost,
            exit_part.cost,
            plus(exit_part.fees, fees),
        )
        if self.can_extend and self.closed[-1].order_id == fill.order_id:
            made = _joined(self.closed.pop(), made)
        self.closed.append(made)
        self.can_extend = bool(self.lots)

    def rest(self) -> OpenPart | None:
        if not self.lots:
            return None
        turned = (lambda one: one) if self.is_long else negated
        return OpenPart(
            self.symbol,
            turned(total(one.quantity for one in self.lots)),
            turned(total(one.cost for one in self.lots)),
            total(one.fees for one in self.lots),
            self.lots[0].at_ms,
        )


def _joined(one: Trade, other: Trade) -> Trade:
    return replace(
        one,
        quantity=plus(one.quantity, other.quantity),
        entry_ms=min(one.entry_ms, other.entry_ms),
        exit_ms=other.exit_ms,
        entry_value=plus(one.entry_value, other.entry_value),
        exit_value=plus(one.exit_value, other.exit_value),
        fees=plus(one.fees, other.fees),
    )


def trades_of(
    fills: Iterable[Fill], matching: Matching = Matching.FIFO, bars: Sequence[BarColumns] = ()
) -> Trades:
    """The trades of these fills, in whatever order they come: they are read by time, symbol, order and number.

    Args:
        bars: of each symbol, for `mae` and `mfe`.

    Raises:
        InvalidValue: fees in more than one currency, a fill twice, or one without a positive quantity and price.
        InexactMoney: numbers too long for exact arithmetic.
    """
    ordered = in_order(list(fills))
    _require_sound(ordered)
    columns = {one.symbol: one for one in bars if len(one)}
    books: dict[str, _Book] = {}
    for fill in ordered:
        book = books.get(fill.symbol)
        if book is None:
            book = books[fill.symbol] = _Book(fill.symbol, matching)
        book.apply(fill)
    closed = [trade for book in books.values() for trade in book.closed]
    closed.sort(key=lambda one: (one.exit_ms, one.symbol, one.order_id, one.entry_ms))
    rests = (books[symbol].rest() for symbol in sorted(books))
    return Trades(
        matching, tuple(_excursions(closed, columns)), tuple(one for one in rests if one is not None)
    )


def _require_sound(ordered: Sequence[Fill]) -> None:
    if len({one.fee_currency for one in ordered}) > 1:
        raise InvalidValue("fees were in more than one currency.", "Report each currency by itself.")
    for (order_id, seq), same in groupby(ordered, key=lambda one: (one.order_id, one.seq)):
        first, *more = same
        if more:
            raise InvalidValue(f"fill {seq} of order {order_id} was there twice.", "Give each fill once.")
        if first.quantity <= 0 or first.price <= 0:
            raise InvalidValue(
                f"fill {seq} of order {order_id} had a quantity or price that is not positive.",
                "Mend its source.",
            )


def _excursions(closed: Iterable[Trade], columns: Mapping[str, BarColumns]) -> Iterable[Trade]:
    closes = {
        symbol: bars.bucket_ms for symbol, bars in columns.items()
    }  # a column each time that it is asked for
    for trade in closed:
        bars = columns.get(trade.symbol)
        if bars is None:
            yield trade
            continue
        begin = int(np.searchsorted(bars.open_time_ms, trade.entry_ms, side="left"))
        end = int(np.searchsorted(closes[trade.symbol], trade.exit_ms, side="right"))
        made = [ZERO, trade.gross]
        if begin < end:
            low, high = bars.low.chunk(begin, end), bars.high.chunk(begin, end)
            for extreme in (low.at(int(np.argmin(low.units))), high.at(int(np.argmax(high.units)))):
                value = minus(product(trade.quantity, extreme), trade.entry_value)
                made.append(value if trade.direction is Direction.LONG else negated(value))
        yield replace(trade, mae=min(made), mfe=max(made))


def traded_value(fills: Iterable[Fill]) -> Decimal:
    """`sum(quantity * price)` of all fills, bought and sold."""
    return total(product(one.quantity, one.price) for one in fills)


def slippage_paid(fills: Iterable[Fill]) -> Decimal:
    """`sum(quantity * slippage)`: what the prices of the fills were worse than the market's."""
    return total(product(one.quantity, one.slippage) for one in fills)


# ---- figures of profits -----------------------------------------------------------------------------------------


def hit_rate(profits: Sequence[Decimal]) -> float | None:
    """The share of profits above 0; one of exactly 0 is no hit."""
    return sum(one > 0 for one in profits) / len(profits) if profits else None


def profit_factor(profits: Sequence[Decimal]) -> float | None:
    """`sum(profits above 0) / |sum(those below)|`; None where none is below."""
    lost = magnitude(total(one for one in profits if one < 0))
    return float(total(one for one in profits if one > 0)) / float(lost) if lost else None


def mean_profit(profits: Sequence[Decimal]) -> Decimal | None:
    """The mean, rounded to `PRICE_PLACES`; None of none."""
    return quotient(total(profits), Decimal(len(profits)), PRICE_PLACES) if profits else None
