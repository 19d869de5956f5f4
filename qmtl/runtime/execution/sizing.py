"""How much to trade so that a strategy holds the share of its equity that it wants."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

from qmtl.foundation.common.errors import InexactMoney
from qmtl.foundation.common.money import (
    ZERO,
    floor_to_step,
    is_value,
    magnitude,
    negated,
    product,
    text,
    total,
    whole_steps,
)
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import OrderIntent, Side
from qmtl.foundation.contracts.world import Instrument


@dataclass(frozen=True, slots=True)
class Sized:
    """What to order.

    Attributes:
        quantity: unsigned, base currency, a multiple of the lot.
        reduce_only: the order brings the holding nearer to flat and not beyond it.
    """

    side: Side
    quantity: Decimal
    reduce_only: bool


@dataclass(frozen=True, slots=True)
class OnTarget:
    """Nothing to order: the holding is what the target asks for.

    Attributes:
        held: position and open orders together, signed, base currency.
    """

    held: Decimal


@dataclass(frozen=True, slots=True)
class Unsized:
    """No order: why, and the numbers."""

    reason: RejectionReason
    detail: str


Sizing: TypeAlias = Sized | OnTarget | Unsized


def size(
    intent: OrderIntent,
    target_percent: Decimal,
    weight: Decimal,
    equity: Decimal,
    position_quantity: Decimal,
    pending_quantity: Decimal,
    instrument: Instrument,
) -> Sizing:
    """The order that takes the holding from what it is to what the target asks for.

    `desired = target_percent * equity * weight / reference_price`, floored to the lot towards zero;
    `delta = desired - position - pending`, floored to the lot towards zero. Both are computed on the portfolio cut of the bucket
    before. A share of an equity that is not positive is nothing: the holding may shrink to flat, and from flat
    nothing is bought. An exit needs neither equity nor a price.

    Args:
        intent: gives the symbol and the reference price.
        target_percent, weight: as the gate let them pass.
        equity: of the strategy's account, quote currency.
        position_quantity: signed, base currency.
        pending_quantity: what open orders of the symbol can still add, signed, base currency.
        instrument: lot and minimum of the symbol.

    Returns:
        `Sized`; `OnTarget` where there is nothing to do; `Unsized` with `NO_REFERENCE_PRICE`, `INSUFFICIENT_EQUITY` or
        `BELOW_MINIMUM_SIZE`.

    Raises:
        InexactMoney: numbers too long for exact arithmetic.
    """
    held = total((position_quantity, pending_quantity))
    desired = ZERO
    if target_percent and weight:
        if intent.reference_price <= 0:
            return Unsized(
                RejectionReason.NO_REFERENCE_PRICE,
                f"reference price {text(intent.reference_price)} of {intent.symbol}; it is positive",
            )
        if equity <= 0 and not held:
            return Unsized(
                RejectionReason.INSUFFICIENT_EQUITY,
                f"equity {text(equity)}, target {text(target_percent)} of it with nothing held",
            )
        worth = product(product(target_percent, weight), max(equity, ZERO))
        lots = whole_steps(worth, product(intent.reference_price, instrument.lot))
        desired = product(lots, instrument.lot)
        if not desired and not held:
            return Unsized(
                RejectionReason.BELOW_MINIMUM_SIZE,
                f"{text(worth)} at {text(intent.reference_price)} is less than one lot of {text(instrument.lot)}",
            )
    wanted = total((desired, negated(held)))
    if not wanted:
        return OnTarget(held)
    delta = floor_to_step(wanted, instrument.lot)
    if not is_value(delta):
        raise InexactMoney(
            f"a quantity of {delta} was outside of what money may be.", "Check the unit of the price."
        )
    least = max(instrument.minimum, instrument.lot)
    quantity = magnitude(delta)
    if quantity < least:
        return Unsized(
            RejectionReason.BELOW_MINIMUM_SIZE,
            f"{text(wanted)} to trade from {text(held)} to {text(desired)}, minimum {text(least)}",
        )
    return Sized(Side.BUY if delta > 0 else Side.SELL, quantity, _reduces(held, total((held, delta))))


def _reduces(held: Decimal, after: Decimal) -> bool:
    return magnitude(after) < magnitude(held) and (not after or (after > 0) == (held > 0))
