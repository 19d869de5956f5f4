"""Fees, slippage and fills: laws, then what other systems assert."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue, InvariantBroken
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus, OrderType, Side, TimeInForce
from qmtl.runtime.brokerage.fees import FeeModel, NoFee, PercentFee, fee_of_rate
from qmtl.runtime.brokerage.fills import execution_price, market_fill
from qmtl.runtime.brokerage.slippage import ConstantSlippage, NoSlippage, SlippageModel, slippage_of_rate

HERE = Path(__file__).parent
T0 = 1_522_800_000_000
TICK = Decimal("0.01")

quantities = st.integers(1, 10**12).map(lambda lots: Decimal(lots).scaleb(-8))
prices = st.integers(1, 10**8).map(lambda ticks: Decimal(ticks).scaleb(-2))
rates = st.integers(0, 10**6).map(lambda parts: Decimal(parts).scaleb(-6))
ticks = st.sampled_from(
    [Decimal("0.01"), Decimal("0.05"), Decimal("1"), Decimal("0.00000001"), Decimal("0.3")]
)
sides = st.sampled_from(Side)


def oracle(name: str) -> list[Any]:
    rows = json.loads((HERE / f"oracle_{name}.json").read_text())["rows"]
    return [pytest.param(row, id=row["id"]) for row in rows]


def an_order(side: Side = Side.BUY, quantity: Decimal = Decimal(10), created_at_ms: int = T0) -> Order:
    return Order(
        "w", "s", "o" * 32, "X", side, OrderType.MARKET, TimeInForce.GTC, quantity, OrderStatus.NEW, Decimal(0),
        Decimal(0), 0, False, Decimal(100), created_at_ms, created_at_ms, created_at_ms,
    )  # fmt: skip


def a_bar(open_: Decimal, open_time_ms: int = T0, close: Decimal | None = None) -> Bar:
    close = open_ if close is None else close
    return Bar("X", open_time_ms, 60, open_, max(open_, close), min(open_, close), close, Decimal(1))


def filled(
    order: Order,
    bar: Bar,
    fees: FeeModel | None = None,
    slips: SlippageModel | None = None,
    tick: Decimal = TICK,
) -> Fill:
    return market_fill(order, bar, fees or NoFee(), slips or NoSlippage(), tick, "USD")


# ---- laws -------------------------------------------------------------------------------------------------


@given(sides, quantities, prices, rates, rates, ticks)
def test_a_fill_is_on_the_tick_and_never_better_than_open_plus_slippage(
    side: Side, quantity: Decimal, price: Decimal, fee_rate: Decimal, slip: Decimal, tick: Decimal
) -> None:
    fees = PercentFee(min(fee_rate, Decimal("0.9")))
    fill = filled(an_order(side, quantity), a_bar(price), fees, ConstantSlippage(slip), tick)
    assert fill.price > 0
    assert fill.price % tick == 0
    if side is Side.BUY:
        exact = price * (1 + slip)
        assert exact <= fill.price < exact + tick
        assert fill.slippage == fill.price - price
    else:
        exact = price * (1 - slip)
        assert fill.price == tick or exact - tick < fill.price <= exact
        assert fill.slippage == price - fill.price
    assert fill.fee == fees.fee(side, quantity, fill.price)
    assert fill.quantity == quantity


@given(sides, quantities, prices)
def test_without_fee_and_slippage_a_fill_is_the_open(side: Side, quantity: Decimal, price: Decimal) -> None:
    fill = filled(an_order(side, quantity), a_bar(price))
    assert (fill.price, fill.fee, fill.slippage) == (price, Decimal(0), Decimal(0))


@given(quantities, prices, st.integers(-(10**30), 10**30))
def test_a_fee_is_the_exact_product_until_eighteen_places(
    quantity: Decimal, price: Decimal, parts: int
) -> None:
    rate = Decimal(parts).scaleb(-31)
    fee = PercentFee(rate).fee(Side.BUY, quantity, price)
    exact = rate * quantity * price  # at most 28 digits would round here, so it is computed in integers below
    numerator = parts * int(quantity.scaleb(8)) * int(price.scaleb(2))
    scale = 10 ** (31 + 8 + 2)
    assert abs(int(fee.scaleb(18)) * scale - numerator * 10**18) * 2 <= scale
    assert int(fee.normalize().as_tuple().exponent) >= -18
    assert (fee > 0) == (exact > 0) or fee == 0


def test_a_fee_between_two_places_goes_to_the_even_one() -> None:
    for units, expected in (("0.5", "0"), ("1.5", "2"), ("2.5", "2"), ("-1.5", "-2")):
        rate = Decimal(units).scaleb(-18)
        assert PercentFee(rate).fee(Side.BUY, Decimal(1), Decimal(1)) == Decimal(expected).scaleb(-18)


def test_a_fill_says_what_it_was_made_of() -> None:
    order = replace(an_order(Side.SELL), last_seq=2, cum_quantity=Decimal(4))
    bar = a_bar(Decimal("100.00"), T0 + 180_000, Decimal(120))
    fill = filled(order, bar, PercentFee(Decimal("0.001")), ConstantSlippage(Decimal("0.0005")))
    assert fill == Fill(
        "w", "s", order.order_id, 3, "X", Side.SELL, Decimal(6), Decimal("99.95"), Decimal("0.5997"), "USD",
        Decimal("0.05"), T0 + 180_000,
    )  # fmt: skip


def test_an_open_off_the_tick_is_rounded_against_the_taker() -> None:
    assert filled(an_order(Side.BUY), a_bar(Decimal("10.001"))).price == Decimal("10.01")
    assert filled(an_order(Side.SELL), a_bar(Decimal("10.009"))).price == Decimal("10.00")
    assert filled(an_order(Side.SELL), a_bar(Decimal("0.001"))).price == TICK


# ---- refusals ---------------------------------------------------------------------------------------------


def test_a_bar_that_was_open_before_the_order_never_fills_it() -> None:
    with pytest.raises(InvariantBroken, match="known before the order"):
        filled(an_order(created_at_ms=T0), a_bar(Decimal(1), T0 - 1))


def test_a_bar_of_another_symbol_or_an_order_without_a_rest_is_a_bug() -> None:
    with pytest.raises(InvariantBroken, match="bar of Y"):
        filled(an_order(), replace(a_bar(Decimal(1)), symbol="Y"))
    with pytest.raises(InvariantBroken, match="filled already"):
        filled(replace(an_order(), cum_quantity=Decimal(10)), a_bar(Decimal(1)))


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "-Infinity", "1", "-1", "1.5"])
def test_a_fee_rate_is_a_fraction(rate: str) -> None:
    with pytest.raises(InvalidValue, match="fee_rate was"):
        PercentFee(Decimal(rate))


@pytest.mark.parametrize("rate", ["NaN", "Infinity", "-0.001", "1.001"])
def test_a_slippage_rate_is_a_fraction_against_the_taker(rate: str) -> None:
    with pytest.raises(InvalidValue, match="slippage_rate was"):
        ConstantSlippage(Decimal(rate))


def test_a_rate_of_nothing_is_the_null_model() -> None:
    assert (fee_of_rate(Decimal("0.0")), slippage_of_rate(Decimal(0))) == (NoFee(), NoSlippage())
    assert fee_of_rate(Decimal("-0.001")) == PercentFee(Decimal("-0.001"))
    assert slippage_of_rate(Decimal("0.01")) == ConstantSlippage(Decimal("0.01"))


# ---- outside examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", oracle("fees"))
def test_others_charge_the_same_percent_fee(row: dict[str, Any]) -> None:
    side = Side.SELL if row["side"] == "sell" else Side.BUY
    fee = PercentFee(Decimal(row["taker_rate"])).fee(side, Decimal(row["qty"]), Decimal(row["price"]))
    expected = Decimal(row["expected_fee"])
    if "rounded" in row.get("note", ""):
        fee = fee.quantize(
            expected
        )  # the source rounds to the currency's smallest coin; 24.015 to the even 24.02
    assert fee == expected


@pytest.mark.parametrize("row", oracle("slippage"))
def test_lean_slips_by_the_same_distance(row: dict[str, Any]) -> None:
    model = ConstantSlippage(Decimal(row["params"]["percent"]))
    assert model.adverse(Side(row["side"].upper()), Decimal(row["price"])) == Decimal(
        row["expected_slippage"]
    )


@pytest.mark.parametrize("row", [one for one in oracle("fills") if "qty" in one.values[0]["order"]])
def test_lean_fills_a_waiting_market_order_whole_at_the_same_price(row: dict[str, Any]) -> None:
    told = row["order"]
    (data,) = row["data"]
    open_ = Decimal(data.get("o") or data["price"])
    order = an_order(Side(told["side"].upper()), Decimal(told["qty"]))
    fill = filled(order, a_bar(open_, close=Decimal(data.get("c", open_))), tick=Decimal("0.001"))
    assert fill.price == Decimal(row["expected"]["price"])
    assert (fill.quantity if fill.side is Side.BUY else -fill.quantity) == Decimal(row["expected"]["qty"])


@pytest.mark.parametrize("row", [one for one in oracle("fills") if "qty" not in one.values[0]["order"]])
def test_nautilus_slips_by_one_tick_to_the_same_price(row: dict[str, Any]) -> None:
    (data,) = row["data"]
    tick = Decimal(data["tick_size"])
    book = row["expected"]["simulated_book"]
    assert execution_price(Side.BUY, Decimal(data["ask"]), tick, tick) == Decimal(book["asks"][0][0])
    assert execution_price(Side.SELL, Decimal(data["bid"]), tick, tick) == Decimal(book["bids"][0][0])
