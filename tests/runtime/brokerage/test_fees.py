"""The laws of fees: what holds for every quantity, price and way in which an order is split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import negated, plus, product, total
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.fees import (
    AssetDiscountFee,
    BandedFee,
    BoundedFee,
    BoundRule,
    Charge,
    ChargeModel,
    Conversion,
    ConvertedFee,
    DatedFee,
    Execution,
    FeeCurrency,
    FixedFee,
    FlipRule,
    InverseFee,
    KindFee,
    Liquidity,
    MakerTakerFee,
    Measure,
    NoFee,
    OpeningFee,
    PercentFee,
    PerOrderFee,
    PerUnitFee,
    PriceBasis,
    RoundedFee,
    Rounding,
    Schedule,
    SumFee,
    Tier,
    TieredFee,
    per_share_fee,
)
from qmtl.runtime.brokerage.fees.schedules import (
    BINANCE_SPOT_2018,
    IBKR_FOREX,
    IBKR_SHARES_TIERED,
    KRAKEN_SPOT,
)

D = Decimal
quantities = st.integers(1, 10**9).map(lambda lots: D(lots).scaleb(-4))
prices = st.integers(1, 10**7).map(lambda ticks: D(ticks).scaleb(-2))
rates = st.integers(-9_999, 9_999).map(lambda parts: D(parts).scaleb(-4))
amounts = st.integers(0, 10**6).map(lambda parts: D(parts).scaleb(-3))
sides = st.sampled_from(Side)
liquidities = st.sampled_from(Liquidity)
currencies = st.sampled_from(FeeCurrency)
SCHEDULES = [KRAKEN_SPOT, BINANCE_SPOT_2018, IBKR_SHARES_TIERED, IBKR_FOREX]


def bought(quantity: Decimal | int = 1, price: Decimal | int = 100, **fields: Any) -> Execution:
    return replace(Execution(Side.BUY, D(quantity), D(price), "BTC", "USD"), **fields)


# ---- a rate ---------------------------------------------------------------------------------------------------


@given(rates, rates, sides, liquidities, currencies, quantities, prices)
def test_a_rate_is_the_same_share_in_each_currency(
    maker: Decimal,
    taker: Decimal,
    side: Side,
    liquidity: Liquidity,
    currency: FeeCurrency,
    quantity: Decimal,
    price: Decimal,
) -> None:
    """Base at the price is quote; the sign is that of the rate; maker and taker are never mixed up."""
    one = Execution(side, quantity, price, "BTC", "USD", liquidity)
    charge = MakerTakerFee(maker, taker, currency).charge(one)
    worth = charge.amount if charge.currency == "USD" else product(charge.amount, price)
    assert worth == product(product(quantity, price), maker if liquidity is Liquidity.MAKER else taker)


def test_the_currency_of_a_fee_by_convention() -> None:
    told = {
        (convention, side, liquidity): Execution(side, D(1), D(1), "B", "Q", liquidity).currency_of(
            convention
        )
        for convention in FeeCurrency
        for side in Side
        for liquidity in Liquidity
    }
    assert {key for key, currency in told.items() if currency == "B"} == {
        *((FeeCurrency.BASE, side, liquidity) for side in Side for liquidity in Liquidity),
        *((FeeCurrency.RECEIVED, Side.BUY, liquidity) for liquidity in Liquidity),
        *((FeeCurrency.GIVEN, Side.SELL, liquidity) for liquidity in Liquidity),
        (FeeCurrency.BASE_OF_MAKER_BUY, Side.BUY, Liquidity.MAKER),
    }


@given(st.lists(quantities, min_size=1, max_size=6), prices, rates)
def test_a_fraction_of_the_value_does_not_hang_on_the_split(
    parts: list[Decimal], price: Decimal, rate: Decimal
) -> None:
    fee = MakerTakerFee(rate, rate)
    split = total(fee.charge(bought(part, price)).amount for part in parts)
    assert split == fee.charge(bought(total(parts), price)).amount


@given(quantities, prices, rates)
def test_the_two_percentages_agree(quantity: Decimal, price: Decimal, rate: Decimal) -> None:
    one = bought(quantity, price)
    fee = PercentFee(rate)
    assert fee.charge(one).amount == MakerTakerFee(rate, rate).charge(one).amount
    assert fee.charge(one).amount == fee.fee(Side.BUY, quantity, price)


@given(quantities, prices, rates)
def test_an_inverse_contract_is_worth_its_quantity_over_the_price(
    quantity: Decimal, price: Decimal, rate: Decimal
) -> None:
    one = bought(quantity, price, multiplier=D(10))
    assert InverseFee(rate, rate, is_in_quote=True).charge(one) == Charge(
        product(product(quantity, D(10)), rate), "USD"
    )
    charge = InverseFee(rate, rate).charge(one)
    assert charge.currency == "BTC"
    missed = product(charge.amount, price) - quantity * 10 * rate
    assert abs(missed) <= price * D("2e-18")


@pytest.mark.parametrize(
    ("basis", "paid"),
    [
        (PriceBasis.FILL, 100),
        (PriceBasis.LIMIT, 99),
        (PriceBasis.MARKET, 101),
        (PriceBasis.MID, 105),
        (PriceBasis.BID, 90),
        (PriceBasis.ASK, 120),
        (PriceBasis.LIMIT_OR_NEAR, 99),
    ],
)
def test_the_price_that_a_fee_is_taken_on(basis: PriceBasis, paid: int) -> None:
    one = bought(limit_price=D(99), market_price=D(101), bid=D(90), ask=D(120))
    fee = MakerTakerFee(D("0.01"), D("0.01"), basis=basis)
    assert fee.charge(one).amount == D(paid) / 100
    unlimited = replace(one, limit_price=None)
    if basis is PriceBasis.LIMIT:
        assert fee.charge(unlimited).amount == 1
    if basis is PriceBasis.LIMIT_OR_NEAR:
        assert fee.charge(unlimited).amount == D("0.9")
        assert fee.charge(replace(unlimited, side=Side.SELL)).amount == D("1.2")


@pytest.mark.parametrize("basis", [PriceBasis.MARKET, PriceBasis.MID, PriceBasis.BID, PriceBasis.ASK])
def test_a_price_that_nobody_has_said_is_not_guessed(basis: PriceBasis) -> None:
    with pytest.raises(InvalidValue):
        MakerTakerFee(D("0.01"), D("0.01"), basis=basis).charge(bought())


# ---- bounds ---------------------------------------------------------------------------------------------------


@given(quantities, prices, amounts, amounts, st.sampled_from(BoundRule))
def test_bounds(
    quantity: Decimal, price: Decimal, minimum: Decimal, maximum: Decimal, rule: BoundRule
) -> None:
    """Between the bounds nothing changes; outside it is a bound; where they contradict each other the rule says which."""
    one = bought(quantity, price)
    raw = PerUnitFee(D("0.005")).charge(one).amount
    paid = BoundedFee(PerUnitFee(D("0.005")), minimum, maximum, None, rule).charge(one).amount
    if minimum <= maximum:
        assert paid == min(max(raw, minimum), maximum)
    elif rule is BoundRule.MAXIMUM_WINS:
        assert paid == min(raw, maximum) if raw >= minimum else paid == maximum
        assert paid <= maximum
    elif rule is BoundRule.MINIMUM_WINS:
        assert paid == minimum or paid == raw > minimum
        assert paid >= minimum
    else:
        assert paid == (minimum if raw < minimum else maximum)


@given(quantities, quantities, prices, st.sampled_from([BoundRule.MAXIMUM_WINS, BoundRule.MINIMUM_WINS]))
def test_more_shares_never_cost_less(one: Decimal, more: Decimal, price: Decimal, rule: BoundRule) -> None:
    fee = per_share_fee(D("0.005"), D(1), D("0.01"), rule)
    few, many = (fee.charge(bought(quantity, price)).amount for quantity in (one, plus(one, more)))
    assert few <= many


def test_with_the_either_rule_more_shares_can_cost_less() -> None:
    """200 at 0.5: the least fee is reached, and 0.5 % of the value is below it; that is how Lean answers."""
    fee = per_share_fee(D("0.005"), D(1), D("0.005"), BoundRule.EITHER)
    assert fee.charge(bought(199, D("0.5"))).amount == 1
    assert fee.charge(bought(200, D("0.5"))).amount == D("0.5")


def test_the_smaller_of_two_largest_fees_counts() -> None:
    fee = BoundedFee(PerUnitFee(D(1)), maximum=D(7), maximum_rate=D("0.01"))
    assert fee.charge(bought(20, 100)).amount == 7
    assert fee.charge(bought(20, 10)).amount == 2


# ---- one order ------------------------------------------------------------------------------------------------

WHOLE: list[ChargeModel] = [
    FixedFee(D(1)),
    per_share_fee(D("0.005"), D(1), D("0.01")),
    per_share_fee(D("0.005"), D(1), D("0.01"), BoundRule.EITHER),
    MakerTakerFee(D("0.001"), D("0.001"), FeeCurrency.RECEIVED),
    InverseFee(D("0.00075"), D("0.00075")),
    TieredFee(IBKR_FOREX, is_marginal=True),
    BandedFee(Measure.VALUE, (D(1000),), (FixedFee(D(1)), PercentFee(D("0.01")))),
    SumFee((FixedFee(D(1)), PercentFee(D("0.001")))),
    RoundedFee(PercentFee(D("0.001")), 2),
]


@settings(max_examples=40)
@given(st.lists(st.tuples(quantities, prices), min_size=1, max_size=5), st.sampled_from(WHOLE))
def test_an_order_pays_the_same_however_it_was_split(
    fills: list[tuple[Decimal, Decimal]], inner: ChargeModel
) -> None:
    """What the fills pay adds up to the fee of one execution of all, at the value of all."""
    fee = PerOrderFee(inner)
    paid = []
    one = bought(1, 1)
    for quantity, price in fills:
        one = bought(quantity, price, earlier=one.earlier)
        charge = fee.charge(one)
        paid.append(charge.amount)
        one = replace(one, earlier=one.after(charge))
    assert total(paid) == one.earlier.fee
    value = total(product(quantity, price) for quantity, price in fills)
    quantity, price = fills[-1]
    before = replace(
        one.earlier,
        quantity=one.earlier.quantity - quantity,
        value=value - product(quantity, price),
        inverse_value=one.earlier.inverse_value - bought(quantity, price).inverse_value(),
    )
    whole = inner.charge(replace(one, earlier=before, is_whole=True))
    assert total(paid) == whole.amount


def test_a_fixed_fee_once_per_order_is_paid_by_the_first_fill() -> None:
    fee = PerOrderFee(FixedFee(D(1)))
    first = bought(3)
    charge = fee.charge(first)
    assert charge == Charge(D(1), "USD")
    assert fee.charge(bought(4, earlier=first.after(charge))) == Charge(D(0), "USD")


def test_an_order_pays_in_one_currency() -> None:
    fee = PerOrderFee(MakerTakerFee(D("0.1"), D("0.1"), FeeCurrency.BASE_OF_MAKER_BUY))
    first = bought(liquidity=Liquidity.MAKER)
    with pytest.raises(InvalidValue, match="one currency"):
        fee.charge(bought(earlier=first.after(fee.charge(first))))


# ---- tiers ----------------------------------------------------------------------------------------------------


@given(st.sampled_from(SCHEDULES), st.integers(0, 10**10), st.integers(0, 10**10), st.integers(0, 20_000))
def test_more_volume_and_balance_never_lead_to_a_lower_tier(
    schedule: Schedule, volume: int, more: int, balance: int
) -> None:
    tiers = schedule.tiers
    low, high = schedule.tier(D(volume), D(balance)), schedule.tier(D(volume + more), D(balance))
    assert tiers.index(low) <= tiers.index(high)
    assert tiers.index(low) <= tiers.index(schedule.tier(D(volume), D(balance + 1)))
    assert low.volume <= volume
    assert low.balance <= balance


@given(st.sampled_from(SCHEDULES), st.integers(0, 10**10), st.integers(1, 10**10))
def test_the_parts_of_a_marginal_fee_are_the_whole(schedule: Schedule, volume: int, amount: int) -> None:
    parts = schedule.parts(D(volume), D(amount))
    assert total(part for _, part in parts) == amount
    at = volume
    for tier, part in parts:
        assert tier.volume <= at
        at += int(part)
        later = [other.volume for other in schedule.tiers if other.volume > tier.volume]
        assert not later or at <= later[0]


@given(st.integers(0, 6 * 10**9), st.integers(1, 6 * 10**9), st.integers(1, 6 * 10**9))
def test_a_marginal_fee_does_not_hang_on_the_split(volume: int, first: int, second: int) -> None:
    free = Schedule(tuple(replace(tier, minimum=D(0)) for tier in IBKR_FOREX.tiers), is_reached_at=False)
    fee = TieredFee(free, is_marginal=True)

    def paid(volume: int, quantity: int) -> Decimal:
        return fee.charge(bought(quantity, 1, volume=D(volume))).amount

    assert plus(paid(volume, first), paid(volume + first, second)) == paid(volume, first + second)


def test_flat_and_marginal_differ_over_a_boundary() -> None:
    """The example of Interactive Brokers' page, and what a flat tier makes of it."""
    one = bought(1_250_000_000, 1)
    assert TieredFee(IBKR_FOREX, is_marginal=True).charge(one).amount == 23_750
    assert TieredFee(IBKR_FOREX).charge(one).amount == 25_000


