"""How well orders are executed: what the last fills cost against what the decision saw, and how many orders were turned away in a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import minus, negated, product, total
from qmtl.foundation.contracts.trade import Fill, Order, Side

BASIS = Decimal(10_000)
"""Basis points in one."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill against the reference price of its order.

    Attributes:
        cost: `(price - reference) * quantity` of a buy, the negative of it of a sell: above 0 it went against the taker.
        reference: `reference * quantity`.
    """

    cost: Decimal
    reference: Decimal


@dataclass(frozen=True, slots=True)
class ExecutionQuality:
    """What is known of the execution of a world's orders.

    Attributes:
        executions: the newest fills, oldest first.
        rejected_in_row: orders that the venue has rejected since it last took one.
    """

    executions: tuple[Execution, ...] = ()
    rejected_in_row: int = 0


def execution_of(order: Order, fill: Fill) -> Execution:
    """A fill as it counts for the quality. A late fill counts as any other."""
    against = minus(fill.price, order.reference_price)
    paid = against if order.side is Side.BUY else negated(against)
    return Execution(product(paid, fill.quantity), product(order.reference_price, fill.quantity))


def after_fill(quality: ExecutionQuality, execution: Execution, keep: int) -> ExecutionQuality:
    """The quality after one fill more.

    Args:
        keep: how many fills the longest window counts; 0 keeps none.

    Raises:
        InvalidValue: a negative `keep`.
    """
    if keep < 0:
        raise InvalidValue(f"keep was {keep}; it must be at least 0.", "Send the longest window.")
    kept = (*quality.executions, execution)
    return ExecutionQuality(kept[len(kept) - keep :] if keep < len(kept) else kept)


def after_acceptance(quality: ExecutionQuality) -> ExecutionQuality:
    """The venue has taken an order: the row of rejections ends."""
    return replace(quality, rejected_in_row=0)


def after_rejection(quality: ExecutionQuality) -> ExecutionQuality:
    """The venue has rejected an order."""
    return replace(quality, rejected_in_row=quality.rejected_in_row + 1)


def slippage(executions: Sequence[Execution]) -> tuple[Decimal, Decimal]:
    """Cost in basis points times value, and value: their quotient is the slippage, weighted by value. No division rounds it."""
    cost = total(one.cost for one in executions)
    return product(cost, BASIS), total(one.reference for one in executions)
