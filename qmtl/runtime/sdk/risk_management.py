"""What risk limits make of an order that is to be placed: it stays, becomes smaller, or is not placed. The limits are `qmtl.runtime.risk`'s."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeAlias

from qmtl.foundation.common.money import product, whole_steps
from qmtl.foundation.contracts.trade import Order
from qmtl.foundation.contracts.world import Instrument
from qmtl.runtime.risk.judging import Broken, Passed, judge
from qmtl.runtime.risk.limits import RiskLimit
from qmtl.runtime.risk.state import RiskState


@dataclass(frozen=True, slots=True)
class Kept:
    """The order keeps within all limits."""

    order: Order


@dataclass(frozen=True, slots=True)
class Resized:
    """The order as large as the limits let it be, and the one that the whole order would have broken."""

    order: Order
    broken: Broken


@dataclass(frozen=True, slots=True)
class Withheld:
    """No quantity keeps within the limits: the one that is broken, with its numbers."""

    broken: Broken


RiskDecision: TypeAlias = Kept | Resized | Withheld


def control(
    limits: Sequence[RiskLimit], state: RiskState, order: Order, instrument: Instrument
) -> RiskDecision:
    """Hold a new order against the limits; where it breaks one, give the largest one that breaks none.

    The larger an order, the more it breaks, so the largest is found by halving. It is a whole number of lots, and no less than the instrument's
    minimum. An order that only reduces passes every limit of exposure (`qmtl.runtime.risk.judging.judge`).

    Raises:
        InvariantBroken, InexactMoney: as `judge`.
    """
    first = judge(limits, state, order)
    if isinstance(first, Passed):
        return Kept(order)
    fits, breaks = Decimal(0), whole_steps(order.quantity, instrument.lot)
    while breaks - fits > 1:
        middle = (fits + breaks) // 2
        smaller = replace(order, quantity=product(middle, instrument.lot))
        if isinstance(judge(limits, state, smaller), Passed):
            fits = middle
        else:
            breaks = middle
    quantity = product(fits, instrument.lot)
    if not fits or quantity < instrument.minimum:
        return Withheld(first)
    return Resized(replace(order, quantity=quantity), first)
