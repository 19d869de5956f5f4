"""When what a sale brings may be spent, and how futures pay their profit day by day. The null case is `ImmediateSettlement`."""

from qmtl.runtime.brokerage.settlement.daily import DailyPosition, filled, open_position, settled
from qmtl.runtime.brokerage.settlement.funds import Funds, Unsettled, booked, scanned
from qmtl.runtime.brokerage.settlement.model import (
    DelayedSettlement,
    ImmediateSettlement,
    SettlementModel,
)

__all__ = [
    "DailyPosition",
    "DelayedSettlement",
    "Funds",
    "ImmediateSettlement",
    "SettlementModel",
    "Unsettled",
    "booked",
    "filled",
    "open_position",
    "scanned",
    "settled",
]
