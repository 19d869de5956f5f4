"""Whether an order keeps within the limits of its world, with every open order counted as it would hurt most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeAlias, assert_never

from qmtl.foundation.common.money import ZERO, magnitude, minus, product, total
from qmtl.foundation.contracts.trade import Order
from qmtl.runtime.risk.limits import (
    ConcentrationLimit,
    DailyLossLimit,
    DrawdownLimit,
    ExposureLimit,
    LeverageLimit,
    LossLimit,
    NotionalLimit,
    OrderRateLimit,
    PositionLimit,
    PriceCollar,
    RiskLimit,
    RiskScope,
)
from qmtl.runtime.risk.state import Holding, RiskState, Worth, gross, reduces, require_same_broker, reserved


@dataclass(frozen=True, slots=True)
class Passed:
    """The order keeps within all limits."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The first limit that the order would break.

    Attributes:
        number: what there would be, or is: in the unit of `threshold`.
        threshold: what may be: a quantity of the symbol, an amount of quote currency, or a count of orders. A limit that is a share of
            the equity is told as the amount that it comes to now, so that nothing is rounded.
    """

    limit: RiskLimit
    number: Decimal
    threshold: Decimal


Judgement: TypeAlias = Passed | Broken

PASSED = Passed()


def judge(limits: Sequence[RiskLimit], state: RiskState, order: Order) -> Judgement:
    """Hold an order against the limits, in their order; the first that is broken is told.

    In the worst case a buy fills whole and every open sell not, and the other way round. What can only reduce the position
    (`state.reduces`) passes every limit of exposure and of loss: a position beyond its limit has to have a way out. The rate of orders and the collar
    hold for it as well, the collar where it has a limit price.

    The symbol is valued at its mark or at the order's reference price, whichever is greater; the other symbols at their marks.

    Raises:
        InvariantBroken: an order of another broker than the state, or of a strategy without a book.
        InexactMoney: numbers too long for exact arithmetic.
    """
    if not limits:
        return PASSED
    require_same_broker(state, order)
    held = state.holding(order.strategy_id, order.symbol)
    is_reduction = reduces(held, order)
    after = _after(state, held, order)
    for limit in limits:
        found = _judged(limit, state, after, held, order, is_reduction)
        if found is not None and _is_broken(limit, *found):
            return Broken(limit, *found)
    return PASSED


def loss(limit: LossLimit, worth: Worth) -> tuple[Decimal, Decimal]:
    """What was lost, and what may not be reached: both in quote currency. The first is negative where something was won.

    The threshold is never below 0: of a book that began with nothing, nothing may be lost.
    """
    match limit:
        case DailyLossLimit():
            start = worth.day_equity
        case DrawdownLimit():
            start = worth.peak_equity
        case _:
            assert_never(limit)
    return minus(start, worth.equity), product(limit.share, max(start, ZERO))


def is_reached(lost: Decimal, threshold: Decimal) -> bool:
    """Whether a loss limit is used up: at the threshold itself, not only beyond it."""
    return lost >= threshold


def _is_broken(limit: RiskLimit, number: Decimal, threshold: Decimal) -> bool:
    if isinstance(limit, DailyLossLimit | DrawdownLimit):
        return is_reached(number, threshold)
    return number > threshold


def _judged(
    limit: RiskLimit,
    state: RiskState,
    after: tuple[Holding, ...],
    held: Holding,
    order: Order,
    is_reduction: bool,
) -> tuple[Decimal, Decimal] | None:
    """The number that there would be and the one that may be; None where the limit has nothing to say."""
    match limit:
        case PositionLimit() | NotionalLimit() | LeverageLimit() | ConcentrationLimit():
            return None if is_reduction else _exposure(limit, state, after, order)
        case DailyLossLimit() | DrawdownLimit():
            if is_reduction:
                return None
            return loss(limit, _worth(limit.scope, state, order))
        case OrderRateLimit():
            return _rate(limit, state, order)
        case PriceCollar():
            return _collar(limit, state, held, order, is_reduction)
        case _:
            assert_never(limit)


def _after(state: RiskState, held: Holding, order: Order) -> tuple[Holding, ...]:
    """All holdings in the worst case with the order among the open ones; the symbol's at the price that it is judged at."""
    price = max([order.reference_price, *(one.mark for one in state.holdings if one.symbol == order.symbol)])
    others = (
        replace(one, mark=price) if one.symbol == order.symbol else one
        for one in state.holdings
        if one is not held
    )
    return (replace(reserved(held, order), mark=price), *others)


def _exposure(
    limit: ExposureLimit, state: RiskState, after: tuple[Holding, ...], order: Order
) -> tuple[Decimal, Decimal] | None:
    if limit.scope is RiskScope.STRATEGY:
        after = tuple(one for one in after if one.strategy_id == order.strategy_id)
    of_symbol = tuple(one for one in after if one.symbol == order.symbol)
    match limit:
        case PositionLimit(quantity=quantity, symbol=symbol):
            if symbol not in ("", order.symbol):
                return None
            return total(one.worst for one in of_symbol), quantity
        case NotionalLimit(amount=amount, symbol=symbol):
            return None if symbol not in ("", order.symbol) else (gross(of_symbol), amount)
        case LeverageLimit(ratio=ratio):
            return gross(after), product(ratio, max(_worth(limit.scope, state, order).equity, ZERO))
        case ConcentrationLimit(share=share):
            return gross(of_symbol), product(share, max(_worth(limit.scope, state, order).equity, ZERO))
        case _:
            assert_never(limit)


def _worth(scope: RiskScope, state: RiskState, order: Order) -> Worth:
    match scope:
        case RiskScope.STRATEGY:
            return state.worth(order.strategy_id)
        case RiskScope.WORLD:
            return state.world
        case _:
            assert_never(scope)


def _rate(limit: OrderRateLimit, state: RiskState, order: Order) -> tuple[Decimal, Decimal]:
    begins_ms = order.created_at_ms - limit.window_s * 1000
    before = sum(
        one.count
        for one in state.placed
        if begins_ms < one.at_ms <= order.created_at_ms
        and (limit.scope is RiskScope.WORLD or one.strategy_id == order.strategy_id)
    )
    return Decimal(before + 1), Decimal(limit.count)


def _collar(
    limit: PriceCollar, state: RiskState, held: Holding, order: Order, is_reduction: bool
) -> tuple[Decimal, Decimal] | None:
    own = None if order.terms is None else order.terms.limit_price
    if own is None and is_reduction:
        return None
    mark = held.mark or max((one.mark for one in state.holdings if one.symbol == order.symbol), default=ZERO)
    if not mark:
        return None  # nothing is known yet that it could be away from
    price = order.reference_price if own is None else own
    return magnitude(minus(price, mark)), product(limit.share, mark)
