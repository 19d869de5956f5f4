"""By how much a taker misses the price that was seen: one small interface, its null case, and a fraction of the price."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeAlias

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, product
from qmtl.foundation.contracts.trade import Side


class SlippageModel(Protocol):
    """How far the price moves against a taker."""

    def adverse(self, side: Side, price: Decimal) -> Decimal:
        """Price units against the taker, never negative: a buyer pays them on top, a seller gets them less.

        Args:
            price: the price before slippage, quote currency.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoSlippage:
    """Fills at the price that was seen."""

    def adverse(self, side: Side, price: Decimal) -> Decimal:
        return ZERO


@dataclass(frozen=True, slots=True)
class ConstantSlippage:
    """`rate * price` for both sides.

    Source of the formula: Lean's `ConstantSlippageModel` and its test at commit 24863901, where 1 means 100 %.

    Attributes:
        rate: fraction of the price, 0 to 1, e.g. 0.0005.

    Raises:
        InvalidValue: a rate that is not finite or not from 0 to 1.
    """

    rate: Decimal

    def __post_init__(self) -> None:
        if not self.rate.is_finite() or not 0 <= self.rate <= 1:
            raise InvalidValue(
                f"slippage_rate was {self.rate}; it must be a finite fraction of the price from 0 to 1.",
                "Send 0.0005 for five basis points.",
            )

    def adverse(self, side: Side, price: Decimal) -> Decimal:
        return product(price, self.rate)


AnySlippage: TypeAlias = NoSlippage | ConstantSlippage


def slippage_of_rate(rate: Decimal) -> AnySlippage:
    """The model of a world's `slippage_rate`: nothing for 0.

    Raises:
        InvalidValue: as `ConstantSlippage`.
    """
    return ConstantSlippage(rate) if rate else NoSlippage()
