"""The world service on its topics: commands, time and what holds promotions in; world states, activations and outcomes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_never

from qmtl.engine.letters import Cause, letter_of
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.ids import unanswerable
from qmtl.foundation.contracts.context import LogContext
from qmtl.foundation.contracts.world import (
    Activation,
    CreateWorld,
    PositionSide,
    PromotionHold,
    SetActivation,
    World,
    WorldCommand,
)
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.services.worldservice.holding import held_by
from qmtl.services.worldservice.rules import decide


class WorldService:
    """Single writer of worlds and activation, by world.

    Its markers follow the clock. A command that was taken before the tick of bucket t is inside the cut of t for every
    reader: the place of the marker in the log says what came first.

    What it has heard of cross-context hits that nobody has cleared is a row of `world.holds`. Which command came before it heard of
    them is on the log with the positions of the task.
    """

    name = "worldservice"
    anchor = "world.commands"
    tables = ("world.state", "activation", "world.outcomes", "world.holds")
    emits = ()

    def __init__(self) -> None:
        self._task = 0

    def inputs(self) -> tuple[Input, ...]:
        return (
            Input("world.commands"),
            Input("dag.context", broadcast=True),
            Input("clock", bucketed=True, broadcast=True),
        )

    def closes(self) -> tuple[TopicSpec, ...]:
        return (topic("world.state"), topic("activation"))

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the tables, but which task it is."""
        self._task = tables["world.holds"].partition

    def on_record(self, step: Step, arrival: Arrival) -> None:
        message: WorldCommand | LogContext = arrival.message
        match message:
            case LogContext():
                self._hear(step, message)
            case CreateWorld() | SetActivation():
                self._take(step, arrival, message)
            case _:
                assert_never(message)

    def _hear(self, step: Step, said: LogContext) -> None:
        holds = step.table("world.holds")
        known: PromotionHold | None = holds.get(self._task)
        if said.uncleared != (0 if known is None else known.uncleared):
            holds.put(PromotionHold(self._task, said.uncleared))

    def _take(self, step: Step, arrival: Arrival, command: WorldCommand) -> None:
        for field, text in (("world_id", command.world_id), ("command_id", command.command_id)):
            if (fault := unanswerable(field, text)) is not None:
                cause = Cause(fault.code, f"{fault.what} {fault.remedy}")
                step.emit("dead.letters", letter_of(self.name, arrival.partition, arrival, cause))
                return
        outcomes = step.table("world.outcomes")
        if outcomes.get(command.world_id, command.command_id) is not None:
            return  # a command sent twice decides nothing more
        known: Activation | None = None
        other: Activation | None = None
        if isinstance(command, SetActivation):
            whose, rows = (command.world_id, command.strategy_id), step.table("activation")
            sides = {side: rows.get(*whose, side.value) for side in PositionSide}
            known = sides.pop(command.side)
            (other,) = sides.values()
        held = held_by(step.table("world.holds").get(self._task))
        row, outcome = decide(command, step.table("world.state").get(command.world_id), known, other, held)
        if row is not None:
            step.table("world.state" if isinstance(row, World) else "activation").put(row)
        outcomes.put(outcome)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        """A tick only closes the bucket."""

    def flush(self, step: Step) -> None:
        """Everything is in the tables."""
