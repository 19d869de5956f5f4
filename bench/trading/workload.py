"""Intents and bars of one world: every strategy wants something else of every symbol in each bucket, so each intent is an order.

Prices step up and down by whole ticks and come back; targets change between two shares of the equity. How many orders and fills
there are follows from counting alone: one order per intent, and a fill for each but those of the last bucket, which meet no bar.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from qmtl.engine.cut import CutDigest
from qmtl.engine.log.port import Writer
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.market import Bar, WorldBar
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.contracts.world import (
    Activation,
    EffectiveMode,
    Instrument,
    PositionSide,
    World,
    WorldSettings,
    WorldStatus,
)
from qmtl.foundation.wire.keys import encode_key, marker_key, partition_for
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import TopicSpec, topic

WORLD: Final = "bench"
START_MS: Final = 1_700_000_040_000
STEP_MS: Final = 60_000
INPUTS: Final = ("world.state", "activation", "trade.market", "trade.intents")
CURRENCY: Final = "USD"
CASH: Final = Decimal(10_000_000)
_LOW, _HIGH = Decimal("0.001"), Decimal("0.002")


@dataclass(frozen=True, slots=True)
class Size:
    """How many strategies want something of how many symbols, and for how many buckets."""

    strategies: int
    symbols: int
    buckets: int

    @property
    def orders(self) -> int:
        return self.strategies * self.symbols * self.buckets

    @property
    def fills(self) -> int:
        return self.strategies * self.symbols * (self.buckets - 1)


def names(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:04}" for number in range(count)]


def first(size: Size) -> list[Any]:
    """The world and its open gates."""
    instruments = tuple(
        Instrument(one, Decimal("0.01"), Decimal("0.001"), Decimal("0.001"))
        for one in names("S", size.symbols)
    )
    settings = WorldSettings(CURRENCY, CASH, Decimal("0.001"), Decimal("0.0005"), instruments)
    gates = [
        Activation(
            WORLD, one, side, True, Decimal(1), False, False, EffectiveMode.PAPER, 1, f"act:{one}", START_MS
        )
        for one in names("s", size.strategies)
        for side in PositionSide
    ]
    return [World(WORLD, WorldStatus.ACTIVE, settings, START_MS), *gates]


def bucket(size: Size, number: int) -> Iterator[Any]:
    """The bars and intents of a bucket, which closes at `START_MS + number * STEP_MS`; buckets count from 1."""
    at_ms = START_MS + number * STEP_MS
    for index, symbol in enumerate(names("S", size.symbols)):
        price = Decimal(10_000 + (number + index) % 50) / 100
        yield WorldBar(WORLD, Bar(symbol, at_ms - STEP_MS, 60, price, price, price, price, Decimal(10)))
        target = _HIGH if (number + index) % 2 else _LOW
        for strategy in names("s", size.strategies):
            yield OrderIntent(WORLD, strategy, symbol, at_ms, target, price, "blake3:bench")


class Source:
    """Writes what the processors before trading write: records, and a close marker in every partition."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._specs = [topic(name) for name in INPUTS]

    def write(self, number: int, messages: list[Any]) -> None:
        """One bucket, in one transaction."""
        self._writer.begin()
        for spec in self._specs:
            self._topic(spec, number, [one for one in messages if isinstance(one, spec.messages)])
        self._writer.commit({}, "bench", None)

    def _topic(self, spec: TopicSpec, number: int, messages: list[Any]) -> None:
        cuts = [CutDigest() for _ in range(spec.partitions)]
        for one in messages:
            partition = partition_for(encode_key((WORLD,)), spec.partitions)
            key, value = encode_key(spec.key_of(one)), codec.encode(one)
            cuts[partition].add(key, value)
            self._writer.append(spec.name, partition, key, value)
        for partition, cut in enumerate(cuts):
            proof = (0, "") if spec.compacted else (cut.count, cut.hexdigest())
            name = f"bench.{spec.name}"
            at_ms = START_MS + number * STEP_MS
            marker = CloseMarker(name, partition, spec.partitions, at_ms, *proof, 1)
            self._writer.append(
                spec.name, partition, marker_key(name, partition, at_ms), codec.encode(marker)
            )
