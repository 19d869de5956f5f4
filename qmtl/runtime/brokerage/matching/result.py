"""What a look at the market makes of an order."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from qmtl.foundation.contracts.trade import OrderStatus, OrderTerms
from qmtl.runtime.brokerage.fees.execution import Liquidity


@dataclass(frozen=True, slots=True)
class Executed:
    """One execution.

    Attributes:
        price: quote currency, slippage included.
        quantity: unsigned, base currency.
        slippage: price units against the taker, already inside `price`.
        at_ms: the start of the data where it was filled at the open, else the end, UTC epoch ms.
    """

    price: Decimal
    quantity: Decimal
    liquidity: Liquidity
    slippage: Decimal
    at_ms: int


@dataclass(frozen=True, slots=True)
class Matched:
    """What one quotation makes of an order.

    Attributes:
        executions: in the order in which they happened.
        terms: of the order from now on: whether it was triggered, where its trailing stop stands.
        end: `EXPIRED`, `CANCELED` or `REJECTED` where nothing more will be filled though something is left; else None.
        reason: why it ended, a sentence; empty where it did not.
        is_stale: a market order took a price that is older than `FillModel.stale_after_ms`.
    """

    executions: tuple[Executed, ...]
    terms: OrderTerms | None
    end: OrderStatus | None = None
    reason: str = ""
    is_stale: bool = False
