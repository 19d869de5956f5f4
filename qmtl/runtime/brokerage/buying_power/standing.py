"""What buying power is asked about: an order that is wanted, and the account as it stands; and the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Protocol, TypeAlias

from qmtl.foundation.common.money import ZERO, product, whole_steps
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.buying_power.requirement import When
from qmtl.runtime.brokerage.parameters import ONE, finite, named, positive

NO_TIME: Final = When()
"""For models that ask for no time."""

FeeOf: TypeAlias = Callable[[Decimal], Decimal]
"""The fee of an order of that (unsigned) quantity, in the currency in which its value is counted. It may not fall faster than the value grows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An order, as far as it asks for buying power.

    Attributes:
        quantity: what is not filled yet; unsigned, base currency or contracts.
        price: its limit; of an order without one what it is expected to be filled at (for a buy the ask): quote currency.
        fee: expected, quote currency; negative is a rebate.
        multiplier: units of the base in one contract.
        conversion: what one unit of the quote currency is worth in the account's.
        reduces: it can't but bring a position nearer to flat (FIX reduce-only).

    Raises:
        InvalidValue: a number that is not finite, or not above 0 where it must be; a currency without a name.
    """

    side: Side
    quantity: Decimal
    price: Decimal
    base: str
    quote: str
    fee: Decimal = ZERO
    multiplier: Decimal = ONE
    conversion: Decimal = ONE
    reduces: bool = False

    def __post_init__(self) -> None:
        positive("quantity", self.quantity)
        positive("price", self.price)
        positive("multiplier", self.multiplier)
        positive("conversion", self.conversion)
        finite("fee", self.fee)
        named("base", self.base)
        named("quote", self.quote)

    @property
    def value(self) -> Decimal:
        """`quantity * price * multiplier`, quote currency."""
        return product(product(self.quantity, self.price), self.multiplier)

    @property
    def unit_value(self) -> Decimal:
        """Of one unit or contract, account currency."""
        return product(product(self.price, self.multiplier), self.conversion)


@dataclass(frozen=True, slots=True)
class Standing:
    """An account when an order is wanted.

    Attributes:
        cash: settled, by currency; what is not there is 0.
        held: the position in the order's symbol, signed.
        equity: cash and positions at their marks, account currency.
        margin_used: maintenance margin of all positions, the one in the order's symbol among them, account currency.
        open_orders: all of the account.
        when: the instant.
    """

    cash: Mapping[str, Decimal] = field(default_factory=dict)
    held: Decimal = ZERO
    equity: Decimal = ZERO
    margin_used: Decimal = ZERO
    open_orders: tuple[Wanted, ...] = ()
    when: When = NO_TIME

    def __post_init__(self) -> None:
        for currency, amount in self.cash.items():
            finite(f"cash in {currency}", amount)
        finite("held", self.held)
        finite("equity", self.equity)
        finite("margin_used", self.margin_used)

    def closes(self, order: Wanted) -> bool:
        """Whether an order is against the position and not larger than it."""
        if not self.held or (self.held > 0) == (order.side is Side.BUY):
            return False
        return order.quantity <= self.held.copy_abs()


@dataclass(frozen=True, slots=True)
class Shortage:
    """An order can't be afforded.

    Attributes:
        needed, available: in `currency`; for margin that is the account's, and empty.
    """

    currency: str
    needed: Decimal
    available: Decimal


class BuyingPower(Protocol):
    """The model of an account."""

    def shortage(self, order: Wanted, standing: Standing) -> Shortage | None:
        """What is missing for an order; None where it can be afforded."""


@dataclass(frozen=True, slots=True)
class UnlimitedPower:
    """Every order can be afforded: the null case."""

    def shortage(self, order: Wanted, standing: Standing) -> Shortage | None:
        return None


def no_fee(quantity: Decimal) -> Decimal:
    return ZERO


def most_lots(allowed: Callable[[int], bool], at_most: int) -> int:
    """The largest of 0 to `at_most` that is allowed, where all below one that is allowed are: by halving."""
    low, high = 0, at_most
    while low < high:
        middle = (low + high + 1) // 2
        if allowed(middle):
            low = middle
        else:
            high = middle - 1
    return low


def lots_within(budget: Decimal, unit: Decimal, lot: Decimal) -> int:
    """How many lots of a unit price a budget pays without fees; 0 where there is no budget."""
    return int(whole_steps(budget, product(unit, lot))) if budget > 0 else 0
