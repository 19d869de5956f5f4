"""What executions cost: fee models as values, each with its source.

A world's own models take a fee in quote currency (`FeeModel`); every model here is a `ChargeModel`, whose fee is in any currency.
"""

from __future__ import annotations

from qmtl.runtime.brokerage.fees.composed import (
    AssetDiscountFee,
    BandedFee,
    BoundedFee,
    BoundRule,
    ConvertedFee,
    DatedFee,
    FlipRule,
    KindFee,
    LiquidityFee,
    Measure,
    OpeningFee,
    PerOrderFee,
    RoundedFee,
    Rounding,
    SumFee,
    per_share_fee,
)
from qmtl.runtime.brokerage.fees.execution import (
    Charge,
    ChargeModel,
    Conversion,
    Earlier,
    Execution,
    FeeCurrency,
    Liquidity,
    PriceBasis,
)
from qmtl.runtime.brokerage.fees.plain import (
    FEE_PLACES,
    AnyFee,
    FeeModel,
    FixedFee,
    InverseFee,
    MakerTakerFee,
    NoFee,
    PercentFee,
    PerUnitFee,
    fee_of_rate,
)
from qmtl.runtime.brokerage.fees.tiers import Schedule, Tier, TieredFee

__all__ = [
    "FEE_PLACES",
    "AnyFee",
    "AssetDiscountFee",
    "BandedFee",
    "BoundRule",
    "BoundedFee",
    "Charge",
    "ChargeModel",
    "Conversion",
    "ConvertedFee",
    "DatedFee",
    "Earlier",
    "Execution",
    "FeeCurrency",
    "FeeModel",
    "FixedFee",
    "FlipRule",
    "InverseFee",
    "KindFee",
    "Liquidity",
    "LiquidityFee",
    "MakerTakerFee",
    "Measure",
    "NoFee",
    "OpeningFee",
    "PerOrderFee",
    "PerUnitFee",
    "PercentFee",
    "PriceBasis",
    "RoundedFee",
    "Rounding",
    "Schedule",
    "SumFee",
    "Tier",
    "TieredFee",
    "fee_of_rate",
    "per_share_fee",
]