def test_the_ends_of_the_schedules() -> None:
    """The tiers at which no row of the table of outside values looks: of the same pages."""
    assert BINANCE_SPOT_2018.tier(D(150_000), D(11_000)) == Tier(
        D(150_000), D("0.0002"), D("0.0004"), D(11_000), name="VIP8"
    )
    assert IBKR_SHARES_TIERED.tier(D(300_000)).taker == D("0.0035")
    fee = BoundedFee(TieredFee(IBKR_SHARES_TIERED), maximum_rate=D("0.01"))
    assert fee.charge(bought(1000, 25)).amount == D("3.5")
    assert fee.charge(bought(1, 100)).amount == D("0.35")
    assert fee.charge(bought(1, 1)).amount == D("0.01")


def test_a_schedule_reads_volume_balance_and_liquidity_from_the_execution() -> None:
    fee = TieredFee(BINANCE_SPOT_2018, currency=FeeCurrency.RECEIVED)
    one = bought(
        1, 100, volume=D(500), balances=(("USD", D(9999)), ("BNB", D(50))), liquidity=Liquidity.MAKER
    )
    assert fee.charge(one) == Charge(D("0.0009"), "BTC")
    assert fee.charge(replace(one, liquidity=Liquidity.TAKER)) == Charge(D("0.001"), "BTC")
    assert fee.charge(replace(one, balances=())) == Charge(D("0.001"), "BTC")


