"""By how much a taker misses the price that was seen: the null case, a fraction of the price, half the spread, the share of the volume, market impact.

A world's own models know the price alone (`SlippageModel`); every model here is a `SizedSlippage`, which is told of the size and the market, too. Slippage is
never added beyond an order's limit: `limited_price`.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from enum import Enum
from typing import Protocol, TypeAlias

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, minus, negated, plus, product, quotient
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.parameters import AMOUNT_PLACES, ONE, between, kept, not_negative, positive

_HALF = Decimal("0.5")
_POWERS = Context(prec=40, rounding=ROUND_HALF_EVEN)
"""Powers with broken exponents are never exact; this context, not the ambient one, says how they are rounded."""


@dataclass(frozen=True, slots=True)
class Taking:
    """A taker's execution before slippage, as a slippage model sees it.

    Attributes:
        price: before slippage, quote currency.
        quantity: that is filled, unsigned, base currency.
        volume: of the bar that it is filled in, base currency; None where the market tells none.
        bid, ask: quote currency; only for a model that asks for them.
        average_volume: of a day, base currency; only for market impact.
        volatility: standard deviation of daily returns, a fraction; only for market impact.
        outstanding: shares outstanding; only for market impact, None where there are none.

    Raises:
        InvalidValue: a price or a quantity that is not above 0, a volume below 0.
    """

    side: Side
    price: Decimal
    quantity: Decimal
    volume: Decimal | None = None
    bid: Decimal | None = None
    ask: Decimal | None = None
    average_volume: Decimal | None = None
    volatility: Decimal | None = None
    outstanding: Decimal | None = None

    def __post_init__(self) -> None:
        positive("price", self.price)
        positive("quantity", self.quantity)
        if self.volume is not None:
            not_negative("volume", self.volume)


class SizedSlippage(Protocol):
    """How far the price moves against a taker, by all that is known."""

    def slippage(self, taking: Taking) -> Decimal:
        """Price units against the taker, never negative, and never so large that a seller would get less than nothing.

        Raises:
            InvalidValue: it is not told what it hangs on.
        """
        ...


def limited_price(side: Side, price: Decimal, adverse: Decimal, limit: Decimal | None) -> Decimal:
    """`price` moved by `adverse` against the taker, but never beyond the order's limit: slippage makes no limit order worse than its limit.

    Args:
        limit: None for an order without one.

    Raises:
        InvalidValue: a slippage below 0, or a price that is beyond the limit already: such an order can't be filled.
    """
    not_negative("slippage", adverse)
    is_buy = side is Side.BUY
    moved = plus(price, adverse if is_buy else negated(adverse))
    if limit is None:
        return moved
    if price > limit if is_buy else price < limit:
        raise InvalidValue(
            f"price was {price}, beyond the limit {limit} of a {side.value}; at that price it can't be filled.",
            "Fill it when its limit is reached.",
        )
    return min(moved, limit) if is_buy else max(moved, limit)


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

    def slippage(self, taking: Taking) -> Decimal:
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

    def slippage(self, taking: Taking) -> Decimal:
        return product(taking.price, self.rate)


ALPHASTREAMS_SLIPPAGE = ConstantSlippage(Decimal("0.0001"))
"""One basis point, for equities; for every other kind of security `NoSlippage`. Source: Lean's `AlphaStreamsSlippageModel` at commit 24863901."""


@dataclass(frozen=True, slots=True)
class HalfSpreadSlippage:
    """Half of the distance from bid to ask: `(ask - bid) / 2`, from the price half way between them to the quote that a taker gets.

    Raises:
        InvalidValue: at an execution: no bid or ask, or an ask below the bid.
    """

    def slippage(self, taking: Taking) -> Decimal:
        bid, ask = taking.bid, taking.ask
        if bid is None or ask is None or not 0 <= bid <= ask:
            raise InvalidValue(
                f"bid was {bid} and ask {ask}; the spread needs both, the bid not above the ask.",
                "Send quotes, or take another slippage.",
            )
        return min(product(minus(ask, bid), _HALF), taking.price)


