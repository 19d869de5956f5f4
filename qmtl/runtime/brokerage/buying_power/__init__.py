"""Whether an account can afford an order, and how large an order it can afford. The null case is `UnlimitedPower`."""

from qmtl.runtime.brokerage.buying_power.calls import MarginCall, is_margin_warning, margin_calls
from qmtl.runtime.brokerage.buying_power.cash import CashPower
from qmtl.runtime.brokerage.buying_power.margin import MarginPower
from qmtl.runtime.brokerage.buying_power.requirement import (
    ContractMargin,
    ContractRequirement,
    DayTradingRequirement,
    LeverageRequirement,
    Requirement,
    When,
)
from qmtl.runtime.brokerage.buying_power.standing import (
    BuyingPower,
    Shortage,
    Standing,
    UnlimitedPower,
    Wanted,
)

__all__ = [
    "BuyingPower",
    "CashPower",
    "ContractMargin",
    "ContractRequirement",
    "DayTradingRequirement",
    "LeverageRequirement",
    "MarginCall",
    "MarginPower",
    "Requirement",
    "Shortage",
    "Standing",
    "UnlimitedPower",
    "Wanted",
    "When",
    "is_margin_warning",
    "margin_calls",
]
