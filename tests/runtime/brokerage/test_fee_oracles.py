"""Fees as other systems and venues state them: every row of the table, against models that are configured as its source says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.fees import (
    BandedFee,
    BoundedFee,
    BoundRule,
    ChargeModel,
    Conversion,
    ConvertedFee,
    DatedFee,
    Earlier,
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
    SumFee,
    TieredFee,
    per_share_fee,
)
from qmtl.runtime.brokerage.fees.schedules import (
    BINANCE_SPOT_2018,
    IB_OPTIONS,
    IBKR_FOREX,
    IBKR_SHARES_TIERED,
    KRAKEN_SPOT,
)

from .oracles import Table

TABLE = Table("fees")
D = Decimal
QUOTES = ("USDT", "USDC", "BUSD", "USD", "EUR", "GBP")


def rates(row: dict[str, Any], maker: str, taker: str) -> tuple[Decimal, Decimal]:
    """Those of the row, else those of its venue."""
    alone = row.get("rate")
    return D(row.get("maker_rate") or alone or maker), D(row.get("taker_rate") or alone or taker)


def traded(
    maker: str, taker: str, currency: FeeCurrency, basis: PriceBasis
) -> Callable[[dict[str, Any]], ChargeModel]:
    return lambda row: MakerTakerFee(*rates(row, maker, taker), currency, basis)


def ib(row: dict[str, Any]) -> ChargeModel:
    currency = row["expected_currency"] or "USD"
    per_contract = PerUnitFee(D(row.get("fee_per_contract") or 0))
    is_kospi = str(row.get("symbol")).startswith("Kospi")
    return KindFee(
        (
            ("equity_us", per_share_fee(D("0.005"), D(1), D("0.005"), BoundRule.EITHER)),
            ("option_us", IB_OPTIONS),
            ("forex", TieredFee(IBKR_FOREX, account_currency="USD")),
            (
                "cfd",
                BoundedFee(
                    PercentFee(D("0.00002")), minimum={"JPY": D(40), "HKD": D(10)}.get(currency, D(1))
                ),
            ),
            ("future", PercentFee(D("0.00004")) if is_kospi else per_contract),
            ("future_option", per_contract),
        )
    )


def alphastreams(row: dict[str, Any]) -> ChargeModel:
    models: dict[str, Callable[[], ChargeModel]] = {
        "equity_us": lambda: per_share_fee(D("0.005"), D(1), D("0.005"), BoundRule.EITHER),
        "option": lambda: PerUnitFee(D("0.5")),
        "future": lambda: PerUnitFee(D("0.5")),
        "forex": lambda: ConvertedFee(PercentFee(D("0.000002")), "USD"),
        "crypto": lambda: PercentFee(D("0.002")),
        "cfd": NoFee,
    }
    return models[row["security_type"]]()


def kraken(row: dict[str, Any]) -> ChargeModel:
    if row["security_type"] == "crypto_fiat_pair":
        return MakerTakerFee(D("0.002"), D("0.002"), FeeCurrency.GIVEN)
    return TieredFee(KRAKEN_SPOT, False, FeeCurrency.GIVEN, PriceBasis.LIMIT)


def ms(text: str) -> int:
    text = text.replace("Z", "+00:00")
    return int(datetime.fromisoformat(text if "T" in text else f"{text}T00:00:00+00:00").timestamp() * 1000)


def coinbase(row: dict[str, Any]) -> ChargeModel:
    def at(maker: str, taker: str) -> MakerTakerFee:
        return MakerTakerFee(D(maker), D(taker), FeeCurrency.QUOTE, PriceBasis.MARKET)

    if "maker_rate" in row:
        return at(row["maker_rate"], row["taker_rate"])
    if row.get("stable_pair"):
        return DatedFee((ms("2022-06-01"),), (at("0", "0.001"), at("0", "0.00001")))
    starts = (ms("2019-03-23T01:30:00Z"), ms("2024-01-01"))
    return DatedFee(starts, (at("0", "0.003"), at("0.0015", "0.0025"), at("0.006", "0.008")))


def public(row: dict[str, Any]) -> ChargeModel:
    kind = row["security_type"]
    if kind == "equity_us":
        return NoFee()
    if kind == "index_option":
        return PerUnitFee(D("0.50"))
    bounds = tuple(D(bound) for bound in (10, 25, 50, 100, 250, 500))
    amounts = ("0.49", "0.69", "1.19", "1.69", "3.29", "6.29")
    fees: tuple[ChargeModel, ...] = (*(FixedFee(D(amount)) for amount in amounts), PercentFee(D("0.0125")))
    return BandedFee(Measure.VALUE, bounds, fees, is_upper_in=True, basis=PriceBasis.MARKET)


def webull(row: dict[str, Any]) -> ChargeModel:
    if row["security_type"] != "index_option":
        return NoFee()

    def banded(
        measure: Measure, bounds: tuple[str, ...], *amounts: str, is_upper_in: bool = False
    ) -> ChargeModel:
        fees = tuple(PerUnitFee(D(amount)) for amount in amounts)
        return BandedFee(measure, tuple(map(D, bounds)), fees, is_upper_in, PriceBasis.MARKET)

    own = {
        "SPX": banded(Measure.PRICE, ("1",), "0.57", "0.66"),
        "VIX": banded(
            Measure.PRICE, ("0.10", "0.99", "1.99"), "0.10", "0.25", "0.40", "0.45", is_upper_in=True
        ),
        "XSP": banded(Measure.QUANTITY, ("10",), "0", "0.07"),
        "DJX": PerUnitFee(D("0.18")),
    }
    ndx = banded(Measure.PRICE, ("25",), "0.50", "0.75")
    return SumFee((PerUnitFee(D("0.50")), own.get(row["symbol"], ndx)))


def tastytrade(row: dict[str, Any]) -> ChargeModel:
    amount = {"equity_us": "0", "option": "1", "future": "1.25", "future_option": "2.5"}[row["security_type"]]
    if row["security_type"] == "future":
        return PerUnitFee(D(amount))
    return OpeningFee(PerUnitFee(D(amount)), FlipRule.IS_CLOSING)


def fixed(row: dict[str, Any]) -> ChargeModel:
    return PerOrderFee(FixedFee(D(1))) if row["charge_once"] else FixedFee(D(1))


def contracts(row: dict[str, Any]) -> ChargeModel:
    return RoundedFee(MakerTakerFee(*rates(row, "0", "0")), {"USD": 2, "JPY": 0}[row["expected_currency"]])


def inverse(row: dict[str, Any]) -> ChargeModel:
    fee = InverseFee(*rates(row, "0", "0"), is_in_quote=bool(row.get("use_quote_for_inverse")))
    return RoundedFee(fee, {"USD": 2, "BTC": 8}[row["expected_currency"]])


def alpaca(row: dict[str, Any]) -> ChargeModel:
    if row["security_type"] == "equity_us":
        return NoFee()
    return MakerTakerFee(*rates(row, "0.0015", "0.0025"), FeeCurrency.RECEIVED, PriceBasis.MARKET)


SPOT = FeeCurrency.RECEIVED
QUOTE = FeeCurrency.QUOTE
MODELS: dict[str, Callable[[dict[str, Any]], ChargeModel]] = {
    "ib": ib,
    "alphastreams": alphastreams,
    "kraken": kraken,
    "coinbase": coinbase,
    "public": public,
    "webull": webull,
    "tastytrade": tastytrade,
    "fixed": fixed,
    "alpaca": alpaca,
    "binance_spot": traded("0.001", "0.001", SPOT, PriceBasis.LIMIT),
    "bybit_spot": traded("0.001", "0.001", SPOT, PriceBasis.LIMIT),
    "bitfinex": traded("0.001", "0.002", SPOT, PriceBasis.LIMIT),
    "binance_usdm_futures": traded("0.0002", "0.0004", QUOTE, PriceBasis.MID),
    "bybit_futures": traded("0.0002", "0.00055", QUOTE, PriceBasis.MID),
    "binance_coinm_futures": lambda row: InverseFee(*rates(row, "0.0001", "0.0005"), basis=PriceBasis.MID),
    "ftx": traded("0.0002", "0.0007", FeeCurrency.BASE_OF_MAKER_BUY, PriceBasis.FILL),
    "ftx_us": traded("0.001", "0.004", FeeCurrency.BASE_OF_MAKER_BUY, PriceBasis.FILL),
    "ftx_real_fill_message": traded("0", "0", QUOTE, PriceBasis.FILL),
    "samco": lambda row: BoundedFee(PercentFee(D("0.0002")), maximum=D(20)),
    "exante": lambda row: PerUnitFee(D(row["rate_per_share"])),
    "maker_taker": contracts,
    "maker_taker_inverse": inverse,
    "per_contract": lambda row: PerUnitFee(D(row["commission_per_contract"])),
    "ibkr_official_fixed_us_stock": lambda row: per_share_fee(D("0.005"), D(1), D("0.01")),
    "ibkr_official_forex": lambda row: TieredFee(IBKR_FOREX, is_marginal=True),
}


def execution(row: dict[str, Any]) -> Execution:
    """What the row says was executed; what it leaves open is set to what its model does not read, or to the price."""
    symbol = str(row.get("symbol") or "")
    quote = next((name for name in QUOTES if symbol.endswith(name)), row.get("expected_currency") or "USD")
    if (
        row["security_type"] == "equity_us"
        or symbol.startswith("DE")
        or row["model"] == "ibkr_official_forex"
    ):
        quote = row.get("expected_currency") or "USD"
    base = symbol.removesuffix(quote).strip("/") or "X"
    base = "BTC" if symbol.startswith("XBT") else base
    text = row.get("trade_value_usd") or row.get("qty") or "1"
    # Exante's rows state the formula alone: any quantity shows it.
    quantity = D(37) if text == "Quantity" else D(text)
    price = D(1) if row["model"] == "ibkr_official_forex" else D(row.get("price") or "100")
    if row["model"] == "per_contract":
        quantity = D(row["qty"]) * 3  # one leg and two of the other
    market = D(row.get("market_price") or price)
    if row["model"] == "coinbase" and "limit_price" in row:
        market = D("100")
    is_limit = "limit" in str(row.get("order_type"))
    conversions = (
        [Conversion(quote, "USD", D(row.get("conversion_rate") or "1.25"))] if quote == "GBP" else []
    )
    earlier = Earlier()
    if row.get("fill_number") == 2:
        earlier = Earlier(D(10), D("11.234"), D("8.9"), D(1), "USD")
    return Execution(
        Side.SELL if row["side"] == "sell" else Side.BUY,
        quantity,
        price,
        base,
        quote,
        Liquidity(row.get("liquidity") or "taker"),
        D(250_000) if symbol.startswith("Kospi") else D(1),
        limit_price=D(row.get("limit_price") or price) if is_limit else None,
        market_price=market,
        bid=market,
        ask=market,
        kind=row["security_type"],
        at_ms=ms(row["as_of"]) if row.get("as_of") else 0,
        holding=D(row.get("holdings_qty") or 0),
        conversions=tuple(conversions),
        earlier=earlier,
    )


def of_kind(*kinds: str) -> list[str]:
    return [id_ for id_ in TABLE.run() if TABLE.rows[id_]["kind"] in kinds]


def test_every_row_is_run_or_listed() -> None:
    TABLE.assert_complete()
    assert sorted(of_kind("fee", "schedule", "tier_pick", "error")) == sorted(TABLE.run())


@pytest.mark.parametrize("id_", of_kind("fee"))
def test_fee(id_: str) -> None:
    row = TABLE.rows[id_]
    found = execution(row)
    charge = MODELS[row["model"]](row).charge(found)
    if "expected_fraction" in row:
        above, below = map(D, row["expected_fraction"].split("/"))
        assert abs(charge.amount * below - above) < D("1e-15")
    elif row["expected_fee"] is None:
        assert charge.amount == D(row["rate_per_share"]) * found.quantity
    else:
        assert charge.amount == D(row["expected_fee"])
    if row["expected_currency"] is not None:
        assert charge.currency == row["expected_currency"]


@pytest.mark.parametrize("id_", of_kind("error"))
def test_a_kind_of_security_without_a_model_is_refused(id_: str) -> None:
    """Lean throws for crypto at Interactive Brokers."""
    row = TABLE.rows[id_]
    with pytest.raises(InvalidValue, match="kind was crypto"):
        MODELS[row["model"]](row).charge(execution(row))


@pytest.mark.parametrize("id_", of_kind("schedule"))
def test_schedule(id_: str) -> None:
    row = TABLE.rows[id_]
    model = row["model"]
    if row["security_type"] == "option_us":
        option_schedule(row)
    elif model.startswith(("kraken", "binance")):
        schedule = KRAKEN_SPOT if model.startswith("kraken") else BINANCE_SPOT_2018
        start = row["tier_from"]
        tier = schedule.tier(
            D(0) if start.startswith("<") else D(start.lstrip(">=")), D(row.get("min_bnb") or 0)
        )
        assert (tier.maker, tier.taker) == (D(row["maker_rate"]), D(row["taker_rate"]))
        assert tier.name == (row.get("tier") or "")
    else:
        schedule = IBKR_SHARES_TIERED if "stock" in model else IBKR_FOREX
        unit = D("0.0001") if row["rate_unit"].startswith("basis point") else D(1)
        for volume in (row["tier_from"], row.get("tier_to")):
            if volume is not None:
                tier = schedule.tier(D(volume))
                assert tier.taker == tier.maker == D(row["rate"]) * unit
                assert tier.minimum == D(row["min_fee"])


def option_schedule(row: dict[str, Any]) -> None:
    volume = D(row["tier_to"]) if row.get("tier_to") else D(100_001)
    band = row["premium_band"]
    premiums = {
        ">=0.10": ("0.10", "5"),
        "0.05-0.10": ("0.05", "0.0999"),
        "<0.05": ("0.01", "0.0499"),
        ">=0.05": ("0.05", "7"),
    }
    for premium in premiums.get(band, ("0.01", "9")):
        for quantity in (D(1), D(1000)):
            one = Execution(Side.BUY, quantity, D(premium), "X", "USD", volume=volume, bid=D(premium))
            assert IB_OPTIONS.charge(one).amount == max(quantity * D(row["rate"]), D(row["min_fee"]))


@pytest.mark.parametrize("id_", of_kind("tier_pick"))
def test_tier_pick(id_: str) -> None:
    row = TABLE.rows[id_]
    tier = BINANCE_SPOT_2018.tier(D(row["volume_30d_btc"]), D(row["bnb_balance"]))
    assert (tier.name, tier.maker, tier.taker) == (
        row["expected_tier"],
        D(row["maker_rate"]),
        D(row["taker_rate"]),
    )