class NoVolume(Enum):
    """What a bar without volume does to a model that reads it.

    Attributes:
        LARGEST: the largest slippage: nobody traded, so nobody waits there (Lean, for equities).
        NONE: no slippage: the market tells no volume (Lean, for forex, CFD and crypto).
    """

    LARGEST = "largest"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class VolumeShareSlippage:
    """`price * impact * min(quantity / volume, volume_limit) ** 2`, with the volume of the bar; rounded half-even to 18 digits.

    Source: Lean's `VolumeShareSlippageModel` at commit 24863901, after Zipline's model of that name.

    Attributes:
        volume_limit: the share of the volume beyond which slippage grows no more, 0 to 1.
        impact: fraction of the price at a share of 1, 0 to 1.
        no_volume: what counts where the volume is 0 or not told.

    Raises:
        InvalidValue: a parameter that is not from 0 to 1.
    """

    volume_limit: Decimal = Decimal("0.025")
    impact: Decimal = Decimal("0.1")
    no_volume: NoVolume = NoVolume.LARGEST

    def __post_init__(self) -> None:
        between("volume_limit", self.volume_limit, ZERO, ONE, "Send 0.025 for a fortieth of the volume.")
        between("impact", self.impact, ZERO, ONE, "Send 0.1 for a tenth of the price.")

    def slippage(self, taking: Taking) -> Decimal:
        share = self.volume_limit
        if not taking.volume:
            if self.no_volume is NoVolume.NONE:
                return ZERO
        elif taking.quantity < product(share, taking.volume):
            share = quotient(taking.quantity, taking.volume, AMOUNT_PLACES)
        # Two factors of at most 18 digits after the point: their square is exact, its product with the price may not be.
        return kept(product(product(taking.price, self.impact), kept(product(share, share))))


@dataclass(frozen=True, slots=True)
class MarketImpactSlippage:
    """What an order of its size does to the price, by Almgren, Thum, Hauptmann and Li, "Direct estimation of equity market impact" (2005), without chance.

    With `nu = quantity / (average_volume * T)`, T the latency in trading days:

        permanent = volatility * T * gamma * nu ** alpha * (outstanding / average_volume) ** delta
        temporary = volatility * eta * nu ** beta
        slippage  = price * min(realized * (temporary + permanent / 2), 1)

    Lean's `MarketImpactSlippageModel` (commit 24863901) adds normal noise to both impacts and takes a random part of the result between 0 and 1; here
    nothing is drawn, and `realized` is that part. Powers are taken with 40 digits, and the result is rounded half-even to 18 digits after the point.
    An average volume of 0 has no impact that could be said, and no slippage. The parameters are those of the paper, for US shares twenty years ago: measure anew.

    Attributes:
        latency_ms: from order to fill, > 0.
        day_ms: length of a trading day; 6.5 hours.
        realized: 0 to 1; 0.5 is the mean of Lean's draw.

    Raises:
        InvalidValue: a parameter that is not finite or below 0, a latency or day of 0. At an execution: no average volume or volatility, as in markets that
            tell no volume (forex, CFD).
    """

    latency_ms: int = 75
    day_ms: int = 23_400_000
    alpha: Decimal = Decimal("0.891")
    beta: Decimal = Decimal("0.6")
    gamma: Decimal = Decimal("0.314")
    eta: Decimal = Decimal("0.142")
    delta: Decimal = Decimal("0.267")
    realized: Decimal = ONE

    def __post_init__(self) -> None:
        positive("latency_ms", Decimal(self.latency_ms))
        positive("day_ms", Decimal(self.day_ms))
        for field, value in (
            ("alpha", self.alpha),
            ("beta", self.beta),
            ("gamma", self.gamma),
            ("eta", self.eta),
            ("delta", self.delta),
        ):
            not_negative(field, value)
        between("realized", self.realized, ZERO, ONE, "Send 1 for all of the impact.")

    def slippage(self, taking: Taking) -> Decimal:
        average, volatility = taking.average_volume, taking.volatility
        if average is None or volatility is None:
            raise InvalidValue(
                f"average_volume was {average} and volatility {volatility}; market impact needs both.",
                "Take another slippage where the market tells no volume.",
            )
        not_negative("average_volume", average)
        not_negative("volatility", volatility)
        if not average or not volatility:
            return ZERO
        exact = _POWERS
        days = exact.divide(Decimal(self.latency_ms), Decimal(self.day_ms))
        nu = exact.divide(taking.quantity, exact.multiply(average, days))
        permanent = exact.multiply(exact.multiply(self.gamma, exact.power(nu, self.alpha)), days)
        if taking.outstanding is not None:
            positive("outstanding", taking.outstanding)
            scale = exact.power(exact.divide(taking.outstanding, average), self.delta)
            permanent = exact.multiply(permanent, scale)
        temporary = exact.multiply(self.eta, exact.power(nu, self.beta))
        impact = exact.multiply(volatility, exact.add(temporary, exact.multiply(permanent, _HALF)))
        share = min(exact.multiply(impact, self.realized), ONE)
        return kept(exact.multiply(taking.price, share))


AnySlippage: TypeAlias = NoSlippage | ConstantSlippage


def slippage_of_rate(rate: Decimal) -> AnySlippage:
    """The model of a world's `slippage_rate`: nothing for 0.

    Raises:
        InvalidValue: as `ConstantSlippage`.
    """
    return ConstantSlippage(rate) if rate else NoSlippage()
