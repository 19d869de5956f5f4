"""The demo run: world, strategy, activation, bars, and the wait until the last bucket is traded. Prints nothing.

Every step looks at the log first and does only what is not there yet, so the same command after any death goes on where the
last transaction ended.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib.resources import files
from typing import Any, Final

from qmtl.engine.log.port import Log
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import OtherRun
from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission, StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.world import (
    CreateWorld,
    EffectiveMode,
    PositionSide,
    SetActivation,
    World,
    WorldSettings,
)
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic
from qmtl.interfaces.client import Client, command_id, submission_id
from qmtl.interfaces.feeding import feed_and_trade
from qmtl.replay.feed import Feed
from qmtl.runtime.data.bars import BarSource, dataset_fingerprint, infer_interval, read_bars
from qmtl.runtime.data.instruments import instrument_for

WORLD: Final = "demo"
CURRENCY: Final = "USD"
INITIAL_CASH: Final = Decimal(100_000)
FEE_RATE: Final = Decimal("0.001")
SLIPPAGE_RATE: Final = Decimal("0.0005")

Progress = Callable[[str, int, int], None]
"""Called with the step, how far it is, and how far it goes."""


@dataclass(frozen=True, slots=True)
class DemoData:
    """The bars of a run, checked whole before anything is written.

    Attributes:
        interval: seconds; the greatest that fits all files.
        start_ms: open of the first bar.
        end_ms: close of the last.
        bars: how many there are.
        fingerprint: of the content.
    """

    sources: tuple[BarSource, ...]
    interval: int
    start_ms: int
    end_ms: int
    bars: int
    fingerprint: str

    def read(self) -> Iterator[Bar]:
        """All bars by open time, then symbol."""
        streams = [read_bars(one.path, one.symbol, self.interval) for one in self.sources]
        return heapq.merge(*streams, key=lambda bar: (bar.open_time_ms, bar.symbol))


def load(sources: Sequence[BarSource]) -> DemoData:
    """Read every bar once.

    Raises:
        InvalidBarsFile, InvalidBar: with file, line and rule.
    """
    ordered = tuple(sorted(sources, key=lambda one: one.symbol))
    interval = infer_interval([one.path for one in ordered])
    fingerprint = dataset_fingerprint(ordered)
    start_ms, end_ms, count = None, 0, 0
    for one in ordered:
        for bar in read_bars(one.path, one.symbol, interval):
            start_ms = bar.open_time_ms if start_ms is None else min(start_ms, bar.open_time_ms)
            end_ms = max(end_ms, bar.open_time_ms + interval * 1000)
            count += 1
    return DemoData(ordered, interval, start_ms or 0, end_ms, count, fingerprint)


def strategy_message(data: DemoData) -> bytes:
    """The example strategy for these symbols and this interval, as a DAG message."""
    raw: dict[str, Any] = json.loads(files("qmtl.examples").joinpath("sma_cross.json").read_bytes())
    for node in raw["nodes"]:
        node["interval"] = data.interval
        if node["node_type"] == "price":
            node["params"]["symbols"] = [one.symbol for one in data.sources]
    return json.dumps(raw, separators=(",", ":"), sort_keys=True).encode()


class DemoRun:
    """One run on one log.

    Args:
        workers: of this process; empty where other processes run the processors.
    """

    def __init__(self, log: Log, data: DemoData, workers: list[Worker], progress: Progress) -> None:
        self.client = Client(log, workers)
        self.data = data
        self._log = log
        self._progress = progress
        self.strategy: StrategyVersion | None = None

    def run(self) -> None:
        """Everything from the empty log to the last traded bucket.

        Raises:
            OtherRun: the log holds a demo on other data.
            NoAnswer: no worker does its part.
        """
        try:
            self._create_world()
            strategy = self.strategy = self._publish()
            self._activate(strategy.strategy_id)
            self._feed(strategy)
        finally:
            self.client.close()

    def _create_world(self) -> None:
        data = self.data
        known: World | None = self.client.view("world.state").get(WORLD)
        if known is not None and known.settings.dataset_fingerprint != data.fingerprint:
            raise OtherRun(
                f"world {WORLD!r} on this log ran on the data {known.settings.dataset_fingerprint}, asked for is"
                f" {data.fingerprint}.",
                "Choose another --state-dir, or another namespace (--log kafka://HOST:PORT/NAMESPACE).",
            )
        settings = WorldSettings(
            CURRENCY,
            INITIAL_CASH,
            FEE_RATE,
            SLIPPAGE_RATE,
            tuple(instrument_for(one.symbol) for one in data.sources),
            data.fingerprint,
        )
        self.client.command(
            CreateWorld(command_id("create", WORLD, data.fingerprint), WORLD, settings, data.start_ms)
        )

    def _publish(self) -> StrategyVersion:
        message = strategy_message(self.data)
        context = ("paper", self.data.fingerprint, "", self.data.fingerprint)
        name = submission_id(WORLD, message, context=context)
        outcome = self.client.submit(
            DagSubmission(name, WORLD, message, self.data.start_ms, FULL_WEIGHT, *context)
        )
        return self.client.deployed(outcome)

    def _activate(self, strategy_id: str) -> None:
        for side in PositionSide:
            self.client.command(
                SetActivation(
                    command_id("activate", WORLD, strategy_id, side.value),
                    WORLD,
                    strategy_id,
                    side,
                    True,
                    Decimal(1),
                    False,
                    False,
                    EffectiveMode.PAPER,
                    self.data.start_ms,
                )
            )

    def _feed(self, strategy: StrategyVersion) -> None:
        data = self.data
        source = strategy.nodes[0]
        raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
        feed = Feed(self._log, codec, raw, data.interval, data.read(), data.start_ms, data.end_ms, ends=True)
        feed_and_trade(self.client, WORLD, [feed], data.interval, data.start_ms, data.end_ms, self._progress)
