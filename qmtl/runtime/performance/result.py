"""What a run hands over to be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from qmtl.foundation.contracts.trade import Fill, Order
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.performance.curve import EquityCurve


@dataclass(frozen=True, slots=True)
class RunSettings:
    """Under which conditions it traded.

    Attributes:
        fee_rate: fraction of the notional.
        slippage_rate: fraction of the price against the taker.
    """

    currency: str
    initial_cash: Decimal
    fee_rate: Decimal
    slippage_rate: Decimal


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """One strategy's run over one span of data.

    Attributes:
        interval: seconds.
        bars: one of each symbol, in the order of `symbols`.
        fills, orders: in any order.
        identity: what says which run this was, by name: fingerprint of the data, `as_of`, version, node ids, version of QMTL.
    """

    strategy_id: str
    world_id: str
    symbols: tuple[str, ...]
    interval: int
    settings: RunSettings
    bars: tuple[BarColumns, ...]
    fills: tuple[Fill, ...]
    orders: tuple[Order, ...]
    curve: EquityCurve
    identity: Mapping[str, str] = field(default_factory=dict)
