"""A strategy that trades in every minute, and all processors with a venue, on any log; what the exchange has done is counted from its own ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from qmtl import CacheView, ProcessingNode, Strategy, StreamInput, Target, dag_message, register
from qmtl.bootstrap import VENUE_KEY, VENUE_SECRET, make_workers, outside_of, prepare
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.contracts.broker import AttemptState
from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission, StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import BrokerMode, Order, OrderStatus
from qmtl.foundation.contracts.world import (
    CreateWorld,
    EffectiveMode,
    Instrument,
    PositionSide,
    SetActivation,
    WorldSettings,
)
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic
from qmtl.interfaces.client import Client, command_id, submission_id
from qmtl.replay.feed import Feed, MarkerFollower
from qmtl.testing.exchange import GivenFill, RunningExchange
from qmtl.topology import NAMES

START_MS: Final = 1_522_800_000_000
STEP_MS: Final = 60_000
WORLD: Final = "w"
SYMBOL: Final = "BTC-USDT"
STRATEGY: Final = "swinging"
CASH: Final = Decimal(100_000)
LOT, CENT = Decimal("0.00001"), Decimal("0.01")
CONTEXT: Final = ("live", "", "", "")


def swing(view: CacheView) -> Target:
    """In at an even price, and out at an odd one."""
    return Target("0.4") if int(view["price"][60].values()[-1]) % 2 == 0 else Target("0")


class Swinging(Strategy):
    strategy_id = STRATEGY

    def setup(self) -> None:
        price = StreamInput(SYMBOL, interval=60, name="price")
        self.add_nodes([price, ProcessingNode({"price": price}, swing, name="signal", gives="target")])


def bar_at(minute: int) -> Bar:
    """Even and odd prices, one after the other; a session changes at either."""
    price = Decimal(1000 + minute)
    return Bar(SYMBOL, START_MS + minute * STEP_MS, 60, price, price, price, price, Decimal(1))


class Desk:
    """A log with all processors in this process, or with those of others.

    Args:
        venue: address of the venue; empty for none.
        names: of the processors that this process runs.
    """

    def __init__(
        self, directory: Path, venue: str, log: Log | None = None, *, names: Sequence[str] = NAMES
    ) -> None:
        self._directory, self.venue, self._names = directory, venue, names
        self.log = EmbeddedLog(directory / "log") if log is None else log
        prepare(self.log)
        register(swing)
        self._feed: Feed | None = None
        self._begin()

    def _begin(self) -> None:
        self.workers = make_workers(
            self.log,
            TaskSettings(self._directory / "state"),
            self._names,
            "test",
            outside_of(self.log, venue=self.venue),
        )
        self.client = Client(self.log, self.workers)

    def restart(self) -> None:
        """As after a death of the process: what it was about to do at the venue is forgotten."""
        self._stop()
        self._begin()

    def _stop(self) -> None:
        self.client.close()
        for worker in self.workers:
            worker.close()

    def close(self) -> None:
        if self._feed is not None:
            self._feed.close()
        self._stop()
        self.log.close()

    def begin(self) -> StrategyVersion:
        """A world, and the strategy in it."""
        settings = WorldSettings(
            "USDT", CASH, Decimal("0.001"), Decimal(0), (Instrument(SYMBOL, CENT, LOT, LOT),)
        )
        self.client.command(CreateWorld(command_id("create", WORLD), WORLD, settings, START_MS))
        message = dag_message(Swinging())
        name = submission_id(WORLD, message, context=CONTEXT)
        outcome = self.client.submit(DagSubmission(name, WORLD, message, START_MS, FULL_WEIGHT, *CONTEXT))
        assert outcome.accepted, outcome
        return self.client.deployed(outcome)

    def gate(
        self, mode: EffectiveMode, sides: Sequence[PositionSide] = tuple(PositionSide), **said: Any
    ) -> None:
        """Set the gates of the strategy."""
        wish: dict[str, Any] = {"active": True, "freeze": False, "drain": False, **said}
        for side in sides:
            word = (mode.value, side.value, str(len(self.rows("world.outcomes"))))
            self.client.command(
                SetActivation(
                    command_id=command_id("activate", *word),
                    world_id=WORLD,
                    strategy_id=STRATEGY,
                    side=side,
                    weight=Decimal(1),
                    effective_mode=mode,
                    at_ms=START_MS,
                    **wish,
                )
            )

    def feeding(self, version: StrategyVersion, minutes: int) -> None:
        source = next(one for one in version.nodes if one.node_type == "price")
        raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
        bars = (bar_at(minute) for minute in range(minutes))
        self._feed = Feed(self.log, codec, raw, 60, bars, START_MS - STEP_MS, START_MS + minutes * STEP_MS)

    def trade(self, until: int) -> None:
        """Minute by minute until so many are traded, and all that follows here is done."""
        assert self._feed is not None
        traded = MarkerFollower(self.log, TopicPartition("trade.portfolio", 0))
        try:
            while (closed := traded.poll()) < START_MS + until * STEP_MS:
                self._feed.push(1)
                self.settle(traded, max(closed, START_MS - STEP_MS) + STEP_MS)
        finally:
            traded.close()

    def settle(self, traded: MarkerFollower, wanted_ms: int) -> None:
        idle = 0
        while idle < 2 or traded.poll() < wanted_ms:
            idle = 0 if self.client.pump() else idle + 1
            assert idle < 200, f"trading stands still at {traded.closed_ms}"

    def until(self, comes: Callable[[], bool]) -> None:
        """Work, and wait for other processes, until something has come."""
        deadline = time.monotonic() + 60
        while not comes():
            assert time.monotonic() < deadline, self.rows("oms.attempts")
            if not self.client.pump():
                time.sleep(0.02)

    def waits(self) -> bool:
        """Whether an order has not been claimed by anybody."""
        return any(one.state is AttemptState.REQUESTED for one in self.rows("oms.attempts"))

    def rows(self, name: str) -> list[Any]:
        return list(TableView(self.log, name, codec).refresh().rows())

    def events(self, name: str) -> list[Any]:
        records = read_all(self.log, all_partitions(self.log, name))
        return [codec.decode(one.value) for one in records if one.value and not is_reserved(one.key)]

    def live(self) -> dict[str, Order]:
        return {one.order_id: one for one in self.rows("trade.orders") if one.mode is BrokerMode.LIVE}

    def ended(self) -> list[str]:
        """The live orders that are filled."""
        return [name for name, one in self.live().items() if one.status is OrderStatus.FILLED]

    def book(self, scope: str) -> dict[str, Any]:
        return {one.symbol: one for one in self.rows("trade.portfolio") if one.scope == scope}


@contextmanager
def keys_of(exchange: RunningExchange) -> Iterator[None]:
    """The keys of the exchange in the environment, where keys belong."""
    before = {name: os.environ.get(name) for name in (VENUE_KEY, VENUE_SECRET)}
    os.environ.update({VENUE_KEY: exchange.key, VENUE_SECRET: exchange.secret})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def counted(fills: Sequence[GivenFill]) -> tuple[Decimal, Decimal]:
    """Cash and quantity after the exchange's own executions, counted here."""
    cash, held = CASH, Decimal(0)
    for one in fills:
        way = 1 if one.side == "BUY" else -1
        cash -= way * one.quantity * one.price + one.commission
        held += way * one.quantity
    return cash, held
