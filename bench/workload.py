"""The work that every engine of the benchmark does: fills in, a running position per key as a table out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Final

from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.money import ZERO, product, total
from qmtl.foundation.contracts.trade import Fill, Position, Side
from qmtl.foundation.wire.topics import Cleanup, TopicSpec

KEYS: Final = 1000
INPUT: Final = TopicSpec("bench.fills", ("symbol", "seq"), (), (Fill,), Cleanup.DELETE, "people")
OUTPUT: Final = TopicSpec("bench.positions", ("symbol",), (), (Position,), Cleanup.COMPACT, "bench")
HAND_OUTPUT: Final = replace(OUTPUT, name="bench.positions.hand")


def make_fill(number: int) -> Fill:
    """The fill of a number: spread over the keys, both sides."""
    return Fill(
        world_id="bench",
        strategy_id="s",
        order_id=f"{number:032x}",
        seq=number + 1,
        symbol=f"K{number * 7919 % KEYS:04d}",
        side=Side.BUY if number % 3 else Side.SELL,
        quantity=Decimal(1 + number % 97) / 1000,
        price=Decimal(10_000 + number % 1009) / 100,
        fee=Decimal(number % 13) / 1000,
        fee_currency="USD",
        slippage=ZERO,
        fill_time_ms=1_522_800_000_000 + number,
    )


def apply(before: Position | None, fill: Fill) -> Position:
    """The rule that all engines share."""
    moved = fill.quantity if fill.side is Side.BUY else -fill.quantity
    held = (
        (ZERO, ZERO, ZERO, 0) if before is None else (before.quantity, before.cost, before.fees, before.fills)
    )
    return Position(
        world_id="bench",
        scope="world",
        symbol=fill.symbol,
        quantity=total((held[0], moved)),
        cost=total((held[1], product(moved, fill.price))),
        average_cost=ZERO,
        realised=ZERO,
        fees=total((held[2], fill.fee)),
        mark=fill.price,
        unrealised=ZERO,
        fills=held[3] + 1,
        as_of_ms=fill.fill_time_ms,
    )


class Bench:
    """The workload as a processor."""

    name = "bench"
    anchor = INPUT.name
    tables = (OUTPUT.name,)
    emits = ()

    def inputs(self) -> tuple[Input, ...]:
        return (Input(INPUT.name),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {INPUT.name: INPUT, OUTPUT.name: OUTPUT}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the table."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        table = step.table(OUTPUT.name)
        table.put(apply(table.get(arrival.message.symbol), arrival.message))

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        """It has no bucketed input."""

    def flush(self, step: Step) -> None:
        """Everything is in the table."""
