"""Rates by volume: schedules as data, and the fee that reads them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, minus, plus, product, total
from qmtl.runtime.brokerage.fees.composed import Measure
from qmtl.runtime.brokerage.fees.execution import Charge, Execution, FeeCurrency, Liquidity, PriceBasis
from qmtl.runtime.brokerage.parameters import finite, kept, not_negative, rising


@dataclass(frozen=True, slots=True)
class Tier:
    """One line of a schedule.

    Attributes:
        volume: from which on it counts, in the unit of the schedule.
        maker, taker: fractions of the value, or amounts per unit of quantity, as the schedule says.
        balance: that is asked for besides, of the asset of the schedule.
        minimum: the least fee of an execution, in the currency of the fee; 0 for none.
        name: by the venue.

    Raises:
        InvalidValue: a number that is not finite; a volume, balance or minimum below 0.
    """

    volume: Decimal
    maker: Decimal
    taker: Decimal
    balance: Decimal = ZERO
    minimum: Decimal = ZERO
    name: str = ""

    def __post_init__(self) -> None:
        for field, value in (
            ("volume", self.volume),
            ("balance", self.balance),
            ("minimum", self.minimum),
        ):
            not_negative(field, value)
        finite("maker", self.maker)
        finite("taker", self.taker)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The rates of a venue by volume.

    Attributes:
        tiers: by volume and balance, the first from 0 on.
        per: `Measure.VALUE`, rates are fractions of the value; `Measure.QUANTITY`, amounts per share or contract.
        is_reached_at: whether the volume of a tier is enough for it; else it has to be exceeded, as where the tier before counts up to and with it.
        volume_unit: what is summed up, in words.
        asset: of the balances; empty where none is asked for.

    Raises:
        InvalidValue: no tiers, volumes that do not rise, a first tier that is not for everybody, balances that fall, or a measure that is neither.
    """

    tiers: tuple[Tier, ...]
    per: Measure = Measure.VALUE
    is_reached_at: bool = True
    volume_unit: str = "quote currency of 30 days"
    asset: str = ""

    def __post_init__(self) -> None:
        if not self.tiers or self.tiers[0].volume or self.tiers[0].balance:
            raise InvalidValue(
                "tiers had none from 0 on; everybody must be in one.", "Send the tier of volume 0 first."
            )
        rising("tiers.volume", [tier.volume for tier in self.tiers])
        for before, after in pairwise(self.tiers):
            if after.balance < before.balance:
                raise InvalidValue(
                    f"tiers.balance had {after.balance} after {before.balance}; it must not fall.",
                    "Sort the tiers by what they ask for.",
                )
        if self.per not in (Measure.VALUE, Measure.QUANTITY):
            raise InvalidValue(
                f"per was {self.per.value}; it must be value or quantity.", "Send Measure.VALUE."
            )

    def tier(self, volume: Decimal, balance: Decimal = ZERO) -> Tier:
        """The highest tier whose volume and balance both are there: who has the volume of one and the balance of a lower one is in the lower one.

        Source: Binance's announcement of 2018-07-19, program rule 1.
        """
        found = self.tiers[0]
        for tier in self.tiers[1:]:
            is_reached = volume >= tier.volume if self.is_reached_at else volume > tier.volume
            if is_reached and balance >= tier.balance:
                found = tier
        return found

    def parts(self, volume: Decimal, amount: Decimal) -> tuple[tuple[Tier, Decimal], ...]:
        """How `amount`, traded after `volume`, is spread over the tiers; the parts add up to it."""
        out = []
        end = plus(volume, amount)
        for at, tier in enumerate(self.tiers):
            top = min(end, self.tiers[at + 1].volume) if at + 1 < len(self.tiers) else end
            part = minus(top, max(volume, tier.volume))
            if part > 0:
                out.append((tier, part))
        return tuple(out)


@dataclass(frozen=True, slots=True)
class TieredFee:
    """A fee by a schedule. `Execution.volume` says the volume before the order, in the schedule's unit.

    Flat: all of an execution at the rate of the one tier in which its account is (Lean; Binance, Kraken). Marginal: each part of it at the rate of the tier
    into which it falls, so that a split makes no difference (Interactive Brokers' forex: 1.25 bn USD cost 1 bn * 0.2 bp + 0.25 bn * 0.15 bp = 23,750);
    volume and charged amount are then in the same unit. The least fee is that of the tier of the volume before.

    Attributes:
        currency, basis: as of `MakerTakerFee`; a schedule per quantity, a marginal one, and one in an account's currency have QUOTE.
        account_currency: into which the value is converted before; fee, minimum and volume are in it. Empty for none.

    Raises:
        InvalidValue: another currency where only QUOTE can be; a marginal one that asks for balances.
    """

    schedule: Schedule
    is_marginal: bool = False
    currency: FeeCurrency = FeeCurrency.QUOTE
    basis: PriceBasis = PriceBasis.FILL
    account_currency: str = ""

    def __post_init__(self) -> None:
        is_per_unit = self.schedule.per is Measure.QUANTITY
        is_in_quote_only = self.is_marginal or is_per_unit or self.account_currency
        if is_in_quote_only and self.currency is not FeeCurrency.QUOTE:
            raise InvalidValue(
                f"currency was {self.currency.value}; such a schedule is in quote currency.",
                "Send FeeCurrency.QUOTE.",
            )
        if self.is_marginal and any(tier.balance for tier in self.schedule.tiers):
            raise InvalidValue(
                "is_marginal was true for a schedule that asks for balances; one trade can't be spread over them.",
                "Take it flat.",
            )

    def charge(self, execution: Execution) -> Charge:
        is_maker = execution.liquidity is Liquidity.MAKER
        own = self.schedule.tier(execution.volume, execution.balance_of(self.schedule.asset))
        currency = self.account_currency or execution.currency_of(self.currency)
        amount = self._amount(execution, currency)
        parts = self.schedule.parts(execution.volume, amount) if self.is_marginal else ((own, amount),)
        raw = kept(total(product(part, tier.maker if is_maker else tier.taker) for tier, part in parts))
        return Charge(max(raw, own.minimum) if own.minimum else raw, currency)

    def _amount(self, execution: Execution, currency: str) -> Decimal:
        if self.schedule.per is Measure.QUANTITY:
            return execution.charged_quantity
        if self.account_currency:
            return execution.converted(execution.value(self.basis), execution.quote, currency)
        if currency == execution.base:
            return product(execution.charged_quantity, execution.multiplier)
        return execution.value(self.basis)
