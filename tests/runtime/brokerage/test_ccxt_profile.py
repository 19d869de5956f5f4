"""Profiles from what ccxt says of markets; for spot, ccxt's own count of a fee is beside ours."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.ccxt_profile import (
    DEFAULT_MAKER,
    DEFAULT_TAKER,
    MarketLimits,
    RateSource,
    make_ccxt_brokerage,
)
from qmtl.runtime.brokerage.fees import Charge, Conversion, Liquidity, TieredFee
from qmtl.runtime.brokerage.fees.schedules import KRAKEN_SPOT

D = Decimal

SPOT: dict[str, Any] = {
    "symbol": "BTC/USDT",
    "base": "BTC",
    "quote": "USDT",
    "settle": None,
    "spot": True,
    "contract": False,
    "linear": None,
    "inverse": None,
    "contractSize": None,
    "maker": 0.001,
    "taker": 0.0015,
    "tierBased": False,
    "percentage": True,
    "feeSide": "get",
    "precision": {"amount": 1e-05, "price": 0.01, "cost": None},
    "limits": {
        "amount": {"min": 1e-05, "max": 9000.0},
        "price": {"min": 0.01, "max": 1000000.0},
        "cost": {"min": 5.0, "max": None},
        "leverage": {"min": None, "max": None},
    },
}
LINEAR = {
    **SPOT,
    "symbol": "BTC/USDT:USDT",
    "settle": "USDT",
    "spot": False,
    "contract": True,
    "linear": True,
    "inverse": False,
    "contractSize": 0.01,
}
INVERSE = {
    **LINEAR,
    "symbol": "BTC/USD:BTC",
    "quote": "USD",
    "settle": "BTC",
    "linear": False,
    "inverse": True,
    "contractSize": 100.0,
}
EXCHANGE: dict[str, Any] = {
    "precisionMode": 4,
    "fees": {
        "trading": {
            "maker": 0.002,
            "taker": 0.003,
            "feeSide": "give",
            "tiers": {"maker": [[0, 0.002], [100, 0.001]], "taker": [[0, 0.003], [50, 0.0025], [100, 0.002]]},
        },
        "linear": {"trading": {"maker": 0.004}},
    },
}


@cache
def ccxt_client() -> Any:
    """ccxt's base class of all exchanges, which gives numbers as texts and asks nobody."""
    import ccxt

    client = ccxt.Exchange()
    client.number = str
    return client


