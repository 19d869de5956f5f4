"""A fake exchange for tests: a process of its own with a ledger of its own, that speaks what ccxt's `binance` asks of the spot market.

    with running_exchange({"BTC-USDT": Decimal(100)}) as exchange:
        venue = open_venue(parse_address(exchange.venue), exchange.key, exchange.secret)

It fills market orders at the price that it was told, or leaves them working; `fault` makes its next answers go wrong. What it has taken is on the disk
before it answers: after a SIGKILL of whatever part, its ledger says what has truly been sent, and how often.
"""

from __future__ import annotations

from qmtl.testing.exchange.faults import Fault
from qmtl.testing.exchange.ledger import entries, orders_and_fills
from qmtl.testing.exchange.process import (
    KEY,
    SECRET,
    Counts,
    RunningExchange,
    running_exchange,
)
from qmtl.testing.exchange.values import GivenFill, TakenOrder

__all__ = [
    "KEY",
    "SECRET",
    "Counts",
    "Fault",
    "GivenFill",
    "RunningExchange",
    "TakenOrder",
    "entries",
    "orders_and_fills",
    "running_exchange",
]
