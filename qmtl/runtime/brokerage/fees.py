"""What an execution costs: one small interface, its null case, and a percentage of the notional."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeAlias

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, magnitude, product, round_places
from qmtl.foundation.contracts.trade import Side

FEE_PLACES = 18
"""Digits after the point that a fee may have; a longer product is rounded half-even."""


class FeeModel(Protocol):
    """What a broker takes for one execution."""

    def fee(self, side: Side, quantity: Decimal, price: Decimal) -> Decimal:
        """The fee in quote currency; negative is a rebate.

        Args:
            quantity: unsigned, base currency.
            price: of the execution, slippage included, quote currency.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoFee:
    """Costs nothing."""

    def fee(self, side: Side, quantity: Decimal, price: Decimal) -> Decimal:
        return ZERO


@dataclass(frozen=True, slots=True)
class PercentFee:
    """`rate * quantity * price`, both sides alike and always in quote currency, as Coinbase charges it.

    Source of the formula: Lean's `CoinbaseFeeModel` and its tests at commit 24863901 (a taker's buy of 1 at 100 and
    0.3 % costs 0.3). The product is kept exact; only beyond `FEE_PLACES` digits after the point is it rounded, half-even.

    Attributes:
        rate: fraction of the notional, e.g. 0.001; negative is a rebate.

    Raises:
        InvalidValue: a rate that is not finite or not between -1 and 1.
    """

    rate: Decimal

    def __post_init__(self) -> None:
        if not self.rate.is_finite() or magnitude(self.rate) >= 1:
            raise InvalidValue(
                f"fee_rate was {self.rate}; it must be a finite fraction of the notional between -1 and 1.",
                "Send 0.001 for a tenth of a percent.",
            )

    def fee(self, side: Side, quantity: Decimal, price: Decimal) -> Decimal:
        exact = product(product(quantity, price), self.rate)
        if int(exact.as_tuple().exponent) < -FEE_PLACES:
            exact = round_places(exact, FEE_PLACES)
        return exact if exact else ZERO


AnyFee: TypeAlias = NoFee | PercentFee


def fee_of_rate(rate: Decimal) -> AnyFee:
    """The model of a world's `fee_rate`: nothing for 0.

    Raises:
        InvalidValue: as `PercentFee`.
    """
    return PercentFee(rate) if rate else NoFee()
