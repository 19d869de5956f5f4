"""What a traded symbol is to the books: who pays what when, and what a quantity is worth at a price."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum

from qmtl.foundation.common.errors import InvalidValue, UnknownInstrument
from qmtl.foundation.common.money import is_factor, negated, product, quotient, text

WORTH_PLACES = 18
"""Digits after the point of what an inverse contract is worth, which is a quotient; half-even."""

ONE = Decimal(1)


class Settlement(Enum):
    """What moves when it is traded."""

    PAID = "paid"
    """The whole price: shares, or spot in an account that keeps no other asset."""
    EXCHANGED = "exchanged"
    """One asset for another, and both are cash: currency pairs, spot in an account of many assets."""
    MARGINED = "margined"
    """Nothing but what a reduction realises: futures, contracts for difference, perpetuals."""


class Costing(Enum):
    """Which cost a closed part takes with it."""

    AVERAGE = "average"
    FIFO = "fifo"
    LIFO = "lifo"


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol.

    Attributes:
        currency: in which it is paid and gains are counted: the quote currency; of an inverse contract the base.
        base: the asset that an exchange brings or takes; empty unless exchanged.
        size: units of one contract: multiplier; of an inverse contract, in quote currency.
        inverse: its price is quote per base, and it is settled in base.

    Raises:
        InvalidValue: an inverse contract that is not margined, an exchange without a base or with a size, or a size that is not positive.
    """

    symbol: str
    currency: str
    settlement: Settlement = Settlement.PAID
    base: str = ""
    size: Decimal = ONE
    inverse: bool = False

    def __post_init__(self) -> None:
        if not self.symbol or not self.currency:
            raise InvalidValue(
                f"an instrument had the symbol {self.symbol!r} and the currency {self.currency!r}; both are said."
            )
        if not self.size.is_finite() or self.size <= 0 or not is_factor(self.size):
            raise InvalidValue(f"size of {self.symbol} was {self.size}; it is a positive number.")
        exchanged = self.settlement is Settlement.EXCHANGED
        if exchanged != bool(self.base) or (exchanged and (self.size != 1 or self.base == self.currency)):
            raise InvalidValue(
                f"{self.symbol} had the base {self.base!r}, the currency {self.currency!r} and the size {text(self.size)}; "
                "an exchange, and nothing else, has a base of its own, and the size 1."
            )
        if self.inverse and self.settlement is not Settlement.MARGINED:
            raise InvalidValue(f"{self.symbol} was inverse and {self.settlement.value}; it is margined.")

    def worth(self, quantity: Decimal, price: Decimal) -> Decimal:
        """What `quantity` (signed) counts at `price`, signed so that more is better: `quantity * price * size`, of an inverse contract
        `-quantity * size / price` in base currency, rounded half-even to `WORTH_PLACES` digits.

        A gain is the difference of two of these: for an inverse contract `quantity * size * (1 / entry - 1 / exit)`
        (BitMEX, "Inverse Contracts").
        """
        if not quantity:
            return quantity
        units = quantity if self.size == 1 else product(quantity, self.size)
        if self.inverse:
            return negated(quotient(units, price, WORTH_PLACES))
        return product(units, price)


@dataclass(frozen=True, slots=True)
class Terms:
    """By what rules facts are booked.

    Attributes:
        instruments: by symbol.
    """

    instruments: Mapping[str, Instrument] = field(default_factory=dict)
    costing: Costing = Costing.AVERAGE

    def instrument(self, symbol: str) -> Instrument:
        """Raises:
        UnknownInstrument: nobody said what it is.
        """
        found = self.instruments.get(symbol)
        if found is None:
            raise UnknownInstrument(
                f"symbol was {symbol!r}, of which the terms say nothing.", "Add its instrument to the terms."
            )
        return found
