"""Slippage: its laws, then every row of the table of outside values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.slippage import (
    ALPHASTREAMS_SLIPPAGE,
    ConstantSlippage,
    HalfSpreadSlippage,
    MarketImpactSlippage,
    NoSlippage,
    NoVolume,
    SizedSlippage,
    Taking,
    VolumeShareSlippage,
    limited_price,
)

from .oracles import Table

TABLE = Table("slippage")
D = Decimal
quantities = st.integers(1, 10**9).map(lambda lots: D(lots).scaleb(-4))
prices = st.integers(1, 10**7).map(lambda ticks: D(ticks).scaleb(-2))
shares = st.integers(0, 1000).map(lambda parts: D(parts).scaleb(-3))
sides = st.sampled_from(Side)
MODELS: list[SizedSlippage] = [
    NoSlippage(),
    ConstantSlippage(D("0.01")),
    HalfSpreadSlippage(),
    VolumeShareSlippage(),
    VolumeShareSlippage(no_volume=NoVolume.NONE),
    MarketImpactSlippage(),
]


def taking(price: Decimal | int = 100, quantity: Decimal | int = 1, **fields: Any) -> Taking:
    price, quantity = D(price), D(quantity)
    usual = Taking(
        Side.BUY, price, quantity, volume=D(1000), bid=price - D("0.001"), ask=price + D("0.001"),
        average_volume=D(10_000), volatility=D("0.01"),
    )  # fmt: skip
    return replace(usual, **fields)


@given(st.sampled_from(MODELS), sides, prices, quantities, quantities)
def test_slippage_is_against_the_taker_and_never_above_the_price(
    model: SizedSlippage, side: Side, price: Decimal, quantity: Decimal, volume: Decimal
) -> None:
    one = taking(price, quantity, volume=volume, side=side)
    assert 0 <= model.slippage(one) <= price
    assert model.slippage(one) == model.slippage(replace(one, side=Side.BUY))


@given(st.sampled_from(MODELS), prices, quantities, quantities)
def test_a_larger_order_never_slips_less(
    model: SizedSlippage, price: Decimal, one: Decimal, more: Decimal
) -> None:
    assert model.slippage(taking(price, one)) <= model.slippage(taking(price, one + more))


@given(sides, prices, prices, prices)
def test_slippage_makes_no_limit_order_worse_than_its_limit(
    side: Side, price: Decimal, adverse: Decimal, room: Decimal
) -> None:
    """It stops at the limit; with room for all of it, it is all of it; without a limit nothing stops it."""
    sign = 1 if side is Side.BUY else -1
    limit = price + sign * room
    at = limited_price(side, price, adverse, limit)
    assert sign * (at - price) == min(adverse, room)
    assert limited_price(side, price, adverse, None) == price + sign * adverse


@pytest.mark.parametrize("side", Side)
def test_a_price_beyond_the_limit_is_refused(side: Side) -> None:
    beyond = D(101) if side is Side.BUY else D(99)
    with pytest.raises(InvalidValue, match="beyond the limit"):
        limited_price(side, beyond, D(0), D(100))
    assert limited_price(side, D(100), D(5), D(100)) == 100
    with pytest.raises(InvalidValue):
        limited_price(side, D(100), D(-1), None)


@given(prices, quantities, quantities, shares, shares)
def test_the_share_of_the_volume(
    price: Decimal, quantity: Decimal, volume: Decimal, limit: Decimal, impact: Decimal
) -> None:
    """Against the rule in fractions; a bar without volume is as bad as one that is all taken, or costs nothing."""
    model = VolumeShareSlippage(limit, impact)
    one = taking(price, quantity, volume=volume)
    rule = float(price) * float(impact) * min(float(quantity / volume), float(limit)) ** 2
    assert float(model.slippage(one)) == pytest.approx(rule, rel=1e-9, abs=1e-9)
    largest = price * impact * limit * limit
    for none in (D(0), None):
        assert model.slippage(replace(one, volume=none)) == largest
        assert replace(model, no_volume=NoVolume.NONE).slippage(replace(one, volume=none)) == 0


@given(prices, st.integers(0, 1000).map(lambda ticks: D(ticks).scaleb(-3)))
def test_half_the_spread_leads_from_the_middle_to_the_quote(middle: Decimal, half: Decimal) -> None:
    half = min(half, middle)
    one = taking(middle, bid=middle - half, ask=middle + half)
    assert limited_price(Side.BUY, middle, HalfSpreadSlippage().slippage(one), None) == one.ask
    assert limited_price(Side.SELL, middle, HalfSpreadSlippage().slippage(one), None) == one.bid


@given(quantities, st.integers(1, 10**6), st.integers(0, 10**6), shares)
def test_market_impact_by_the_formula(
    quantity: Decimal, latency: int, more: int, volatility: Decimal
) -> None:
    """Against floats; a longer latency leads to no more slippage."""
    one = taking(D(100), quantity, average_volume=D(10**6), volatility=volatility, outstanding=D(10**7))
    model = MarketImpactSlippage(latency_ms=latency)
    days = latency / 23_400_000
    nu = float(quantity) / 1e6 / days
    permanent = float(volatility) * days * 0.314 * nu**0.891 * 10**0.267
    impact = float(volatility) * 0.142 * nu**0.6 + permanent / 2
    assert float(model.slippage(one)) == pytest.approx(100 * min(impact, 1), rel=1e-9, abs=1e-15)
    half = replace(model, realized=D("0.5")).slippage(one)
    assert float(half) == pytest.approx(100 * min(impact / 2, 1), rel=1e-9, abs=1e-15)
    assert replace(model, latency_ms=latency + more).slippage(one) <= model.slippage(one)


def test_market_impact_without_volume() -> None:
    assert MarketImpactSlippage().slippage(taking(average_volume=D(0))) == 0
    for missing in (taking(average_volume=None), taking(volatility=None)):
        with pytest.raises(InvalidValue, match="market impact needs both"):
            MarketImpactSlippage().slippage(missing)


BAD: list[Callable[[], object]] = [
    lambda: VolumeShareSlippage(volume_limit=D("1.1")),
    lambda: VolumeShareSlippage(impact=D(-1)),
    lambda: VolumeShareSlippage(impact=D("NaN")),
    lambda: MarketImpactSlippage(latency_ms=0),
    lambda: MarketImpactSlippage(day_ms=0),
    lambda: MarketImpactSlippage(alpha=D(-1)),
    lambda: MarketImpactSlippage(eta=D("Infinity")),
    lambda: MarketImpactSlippage(realized=D(2)),
    lambda: MarketImpactSlippage().slippage(taking(outstanding=D(0))),
    lambda: HalfSpreadSlippage().slippage(taking(bid=None)),
    lambda: HalfSpreadSlippage().slippage(taking(bid=D(101), ask=D(100))),
    lambda: taking(quantity=D(0)),
    lambda: taking(price=D(0)),
    lambda: taking(volume=D(-1)),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_a_bad_parameter_is_refused(at: int) -> None:
    with pytest.raises(InvalidValue) as refused:
        BAD[at]()
    assert refused.value.remedy


# ---- the table ------------------------------------------------------------------------------------------------


def model_of(row: dict[str, Any]) -> SizedSlippage:
    params, is_equity = row["params"], row["security_type"] == "equity"
    if row["model"] == "constant":
        return ConstantSlippage(D(params["percent"]))
    if row["model"] == "alphastreams":
        return ALPHASTREAMS_SLIPPAGE if is_equity else NoSlippage()
    assert row["model"] == "volume_share"
    no_volume = NoVolume.LARGEST if is_equity else NoVolume.NONE
    return VolumeShareSlippage(D(params["volume_limit"]), D(params["price_impact"]), no_volume)


def assert_property(said: str) -> None:
    """One of the four of market impact, over sizes, latencies and volatilities."""
    model = MarketImpactSlippage()
    for quantity in (D(1), D(100), D(10_000)):
        for volatility in (D("0.01"), D("0.3"), D(5)):
            one = taking(D(100), quantity, volatility=volatility)
            slippage = model.slippage(one)
            if said == "larger order has larger slippage":
                larger = model.slippage(replace(one, quantity=quantity * 10))
                assert larger > slippage or larger == slippage == 100
            elif said == "longer latency (10 s) has smaller slippage":
                longer = replace(model, latency_ms=10_000).slippage(one)
                assert longer < slippage or longer == slippage == 100
            elif said == "slippage <= price":
                assert slippage <= one.price
            else:
                assert said == "cfd and forex raise an error"
                with pytest.raises(InvalidValue):
                    model.slippage(replace(one, average_volume=None))


def test_every_row_is_run_or_listed() -> None:
    TABLE.assert_complete()


@pytest.mark.parametrize("id_", TABLE.run())
def test_slippage(id_: str) -> None:
    row = TABLE.rows[id_]
    if row.get("property"):
        assert_property(row["property"])
        return
    volume = D(row["bar_volume"])
    one = Taking(
        Side.BUY if row["side"] == "buy" else Side.SELL, D(row["price"]), D(row["order_qty"]), volume
    )
    assert model_of(row).slippage(one) == D(row["expected_slippage"])
