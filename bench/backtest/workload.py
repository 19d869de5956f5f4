"""The strategies of the benchmark as ours: DAG messages, a world in which they hold one unit or none, and the bars in columns.

A target is a share of equity. One unit is held by it where a unit is the lot, and where the share is worth more than one of them and less than
two all the time: cash is so large that fees and profits change nothing of this, and prices must not double.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from bench.backtest.count import FAST, SLOW, SLOWEST
from bench.backtest.market import INTERVAL, PRICE_PLACES, START_MS, SYMBOL, VOLUME_PLACES, Integers, Market
from bench.engine.gauge import Failed
from qmtl.backtest.simulation import Terms
from qmtl.foundation.contracts.world import Instrument
from qmtl.runtime.columns import BarColumns, Scaled

WORLD: Final = "bench"
FINGERPRINT: Final = "bench"
"""Of bars that are made anew each time."""

CURRENCY: Final = "USD"
CASH: Final = 10**10
FEE_RATE: Final = Decimal("0.001")
UNIT: Final = Decimal(1)
TICK: Final = Decimal("0.01")

LADDER_NODES: Final = 10
"""Of one ladder, the source and the target among them."""

SHARES: Final = (0, 50, 90)
"""Per cent of the nodes of a ladder that all ladders of a run have."""

Node = dict[str, Any]


def columns(market: Market, symbol: str = SYMBOL) -> BarColumns:
    """The bars as a backtest takes them."""

    def prices(units: Integers) -> Scaled:
        return Scaled(units, PRICE_PLACES)

    times = START_MS + np.arange(len(market), dtype=np.int64) * INTERVAL * 1000
    found = BarColumns(
        symbol,
        INTERVAL,
        times,
        prices(market.open),
        prices(market.high),
        prices(market.low),
        prices(market.close),
        Scaled(market.volume, VOLUME_PLACES),
    )
    found.require_sound()
    return found


def share_of_one(market: Market) -> Decimal:
    """The share of `CASH` that is worth one unit and not two, whatever the bar.

    Raises:
        Failed: prices double.
    """
    least, most = int(market.low.min()), int(market.high.max())
    worth = math.isqrt(
        2 * least * most
    )  # as far from one unit of the dearest bar as from two of the cheapest
    if not most * 1001 < worth * 1000 < 2 * least * 999:
        raise Failed(
            f"prices go from {least / 100} to {most / 100}: no share of equity is one unit at both; take fewer bars"
        )
    return Decimal(worth) / 100 / CASH


def terms(symbols: Sequence[str]) -> Terms:
    """A world in which a unit is the lot, and nothing is lost but the fee."""
    limits = tuple(Instrument(symbol, TICK, UNIT, UNIT) for symbol in symbols)
    return Terms(CURRENCY, Decimal(CASH), FEE_RATE, Decimal(0), limits, world_id=WORLD)


def message(strategy: str, share: Decimal) -> bytes:
    """One that holds from turn to turn: `cross` or `dense` of `bench.backtest.count`."""
    fast, slow = {"cross": (FAST, SLOW), "dense": (1, 2)}[strategy]
    return _message(
        strategy,
        [
            _node("price", "price", params={"symbols": [SYMBOL]}),
            _node("fast", "sma", "price", period=fast),
            _node("slow", "sma", "price", period=slow),
            _node("turn", "cross", "fast", "slow", params={"turns_only": True}),
            _node("target", "position_target", "turn", params=_held(share)),
        ],
    )


def ladders(many: int, shared: int, share: Decimal) -> list[bytes]:
    """Ladders that hold one unit in the same bars, and have as many nodes of their own as is asked for.

    Where half of the nodes are their own, these have a factor of their own, which changes no sign; where all are, they read a symbol of their own.

    Args:
        shared: per cent of the nodes that all of them have, out of `SHARES`.
    """
    return [_ladder(number, shared, share) for number in range(many)]


def symbols_of(many: int, shared: int) -> list[str]:
    """The symbols that so many ladders read."""
    return [_symbol(number) for number in range(1 if shared else many)]


def unique_nodes(many: int, shared: int) -> int:
    """How many nodes so many ladders have together."""
    common = LADDER_NODES * shared // 100
    return common + many * (LADDER_NODES - common)


def _symbol(number: int) -> str:
    return SYMBOL if number == 0 else f"{SYMBOL}-{number}"


def _ladder(number: int, shared: int, share: Decimal) -> bytes:
    own = number + 1
    factor = own if shared == 50 else 1
    less = [factor, -factor]
    # A millionth of the share more is the same unit.
    part = share + share * own / 10**6 if shared == 90 else share
    return _message(
        f"ladder-{number}",
        [
            _node("price", "price", params={"symbols": [_symbol(number if shared == 0 else 0)]}),
            _node("fast", "sma", "price", period=FAST),
            _node("slow", "sma", "price", period=SLOW),
            _node("slowest", "sma", "price", period=SLOWEST),
            _node("upper", "linear", "fast", "slow", params={"weights": [1, -1], "constant": 0}),
            _node("lower", "linear", "slow", "slowest", params={"weights": less, "constant": 0}),
            _node("above", "linear", "price", "slowest", params={"weights": less, "constant": 0}),
            _node("trend", "combine", "upper", "lower", params={"rule": "min"}),
            _node("ladder", "combine", "trend", "above", params={"rule": "min"}),
            _node("target", "position_target", "ladder", params={**_held(part), "on_change": True}),
        ],
    )


def _held(share: Decimal) -> Mapping[str, str | int]:
    return {"long_percent": format(share, "f"), "short_percent": 0}


def _node(name: str, node_type: str, *inputs: str, **more: Any) -> Node:
    found = {"name": name, "node_type": node_type, "interval": INTERVAL, **more}
    return {**found, "inputs": list(inputs)} if inputs else found


def _message(strategy_id: str, nodes: Sequence[Node]) -> bytes:
    said = {"schema_version": "v1", "strategy_id": strategy_id, "nodes": nodes, "signals": ["target"]}
    return json.dumps(said, separators=(",", ":"), sort_keys=True).encode()
