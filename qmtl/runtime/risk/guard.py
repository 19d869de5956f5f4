"""The guard of a world: OK or tripped, what a trip asks for, and the recorded act that releases it.

It is a value and a function of what is on the log: whoever reads the same records has the same guard. A trip is the whole world's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from typing import assert_never

from qmtl.foundation.common.errors import InvalidValue, InvariantBroken
from qmtl.foundation.common.money import ZERO, magnitude, minus, product
from qmtl.foundation.contracts.trade import Order, Side
from qmtl.runtime.risk.quality import ExecutionQuality
from qmtl.runtime.risk.state import Holding, RiskState, opened, reduces, require_same_broker
from qmtl.runtime.risk.trips import Trip


class GuardState(Enum):
    """The value is the wire text."""

    OK = "OK"
    TRIP = "TRIP"


class OnPositions(Enum):
    """What a trip makes of what is held."""

    KEEP = "keep"
    REDUCE = "reduce"
    LIQUIDATE = "liquidate"


@dataclass(frozen=True, slots=True)
class TripPolicy:
    """What a trip does beyond forbidding every order that raises exposure, which no policy turns off.

    Attributes:
        cancels_open: open orders are cancelled. One that can only reduce is among them: what is reduced is asked for anew.
        positions: reducing is the conservative choice, between leaving a loss to grow and selling all of it at once.
        reduced_by: the share of each position that REDUCE takes off, above 0, at most 1.

    Raises:
        InvalidValue: a share that is not above 0, or is above 1.
    """

    cancels_open: bool = True
    positions: OnPositions = OnPositions.REDUCE
    reduced_by: Decimal = Decimal("0.5")

    def __post_init__(self) -> None:
        if not self.reduced_by.is_finite() or not 0 < self.reduced_by <= 1:
            raise InvalidValue(
                f"reduced_by was {self.reduced_by}; it must be above 0 and at most 1.", "Send 0.5 for half."
            )


@dataclass(frozen=True, slots=True)
class Guard:
    """The guard of one world.

    Attributes:
        version: counts its changes from 1; a lower one never wins. 0 is a guard that was never written.
        trip: the one that stopped the world; None while it is OK.
        released_by, reason: who has released it last, and why; empty before.
        changed_at_ms: the bucket of the last change.
    """

    world_id: str
    version: int = 0
    trip: Trip | None = None
    released_by: str = ""
    reason: str = ""
    changed_at_ms: int = 0

    @property
    def state(self) -> GuardState:
        return GuardState.OK if self.trip is None else GuardState.TRIP


@dataclass(frozen=True, slots=True)
class Released:
    """What a release leaves: losses and rejections are counted anew from it, or the guard would trip again at once."""

    guard: Guard
    state: RiskState
    quality: ExecutionQuality


@dataclass(frozen=True, slots=True)
class Reduction:
    """What a trip takes off one position: to be ordered at the market, reduce-only.

    Attributes:
        quantity: unsigned, base currency; above 0.
    """

    strategy_id: str
    symbol: str
    side: Side
    quantity: Decimal


def tripped(guard: Guard, trip: Trip) -> Guard:
    """The guard after a trip. One that is tripped stays as it is: what stopped the world first is what has to be looked at."""
    if guard.trip is not None:
        return guard
    return replace(guard, version=guard.version + 1, trip=trip, changed_at_ms=trip.at_ms)


def released(
    guard: Guard, by: str, reason: str, at_ms: int, state: RiskState, quality: ExecutionQuality
) -> Released:
    """What a recorded act makes of a tripped guard; of one that is OK it changes nothing.

    The peak and the start of the day of every book become what it is worth now. Holdings and the rate of orders stay.

    Args:
        by, reason: who, and why.

    Raises:
        InvalidValue: nobody, or no reason.
        InvariantBroken: a bucket before the trip.
    """
    for field, said in (("by", by), ("reason", reason)):
        if not said.strip():
            raise InvalidValue(f"{field} was empty; a release names who and why.", f"Send {field}.")
    if guard.trip is None:
        return Released(guard, state, quality)
    if at_ms < guard.changed_at_ms:
        raise InvariantBroken(
            f"the guard of {guard.world_id!r} tripped at {guard.changed_at_ms} and was released at {at_ms}, which is before."
        )
    after = replace(
        guard,
        version=guard.version + 1,
        trip=None,
        released_by=by,
        reason=reason,
        changed_at_ms=at_ms,
    )
    anew = replace(
        state,
        world=opened(state.world.equity, at_ms),
        worths=tuple((strategy_id, opened(worth.equity, at_ms)) for strategy_id, worth in state.worths),
    )
    return Released(after, anew, ExecutionQuality())


def permits(guard: Guard, state: RiskState, order: Order) -> bool:
    """Whether the guard lets an order through: while it is tripped, only what can't but reduce the position.

    Raises:
        InvariantBroken: an order of another broker than the state.
    """
    require_same_broker(state, order)
    return guard.trip is None or reduces(state.holding(order.strategy_id, order.symbol), order)


def reductions(policy: TripPolicy, state: RiskState) -> tuple[Reduction, ...]:
    """What a trip takes off the positions, by strategy and symbol: to be asked once per trip, when it happens.

    Open orders may fill though their cancellation was asked for. So no more is taken than what they leave, and nothing goes through flat.
    The quantities fit no lot yet; whoever orders them rounds towards zero.

    Raises:
        InexactMoney: numbers too long for exact arithmetic.
    """
    match policy.positions:
        case OnPositions.KEEP:
            return ()
        case OnPositions.REDUCE:
            share = policy.reduced_by
        case OnPositions.LIQUIDATE:
            share = Decimal(1)
        case _:
            assert_never(policy.positions)
    out = []
    for one in sorted(state.holdings, key=lambda held: (held.strategy_id, held.symbol)):
        if (quantity := _taken(one, share)) > 0:
            side = Side.SELL if one.quantity > 0 else Side.BUY
            out.append(Reduction(one.strategy_id, one.symbol, side, quantity))
    return tuple(out)


def _taken(held: Holding, share: Decimal) -> Decimal:
    size = magnitude(held.quantity)
    closing = held.selling if held.quantity > 0 else held.buying
    return max(ZERO, min(product(size, share), minus(size, closing)))