def without(market: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {field: value for field, value in market.items() if field not in fields}


@given(
    st.sampled_from(["get", "give", "base", "quote", None]),
    st.sampled_from(Side),
    st.sampled_from(Liquidity),
    st.integers(1, 10**9),
    st.integers(1, 10**9),
    st.integers(-10_000, 10_000),
    st.integers(-10_000, 10_000),
)
def test_a_spot_fee_is_the_one_that_ccxt_counts(
    fee_side: str | None, side: Side, liquidity: Liquidity, lots: int, ticks: int, maker: int, taker: int
) -> None:
    client = ccxt_client()
    quantity, price = D(lots).scaleb(-6), D(ticks).scaleb(-2)
    market = {**SPOT, "feeSide": fee_side, "maker": maker / 10**6, "taker": taker / 10**6}
    charge = make_ccxt_brokerage(market).charge(side, quantity, price, liquidity)
    client.markets = {"BTC/USDT": market}
    told = client.calculate_fee(
        "BTC/USDT", "limit", side.value.lower(), str(quantity), str(price), liquidity.value
    )
    assert charge == Charge(D(told["cost"]), told["currency"])


def test_rates_come_from_the_market_then_the_exchange_then_the_default() -> None:
    def rates(market: dict[str, Any], exchange: dict[str, Any] | None) -> tuple[Any, ...]:
        made = make_ccxt_brokerage(market, exchange)
        paid = [made.charge(Side.SELL, D(1), D(1), liquidity).amount for liquidity in Liquidity]
        return (*paid, made.maker_from, made.taker_from)

    source = RateSource
    silent = without(SPOT, "maker", "taker")
    assert rates(SPOT, EXCHANGE) == (D("0.001"), D("0.0015"), source.MARKET, source.MARKET)
    assert rates(without(SPOT, "maker"), EXCHANGE) == (
        D("0.002"),
        D("0.0015"),
        source.EXCHANGE,
        source.MARKET,
    )
    assert rates({**SPOT, "taker": None}, EXCHANGE) == (
        D("0.001"),
        D("0.003"),
        source.MARKET,
        source.EXCHANGE,
    )
    assert rates(silent, None) == (DEFAULT_MAKER, DEFAULT_TAKER, source.DEFAULT, source.DEFAULT)
    assert rates({**SPOT, "maker": 0, "taker": 0.0}, EXCHANGE)[:2] == (0, 0)
    own = make_ccxt_brokerage(silent, default_maker=D("-0.1"), default_taker=D("0.2"))
    assert own.charge(Side.SELL, D(1), D(1), Liquidity.MAKER).amount == D("-0.1")
    assert own.charge(Side.SELL, D(1), D(1), Liquidity.TAKER).amount == D("0.2")


def test_the_fee_side_has_the_same_order() -> None:
    def currency(market: dict[str, Any], exchange: dict[str, Any] | None = None) -> str:
        return make_ccxt_brokerage(market, exchange).charge(Side.BUY, D(1), D(9), Liquidity.TAKER).currency

    silent = without(SPOT, "feeSide")
    assert currency(SPOT, EXCHANGE) == "BTC"
    assert currency(silent, EXCHANGE) == "USDT"
    assert currency({**SPOT, "feeSide": "give"}, EXCHANGE) == "USDT"
    assert currency(silent) == "USDT"


def test_contracts_are_charged_with_their_size_in_what_they_settle_in() -> None:
    linear = make_ccxt_brokerage(LINEAR)
    assert linear.charge(Side.BUY, D(3), D(50_000), Liquidity.MAKER) == Charge(D("1.5"), "USDT")
    inverse = make_ccxt_brokerage(INVERSE)
    assert inverse.charge(Side.BUY, D(5), D(50_000), Liquidity.TAKER) == Charge(D("0.000015"), "BTC")
    silent = [without(market, "linear", "inverse") for market in (LINEAR, INVERSE)]
    assert [make_ccxt_brokerage(market).fees for market in silent] == [linear.fees, inverse.fees]
    of_kind = make_ccxt_brokerage(without(LINEAR, "maker", "taker"), EXCHANGE)
    assert of_kind.charge(Side.BUY, D(100), D(1), Liquidity.MAKER).amount == D("0.004")
    assert of_kind.charge(Side.BUY, D(100), D(1), Liquidity.TAKER).amount == D("0.003")


def test_a_contract_that_settles_in_a_third_currency_is_converted() -> None:
    made = make_ccxt_brokerage({**LINEAR, "settle": "USDC"})
    rate = (Conversion("USDT", "USDC", D("0.5")),)
    assert made.charge(Side.BUY, D(100), D(10), Liquidity.MAKER, conversions=rate) == Charge(
        D("0.005"), "USDC"
    )


def test_a_third_asset_and_fixed_amounts() -> None:
    made = make_ccxt_brokerage({**SPOT, "feeSide": "other"}, fee_asset="BNB")
    rate = (Conversion("BNB", "USDT", D(500)),)
    assert made.charge(Side.BUY, D(1), D(1000), Liquidity.MAKER, conversions=rate) == Charge(
        D("0.002"), "BNB"
    )
    flat = make_ccxt_brokerage({**SPOT, "percentage": False, "maker": 2, "taker": "3.50"})
    assert flat.charge(Side.BUY, D(7), D(9), Liquidity.MAKER) == Charge(D(2), "USDT")
    assert flat.charge(Side.BUY, D(7), D(9), Liquidity.TAKER) == Charge(D("3.5"), "USDT")


@pytest.mark.parametrize(
    ("volume", "maker", "taker"),
    [(0, "0.002", "0.003"), (49, "0.002", "0.003"), (50, "0.002", "0.0025"), (100, "0.001", "0.002")],
)
def test_tiers_are_those_of_both_lists(volume: int, maker: str, taker: str) -> None:
    made = make_ccxt_brokerage(SPOT, EXCHANGE, is_tiered=True)
    for liquidity, rate in ((Liquidity.MAKER, maker), (Liquidity.TAKER, taker)):
        assert made.charge(Side.SELL, D(1), D(1), liquidity, D(volume)) == Charge(D(rate), "USDT")


def test_limits_are_told_as_they_are() -> None:
    """1e-05 is the number that was meant, not the float nearest to it."""
    assert make_ccxt_brokerage(SPOT).limits == MarketLimits(
        D("0.01"), D("0.00001"), D("0.00001"), D(9000), D("0.01"), D(1_000_000), D(5), None
    )
    assert make_ccxt_brokerage(without(SPOT, "precision", "limits")).limits == MarketLimits()
    digits = {**SPOT, "precision": {"amount": 8, "price": 2}}
    made = make_ccxt_brokerage(digits, {"precisionMode": 2}).limits
    assert (made.tick, made.lot) == (D("0.01"), D("0.00000001"))
    made = make_ccxt_brokerage(digits, {"precisionMode": 3}).limits
    assert (made.tick, made.lot) == (None, None)


def test_the_fees_of_an_exchange_as_ccxt_carries_them() -> None:
    import ccxt

    exchange = ccxt.kraken().describe()
    silent = without(SPOT, "maker", "taker", "feeSide")
    made = make_ccxt_brokerage(silent, exchange, is_tiered=True)
    assert isinstance(made.fees, TieredFee)
    assert made.fees.schedule.tiers == KRAKEN_SPOT.tiers


BAD: list[Callable[[], object]] = [
    lambda: make_ccxt_brokerage({}),
    lambda: make_ccxt_brokerage({**SPOT, "base": None}),
    lambda: make_ccxt_brokerage({**SPOT, "maker": "x"}),
    lambda: make_ccxt_brokerage({**SPOT, "maker": True}),
    lambda: make_ccxt_brokerage({**SPOT, "maker": float("nan")}),
    lambda: make_ccxt_brokerage({**SPOT, "taker": [1]}),
    lambda: make_ccxt_brokerage({**SPOT, "taker": 1.5}),
    lambda: make_ccxt_brokerage({**SPOT, "percentage": "yes"}),
    lambda: make_ccxt_brokerage({**SPOT, "feeSide": "both"}),
    lambda: make_ccxt_brokerage({**SPOT, "feeSide": "other"}),
    lambda: make_ccxt_brokerage({**SPOT, "limits": []}),
    lambda: make_ccxt_brokerage({**SPOT, "limits": {"cost": {"min": "much"}}}),
    lambda: make_ccxt_brokerage(SPOT, {"precisionMode": 1}),
    lambda: make_ccxt_brokerage(SPOT, {"precisionMode": 2}),
    lambda: make_ccxt_brokerage(SPOT, {"fees": 1}),
    lambda: make_ccxt_brokerage(SPOT, is_tiered=True),
    lambda: make_ccxt_brokerage({**SPOT, "tiers": {"maker": []}}, is_tiered=True),
    lambda: make_ccxt_brokerage({**SPOT, "tiers": {"maker": [[0]], "taker": [[0, 1]]}}, is_tiered=True),
    lambda: make_ccxt_brokerage(INVERSE, EXCHANGE, is_tiered=True),
    lambda: make_ccxt_brokerage({**LINEAR, "linear": False}),
    lambda: make_ccxt_brokerage({**LINEAR, "settle": None}),
    lambda: make_ccxt_brokerage({**LINEAR, "contractSize": 0}).charge(Side.BUY, D(1), D(1), Liquidity.MAKER),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_what_is_no_market_is_refused(at: int) -> None:
    with pytest.raises(InvalidValue) as refused:
        BAD[at]()
    assert refused.value.remedy
