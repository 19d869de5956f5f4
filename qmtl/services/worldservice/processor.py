"""The world service on its topics: commands and time in; world states, activations and outcomes out."""

from __future__ import annotations

from collections.abc import Mapping

from qmtl.engine.letters import Cause, letter_of
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.ids import unanswerable
from qmtl.foundation.contracts.world import SetActivation, World, WorldCommand
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.services.worldservice.rules import decide


class WorldService:
    """Single writer of worlds and activation, by world.

    Its markers follow the clock. A command that was taken before the tick of bucket t is inside the cut of t for every
    reader: the place of the marker in the log says what came first.
    """

    name = "worldservice"
    anchor = "world.commands"
    tables = ("world.state", "activation", "world.outcomes")
    emits = ()

    def inputs(self) -> tuple[Input, ...]:
        return (Input("world.commands"), Input("clock", bucketed=True, broadcast=True))

    def closes(self) -> tuple[TopicSpec, ...]:
        return (topic("world.state"), topic("activation"))

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the tables."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        command: WorldCommand = arrival.message
        for field, text in (("world_id", command.world_id), ("command_id", command.command_id)):
            if (fault := unanswerable(field, text)) is not None:
                cause = Cause(fault.code, f"{fault.what} {fault.remedy}")
                step.emit("dead.letters", letter_of(self.name, arrival.partition, arrival, cause))
                return
        outcomes = step.table("world.outcomes")
        if outcomes.get(command.world_id, command.command_id) is not None:
            return  # a command sent twice decides nothing more
        known = None
        if isinstance(command, SetActivation):
            known = step.table("activation").get(command.world_id, command.strategy_id, command.side.value)
        row, outcome = decide(command, step.table("world.state").get(command.world_id), known)
        if row is not None:
            step.table("world.state" if isinstance(row, World) else "activation").put(row)
        outcomes.put(outcome)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        """A tick only closes the bucket."""

    def flush(self, step: Step) -> None:
        """Everything is in the tables."""