# ---- made of others -------------------------------------------------------------------------------------------


@given(quantities, prices, rates, rates)
def test_a_sum_in_one_currency_is_the_sum(
    quantity: Decimal, price: Decimal, one: Decimal, other: Decimal
) -> None:
    found = bought(quantity, price)
    fees = PercentFee(one), PercentFee(other)
    assert SumFee(fees).charge(found).amount == total(fee.charge(found).amount for fee in fees)


def test_a_sum_of_currencies_is_in_quote_currency() -> None:
    fees = (MakerTakerFee(D("0.01"), D("0.01"), FeeCurrency.BASE), FixedFee(D(2)), FixedFee(D(3), "EUR"))
    one = bought(2, 100, conversions=(Conversion("EUR", "USD", D("1.5")),))
    assert SumFee(fees).charge(one) == Charge(D("8.5"), "USD")
    assert SumFee(()).charge(one) == Charge(D(0), "USD")


def test_a_third_asset_pays_with_a_discount_while_there_is_enough_of_it() -> None:
    fee = AssetDiscountFee(MakerTakerFee(D("-0.001"), D("0.001"), FeeCurrency.RECEIVED), "BNB", D("0.25"))
    one = Execution(Side.SELL, D(1), D(1000), "BTC", "USD", conversions=(Conversion("BNB", "USD", D(300)),))
    assert fee.charge(replace(one, balances=(("BNB", D("0.0025")),))) == Charge(D("0.0025"), "BNB")
    assert fee.charge(replace(one, balances=(("BNB", D("0.0024")),))) == Charge(D(1), "USD")
    assert fee.charge(one) == Charge(D(1), "USD")
    assert fee.charge(replace(one, liquidity=Liquidity.MAKER, balances=(("BNB", D(9)),))) == Charge(
        D(-1), "USD"
    )


