"""Small embedded logs made through the real writer, and the world service run on them: what inspection and replay are tested on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.control import CloseMarker, InputPosition, PositionStamp
from qmtl.foundation.contracts.dag import CreateTopic, TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.world import (
    CreateWorld,
    EffectiveMode,
    Instrument,
    PositionSide,
    SetActivation,
    World,
    WorldSettings,
    WorldStatus,
)
from qmtl.foundation.wire.keys import encode_key, marker_key, partition_for, stamp_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, TopicSpec, node_topic, topic
from qmtl.services.worldservice.processor import WorldService

Row = tuple[str, int, bytes, bytes | None]
"""Topic, partition, key, value."""

MINUTE_MS = 60_000
START_MS = 1_522_800_000_000
RAW = "btc.raw.bars"
RAW_SPEC = node_topic(RAW, TopicClass.RAW)

SETTINGS = WorldSettings(
    "USD",
    Decimal("10000"),
    Decimal("0.001"),
    Decimal("0.0005"),
    (Instrument("BTC-USD", Decimal("0.01"), Decimal("0.0001"), Decimal("0.001")),),
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


@contextmanager
def log_in(
    directory: Path, clock: Clock | None = None, specs: Sequence[TopicSpec] = (*CATALOGUE, RAW_SPEC)
) -> Iterator[EmbeddedLog]:
    """A log held for writing, with the catalogue's topics and one raw topic unless others are named."""
    log = EmbeddedLog(directory, clock_ms=clock or Clock())
    try:
        log.ensure_topics(specs)
        yield log
    finally:
        log.close()


def commit(log: Log, rows: Iterable[Row], name: str = "test") -> None:
    """One transaction."""
    writer = log.writer(name)
    writer.begin()
    for where, partition, key, value in rows:
        writer.append(where, partition, key, value)
    writer.commit({}, "test", None)
    writer.close()


def row(name: str, message: Any, partition: int | None = None) -> Row:
    """A message under the key and in the partition that the catalogue gives it."""
    spec = RAW_SPEC if name == RAW else topic(name)
    chosen = partition_for(encode_key(spec.task_key_of(message)), spec.partitions)
    return (
        name,
        chosen if partition is None else partition,
        encode_key(spec.key_of(message)),
        codec.encode(message),
    )


def tombstone(name: str, *key: str | int) -> Row:
    return name, 0, encode_key(key), None


def marker(name: str, bucket_ms: int, partition: int = 0, processor: str = "feed") -> Row:
    value = CloseMarker(processor, 0, 1, bucket_ms, 0, "", 1)
    return name, partition, marker_key(processor, 0, bucket_ms), codec.encode(value)


def stamp(name: str, offset: int = 0, processor: str = "worldservice") -> Row:
    value = PositionStamp(processor, 0, (InputPosition("clock", 0, offset),))
    return name, 0, stamp_key(processor, 0), codec.encode(value)


def world(world_id: str, cash: str = "10000", status: WorldStatus = WorldStatus.ACTIVE) -> World:
    return World(world_id, status, replace(SETTINGS, initial_cash=Decimal(cash)), START_MS)


def bar(symbol: str, minute: int, close: str = "100") -> Bar:
    price = Decimal(close)
    return Bar(symbol, START_MS + minute * MINUTE_MS, 60, price, price, price, price, Decimal(1))


def raw_task() -> CreateTopic:
    """The row by which the log knows that the raw topic belongs to a node."""
    return CreateTopic(RAW, TopicClass.RAW, RAW_SPEC.partitions, RAW_SPEC.replication, {})


def create(world_id: str, cash: str = "10000") -> Row:
    settings = replace(SETTINGS, initial_cash=Decimal(cash))
    return row("world.commands", CreateWorld(f"create-{world_id}", world_id, settings, START_MS))


def activate(world_id: str, strategy_id: str, number: int = 1, *, active: bool = True) -> Row:
    command = SetActivation(
        f"activate-{strategy_id}-{number}",
        world_id,
        strategy_id,
        PositionSide.LONG,
        active,
        Decimal("0.5"),
        False,
        False,
        EffectiveMode.PAPER,
        START_MS + number,
    )
    return row("world.commands", command)


def run_worldservice(log: Log, state_dir: Path, batches: Sequence[Sequence[Row]] = ()) -> None:
    """Feed batch after batch and let the world service finish each one."""
    worker = Worker(log, WorldService, codec, TaskSettings(state_dir / "tasks"))
    try:
        for batch in (*batches, ()):
            if batch:
                commit(log, batch, "people")
            while worker.step():
                pass
    finally:
        worker.close()


def ticks(first: int, last: int) -> list[Row]:
    """The clock from minute `first` to `last`."""
    return [marker("clock", START_MS + minute * MINUTE_MS) for minute in range(first, last + 1)]
