"""Two versions of one program: its messages, its codec, its topics, and a processor that adds up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, field, make_dataclass
from typing import Any, Final

from qmtl.engine.log.port import Log
from qmtl.engine.processor import Arrival, Input, Processor, Step
from qmtl.engine.schemas import PublishedSchemas
from qmtl.engine.table import Table
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, PositionStamp, SchemaText
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import Cleanup, TopicSpec, topic
from tests.engine.toys import Toy

Fields = Mapping[str, tuple[Any, Any]]
"""Types and defaults of further fields; `MISSING` is no default."""

ANCHOR: Final = "evo.deals"
SUMS: Final = "evo.sums"


def message(name: str, base: Fields, more: Fields) -> Any:
    """A message class of one version."""
    made = [(one, kind, field(default=default)) for one, (kind, default) in {**base, **more}.items()]
    return make_dataclass(name, made, frozen=True, slots=True)


class Version:
    """One version of the program.

    Args:
        deal: further fields of what comes in.
        total: further fields of the rows.
    """

    def __init__(self, deal: Fields | None = None, total: Fields | None = None) -> None:
        self.Deal = message("Deal", {"name": (str, MISSING), "amount": (int, MISSING)}, deal or {})
        self.Sum = message("Sum", {"name": (str, MISSING), "amount": (int, MISSING)}, total or {})
        self.codec = Codec((CloseMarker, PositionStamp, DeadLetter, SchemaText, self.Deal, self.Sum))
        self.deals = TopicSpec(ANCHOR, ("name",), (), (self.Deal,), Cleanup.DELETE, "people")
        self.sums = TopicSpec(SUMS, ("name",), (), (self.Sum,), Cleanup.COMPACT, "adder")
        self.saw: list[Any] = []

    def start(self, log: Log) -> None:
        """What a program does before it works: ask whether it can read the log, make topics, publish its schemas."""
        schemas = PublishedSchemas(log, self.codec)
        schemas.require_readable()
        log.ensure_topics([self.deals, self.sums, topic("dead.letters"), topic("schemas")])
        schemas.publish()
        schemas.attend()

    def write(self, log: Log, *found: Any) -> None:
        writer = log.writer("crowd")
        writer.begin()
        for one in found:
            writer.append(ANCHOR, 0, encode_key((one.name,)), self.codec.encode(one))
        writer.commit({}, "", None)
        writer.close()

    def processor(self, name: str = "adder") -> Processor:
        version = self

        class Adder(Toy):
            """Adds up per name, in the form of its version."""

            anchor = ANCHOR
            tables = (SUMS,)

            def inputs(self) -> tuple[Input, ...]:
                return (Input(ANCHOR),)

            def topics(self) -> Mapping[str, TopicSpec]:
                return {ANCHOR: version.deals, SUMS: version.sums}

            def restore(self, tables: Mapping[str, Table]) -> None:
                """Everything is in the table."""

            def on_record(self, step: Step, arrival: Arrival) -> None:
                deal = arrival.message
                version.saw.append(deal)
                sums = step.table(SUMS)
                known = sums.get(deal.name)
                sums.put(version.Sum(deal.name, (known.amount if known else 0) + deal.amount))

        adder = Adder()
        adder.name = name
        return adder
