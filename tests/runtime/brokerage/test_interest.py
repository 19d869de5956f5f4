"""Interest, rollover and funding: laws and counted values, then every row of the table of outside values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.interest import (
    HOUR_MS,
    Borrowed,
    CashInterest,
    Funding,
    InterestTier,
    NoInterest,
    PeriodInterest,
    RatePoint,
    RateTable,
    Rollover,
    binance_interest,
    borrowed,
    kraken_interest,
    nights,
    rate_table,
)

from .oracles import Table

TABLE = Table("interest")
D = Decimal
amounts = st.integers(0, 10**12).map(lambda cents: D(cents).scaleb(-2))
rates = st.integers(0, 9_999).map(lambda parts: D(parts).scaleb(-6))
signed = st.integers(-9_999, 9_999).map(lambda parts: D(parts).scaleb(-4))
durations = st.integers(0, 1000 * HOUR_MS)
SLACK = Fraction(1, 10**18)


# ---- margin ---------------------------------------------------------------------------------------------------


@given(amounts, rates, durations)
def test_a_begun_period_counts_whole(amount: Decimal, rate: Decimal, duration: int) -> None:
    """Against fractions: at Binance a begun hour, at Kraken the opening and each begun four hours."""
    hours = Fraction(duration, HOUR_MS)
    binance = Fraction(amount) * Fraction(rate) * ceil(hours) / 24
    kraken = Fraction(amount) * Fraction(rate) * ceil(1 + hours / 4)
    assert abs(Fraction(binance_interest(rate).interest(amount, duration)) - binance) <= SLACK
    assert Fraction(kraken_interest(rate).interest(amount, duration)) == kraken
    assert NoInterest().interest(amount, duration) == 0


@pytest.mark.parametrize(
    ("minutes", "binance", "kraken"),
    [(0, 0, 1), (10, 1, 2), (60, 1, 2), (61, 2, 2), (240, 4, 2), (241, 5, 3), (300, 5, 3), (1440, 24, 7)],
)
def test_periods(minutes: int, binance: int, kraken: int) -> None:
    assert binance_interest(D("0.0005")).periods(minutes * 60_000) == binance
    assert kraken_interest(D("0.0002")).periods(minutes * 60_000) == kraken


@given(amounts, rates, durations, durations)
def test_longer_never_costs_less(amount: Decimal, rate: Decimal, duration: int, more: int) -> None:
    for model in (binance_interest(rate), kraken_interest(rate)):
        assert model.interest(amount, duration) <= model.interest(amount, duration + more)


def test_what_is_borrowed() -> None:
    """Long: the value less the own part, in quote currency. Short: the whole quantity, in base currency."""
    at_three = borrowed(Side.BUY, D(30), D(2), D(3), "BTC", "USD")
    assert at_three == Borrowed(D(40), "USD")
    assert borrowed(Side.BUY, D(30), D(2), D(1), "BTC", "USD").amount == 0
    assert borrowed(Side.SELL, D(30), D(2), D(3), "BTC", "USD") == Borrowed(D(30), "BTC")


# ---- cash -----------------------------------------------------------------------------------------------------

TIERED = CashInterest(
    credit=(InterestTier(D(0), D(0)), InterestTier(D(10_000), D("0.03"))),
    debit=(InterestTier(D(0), D("0.06")), InterestTier(D(100_000), D("0.055"))),
)


@pytest.mark.parametrize(
    ("balance", "days", "received"),
    [
        (10_000, 360, "0"),
        (110_000, 360, "3000"),
        (110_000, 36, "300"),
        (-100_000, 360, "-6000"),
        (-200_000, 360, "-11500"),
        (0, 360, "0"),
    ],
)
def test_each_part_of_a_balance_at_its_rate(balance: int, days: int, received: str) -> None:
    assert TIERED.interest(D(balance), days) == D(received)
    assert CashInterest().interest(D(balance), days) == 0


@given(
    st.lists(
        st.tuples(st.integers(1, 10**6), signed), min_size=1, max_size=5, unique_by=lambda pair: pair[0]
    ),
    st.integers(0, 10**7),
    st.integers(0, 1000),
    st.sampled_from([360, 365]),
)
def test_cash_interest_is_the_sum_over_units(
    steps: list[tuple[int, Decimal]], balance: int, days: int, count: int
) -> None:
    """Against a count by another way: each rate on what is above its balance, less what is above the next."""
    steps = [(0, D("0.01")), *sorted(steps)]
    tiers = tuple(InterestTier(D(start), rate) for start, rate in steps)
    rule = Fraction(balance) * Fraction(steps[0][1])
    for (_, before), (start, rate) in pairwise(steps):
        rule += max(balance - start, 0) * (Fraction(rate) - Fraction(before))
    rule = rule * days / count
    model = CashInterest(credit=tiers, debit=tiers, day_count=count)
    assert abs(Fraction(model.interest(D(balance), days)) - rule) <= SLACK
    assert model.interest(D(-balance), days) == -model.interest(D(balance), days)


# ---- forex and funding ----------------------------------------------------------------------------------------


def constant(rate: str) -> RateTable:
    return RateTable((RatePoint(0, D(rate)),))


def test_a_night_in_forex() -> None:
    """A difference of -0.01 % is -2.7397e-07 a night, as Nautilus has it; who is short is paid what who is long pays."""
    model = Rollover(constant("0.0175"), constant("0.0176"))
    assert float(model.rate(0)) == pytest.approx(-2.739726027397263e-07, rel=1e-9)
    assert model.payment(D(1_000_000), D("0.8"), 0, 3) == D("-0.657534246575342466")
    assert model.payment(D(-1_000_000), D("0.8"), 0, 3) == D("0.657534246575342466")
    assert Rollover(constant("0.05"), constant("0.014"), 360).rate(0) == D("0.0001")


def test_a_week_has_seven_nights() -> None:
    assert sum(nights(day) for day in range(7)) == 7
    assert [nights(day) for day in (2, 5, 6)] == [3, 0, 0]


@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6), signed)
def test_funding_is_paid_by_one_side_to_the_other(position: int, mark: int, rate: Decimal) -> None:
    for model in (Funding(D(10)), Funding(D(10), is_inverse=True)):
        paid = model.payment(D(position), D(mark), rate)
        assert paid == -model.payment(D(-position), D(mark), rate)
        assert paid * position * rate >= 0
    assert Funding(D(10)).payment(D(position), D(mark), rate) == position * 10 * mark * rate
    inverse = Fraction(position * 10) / mark * Fraction(rate)
    assert abs(Fraction(Funding(D(10), True).payment(D(position), D(mark), rate)) - inverse) <= SLACK


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 8 * HOUR_MS - 1))
def test_funding_is_due_once_at_each_instant(start: int, first: int, second: int, offset: int) -> None:
    """Two stretches have the instants of the whole, and each is a multiple of the interval."""
    model = Funding(offset_ms=offset)
    middle, end = start + first, start + first + second
    whole = model.due(start, end)
    assert model.due(start, middle) + model.due(middle, end) == whole
    assert all(start < at <= end and at % (8 * HOUR_MS) == offset for at in whole)
    assert (first + second) // (8 * HOUR_MS) <= len(whole) <= (first + second) // (8 * HOUR_MS) + 1


# ---- a rate that changes --------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(0, 1000), signed), min_size=1, unique_by=lambda pair: pair[0]),
    st.integers(-10, 1010),
)
def test_a_rate_holds_until_the_next(points: list[tuple[int, Decimal]], at: int) -> None:
    points = sorted(points)
    table = RateTable(tuple(RatePoint(start, rate) for start, rate in points))
    earlier = [rate for start, rate in points if start <= at]
    assert table.rate(at) == (earlier[-1] if earlier else points[0][1])


def test_a_table_from_lines() -> None:
    table = rate_table(["date,rate\n", "2020-01-01,2.5\n", "\n", "2020-01-03, -0.125"])
    assert [point.annual_rate for point in table.points] == [D("0.025"), D("-0.00125")]
    assert table.points[0].at_ms == ms("2020-01-01")


@pytest.mark.parametrize("line", ["2020-01-01", "2020-01-01,x", "2020-13-01,1", "1,1", "2020-01-01,100"])
def test_a_line_that_is_none_is_refused(line: str) -> None:
    with pytest.raises(InvalidValue):
        rate_table([line])


ONCE = (InterestTier(D(0), D("0.01")),)
BAD: list[Callable[[], object]] = [
    lambda: PeriodInterest(D(-1), 1),
    lambda: PeriodInterest(D(1), 1),
    lambda: PeriodInterest(D("0.1"), 0),
    lambda: PeriodInterest(D("0.1"), 1, 0),
    lambda: PeriodInterest(D("0.1"), 1, 1, -1),
    lambda: binance_interest(D("0.1")).interest(D(-1), 1),
    lambda: binance_interest(D("0.1")).interest(D(1), -1),
    lambda: borrowed(Side.BUY, D(1), D(1), D("0.9"), "B", "Q"),
    lambda: borrowed(Side.BUY, D(1), D(1), D("NaN"), "B", "Q"),
    lambda: borrowed(Side.BUY, D(0), D(1), D(1), "B", "Q"),
    lambda: InterestTier(D(-1), D(0)),
    lambda: InterestTier(D(0), D(1)),
    lambda: CashInterest(credit=(InterestTier(D(1), D(0)),)),
    lambda: CashInterest(debit=(*ONCE, *ONCE)),
    lambda: CashInterest(day_count=364),
    lambda: CashInterest(ONCE).interest(D("NaN"), 1),
    lambda: CashInterest(ONCE).interest(D(1), -1),
    lambda: RatePoint(0, D("NaN")),
    lambda: RateTable(()),
    lambda: RateTable((RatePoint(1, D(0)), RatePoint(1, D(0)))),
    lambda: Rollover(constant("0"), constant("0"), 1),
    lambda: Rollover(constant("0"), constant("0")).payment(D(1), D(0), 0),
    lambda: Rollover(constant("0"), constant("0")).payment(D(1), D(1), 0, -1),
    lambda: nights(7),
    lambda: Funding(D(0)),
    lambda: Funding(interval_ms=0),
    lambda: Funding(offset_ms=8 * HOUR_MS),
    lambda: Funding().payment(D(1), D(0), D(0)),
    lambda: Funding().payment(D(1), D(1), D(1)),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_a_bad_parameter_is_refused(at: int) -> None:
    with pytest.raises(InvalidValue) as refused:
        BAD[at]()
    assert refused.value.remedy


# ---- the table ------------------------------------------------------------------------------------------------

FED = rate_table(
    ["2003-01-09,2.25", "2020-03-04,1.75", "2020-03-16,0.25", "2022-03-17,0.5", "2023-07-27,5.5"]
)
"""The primary credit rate of the Federal Reserve's discount window on some of the days on which it changed; public figures. The file of the rows reads it."""


def ms(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def test_every_row_is_run_or_listed() -> None:
    TABLE.assert_complete()


@pytest.mark.parametrize("id_", TABLE.run())
def test_interest(id_: str) -> None:
    row = TABLE.rows[id_]
    if row["kind"] == "rate_file_parse":
        assert rate_table([row["line"]]).points[0].annual_rate == D(row["expected"])
    else:
        assert row["kind"] == "risk_free_rate_lookup"
        assert FED.rate(ms(row["date"])) == D(row["expected"])