@given(st.decimals("-1e6", "1e6", places=9), st.integers(0, 8))
def test_rounding_up_is_never_in_favour_of_who_pays(amount: Decimal, places: int) -> None:
    one = bought()
    up = RoundedFee(FixedFee(amount), places, Rounding.UP).charge(one).amount
    near = RoundedFee(FixedFee(amount), places).charge(one).amount
    step = D(1).scaleb(-places)
    assert 0 <= up - amount < step
    assert abs(near - amount) <= step / 2
    assert up % step == near % step == 0


def test_a_fee_in_the_currency_of_the_account() -> None:
    rates_ = (Conversion("EUR", "USD", D("1.25")),)
    assert ConvertedFee(FixedFee(D(4), "EUR"), "USD").charge(bought(conversions=rates_)) == Charge(
        D(5), "USD"
    )
    assert ConvertedFee(FixedFee(D(5)), "EUR").charge(bought(conversions=rates_)) == Charge(D(4), "EUR")
    with pytest.raises(InvalidValue, match="none between EUR and USD"):
        ConvertedFee(FixedFee(D(4), "EUR"), "USD").charge(bought())


def test_what_closes_is_free() -> None:
    fee, closing = OpeningFee(PerUnitFee(D(1))), OpeningFee(PerUnitFee(D(1)), FlipRule.IS_CLOSING)
    for holding, paid in ((0, 10), (5, 10), (-10, 0), (-11, 0), (-4, 6)):
        one = bought(10, holding=D(holding))
        assert fee.charge(one) == Charge(D(paid), "USD")
        assert closing.charge(one).amount == (0 if holding < 0 else 10)
        mirrored = replace(one, side=Side.SELL, holding=negated(one.holding))
        assert fee.charge(mirrored).amount == paid


