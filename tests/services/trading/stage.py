"""Drives the trading processor alone: the test writes its four inputs bucket by bucket on an embedded log, and reads its tables."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

from qmtl.engine.cut import CutDigest
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter
from qmtl.foundation.contracts.market import Bar, WorldBar
from qmtl.foundation.contracts.trade import Account, OrderIntent, OrderRejection, Position
from qmtl.foundation.contracts.world import (
    Activation,
    EffectiveMode,
    Instrument,
    PositionSide,
    World,
    WorldSettings,
    WorldStatus,
)
from qmtl.foundation.wire.keys import encode_key, is_reserved, marker_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.services.trading.processor import Trading
from tests.foundation.instances import UNUSABLE

STEP_MS = 60_000
START_MS = 1_522_800_000_000
SYMBOL = "BTC-USD"
INPUTS = ("world.state", "activation", "trade.market", "trade.intents")
CASH = Decimal(100_000)


def world(world_id: str = "w", fee: str = "0.001", slippage: str = "0", lot: str = "0.0001") -> World:
    instrument = Instrument(SYMBOL, Decimal("0.01"), Decimal(lot), Decimal(lot))
    settings = WorldSettings("USD", CASH, Decimal(fee), Decimal(slippage), (instrument,))
    return World(world_id, WorldStatus.ACTIVE, settings, START_MS)


def activation(side: PositionSide = PositionSide.LONG, **changed: Any) -> Activation:
    row: dict[str, Any] = {
        "world_id": "w",
        "strategy_id": "s",
        "side": side,
        "active": True,
        "weight": Decimal(1),
        "freeze": False,
        "drain": False,
        "effective_mode": EffectiveMode.PAPER,
        "version": 1,
        "etag": "act:w:s:long:1",
        "updated_at_ms": START_MS,
    }
    return Activation(**{**row, **changed})


class Stage:
    """The trading processor and its inputs; bucket numbers count from 1."""

    def __init__(self, directory: Path, poll_records: int = 4000) -> None:
        self.log = EmbeddedLog(directory / "log")
        self.log.ensure_topics(CATALOGUE)
        self._writer = self.log.writer("test")
        self.worker = Worker(self.log, Trading, codec, TaskSettings(directory / "tasks", poll_records))
        self.bucket = 0

    def at_ms(self, bucket: int | None = None) -> int:
        return START_MS + (self.bucket if bucket is None else bucket) * STEP_MS

    def bar(self, price: str, close: str | None = None, symbol: str = SYMBOL) -> WorldBar:
        """A bar of the bucket that comes next."""
        first, last = Decimal(price), Decimal(close or price)
        bar = Bar(symbol, self.at_ms(), 60, first, max(first, last), min(first, last), last, Decimal(1))
        return WorldBar("w", bar)

    def intent(self, percent: str, price: str, strategy: str = "s", index: int = 0) -> OrderIntent:
        """An intent of the bucket that comes next."""
        at_ms = self.at_ms(self.bucket + 1)
        return OrderIntent("w", strategy, SYMBOL, at_ms, Decimal(percent), Decimal(price), "blake3:x", index)

    def close(self, *messages: Any) -> None:
        """Write one bucket with these messages, close it in every input, and let trading take it."""
        self.bucket += 1
        self._writer.begin()
        for name in INPUTS:
            spec = topic(name)
            cuts = [CutDigest() for _ in range(spec.partitions)]
            for number, message in enumerate(one for one in messages if isinstance(one, spec.messages)):
                partition = number % spec.partitions
                key, value = encode_key(spec.key_of(message)), codec.encode(message)
                cuts[partition].add(key, value)
                self._writer.append(name, partition, key, value)
            for partition, cut in enumerate(cuts):
                proof = (0, "") if spec.compacted else (cut.count, cut.hexdigest())
                marker = CloseMarker(f"test.{name}", partition, spec.partitions, self.at_ms(), *proof, 1)
                key = marker_key(marker.processor, partition, self.at_ms())
                self._writer.append(name, partition, key, codec.encode(marker))
        self._writer.commit({}, "test", None)
        self.settle()

    def report(self, *reports: Any) -> None:
        """Write what the real broker says, and let trading take it."""
        spec = topic("order.reports")
        self._writer.begin()
        for one in reports:
            self._writer.append(spec.name, 0, encode_key(spec.key_of(one)), codec.encode(one))
        self._writer.commit({}, "test", None)
        self.settle()

    def settle(self) -> None:
        with localcontext(UNUSABLE):
            while self.worker.step():
                pass

    def rows(self, name: str) -> Sequence[Any]:
        return TableView(self.log, name, codec).refresh().rows()

    def account(self) -> Account:
        (found,) = [row for row in self.rows("trade.portfolio") if isinstance(row, Account)]
        return found

    def position(self) -> Position | None:
        found = [row for row in self.rows("trade.portfolio") if isinstance(row, Position)]
        return found[0] if found else None

    def rejections(self) -> list[OrderRejection]:
        return self._events("trade.rejections")

    def letters(self) -> list[DeadLetter]:
        return self._events("dead.letters")

    def _events(self, name: str) -> list[Any]:
        return [
            codec.decode(record.value)
            for record in read_all(self.log, all_partitions(self.log, name))
            if record.value is not None and not is_reserved(record.key)
        ]

    def end(self) -> None:
        self.worker.close()
        self.log.close()
