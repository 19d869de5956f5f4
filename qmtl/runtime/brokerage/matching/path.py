"""The way of a price through a bar, and what is traded on it."""

from __future__ import annotations

from decimal import Decimal

from qmtl.foundation.common.money import ZERO, floor_to_step, minus, product
from qmtl.foundation.contracts.market import Prices

_QUARTER = Decimal("0.25")
_THREE = Decimal(3)


def path_of(prices: Prices, is_adaptive: bool = False) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """The four points: open, high, low, close; adaptive: to the low first where the open is nearer to it.

    Source: Nautilus' `OrderMatchingEngine.process_bar` at commit a95c8042; with both as near it is the high.
    """
    low_first = is_adaptive and minus(prices.open, prices.low) < minus(prices.high, prices.open)
    first, second = (prices.low, prices.high) if low_first else (prices.high, prices.low)
    return prices.open, first, second, prices.close


def quarters(volume: Decimal, step: Decimal) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """What a bar's volume is at each of its four points: a quarter, on the step and one step at least, the rest at the close.

    Nothing is added: where the volume is less than four steps, the last points have less, or nothing.
    """
    quarter = max(floor_to_step(product(volume, _QUARTER), step), step)
    if product(quarter, _THREE) > volume:
        out: list[Decimal] = []
        left = volume
        for _ in range(4):
            out.append(min(quarter, left))
            left = minus(left, out[-1])
        return out[0], out[1], out[2], out[3]
    return quarter, quarter, quarter, max(minus(volume, product(quarter, _THREE)), ZERO)