def test_bands() -> None:
    fees = (FixedFee(D(1)), FixedFee(D(2)), FixedFee(D(3)))
    for is_upper_in, paid in ((False, [1, 2, 2, 3]), (True, [1, 1, 2, 2])):
        fee = BandedFee(Measure.QUANTITY, (D(10), D(20)), fees, is_upper_in)
        assert [fee.charge(bought(at)).amount for at in (9, 10, 11, 20)] == paid


def test_a_rate_counts_from_its_start_on() -> None:
    fee = DatedFee((1000, 2000), (NoFee(), FixedFee(D(1)), FixedFee(D(2))))
    assert [fee.charge(bought(at_ms=at)).amount for at in (999, 1000, 1999, 2000)] == [0, 1, 1, 2]


BAD: list[Callable[[], object]] = [
    lambda: MakerTakerFee(D(1), D(0)),
    lambda: MakerTakerFee(D(0), D("NaN")),
    lambda: InverseFee(D("-1"), D(0)),
    lambda: InverseFee(D(0), D("Infinity")),
    lambda: PerUnitFee(D("NaN")),
    lambda: FixedFee(D("-Infinity")),
    lambda: BoundedFee(NoFee()),
    lambda: BoundedFee(NoFee(), minimum=D(-1)),
    lambda: BoundedFee(NoFee(), maximum=D("NaN")),
    lambda: BoundedFee(NoFee(), maximum_rate=D("1.1")),
    lambda: RoundedFee(NoFee(), -1),
    lambda: RoundedFee(NoFee(), 19),
    lambda: ConvertedFee(NoFee(), ""),
    lambda: AssetDiscountFee(NoFee(), "", D("0.1")),
    lambda: AssetDiscountFee(NoFee(), "BNB", D("1.1")),
    lambda: OpeningFee(PerOrderFee(NoFee())),
    lambda: PerOrderFee(OpeningFee(NoFee())).charge(bought()),
    lambda: BandedFee(Measure.PRICE, (D(1), D(1)), (NoFee(), NoFee(), NoFee())),
    lambda: BandedFee(Measure.PRICE, (D(1),), (NoFee(),)),
    lambda: DatedFee((2, 1), (NoFee(), NoFee(), NoFee())),
    lambda: DatedFee((), ()),
    lambda: KindFee((("", NoFee()),)),
    lambda: KindFee((("a", NoFee()), ("a", NoFee()))),
    lambda: Tier(D(-1), D(0), D(0)),
    lambda: Tier(D(0), D("NaN"), D(0)),
    lambda: Schedule(()),
    lambda: Schedule((Tier(D(1), D(0), D(0)),)),
    lambda: Schedule((Tier(D(0), D(0), D(0)), Tier(D(0), D(0), D(0)))),
    lambda: Schedule((Tier(D(0), D(0), D(0)), Tier(D(1), D(0), D(0), D(5)), Tier(D(2), D(0), D(0), D(4)))),
    lambda: Schedule((Tier(D(0), D(0), D(0)),), Measure.PRICE),
    lambda: TieredFee(IBKR_SHARES_TIERED, currency=FeeCurrency.BASE),
    lambda: TieredFee(KRAKEN_SPOT, is_marginal=True, currency=FeeCurrency.RECEIVED),
    lambda: TieredFee(BINANCE_SPOT_2018, is_marginal=True),
    lambda: TieredFee(KRAKEN_SPOT, currency=FeeCurrency.BASE, account_currency="USD"),
    lambda: Conversion("", "USD", D(1)),
    lambda: Conversion("EUR", "USD", D(0)),
    lambda: bought(0),
    lambda: bought(-1),
    lambda: bought(1, 0),
    lambda: bought(1, 1, volume=D(-1)),
    lambda: bought(1, 1, multiplier=D(0)),
    lambda: bought(1, 1, holding=D("NaN")),
    lambda: bought(1, 1, base=""),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_a_bad_parameter_is_refused(at: int) -> None:
    with pytest.raises(InvalidValue) as refused:
        BAD[at]()
    assert refused.value.remedy
