"""What may be sold short: how much there is to borrow, what it costs, and what is borrowed and given back."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Protocol

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, minus, plus, product, quotient
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.parameters import (
    AMOUNT_PLACES,
    ONE,
    finite,
    fraction,
    kept,
    named,
    not_negative,
    positive,
)

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Lendable:
    """What a broker lends of a symbol.

    Attributes:
        quantity: that can be borrowed in all, base currency or shares; None for no limit.
        fee_rate: annual, of the value borrowed.
        rebate_rate: annual, that the broker pays on the proceeds of the sale.

    Raises:
        InvalidValue: a quantity below 0, a rate that is not between -1 and 1.
    """

    quantity: Decimal | None
    fee_rate: Decimal = ZERO
    rebate_rate: Decimal = ZERO

    def __post_init__(self) -> None:
        if self.quantity is not None:
            not_negative("quantity", self.quantity)
        fraction("fee_rate", self.fee_rate)
        fraction("rebate_rate", self.rebate_rate)


EVERYTHING = Lendable(None)
NOTHING = Lendable(ZERO)


class ShortableModel(Protocol):
    """What may be sold short."""

    def lendable(self, symbol: str, at_ms: int) -> Lendable:
        """What the broker lends of a symbol at an instant, before anything is borrowed."""
        ...


@dataclass(frozen=True, slots=True)
class AllShortable:
    """Everything may be sold short, for nothing: the null case."""

    def lendable(self, symbol: str, at_ms: int) -> Lendable:
        return EVERYTHING


@dataclass(frozen=True, slots=True)
class NoneShortable:
    """Nothing may be sold short, as in a spot account."""

    def lendable(self, symbol: str, at_ms: int) -> Lendable:
        return NOTHING


@dataclass(frozen=True, slots=True)
class LendableDay:
    """A line of a table: what was lent of a symbol on a day.

    Attributes:
        day_ms: midnight UTC at which the day begins.

    Raises:
        InvalidValue: a symbol without a name, an instant that is no midnight.
    """

    symbol: str
    day_ms: int
    lendable: Lendable

    def __post_init__(self) -> None:
        named("symbol", self.symbol)
        if self.day_ms % DAY_MS:
            raise InvalidValue(
                f"day_ms was {self.day_ms}; it must be a midnight UTC.", "Send the midnight of the day."
            )


class Unknown(Enum):
    """What holds for a symbol or a day that a table does not have.

    Attributes:
        NOTHING: it can't be sold short: what nobody has offered is not there.
        EVERYTHING: it can be without limit, for nothing (Lean).
    """

    NOTHING = "nothing"
    EVERYTHING = "everything"


@dataclass(frozen=True, slots=True)
class ShortableTable:
    """What is lent by symbol and day.

    Source: Lean's `LocalDiskShortableProvider` at commit 24863901, whose files have a line per day with quantity, rebate and fee.

    Attributes:
        days: by symbol, then day.
        unknown: for what is not in it.
        carried_days: for how many days a line holds beyond its own, as over a weekend; 0 for its own day alone.

    Raises:
        InvalidValue: lines out of order or twice, carried days below 0.
    """

    days: tuple[LendableDay, ...]
    unknown: Unknown = Unknown.NOTHING
    carried_days: int = 0

    def __post_init__(self) -> None:
        not_negative("carried_days", Decimal(self.carried_days))
        keys = [(line.symbol, line.day_ms) for line in self.days]
        if sorted(set(keys)) != keys:
            raise InvalidValue(
                "days were out of order, or had one twice.", "Sort them by symbol, then by day; each once."
            )

    def lendable(self, symbol: str, at_ms: int) -> Lendable:
        at = bisect_right(self.days, (symbol, at_ms), key=lambda line: (line.symbol, line.day_ms)) - 1
        if at >= 0 and self.days[at].symbol == symbol:
            line = self.days[at]
            if at_ms < line.day_ms + (self.carried_days + 1) * DAY_MS:
                return line.lendable
        return NOTHING if self.unknown is Unknown.NOTHING else EVERYTHING


def short_quantity(side: Side, quantity: Decimal, holding: Decimal, selling: Decimal = ZERO) -> Decimal:
    """How much of an order is sold short: what a sell has beyond the holding. A sell of a holding is no short, and a buy never is.

    Args:
        quantity: of the order, unsigned.
        holding: signed.
        selling: what open sells before it are about to take from the holding, unsigned.

    Raises:
        InvalidValue: a quantity that is not above 0, a selling below 0, a holding that is not finite.
    """
    positive("quantity", quantity)
    not_negative("selling", selling)
    finite("holding", holding)
    if side is Side.BUY:
        return ZERO
    free = max(minus(holding, selling), ZERO)
    return max(minus(quantity, free), ZERO)


@dataclass(frozen=True, slots=True)
class Borrowing:
    """The answer to who wants to borrow.

    Attributes:
        granted: all of what was asked for, or 0.
        borrowed: by the account of the symbol, afterwards.
        left: that can still be borrowed; None for no limit.
    """

    granted: Decimal
    borrowed: Decimal
    left: Decimal | None


def borrow(lendable: Lendable, borrowed: Decimal, quantity: Decimal) -> Borrowing:
    """Borrow `quantity` more: all of it, or nothing where there is not enough. State is not kept: `borrowed` comes in, and goes out in the answer.

    Args:
        borrowed: so far.

    Raises:
        InvalidValue: a quantity that is not above 0, or borrowed below 0.
    """
    positive("quantity", quantity)
    not_negative("borrowed", borrowed)
    after = plus(borrowed, quantity)
    if lendable.quantity is None:
        return Borrowing(quantity, after, None)
    if after > lendable.quantity:
        return Borrowing(ZERO, borrowed, max(minus(lendable.quantity, borrowed), ZERO))
    return Borrowing(quantity, after, minus(lendable.quantity, after))


def give_back(borrowed: Decimal, quantity: Decimal) -> Decimal:
    """What is still borrowed after `quantity` of it was given back.

    Raises:
        InvalidValue: more than was borrowed, or a quantity that is not above 0.
    """
    positive("quantity", quantity)
    not_negative("borrowed", borrowed)
    if quantity > borrowed:
        raise InvalidValue(
            f"quantity was {quantity}, and {borrowed} is borrowed; no more can be given back.",
            "Give back what is borrowed; what is bought beyond that is a holding.",
        )
    return minus(borrowed, quantity)


@dataclass(frozen=True, slots=True)
class BorrowFee:
    """What a short position costs over days: `quantity * price * collateral * (fee_rate - rebate_rate) * days / day_count`.

    A rebate above the fee is received: the amount is negative. Rounded half-even to 18 digits. Source: Interactive Brokers' page of stock borrow fees, where
    the collateral is 102 % of the price and the day count 360.

    Attributes:
        collateral: the part of the value on which it is taken, at least 1.
        day_count: 360 or 365.

    Raises:
        InvalidValue: a collateral below 1, a day count that is neither. For a fee: a quantity, price or days below 0.
    """

    collateral: Decimal = ONE
    day_count: int = 360

    def __post_init__(self) -> None:
        finite("collateral", self.collateral)
        if self.collateral < 1:
            raise InvalidValue(
                f"collateral was {self.collateral}; it must be at least 1.", "Send 1.02 for 102 %."
            )
        if self.day_count not in (360, 365):
            raise InvalidValue(f"day_count was {self.day_count}; it must be 360 or 365.", "Send 360.")

    def fee(self, lendable: Lendable, quantity: Decimal, price: Decimal, days: int) -> Decimal:
        """What is owed in quote currency.

        Args:
            quantity: borrowed, unsigned.
            price: at the end of the day, quote currency.
        """
        not_negative("quantity", quantity)
        not_negative("price", price)
        not_negative("days", Decimal(days))
        value = product(product(product(quantity, price), self.collateral), Decimal(days))
        rate = minus(lendable.fee_rate, lendable.rebate_rate)
        return kept(quotient(product(value, rate), Decimal(self.day_count), AMOUNT_PLACES))
