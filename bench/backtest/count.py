"""What must come out, counted in whole numbers by numpy alone: the oracle, which shares no code with any engine.

An average of n closes lies above one of m where m times the sum of the n is greater than n times the sum of the m: sums of hundredths are
whole, so nothing is rounded, and lines that touch are told from lines that cross. An order is placed at the close of a bar and filled at
the next bar's open, which is the same price here; one that is placed at the last bar is never filled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.backtest.market import Integers, Market

Flags = NDArray[np.bool_]

FAST: Final = 10
SLOW: Final = 30
SLOWEST: Final = 60

CASH_PLACES: Final = 5
"""Digits after the point of a price of two with a fee of a thousandth."""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """The fills of one unit each, buying and selling in turn, the first a purchase.

    Attributes:
        at: the bars at whose close the orders are placed, ascending.
        price: hundredths.
        position: units held at the end.
        cash: by how much it has changed, hundred-thousandths.
    """

    at: Integers
    price: Integers
    position: int
    cash: int

    @property
    def fills(self) -> int:
        return len(self.at)


def expected(strategy: str, market: Market) -> Expected:
    """The fills of a strategy that holds one unit or none.

    Args:
        strategy: a name out of `HOLDINGS`.
    """
    wanted = HOLDINGS[strategy](market)
    changed = np.flatnonzero(wanted != np.concatenate(([False], wanted[:-1])))
    at = changed[changed < len(market) - 1]
    price = market.open[at + 1]
    bought = np.arange(len(at)) % 2 == 0
    worth = 10 ** (CASH_PLACES - 2) * price  # a price of hundredths; the fee is a thousandth of it
    cash = np.where(bought, -worth, worth) - price
    return Expected(at, price, len(at) % 2, int(cash.sum()))


def cross(market: Market) -> Flags:
    """W1: held from a turn upwards of SMA(10) against SMA(30) to the turn downwards; what is up when both are first there is no turn."""
    return _held_from_a_turn(market, FAST, SLOW)


def dense(market: Market) -> Flags:
    """The same of SMA(1) and SMA(2): an order at every second bar or so."""
    return _held_from_a_turn(market, 1, 2)


def ladder(market: Market) -> Flags:
    """Held wherever SMA(10) is above SMA(30), this above SMA(60), and the close above that."""
    above = _above(market, FAST, SLOW) & _above(market, SLOW, SLOWEST) & _above(market, 1, SLOWEST)
    above[: SLOWEST - 1] = False
    return above


HOLDINGS: Final[Mapping[str, Callable[[Market], Flags]]] = {"cross": cross, "dense": dense, "ladder": ladder}


def _held_from_a_turn(market: Market, fast: int, slow: int) -> Flags:
    above = _above(market, fast, slow)
    touching = _touching(market, fast, slow)
    side = np.where(touching, 0, np.where(above, 1, -1))
    side[: slow - 1] = 0
    last = np.maximum.accumulate(np.where(side != 0, np.arange(len(side)), 0))  # lines that touch do not turn
    known = side[last]
    been_below = np.maximum.accumulate(known < 0)
    held: Flags = (known > 0) & been_below
    return held


def _above(market: Market, fast: int, slow: int) -> Flags:
    found: Flags = _sums(market.close, fast) * slow > _sums(market.close, slow) * fast
    return found


def _touching(market: Market, fast: int, slow: int) -> Flags:
    found: Flags = _sums(market.close, fast) * slow == _sums(market.close, slow) * fast
    return found


def _sums(values: Integers, length: int) -> Integers:
    """The sum of the last `length` values at each of them; of fewer where there are no more."""
    sums = np.cumsum(values)
    out = sums.copy()
    out[length:] -= sums[:-length]
    return out
