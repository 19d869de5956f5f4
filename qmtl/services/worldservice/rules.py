"""What a world service decides: pure rules over commands and the rows they concern."""

from __future__ import annotations

from decimal import Decimal
from typing import TypeAlias, assert_never

from qmtl.foundation.common.errors import CommandRefused, PromotionHeld, UnknownWorld
from qmtl.foundation.common.ids import fault_of
from qmtl.foundation.contracts.world import (
    Activation,
    CommandOutcome,
    CreateWorld,
    SetActivation,
    World,
    WorldCommand,
    WorldSettings,
    WorldStatus,
)
from qmtl.services.worldservice.holding import opens

Row: TypeAlias = World | Activation

ONE = Decimal(1)


def decide(
    command: WorldCommand,
    world: World | None,
    activation: Activation | None,
    other: Activation | None = None,
    held: str = "",
) -> tuple[Row | None, CommandOutcome]:
    """What a command changes, and what is told of it.

    Args:
        world: the world it names, if it exists.
        activation: the row it would replace, if it exists.
        other: that of the strategy's other side, if it exists.
        held: why nothing more may be opened now; empty where nothing is held.

    Returns: the new row, or None where nothing changes; and the outcome.
    """
    match command:
        case CreateWorld():
            return _create(command, world)
        case SetActivation():
            return _activate(command, world, activation, other, held)
        case _:
            assert_never(command)


def _create(command: CreateWorld, world: World | None) -> tuple[Row | None, CommandOutcome]:
    if (fault := fault_of("world_id", command.world_id)) is not None:
        return None, _refused(command, fault.code, f"{fault.what} {fault.remedy}")
    if (problem := _settings_problem(command.settings)) is not None:
        return None, _refused(command, CommandRefused.code, problem)
    if world is None:
        return World(command.world_id, WorldStatus.ACTIVE, command.settings, command.at_ms), _accepted(
            command
        )
    if world.settings == command.settings:
        return None, _accepted(command)  # the wish is already true
    return None, _refused(
        command,
        CommandRefused.code,
        f"world {command.world_id!r} exists with other settings; choose another name.",
    )


def _settings_problem(settings: WorldSettings) -> str | None:
    if settings.initial_cash <= 0:
        return f"initial_cash was {settings.initial_cash}; it must be above 0."
    if not 0 <= settings.fee_rate < ONE:
        return f"fee_rate was {settings.fee_rate}; it must be from 0 to below 1."
    if not 0 <= settings.slippage_rate < ONE:
        return f"slippage_rate was {settings.slippage_rate}; it must be from 0 to below 1."
    for one in settings.instruments:
        if one.tick <= 0 or one.lot <= 0 or one.minimum < 0:
            return f"instrument {one.symbol!r} has tick {one.tick}, lot {one.lot}, minimum {one.minimum}; steps must be above 0."
    return None


def _activate(
    command: SetActivation, world: World | None, known: Activation | None, other: Activation | None, held: str
) -> tuple[Row | None, CommandOutcome]:
    if world is None:
        return None, _refused(
            command, UnknownWorld.code, f"world {command.world_id!r} does not exist; create it first."
        )
    if not 0 <= command.weight <= ONE:
        return None, _refused(
            command, CommandRefused.code, f"weight was {command.weight}; it must be from 0 to 1."
        )
    if command.drain_cancels and not command.drain:
        return None, _refused(
            command, CommandRefused.code, "drain_cancels was true and drain was not; only a drain cancels."
        )
    version = 1 if known is None else known.version + 1
    fresh = Activation(
        command.world_id,
        command.strategy_id,
        command.side,
        command.active,
        command.weight,
        command.freeze,
        command.drain,
        command.effective_mode,
        version,
        f"act:{command.world_id}:{command.strategy_id}:{command.side.value}:{version}",
        command.at_ms,
        command.drain_cancels,
    )
    if known is not None and _gate(known) == _gate(fresh):
        return None, _accepted(command)
    if held and opens(known, fresh, other):
        return None, _refused(command, PromotionHeld.code, held)
    return fresh, _accepted(command)


def _gate(row: Activation) -> tuple[object, ...]:
    return (row.active, row.weight, row.freeze, row.drain, row.drain_cancels, row.effective_mode)


def _accepted(command: WorldCommand) -> CommandOutcome:
    return CommandOutcome(command.world_id, command.command_id, True, "", "")


def _refused(command: WorldCommand, code: str, detail: str) -> CommandOutcome:
    return CommandOutcome(command.world_id, command.command_id, False, code, detail)
