"""What money costs and brings: interest on what is borrowed, on cash, over night in forex, funding of perpetual contracts, and the risk-free rate."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Protocol

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import (
    ZERO,
    magnitude,
    minus,
    negated,
    parse_decimal,
    product,
    quotient,
    total,
)
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.parameters import (
    AMOUNT_PLACES,
    ONE,
    finite,
    fraction,
    kept,
    not_negative,
    positive,
    rising,
)

HOUR_MS = 3_600_000
DAY_MS = 86_400_000
_HUNDRED = Decimal(100)


@dataclass(frozen=True, slots=True)
class Borrowed:
    """What a position owes.

    Attributes:
        amount: unsigned.
        currency: of the debt.
    """

    amount: Decimal
    currency: str


def borrowed(
    side: Side, quantity: Decimal, price: Decimal, leverage: Decimal, base: str, quote: str
) -> Borrowed:
    """What a position opened with leverage has borrowed.

    Who is long owes `quantity * price * (leverage - 1) / leverage` in quote currency, who is short the whole quantity in base currency. Source: the definition of
    leverage, value over own part; rounded half-even to 18 digits.

    Raises:
        InvalidValue: a quantity or a price that is not above 0, a leverage below 1.
    """
    positive("quantity", quantity)
    positive("price", price)
    if not leverage.is_finite() or leverage < 1:
        raise InvalidValue(f"leverage was {leverage}; it must be finite and at least 1.", "Send 1 for none.")
    if side is Side.SELL:
        return Borrowed(quantity, base)
    return Borrowed(
        quotient(product(product(quantity, price), minus(leverage, ONE)), leverage, AMOUNT_PLACES), quote
    )


class InterestModel(Protocol):
    """What borrowed money costs."""

    def interest(self, amount: Decimal, duration_ms: int) -> Decimal:
        """What is owed besides, in the currency of the debt.

        Args:
            amount: borrowed, unsigned.
            duration_ms: since it was borrowed.
        """
        ...


@dataclass(frozen=True, slots=True)
class NoInterest:
    """Borrowed money costs nothing."""

    def interest(self, amount: Decimal, duration_ms: int) -> Decimal:
        return ZERO


@dataclass(frozen=True, slots=True)
class PeriodInterest:
    """Interest by begun periods: `amount * rate * (opening + ceil(duration / period)) / periods_of_rate`, rounded half-even to 18 digits.

    Source: freqtrade's `leverage/interest.py` at commit 27bd30d2 (GPL-3.0; the rules alone), by the pages of the two: at Binance a begun hour counts as an hour of a daily rate; at Kraken
    the opening counts as one period, and each begun four hours as another, so that ten minutes are two.

    Attributes:
        rate: fraction of what is borrowed, at least 0.
        period_ms: > 0; a begun one counts whole.
        periods_of_rate: how many periods the rate is for.
        opening: periods that are owed at once.

    Raises:
        InvalidValue: a rate that is not from 0 to 1, a period or a number of periods that is not above 0, an opening below 0. For what is owed: an
            amount or a duration below 0.
    """

    rate: Decimal
    period_ms: int
    periods_of_rate: int = 1
    opening: int = 0

    def __post_init__(self) -> None:
        not_negative("rate", self.rate)
        fraction("rate", self.rate)
        positive("period_ms", Decimal(self.period_ms))
        positive("periods_of_rate", Decimal(self.periods_of_rate))
        not_negative("opening", Decimal(self.opening))

    def periods(self, duration_ms: int) -> int:
        """How many periods are owed."""
        not_negative("duration_ms", Decimal(duration_ms))
        return self.opening - (-duration_ms // self.period_ms)

    def interest(self, amount: Decimal, duration_ms: int) -> Decimal:
        not_negative("amount", amount)
        owed = product(product(amount, self.rate), Decimal(self.periods(duration_ms)))
        return kept(quotient(owed, Decimal(self.periods_of_rate), AMOUNT_PLACES))


def binance_interest(daily_rate: Decimal) -> PeriodInterest:
    """`amount * daily_rate * ceil(hours) / 24`."""
    return PeriodInterest(daily_rate, HOUR_MS, 24)


def kraken_interest(rate: Decimal) -> PeriodInterest:
    """`amount * rate * ceil(1 + hours / 4)`; the rate is of four hours, and of the opening."""
    return PeriodInterest(rate, 4 * HOUR_MS, opening=1)


@dataclass(frozen=True, slots=True)
class InterestTier:
    """The annual rate on the part of a balance above `balance`.

    Raises:
        InvalidValue: a balance below 0, a rate that is not between -1 and 1.
    """

    balance: Decimal
    annual_rate: Decimal

    def __post_init__(self) -> None:
        not_negative("balance", self.balance)
        fraction("annual_rate", self.annual_rate)


@dataclass(frozen=True, slots=True)
class CashInterest:
    """Interest on a cash balance by the day: each part of it at the rate of its tier; cash brings, debt costs.

    `part * annual_rate * days / day_count`, summed up and rounded half-even to 18 digits. Source: the blended rates of Interactive Brokers' pages
    of interest, where the first 10,000 bring nothing and the day count is 360.

    Attributes:
        credit: of cash, the first from 0 on; empty for none.
        debit: of debt, by its magnitude, the first from 0 on; empty for none.
        day_count: days of a year, 360 or 365.

    Raises:
        InvalidValue: tiers that do not begin at 0 or do not rise, a day count that is neither. For a balance: it is not finite, or days are below 0.
    """

    credit: tuple[InterestTier, ...] = ()
    debit: tuple[InterestTier, ...] = ()
    day_count: int = 360

    def __post_init__(self) -> None:
        for field, tiers in (("credit", self.credit), ("debit", self.debit)):
            if tiers and tiers[0].balance:
                raise InvalidValue(
                    f"{field} began at {tiers[0].balance}; it must begin at 0.",
                    "Send a tier of balance 0 first.",
                )
            rising(field, [tier.balance for tier in tiers])
        _day_count(self.day_count)

    def interest(self, balance: Decimal, days: int) -> Decimal:
        """What is received; negative is paid."""
        finite("balance", balance)
        not_negative("days", Decimal(days))
        tiers = self.debit if balance < 0 else self.credit
        size = magnitude(balance)
        parts = [
            product(minus(min(size, above.balance), tier.balance), tier.annual_rate)
            for tier, above in pairwise(tiers)
            if size > tier.balance
        ]
        if tiers and size > tiers[-1].balance:
            parts.append(product(minus(size, tiers[-1].balance), tiers[-1].annual_rate))
        owed = kept(quotient(product(total(parts), Decimal(days)), Decimal(self.day_count), AMOUNT_PLACES))
        return negated(owed) if balance < 0 else owed


@dataclass(frozen=True, slots=True)
class RatePoint:
    """An annual rate, from `at_ms` on.

    Raises:
        InvalidValue: a rate that is not between -1 and 1.
    """

    at_ms: int
    annual_rate: Decimal

    def __post_init__(self) -> None:
        fraction("annual_rate", self.annual_rate)


@dataclass(frozen=True, slots=True)
class RateTable:
    """A rate that changes: each holds until the next, the last for ever, and the first before it, too.

    Source: Lean's `InterestRateProvider` at commit 24863901, the risk-free rate of its figures.

    Raises:
        InvalidValue: no points, or points that do not rise.
    """

    points: tuple[RatePoint, ...]

    def __post_init__(self) -> None:
        if not self.points:
            raise InvalidValue(
                "points had none; a rate must be known.", "Send one point for a constant rate."
            )
        rising("points.at_ms", [Decimal(point.at_ms) for point in self.points])

    def rate(self, at_ms: int) -> Decimal:
        """The annual rate at an instant."""
        at = bisect_right(self.points, at_ms, key=lambda point: point.at_ms)
        return self.points[max(at - 1, 0)].annual_rate


def rate_table(lines: Iterable[str]) -> RateTable:
    """A table from lines `2020-01-01,2.5`: a date, whose midnight UTC counts, and a rate in percent. A first line that begins with no digit is a heading.

    Raises:
        InvalidValue: a line that is none, or dates that do not rise.
    """
    points = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or (number == 1 and not text[0].isdigit()):
            continue
        day, _, percent = text.partition(",")
        try:
            midnight = datetime.combine(date.fromisoformat(day.strip()), datetime.min.time(), UTC)
        except ValueError:
            raise InvalidValue(
                f"line {number} was {text[:60]!r}; it must be a date and a rate in percent.",
                "Write it as 2020-01-01,2.5.",
            ) from None
        rate = quotient(parse_decimal(percent.strip(), f"rate of line {number}"), _HUNDRED, AMOUNT_PLACES)
        points.append(RatePoint(int(midnight.timestamp()) * 1000, kept(rate).normalize()))
    return RateTable(tuple(points))


@dataclass(frozen=True, slots=True)
class Rollover:
    """What a forex position brings over night: who is long receives the base currency's rate and pays the quote currency's.

    `position * price * (base - quote) / day_count * nights`, in quote currency, rounded half-even to 18 digits. Source: Nautilus Trader's
    `RolloverInterestCalculator` at commit a95c8042: short-term rates of both currencies, their difference over 365; its simulation counts three nights on
    Wednesday and Friday, the market's convention three on Wednesday alone (`nights`).

    Attributes:
        base, quote: the annual rates of the two currencies.
        day_count: 360 or 365.

    Raises:
        InvalidValue: a day count that is neither. For a payment: a price that is not above 0, nights below 0.
    """

    base: RateTable
    quote: RateTable
    day_count: int = 365

    def __post_init__(self) -> None:
        _day_count(self.day_count)

    def rate(self, at_ms: int) -> Decimal:
        """The rate of one night, rounded half-even to 18 digits."""
        difference = minus(self.base.rate(at_ms), self.quote.rate(at_ms))
        return kept(quotient(difference, Decimal(self.day_count), AMOUNT_PLACES))

    def payment(self, position: Decimal, price: Decimal, at_ms: int, nights: int = 1) -> Decimal:
        """What is received in quote currency; negative is paid.

        Args:
            position: signed, base currency.
        """
        finite("position", position)
        positive("price", price)
        not_negative("nights", Decimal(nights))
        difference = minus(self.base.rate(at_ms), self.quote.rate(at_ms))
        value = product(product(position, price), Decimal(nights))
        return kept(quotient(product(value, difference), Decimal(self.day_count), AMOUNT_PLACES))


def nights(weekday: int) -> int:
    """How many nights the one after a day counts for where trades settle after two days: three on Wednesday, none on Saturday and Sunday, else one.

    Args:
        weekday: Monday is 0.

    Raises:
        InvalidValue: no day of the week.
    """
    if not 0 <= weekday <= 6:
        raise InvalidValue(f"weekday was {weekday}; it must be from 0 to 6.", "Send 0 for Monday.")
    return (1, 1, 3, 1, 1, 0, 0)[weekday]


@dataclass(frozen=True, slots=True)
class Funding:
    """The funding of a perpetual contract: while its rate is above 0, who is long pays who is short.

    `position * mark * multiplier * rate` in quote currency; for an inverse contract `position * multiplier / mark * rate` in base currency. Source:
    the funding pages of BitMEX and Binance (every 8 hours, at 00:00, 08:00 and 16:00 UTC).

    Attributes:
        multiplier: per contract, as of `Execution`.
        is_inverse: whether it settles in base currency.
        interval_ms: between two payments; they fall on its multiples since the epoch, plus `offset_ms`.

    Raises:
        InvalidValue: a multiplier or an interval that is not above 0, an offset that is not within the interval. For a payment: a mark that is not above
            0, a rate that is not between -1 and 1.
    """

    multiplier: Decimal = ONE
    is_inverse: bool = False
    interval_ms: int = 8 * HOUR_MS
    offset_ms: int = 0

    def __post_init__(self) -> None:
        positive("multiplier", self.multiplier)
        positive("interval_ms", Decimal(self.interval_ms))
        if not 0 <= self.offset_ms < self.interval_ms:
            raise InvalidValue(
                f"offset_ms was {self.offset_ms}; it must be from 0 to below the interval of {self.interval_ms}.",
                "Send 0 for payments on the interval's multiples.",
            )

    def payment(self, position: Decimal, mark: Decimal, rate: Decimal) -> Decimal:
        """What the holder pays; negative is received. In base currency where it is inverse, else in quote currency.

        Args:
            position: signed, contracts.
            mark: the mark price, quote currency.
        """
        finite("position", position)
        positive("mark", mark)
        fraction("rate", rate)
        size = product(product(position, self.multiplier), rate)
        return kept(quotient(size, mark, AMOUNT_PLACES) if self.is_inverse else product(size, mark))

    def due(self, after_ms: int, until_ms: int) -> tuple[int, ...]:
        """The instants of payment after `after_ms`, up to and with `until_ms`."""
        first = (after_ms - self.offset_ms) // self.interval_ms + 1
        last = (until_ms - self.offset_ms) // self.interval_ms
        return tuple(at * self.interval_ms + self.offset_ms for at in range(first, last + 1))


def _day_count(value: int) -> None:
    if value not in (360, 365):
        raise InvalidValue(f"day_count was {value}; it must be 360 or 365.", "Send 360 for money markets.")
