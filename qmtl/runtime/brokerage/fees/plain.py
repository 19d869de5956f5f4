"""What an execution costs: the null case, a percentage of the notional, rates for maker and taker, an amount per unit, a fixed amount."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol, TypeAlias

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, magnitude, product, round_places
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.fees.execution import Charge, Execution, FeeCurrency, Liquidity, PriceBasis
from qmtl.runtime.brokerage.parameters import AMOUNT_PLACES, finite, fraction, kept

FEE_PLACES = AMOUNT_PLACES
"""Digits after the point that a fee may have; a longer product is rounded half-even."""


class FeeModel(Protocol):
    """What a broker takes for one execution of a world, whose fees are all in quote currency. A fee of any currency is a `ChargeModel`."""

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

    def charge(self, execution: Execution) -> Charge:
        return Charge(ZERO, execution.quote)


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

    def charge(self, execution: Execution) -> Charge:
        return Charge(kept(product(execution.value(), self.rate)), execution.quote)


@dataclass(frozen=True, slots=True)
class MakerTakerFee:
    """A fraction of what was traded, one for who gives liquidity and one for who takes it.

    In quote currency `rate * quantity * price * multiplier`, in base currency `rate * quantity * multiplier`; both are the same fraction of the
    execution. Source: Lean at commit 24863901, `Common/Orders/Fees/BinanceFeeModel.cs` and its neighbours.

    Attributes:
        maker, taker: fractions, e.g. 0.001; negative is a rebate.
        currency: by which convention.
        basis: on which price.

    Raises:
        InvalidValue: a rate that is not finite or not between -1 and 1.
    """

    maker: Decimal
    taker: Decimal
    currency: FeeCurrency = FeeCurrency.QUOTE
    basis: PriceBasis = PriceBasis.FILL

    def __post_init__(self) -> None:
        fraction("maker", self.maker)
        fraction("taker", self.taker)

    def charge(self, execution: Execution) -> Charge:
        rate = self.maker if execution.liquidity is Liquidity.MAKER else self.taker
        currency = execution.currency_of(self.currency)
        if currency == execution.base:
            amount = product(execution.charged_quantity, execution.multiplier)
        else:
            amount = execution.value(self.basis)
        return Charge(kept(product(amount, rate)), currency)


@dataclass(frozen=True, slots=True)
class InverseFee:
    """A fraction of the value of an inverse contract, which is `quantity * multiplier / price` in base currency.

    Source: BitMEX's and Binance's contracts that settle in coin, by the tests of Nautilus Trader at commit a95c8042 (a maker's -0.025 % of 100000
    at 11450.50 is -0.00218331 BTC, or -25 USD where fees are in quote currency).

    Attributes:
        maker, taker: fractions; negative is a rebate.
        is_in_quote: whether it is taken as `rate * quantity * multiplier` in quote currency.
        basis: on which price.

    Raises:
        InvalidValue: a rate that is not finite or not between -1 and 1.
    """

    maker: Decimal
    taker: Decimal
    is_in_quote: bool = False
    basis: PriceBasis = PriceBasis.FILL

    def __post_init__(self) -> None:
        fraction("maker", self.maker)
        fraction("taker", self.taker)

    def charge(self, execution: Execution) -> Charge:
        rate = self.maker if execution.liquidity is Liquidity.MAKER else self.taker
        if self.is_in_quote:
            amount = product(execution.charged_quantity, execution.multiplier)
            return Charge(kept(product(amount, rate)), execution.quote)
        return Charge(kept(product(execution.inverse_value(self.basis), rate)), execution.base)


@dataclass(frozen=True, slots=True)
class PerUnitFee:
    """`amount * quantity`: so much per share or per contract; its bounds are those of a `BoundedFee` around it.

    Attributes:
        amount: per unit; negative is a rebate.
        currency: in which; empty for the quote currency of the market.

    Raises:
        InvalidValue: an amount that is not finite.
    """

    amount: Decimal
    currency: str = ""

    def __post_init__(self) -> None:
        finite("amount", self.amount)

    def charge(self, execution: Execution) -> Charge:
        return Charge(
            kept(product(execution.charged_quantity, self.amount)), self.currency or execution.quote
        )


@dataclass(frozen=True, slots=True)
class FixedFee:
    """The same for each execution. Once per order it is in a `PerOrderFee`.

    Attributes:
        amount: negative is a rebate.
        currency: in which; empty for the quote currency of the market.

    Raises:
        InvalidValue: an amount that is not finite.
    """

    amount: Decimal
    currency: str = ""

    def __post_init__(self) -> None:
        finite("amount", self.amount)

    def charge(self, execution: Execution) -> Charge:
        return Charge(kept(self.amount), self.currency or execution.quote)


AnyFee: TypeAlias = NoFee | PercentFee


def fee_of_rate(rate: Decimal) -> AnyFee:
    """The model of a world's `fee_rate`: nothing for 0.

    Raises:
        InvalidValue: as `PercentFee`.
    """
    return PercentFee(rate) if rate else NoFee()
