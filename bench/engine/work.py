"""The one workload of all engines: 13 fields of a fill come in, a position per key is kept, a snapshot of it goes out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from bench.engine.rows import CURRENCY, START_MS, Row
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.money import product, total
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, PositionStamp
from qmtl.foundation.contracts.trade import Side
from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.topics import Cleanup, TopicSpec, topic


@dataclass(frozen=True, slots=True)
class Trade:
    """What comes in: the fields of a fill, with its venue."""

    world_id: str
    strategy_id: str
    order_id: str
    seq: int
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    slippage: Decimal
    venue: str
    fill_time_ms: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What goes out, and what is kept: the position of a symbol after one more fill."""

    symbol: str
    quantity: Decimal
    cost: Decimal
    fees: Decimal
    mark: Decimal
    fills: int
    as_of_ms: int


CODEC: Final = Codec((CloseMarker, PositionStamp, DeadLetter, Trade, Snapshot))
HEADER_BYTES: Final = 10
DEAD: Final = topic("dead.letters")


def header(message: type) -> bytes:
    """What stands before the body of every record of a message."""
    return b"\xc3\x01" + CODEC.fingerprint(message)


def schemas() -> dict[str, Any]:
    """What an engine without our codec has to know: both schemas and the header of what it writes."""
    return {
        "trade": json.dumps(avro_schema(Trade)),
        "snapshot": json.dumps(avro_schema(Snapshot)),
        "header": header(Snapshot).hex(),
    }


def make_trade(one: Row) -> Trade:
    """The message of a generated row."""
    return Trade(
        world_id="bench",
        strategy_id="s",
        order_id=f"{one.number:032x}",
        seq=one.number + 1,
        symbol=one.symbol,
        side=Side.BUY if one.buys else Side.SELL,
        quantity=Decimal(one.quantity) / 1000,
        price=Decimal(one.price) / 100,
        fee=Decimal(one.fee) / 1000,
        fee_currency=CURRENCY,
        slippage=Decimal(one.slippage) / 100,
        venue="sim",
        fill_time_ms=START_MS + one.number,
    )


def apply(before: Snapshot | None, trade: Trade) -> Snapshot:
    """The rule, as both the engine and the hand-written loop run it."""
    moved = trade.quantity if trade.side is Side.BUY else -trade.quantity
    if before is None:
        return Snapshot(
            trade.symbol, moved, product(moved, trade.price), trade.fee, trade.price, 1, trade.fill_time_ms
        )
    return Snapshot(
        trade.symbol,
        total((before.quantity, moved)),
        total((before.cost, product(moved, trade.price))),
        total((before.fees, trade.fee)),
        trade.price,
        before.fills + 1,
        trade.fill_time_ms,
    )


def trades(name: str, partitions: int) -> TopicSpec:
    """A topic of the input."""
    return TopicSpec(
        name, ("symbol", "seq"), ("symbol",), (Trade,), Cleanup.DELETE, "people", partitions=partitions
    )


def snapshots(name: str, partitions: int) -> TopicSpec:
    """A topic of the output."""
    return replace(trades(name, partitions), key=("symbol",), messages=(Snapshot,))


def positions(name: str, partitions: int) -> TopicSpec:
    """A table, or the changelog of somebody else's."""
    return TopicSpec(
        name, ("symbol",), ("symbol",), (Snapshot,), Cleanup.COMPACT, "bench", partitions=partitions
    )


@dataclass(frozen=True, slots=True)
class Names:
    """The topics of one run of one engine; what it reads is the same for all."""

    run: str
    source: str
    partitions: int

    @property
    def table(self) -> str:
        return f"{self.run}.positions"

    @property
    def out(self) -> str:
        return f"{self.run}.snapshots"

    @property
    def group(self) -> str:
        """The group in which the engine commits how far it has read."""
        return f"qmtl.{self.run}"

    def specs(self) -> tuple[TopicSpec, ...]:
        """What has to be there before the run."""
        return (positions(self.table, self.partitions), snapshots(self.out, self.partitions), DEAD)


class Positions:
    """The workload as a processor."""

    emits: tuple[str, ...]

    def __init__(self, names: Names) -> None:
        self._names = names
        self.name = names.run
        self.anchor = names.source
        self.tables = (names.table,)
        self.emits = (names.out,)
        self._topics = {spec.name: spec for spec in names.specs()}
        self._topics[names.source] = trades(names.source, names.partitions)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(self._names.source),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return self._topics

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the table."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        table = step.table(self._names.table)
        trade: Trade = arrival.message
        found = apply(table.get(trade.symbol), trade)
        table.put(found)
        step.emit(self._names.out, found)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        """It has no bucketed input."""

    def flush(self, step: Step) -> None:
        """Everything is in the table."""


class Relay:
    """One hop of the latency part: what comes in goes out, and nothing is kept."""

    tables: tuple[str, ...] = ()

    def __init__(self, run: str, source: str, out: str) -> None:
        self._out = out
        self.name = run
        self.anchor = source
        self.emits = (out,)
        self._topics = {name: snapshots(name, 1) for name in (source, out)}

    def inputs(self) -> tuple[Input, ...]:
        return (Input(self.anchor),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return self._topics

    def restore(self, tables: Mapping[str, Table]) -> None:
        """It has none."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.emit(self._out, arrival.message)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        """It has no bucketed input."""

    def flush(self, step: Step) -> None:
        """It keeps nothing."""
