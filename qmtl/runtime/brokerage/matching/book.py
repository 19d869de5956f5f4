"""Books that are made of a best bid and ask alone, for orders whose size is to have a price."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import TypeAlias

from qmtl.foundation.common.money import minus, plus, product
from qmtl.foundation.contracts.market import Quote
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.matching.view import mirrored

Level: TypeAlias = tuple[Decimal, Decimal]
"""A price and how much stands there."""

_AMPLE = Decimal(1_000_000)
_TEN, _ONE, _TWO = Decimal(10), Decimal(1), Decimal(2)


class Depth(Enum):
    """Source: Nautilus' fill models of these names at commit a95c8042."""

    BEST_PRICE = "best_price"
    ONE_TICK = "one_tick"
    TWO_TIER = "two_tier"
    THREE_TIER = "three_tier"


_TIERS: dict[Depth, tuple[tuple[Decimal, Decimal], ...]] = {
    Depth.BEST_PRICE: ((Decimal(0), _AMPLE),),
    Depth.ONE_TICK: ((_ONE, _AMPLE),),
    Depth.TWO_TIER: ((Decimal(0), _TEN), (_ONE, _AMPLE)),
    Depth.THREE_TIER: ((Decimal(0), Decimal(50)), (_ONE, Decimal(30)), (_TWO, Decimal(20))),
}


def levels_of(
    depth: Depth, side: Side, quote: Quote, tick: Decimal, limit: Decimal | None = None
) -> tuple[Level, ...]:
    """What an order of a side meets, best price first: asks for a buyer, bids for a seller.

    A limit within the spread is met at itself with `BEST_PRICE`, as if somebody came to it; a limit that is not within it is
    met by the levels that are no worse than it.

    Args:
        tick: smallest price step (> 0).
    """
    best = mirrored(side, quote.ask if side is Side.BUY else quote.bid)
    other = mirrored(side, quote.bid if side is Side.BUY else quote.ask)
    mine = None if limit is None else mirrored(side, limit)
    if mine is not None and depth is Depth.BEST_PRICE and other < mine < best:
        return ((mirrored(side, mine), _AMPLE),)
    found = ((plus(best, product(away, tick)), size) for away, size in _TIERS[depth])
    return tuple((mirrored(side, price), size) for price, size in found if mine is None or price <= mine)


def taken(levels: tuple[Level, ...], quantity: Decimal) -> tuple[Level, ...]:
    """What an order of `quantity` takes of each level, best first."""
    out: list[Level] = []
    for price, size in levels:
        part = min(size, quantity)
        if part > 0:
            out.append((price, part))
            quantity = minus(quantity, part)
    return tuple(out)
