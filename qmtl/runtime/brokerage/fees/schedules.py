"""Rates of venues by volume, as data. They are of the day that each names: who trades there takes the rates of his account.

Sources: Kraken's trading tiers as of ccxt at commit 00dd9968 (MIT; its last tier is 0.01 % for takers there, and 0.10 % on other pages); Binance's
announcement of 2018-07-19; Interactive Brokers' pages of commissions for US shares and for forex (undated); options as of Lean's
`InteractiveBrokersFeeModel` at commit 24863901 (Apache-2.0).
"""

from __future__ import annotations

from decimal import Decimal

from qmtl.runtime.brokerage.fees.composed import BandedFee, BoundedFee, Measure
from qmtl.runtime.brokerage.fees.execution import PriceBasis
from qmtl.runtime.brokerage.fees.plain import PerUnitFee
from qmtl.runtime.brokerage.fees.tiers import Schedule, Tier
from qmtl.runtime.brokerage.parameters import ONE


def _tier(
    volume: str, maker: str, taker: str, balance: str = "0", minimum: str = "0", name: str = ""
) -> Tier:
    return Tier(Decimal(volume), Decimal(maker), Decimal(taker), Decimal(balance), Decimal(minimum), name)


KRAKEN_SPOT = Schedule(
    (
        _tier("0", "0.0016", "0.0026"),
        _tier("50000", "0.0014", "0.0024"),
        _tier("100000", "0.0012", "0.0022"),
        _tier("250000", "0.0010", "0.0020"),
        _tier("500000", "0.0008", "0.0018"),
        _tier("1000000", "0.0006", "0.0016"),
        _tier("2500000", "0.0004", "0.0014"),
        _tier("5000000", "0.0002", "0.0012"),
        _tier("10000000", "0", "0.0001"),
    ),
    volume_unit="USD of 30 days",
)

BINANCE_SPOT_2018 = Schedule(
    (
        _tier("0", "0.001", "0.001", name="General"),
        _tier("100", "0.0009", "0.001", "50", name="VIP1"),
        _tier("500", "0.0008", "0.001", "200", name="VIP2"),
        _tier("4500", "0.0007", "0.0009", "1000", name="VIP3"),
        _tier("10000", "0.0006", "0.0008", "2000", name="VIP4"),
        _tier("20000", "0.0005", "0.0007", "3500", name="VIP5"),
        _tier("40000", "0.0004", "0.0006", "6000", name="VIP6"),
        _tier("80000", "0.0003", "0.0005", "9000", name="VIP7"),
        _tier("150000", "0.0002", "0.0004", "11000", name="VIP8"),
    ),
    volume_unit="BTC of 30 days",
    asset="BNB",
)

IBKR_SHARES_TIERED = Schedule(
    (
        _tier("0", "0.0035", "0.0035", minimum="0.35"),
        _tier("300000", "0.0020", "0.0020", minimum="0.35"),
        _tier("3000000", "0.0015", "0.0015", minimum="0.35"),
        _tier("20000000", "0.0010", "0.0010", minimum="0.35"),
        _tier("100000000", "0.0005", "0.0005", minimum="0.35"),
    ),
    per=Measure.QUANTITY,
    is_reached_at=False,
    volume_unit="shares of the month",
)
"""The fee is at most 1 % of the value besides: a `BoundedFee` around it."""

IBKR_FOREX = Schedule(
    (
        _tier("0", "0.00002", "0.00002", minimum="2.00"),
        _tier("1000000000", "0.000015", "0.000015", minimum="1.50"),
        _tier("2000000000", "0.00001", "0.00001", minimum="1.25"),
        _tier("5000000000", "0.000008", "0.000008", minimum="1.00"),
    ),
    is_reached_at=False,
    volume_unit="USD of the month",
)
"""Marginal at Interactive Brokers itself, flat in Lean."""


def _per_contract(amount: str) -> PerUnitFee:
    return PerUnitFee(Decimal(amount))


def _by_premium(bounds: tuple[str, ...], *amounts: str) -> BandedFee:
    return BandedFee(
        Measure.PRICE,
        tuple(Decimal(bound) for bound in bounds),
        tuple(_per_contract(amount) for amount in amounts),
        basis=PriceBasis.LIMIT_OR_NEAR,
    )


IB_OPTIONS = BoundedFee(
    BandedFee(
        Measure.VOLUME,
        (Decimal(10_000), Decimal(50_000), Decimal(100_000)),
        (
            _by_premium(("0.05", "0.1"), "0.25", "0.5", "0.65"),
            _by_premium(("0.05",), "0.25", "0.5"),
            _per_contract("0.25"),
            _per_contract("0.15"),
        ),
        is_upper_in=True,
    ),
    minimum=ONE,
)
"""US options at Interactive Brokers: per contract, by the contracts of the month and the premium, at least 1 USD."""
