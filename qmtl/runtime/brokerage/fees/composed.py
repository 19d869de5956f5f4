"""Fees that are made of other fees: bounds, one fee per order, rounding, another currency, a third asset, openings only, sums, bands, dates."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import (
    ZERO,
    magnitude,
    minus,
    plus,
    product,
    round_places,
    total,
    whole_steps,
)
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.fees.execution import Charge, ChargeModel, Execution, Liquidity, PriceBasis
from qmtl.runtime.brokerage.fees.plain import PerUnitFee
from qmtl.runtime.brokerage.parameters import AMOUNT_PLACES, ONE, between, kept, named, not_negative, rising


class BoundRule(Enum):
    """What counts where the least fee is above the largest.

    Attributes:
        MAXIMUM_WINS: the largest: a cap is a cap.
        MINIMUM_WINS: the least.
        EITHER: who is below the least pays the least, everybody else at most the largest (Lean's model of Interactive Brokers). At the step from one to
            the other, more shares can cost less.
    """

    MAXIMUM_WINS = "maximum_wins"
    MINIMUM_WINS = "minimum_wins"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class BoundedFee:
    """Another fee, with a least and a largest amount in the currency of that fee.

    A rebate is bounded like any number: with a minimum of 0 there is none. The bounds are those of one execution; for those of an order it stands in a
    `PerOrderFee`. Sources: Lean at commit 24863901, `InteractiveBrokersFeeModel.cs` (0.005 per share, at least 1, at most 0.5 % of the value);
    Interactive Brokers' page of commissions for shares (at most 1 %: 1000 at 0.25 cost 2.50).

    Attributes:
        minimum: None for none.
        maximum: None for none.
        maximum_rate: the largest as a fraction of the value; None for none. Where both are said, the smaller one counts.
        rule: for bounds that contradict each other.
        basis: the price of that value.

    Raises:
        InvalidValue: a bound below 0 or not finite, a rate above 1, or none at all.
    """

    fee: ChargeModel
    minimum: Decimal | None = None
    maximum: Decimal | None = None
    maximum_rate: Decimal | None = None
    rule: BoundRule = BoundRule.MAXIMUM_WINS
    basis: PriceBasis = PriceBasis.FILL

    def __post_init__(self) -> None:
        if self.minimum is None and self.maximum is None and self.maximum_rate is None:
            raise InvalidValue("A bounded fee had no bound.", "Send minimum, maximum or maximum_rate.")
        if self.minimum is not None:
            not_negative("minimum", self.minimum)
        if self.maximum is not None:
            not_negative("maximum", self.maximum)
        if self.maximum_rate is not None:
            between("maximum_rate", self.maximum_rate, ZERO, ONE, "Send 0.01 for a hundredth.")

    def charge(self, execution: Execution) -> Charge:
        raw = self.fee.charge(execution)
        return replace(raw, amount=self._bounded(raw.amount, self._largest(execution, raw.currency)))

    def _largest(self, execution: Execution, currency: str) -> Decimal | None:
        if self.maximum_rate is None:
            return self.maximum
        share = kept(product(execution.value(self.basis), self.maximum_rate))
        largest = execution.converted(share, execution.quote, currency)
        return largest if self.maximum is None else min(largest, self.maximum)

    def _bounded(self, amount: Decimal, largest: Decimal | None) -> Decimal:
        least = self.minimum
        if least is not None and amount < least:
            is_capped = self.rule is BoundRule.MAXIMUM_WINS and largest is not None and largest < least
            return largest if is_capped and largest is not None else least
        if largest is not None and amount > largest:
            is_raised = self.rule is BoundRule.MINIMUM_WINS and least is not None and largest < least
            return least if is_raised and least is not None else largest
        return amount


def per_share_fee(
    amount: Decimal,
    minimum: Decimal,
    maximum_rate: Decimal,
    rule: BoundRule = BoundRule.MAXIMUM_WINS,
    currency: str = "",
) -> BoundedFee:
    """So much per share, with a least fee and at most a fraction of the value.

    Raises:
        InvalidValue: as `PerUnitFee` and `BoundedFee`.
    """
    return BoundedFee(PerUnitFee(amount, currency), minimum, None, maximum_rate, rule)


@dataclass(frozen=True, slots=True)
class PerOrderFee:
    """Another fee, taken on all that is filled of an order so far, less what the order has paid.

    So an order pays the same however it was split: the minimum, or a fixed amount, once. `Execution.earlier` has to say what came before
    (`Execution.after` gives it). The order's fee has one currency; liquidity, price bands and volume are those of the
    last execution.

    Source: Nautilus Trader's `FixedFeeModel` with `charge_commission_once` at commit a95c8042, and the pages of brokers, which state minimums per order.
    """

    fee: ChargeModel

    def charge(self, execution: Execution) -> Charge:
        whole = self.fee.charge(execution.whole())
        paid = execution.earlier
        if paid.currency and paid.currency != whole.currency:
            raise InvalidValue(
                f"earlier.currency was {paid.currency}, and the fee is in {whole.currency}; one order pays in one currency.",
                "Take a fee whose currency does not hang on the liquidity.",
            )
        return replace(whole, amount=minus(whole.amount, paid.fee))


class Rounding(Enum):
    """How a fee is rounded: to the nearest, half to even; or up, never in favour of who pays."""

    HALF_EVEN = "half_even"
    UP = "up"


@dataclass(frozen=True, slots=True)
class RoundedFee:
    """Another fee, rounded to the digits of its currency.

    Attributes:
        places: digits after the point, 0 to 18.

    Raises:
        InvalidValue: places that are none of these.
    """

    fee: ChargeModel
    places: int
    rounding: Rounding = Rounding.HALF_EVEN

    def __post_init__(self) -> None:
        between("places", Decimal(self.places), ZERO, Decimal(AMOUNT_PLACES), "Send 2 for cents.")

    def charge(self, execution: Execution) -> Charge:
        raw = self.fee.charge(execution)
        if self.rounding is Rounding.HALF_EVEN:
            return replace(raw, amount=kept(round_places(raw.amount, self.places)))
        unit = ONE.scaleb(-self.places)
        units = whole_steps(raw.amount, unit)
        if raw.amount > product(units, unit):
            units = plus(units, ONE)
        return replace(raw, amount=kept(product(units, unit)))


@dataclass(frozen=True, slots=True)
class ConvertedFee:
    """Another fee, in a stated currency: that of the account, say. The execution has to know the conversion.

    Raises:
        InvalidValue: a currency without a name.
    """

    fee: ChargeModel
    currency: str

    def __post_init__(self) -> None:
        named("currency", self.currency)

    def charge(self, execution: Execution) -> Charge:
        raw = self.fee.charge(execution)
        return Charge(execution.converted(raw.amount, raw.currency, self.currency), self.currency)


@dataclass(frozen=True, slots=True)
class AssetDiscountFee:
    """Another fee, paid in a third asset at a discount as long as the account has enough of it; else, and for a rebate, it is the other fee.

    `(1 - discount) * fee`, converted into the asset. Source: Binance's page of fees: 25 % off on spot who pays in BNB, 10 % off on futures.

    Attributes:
        asset: such as BNB.
        discount: fraction, 0 to 1.

    Raises:
        InvalidValue: an asset without a name, a discount that is not from 0 to 1.
    """

    fee: ChargeModel
    asset: str
    discount: Decimal

    def __post_init__(self) -> None:
        named("asset", self.asset)
        between("discount", self.discount, ZERO, ONE, "Send 0.25 for a quarter off.")

    def charge(self, execution: Execution) -> Charge:
        raw = self.fee.charge(execution)
        if raw.amount <= 0:
            return raw
        reduced = kept(product(raw.amount, minus(ONE, self.discount)))
        amount = execution.converted(reduced, raw.currency, self.asset)
        return raw if execution.balance_of(self.asset) < amount else Charge(amount, self.asset)


class FlipRule(Enum):
    """What an order pays that closes a position and opens the opposite one.

    Attributes:
        IS_CLOSING: nothing; all of it counts as closing (tastytrade, as Lean has it).
        PAYS_FOR_OPENED: the fee on the quantity that opens.
    """

    IS_CLOSING = "is_closing"
    PAYS_FOR_OPENED = "pays_for_opened"


@dataclass(frozen=True, slots=True)
class OpeningFee:
    """Another fee, taken only for what opens or grows a position; what closes is free. `Execution.holding` says the position.

    Source: tastytrade's commissions of options, by Lean's `TastytradeFeeModel` at commit 24863901.

    Raises:
        InvalidValue: a `PerOrderFee` in it or around it: what earlier fills have closed is not known.
    """

    fee: ChargeModel
    flip: FlipRule = FlipRule.PAYS_FOR_OPENED

    def __post_init__(self) -> None:
        if isinstance(self.fee, PerOrderFee):
            raise _opening_per_order()

    def charge(self, execution: Execution) -> Charge:
        if execution.is_whole:
            raise _opening_per_order()
        held = execution.holding
        if not held or (held > 0) == (execution.side is Side.BUY):
            return self.fee.charge(execution)
        opened = minus(execution.quantity, magnitude(held))
        if opened <= 0 or self.flip is FlipRule.IS_CLOSING:
            return replace(self.fee.charge(execution), amount=ZERO)
        return self.fee.charge(replace(execution, quantity=opened))


@dataclass(frozen=True, slots=True)
class LiquidityFee:
    """One fee for who makes liquidity and another for who takes it: amounts, say, where they are no fractions."""

    maker: ChargeModel
    taker: ChargeModel

    def charge(self, execution: Execution) -> Charge:
        fee = self.maker if execution.liquidity is Liquidity.MAKER else self.taker
        return fee.charge(execution)


@dataclass(frozen=True, slots=True)
class SumFee:
    """All of several fees: a commission, and what an exchange or a regulator takes besides.

    Where they are in one currency, the sum is in it; else each is converted into the quote currency, for an execution has one fee.
    """

    fees: tuple[ChargeModel, ...]

    def charge(self, execution: Execution) -> Charge:
        charges = [fee.charge(execution) for fee in self.fees]
        currencies = {one.currency for one in charges}
        if len(currencies) == 1:
            return replace(charges[0], amount=total(one.amount for one in charges))
        return Charge(
            total(execution.converted(one.amount, one.currency, execution.quote) for one in charges),
            execution.quote,
        )


class Measure(Enum):
    """By what a band is chosen: the price of a unit, the value or the quantity of the execution, or the volume before it."""

    PRICE = "price"
    VALUE = "value"
    QUANTITY = "quantity"
    VOLUME = "volume"


@dataclass(frozen=True, slots=True)
class BandedFee:
    """One of several fees, by the band in which a number of the execution lies; bands of bands are tables of two dimensions.

    Sources: Lean at commit 24863901: the premium bands of options at Interactive Brokers and Webull, the bands of Public's crypto orders.

    Attributes:
        bounds: between the bands, rising.
        fees: one more than bounds.
        is_upper_in: whether a number that is a bound belongs to the band below it.
        basis: of price and value.

    Raises:
        InvalidValue: bounds that do not rise, or not one fee more than there are bounds.
    """

    measure: Measure
    bounds: tuple[Decimal, ...]
    fees: tuple[ChargeModel, ...]
    is_upper_in: bool = False
    basis: PriceBasis = PriceBasis.FILL

    def __post_init__(self) -> None:
        rising("bounds", self.bounds)
        _one_more("bounds", len(self.bounds), len(self.fees))

    def charge(self, execution: Execution) -> Charge:
        number = self._number(execution)
        at = bisect_left(self.bounds, number) if self.is_upper_in else bisect_right(self.bounds, number)
        return self.fees[at].charge(execution)

    def _number(self, execution: Execution) -> Decimal:
        match self.measure:
            case Measure.PRICE:
                return execution.price_of(self.basis)
            case Measure.VALUE:
                return execution.value(self.basis)
            case Measure.QUANTITY:
                return execution.charged_quantity
            case Measure.VOLUME:
                return execution.volume


@dataclass(frozen=True, slots=True)
class DatedFee:
    """One of several fees, by the time of the execution: what a venue took before and after it has changed its rates.

    Attributes:
        starts_ms: from when on the next fee counts, rising.
        fees: one more than starts.

    Raises:
        InvalidValue: starts that do not rise, or not one fee more than there are starts.
    """

    starts_ms: tuple[int, ...]
    fees: tuple[ChargeModel, ...]

    def __post_init__(self) -> None:
        rising("starts_ms", [Decimal(start) for start in self.starts_ms])
        _one_more("starts_ms", len(self.starts_ms), len(self.fees))

    def charge(self, execution: Execution) -> Charge:
        return self.fees[bisect_right(self.starts_ms, execution.at_ms)].charge(execution)


@dataclass(frozen=True, slots=True)
class KindFee:
    """One of several fees, by the kind of the security: the fees of a broker that trades several.

    Attributes:
        fees: kind and fee.

    Raises:
        InvalidValue: a kind that is there twice or has no name. At a charge: a kind that the broker has no fee for.
    """

    fees: tuple[tuple[str, ChargeModel], ...]

    def __post_init__(self) -> None:
        kinds = [kind for kind, _ in self.fees]
        for kind in kinds:
            named("fees.kind", kind)
        if len(set(kinds)) != len(kinds):
            raise InvalidValue(f"fees had a kind twice: {', '.join(kinds)}.", "Send each once.")

    def charge(self, execution: Execution) -> Charge:
        for kind, fee in self.fees:
            if kind == execution.kind:
                return fee.charge(execution)
        raise InvalidValue(
            f"kind was {execution.kind or 'not said'}; fees are known for {', '.join(kind for kind, _ in self.fees) or 'none'}.",
            "Send a kind that the broker trades, or add its fee.",
        )


def _opening_per_order() -> InvalidValue:
    return InvalidValue(
        "An opening fee was combined with one per order; what earlier fills have closed is not known.",
        "Charge openings per execution.",
    )


def _one_more(field: str, bounds: int, fees: int) -> None:
    if fees != bounds + 1:
        raise InvalidValue(
            f"fees had {fees} for {bounds} {field}; it must have one more.",
            "Send a fee for below the first, and one from each on.",
        )
