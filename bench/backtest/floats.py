"""Our exact fills beside those of vectorbt, which are floats: trade by trade, in units of the last place.

Two questions are asked. Put through the operations of vectorbt, in its order (`buy_nb`, `sell_nb` and `get_trade_stats_nb` of its
`portfolio/nb.py`), do our fills give its numbers bit for bit? If so, both say the same, and what is left is how a float rounds. And how far is
that from the exact result? A fee of a thousandth is rounded, and a profit is the small difference of large numbers that were rounded before: so it
is off by some last places of a price, which are many of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.backtest.peers import CASH, Found
from bench.engine.gauge import Failed
from qmtl.foundation.contracts.trade import Fill

Floats = NDArray[np.float64]

FEES = 0.001


def compare(fills: Sequence[Fill], peer: Found) -> dict[str, Any]:
    """Differences in units of the last place, the largest of each kind, and in currency.

    Raises:
        Failed: another number of fills, or our fills do not give its numbers by its own operations.
    """
    if len(fills) != len(peer.price):
        raise Failed(f"{len(fills)} fills of ours, {len(peer.price)} of vectorbt")
    price = np.array([float(one.price) for one in fills])
    fee = np.array([float(one.fee) for one in fills])
    size = np.array([float(one.quantity) for one in fills])
    exact = _profits(fills)
    pairs = len(exact)
    trades = peer.more["trade_pnl"][:pairs]
    told = np.array([float(one) for one in exact])
    off = np.array(
        [abs(float(Decimal(mine) - one)) for mine, one in zip(trades.tolist(), exact, strict=True)]
    )
    cash = sum((_flow(one) for one in fills), Decimal(CASH))
    last = float(peer.more["cash"][-1])
    return {
        "trades": pairs,
        "same_operations": _same_operations(price, size, peer, pairs),
        "price_ulps": _ulps(price, peer.price),
        "fee_ulps": _ulps(fee, peer.fee),
        "quantity_ulps": _ulps(size, peer.more["size"]),
        "pnl_off_at_most": float(off.max(initial=0.0)),
        "pnl_ulps_of_price": float((off / np.spacing(price[1 : 2 * pairs : 2])).max(initial=0.0)),
        "pnl_ulps_of_itself": _ulps(told, trades),
        "cash_off": float(Decimal(last) - cash),
        "cash_ulps": _ulps(np.array([float(cash)]), np.array([last])),
    }


def _profits(fills: Sequence[Fill]) -> list[Decimal]:
    """The profit of each purchase that was sold again, after both fees, exact."""
    sold = zip(fills[::2], fills[1::2], strict=False)
    return [_flow(one) + _flow(other) for one, other in sold]


def _flow(fill: Fill) -> Decimal:
    worth = fill.quantity * fill.price
    return (worth if fill.side.value == "SELL" else -worth) - fill.fee


def _same_operations(price: Floats, size: Floats, peer: Found, pairs: int) -> dict[str, int]:
    """How many numbers differ in any bit from what vectorbt's own operations make of our fills.

    Raises:
        Failed: one does.
    """
    worth = size * price
    fees = worth * FEES
    bought, sold = slice(0, 2 * pairs, 2), slice(1, 2 * pairs, 2)
    profit = worth[sold] - worth[bought] - fees[bought] - fees[sold]
    differ = {
        "fees": int(np.count_nonzero(fees != peer.fee)),
        "pnl": int(np.count_nonzero(profit != peer.more["trade_pnl"][:pairs])),
    }
    if any(differ.values()):
        raise Failed(f"our fills, put through vectorbt's operations, differ from its numbers: {differ}")
    return differ


def _ulps(mine: Floats, theirs: Floats) -> float:
    """The largest difference, in units of the last place of mine."""
    return float((np.abs(mine - theirs) / np.spacing(np.abs(mine))).max(initial=0.0))
