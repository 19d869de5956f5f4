"""What may be asked of a world, and what is known of it: settings and activation."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias


class WorldStatus(Enum):
    ACTIVE = "active"
    EVAL_ONLY = "eval_only"
    PAUSED = "paused"
    RETIRED = "retired"


class PositionSide(Enum):
    LONG = "long"
    SHORT = "short"


class EffectiveMode(Enum):
    VALIDATE = "validate"
    COMPUTE_ONLY = "compute-only"
    PAPER = "paper"
    LIVE = "live"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Instrument:
    """What an order of one symbol must fit.

    Attributes:
        tick: smallest price step, quote currency.
        lot: smallest quantity step, base currency.
        minimum: smallest order quantity, base currency.
    """

    symbol: str
    tick: Decimal
    lot: Decimal
    minimum: Decimal


@dataclass(frozen=True, slots=True)
class WorldSettings:
    """How orders of a world are executed and paid for.

    Attributes:
        initial_cash: per strategy account, in `currency`.
        fee_rate: fraction of the notional, e.g. 0.001.
        slippage_rate: fraction of the price against the taker, e.g. 0.0005.
        dataset_fingerprint: what data the world runs on; empty where it runs on whatever comes.
    """

    currency: str
    initial_cash: Decimal
    fee_rate: Decimal
    slippage_rate: Decimal
    instruments: tuple[Instrument, ...]
    dataset_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class CreateWorld:
    command_id: str
    world_id: str
    settings: WorldSettings
    at_ms: int


@dataclass(frozen=True, slots=True)
class SetActivation:
    """Open or close the order gate of one side of one strategy.

    Attributes:
        weight: 0 to 1, multiplies every sized quantity.
        drain_cancels: as in `Activation`; only together with `drain`.
    """

    command_id: str
    world_id: str
    strategy_id: str
    side: PositionSide
    active: bool
    weight: Decimal
    freeze: bool
    drain: bool
    effective_mode: EffectiveMode
    at_ms: int
    drain_cancels: bool = False


WorldCommand: TypeAlias = CreateWorld | SetActivation


@dataclass(frozen=True, slots=True)
class World:
    """The state of a world: a row of `world.state`."""

    world_id: str
    status: WorldStatus
    settings: WorldSettings
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class Activation:
    """The order gate of one side of one strategy: a row of `activation`.

    Attributes:
        version: counts the changes of this row from 1; a lower one never wins.
        etag: `act:<world>:<strategy>:<side>:<version>`.
        drain_cancels: the drain is `"cancel"`: open orders of the strategy are cancelled instead of left to end.
    """

    world_id: str
    strategy_id: str
    side: PositionSide
    active: bool
    weight: Decimal
    freeze: bool
    drain: bool
    effective_mode: EffectiveMode
    version: int
    etag: str
    updated_at_ms: int
    drain_cancels: bool = False


@dataclass(frozen=True, slots=True)
class CommandOutcome:
    """What became of a command: one row per command id, so that a command sent twice decides nothing more.

    Attributes:
        code: empty where accepted, else the stable error code.
    """

    world_id: str
    command_id: str
    accepted: bool
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class PromotionHold:
    """What a task of the world service has heard of cross-context hits: while there are some that nobody has cleared, no gate is opened.

    Attributes:
        uncleared: how many there are, as the row of `dag.context` says.
    """

    task: int
    uncleared: int


WorldState: TypeAlias = World | Activation | CommandOutcome | PromotionHold
