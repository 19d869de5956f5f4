"""What trips the guard of a world: its conditions, each with its threshold, and the record of a trip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias, assert_never

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, product, quotient
from qmtl.runtime.risk.judging import is_reached, loss
from qmtl.runtime.risk.limits import DailyLossLimit, DrawdownLimit, RiskScope
from qmtl.runtime.risk.quality import ExecutionQuality, slippage
from qmtl.runtime.risk.state import RiskState, Worth

BASIS_POINT_PLACES = 12
"""Digits after the point to which a told slippage is rounded, half-even. What is compared is exact."""


class TripCause(Enum):
    """Why a guard tripped; the value is the wire text."""

    DAILY_LOSS = "daily_loss"
    DRAWDOWN = "drawdown"
    SLIPPAGE_SURGE = "slippage_surge"
    CONSECUTIVE_REJECTIONS = "consecutive_rejections"


@dataclass(frozen=True, slots=True)
class SlippageSurge:
    """The last `fills` fills together cost at least this much against their reference prices, weighted by value.

    It says nothing before there were so many: one bad fill is no surge.

    Attributes:
        basis_points: of the reference value, above 0.
        fills: at least 1.

    Raises:
        InvalidValue: a threshold that is not above 0 and finite, or a window below 1.
    """

    basis_points: Decimal
    fills: int

    def __post_init__(self) -> None:
        if not self.basis_points.is_finite() or self.basis_points <= 0:
            raise InvalidValue(
                f"basis_points was {self.basis_points}; it must be finite and above 0.",
                "Send 20 for a fifth of a percent.",
            )
        if self.fills < 1:
            raise InvalidValue(f"fills was {self.fills}; it must be at least 1.", "Send a whole number.")


@dataclass(frozen=True, slots=True)
class ConsecutiveRejections:
    """The venue has rejected at least this many orders in a row.

    Raises:
        InvalidValue: a count below 1.
    """

    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidValue(f"count was {self.count}; it must be at least 1.", "Send a whole number.")


TripCondition: TypeAlias = DailyLossLimit | DrawdownLimit | SlippageSurge | ConsecutiveRejections


@dataclass(frozen=True, slots=True)
class Trip:
    """That a condition was met, with all that was known then.

    Attributes:
        strategy_id: whose loss it was; empty where it was the world's. The trip is the world's either way.
        number, threshold: both in quote currency, basis points, or a count of orders.
        at_ms: the bucket at whose close it was seen.
        state: the books at that time.
        quality: the execution at that time.
    """

    cause: TripCause
    condition: TripCondition
    strategy_id: str
    number: Decimal
    threshold: Decimal
    at_ms: int
    state: RiskState
    quality: ExecutionQuality


def check(
    conditions: Sequence[TripCondition], state: RiskState, quality: ExecutionQuality, at_ms: int
) -> Trip | None:
    """The first condition that is met, in their order and then by strategy id; None where all is well.

    A threshold is met by reaching it. A loss limit per strategy is met by any one of them.

    Raises:
        InexactMoney: numbers too long for exact arithmetic.
    """
    for condition in conditions:
        found = _met(condition, state, quality)
        if found is not None:
            strategy_id, number, threshold = found
            return Trip(cause_of(condition), condition, strategy_id, number, threshold, at_ms, state, quality)
    return None


def cause_of(condition: TripCondition) -> TripCause:
    """What a trip by this condition is called."""
    match condition:
        case DailyLossLimit():
            return TripCause.DAILY_LOSS
        case DrawdownLimit():
            return TripCause.DRAWDOWN
        case SlippageSurge():
            return TripCause.SLIPPAGE_SURGE
        case ConsecutiveRejections():
            return TripCause.CONSECUTIVE_REJECTIONS
        case _:
            assert_never(condition)


def longest_window(conditions: Sequence[TripCondition]) -> int:
    """How many fills have to be kept for these conditions."""
    return max((one.fills for one in conditions if isinstance(one, SlippageSurge)), default=0)


def _met(
    condition: TripCondition, state: RiskState, quality: ExecutionQuality
) -> tuple[str, Decimal, Decimal] | None:
    match condition:
        case DailyLossLimit() | DrawdownLimit():
            for strategy_id, worth in _worths(condition.scope, state):
                lost, threshold = loss(condition, worth)
                if is_reached(lost, threshold):
                    return strategy_id, lost, threshold
            return None
        case SlippageSurge(basis_points=basis_points, fills=fills):
            if len(quality.executions) < fills:
                return None
            cost, value = slippage(quality.executions[-fills:])
            if value <= ZERO or cost < product(basis_points, value):
                return None
            return "", quotient(cost, value, BASIS_POINT_PLACES), basis_points
        case ConsecutiveRejections(count=count):
            if quality.rejected_in_row < count:
                return None
            return "", Decimal(quality.rejected_in_row), Decimal(count)
        case _:
            assert_never(condition)


def _worths(scope: RiskScope, state: RiskState) -> Sequence[tuple[str, Worth]]:
    match scope:
        case RiskScope.STRATEGY:
            return sorted(state.worths, key=lambda one: one[0])
        case RiskScope.WORLD:
            return (("", state.world),)
        case _:
            assert_never(scope)
