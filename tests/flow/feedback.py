"""A strategy that trades by what it holds itself, and all five processors on an embedded log to run it; beside them what it has to come to, counted by hand."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any, Final

from qmtl import CacheView, PortfolioInput, ProcessingNode, Strategy, StreamInput, Target, register
from qmtl.backtest.simulation import Terms
from qmtl.bootstrap import make_workers, prepare
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission, StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import Bar
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

START_MS: Final = 1_522_800_000_000
STEP_MS: Final = 60_000
WORLD: Final = "w"
SYMBOLS: Final = ("AAA", "BBB")
LOT, CENT = Decimal("0.001"), Decimal("0.01")
FEE, SLIPPAGE, CASH = Decimal("0.001"), Decimal("0.0005"), Decimal(100_000)
TERMS: Final = Terms(
    "USD", CASH, FEE, SLIPPAGE, tuple(Instrument(one, CENT, LOT, LOT) for one in SYMBOLS), world_id=WORLD
)
PUSH: Final = 20
CONTEXT: Final = ("paper", "data", "", "data")


def scaled(view: CacheView) -> Target:
    """In when it holds nothing, then down to a tenth, then out: each by what the bucket before has left."""
    held = view["held"][60].values()[-1]
    if held == 0:
        return Target("0.4")
    worth = held * view["price"][60].values()[-1]
    return Target("0.1") if worth > 0.25 * view["equity"][60].values()[-1] else Target("0")


class Scaling(Strategy):
    """One symbol or several; every order follows from its own position."""

    def setup(self) -> None:
        price = StreamInput(SYMBOLS, interval=60, name="price")
        held = PortfolioInput(price, "quantity", lag=1, name="held")
        equity = PortfolioInput(price, "equity", lag=1, name="equity")
        signal = ProcessingNode(
            {"price": price, "held": held, "equity": equity}, scaled, name="signal", gives="target"
        )
        self.add_nodes([price, held, equity, signal])


def patient(view: CacheView) -> Target | None:
    """In when it holds nothing, and out at a gain or loss on paper, as the bucket before has left it."""
    if view["held"][60].values()[-1] == 0:
        return Target("0.4")
    return Target("0") if abs(view["gain"][60].values()[-1]) > 300 else None


class Patient(Strategy):
    """It trades seldom, so what it sees moves with the marks alone for most of the time."""

    def setup(self) -> None:
        price = StreamInput(SYMBOLS, interval=60, name="price")
        held = PortfolioInput(price, "quantity", lag=1, name="held")
        gain = PortfolioInput(price, "unrealised", lag=1, name="gain")
        signal = ProcessingNode({"held": held, "gain": gain}, patient, name="signal", gives="target")
        self.add_nodes([price, held, gain, signal])


def bars_of(count: int, seed: int = 7) -> list[Bar]:
    """A walk of each symbol, with a minute in eight missing; by open time, then symbol."""
    chance = random.Random(seed)
    last = dict.fromkeys(SYMBOLS, 10_000)
    out = []
    for at in range(count):
        for symbol in SYMBOLS:
            opened = last[symbol] + chance.randint(-40, 40)
            close = opened + chance.randint(-60, 60)
            last[symbol] = close
            if at and chance.randrange(8) == 0:
                continue
            low, high = sorted((opened, close))
            first, top, bottom, end = (Decimal(one).scaleb(-2) for one in (opened, high, low, close))
            out.append(Bar(symbol, START_MS + at * STEP_MS, 60, first, top, bottom, end, Decimal(1)))
    return out


# ---- on a log -----------------------------------------------------------------------------------------------------------


class Place:
    """A log with all processors, which may be killed and begun again.

    Args:
        log: an embedded one in the directory if there is none.
    """

    def __init__(
        self,
        directory: Path,
        settings: Callable[[Path], TaskSettings] = TaskSettings,
        log: Log | None = None,
    ) -> None:
        self._directory, self._settings = directory, settings
        self.log = EmbeddedLog(directory / "log") if log is None else log
        prepare(self.log)
        register(scaled)
        register(patient)
        self._begin()

    def _begin(self) -> None:
        self.workers = make_workers(self.log, self._settings(self._directory / "state"), slot="test")
        self.client = Client(self.log, self.workers)

    def restart(self, *, lose: Sequence[str] = ()) -> None:
        """As after a death of the process; of some tasks the stores are lost."""
        self._stop()
        for name in lose:
            shutil.rmtree(self._directory / "state" / name)
        self._begin()

    def _stop(self) -> None:
        self.client.close()
        for worker in self.workers:
            worker.close()

    def close(self) -> None:
        self._stop()
        self.log.close()

    def open_world(self) -> None:
        settings = WorldSettings("USD", CASH, FEE, SLIPPAGE, TERMS.instruments)
        self.client.command(CreateWorld(command_id("create", WORLD), WORLD, settings, START_MS))

    def publish(self, message: bytes) -> StrategyVersion:
        name = submission_id(WORLD, message, context=CONTEXT)
        outcome = self.client.submit(DagSubmission(name, WORLD, message, START_MS, FULL_WEIGHT, *CONTEXT))
        assert outcome.accepted, outcome
        return self.client.deployed(outcome)

    def publish_again(self, message: bytes) -> StrategyVersion:
        """Another version, or one that was there before, in place of the present one."""
        said = self.client.in_log(DagSubmission("", WORLD, message, START_MS, FULL_WEIGHT))
        return self.client.deployed(self.client.submit(self.client.named(said, "scaling")))

    def open_gates(self, strategy_id: str) -> None:
        for side in PositionSide:
            wish = (WORLD, strategy_id, side, True, Decimal(1), False, False, EffectiveMode.PAPER, START_MS)
            self.client.command(SetActivation(command_id("activate", strategy_id, side.value), *wish))

    def feed(self, version: StrategyVersion, bars: Sequence[Bar], end_ms: int) -> Feed:
        source = next(one for one in version.nodes if one.node_type == "price")
        raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
        # The first bucket is closed before the first bar: with it the account is opened, as in a backtest.
        return Feed(self.log, codec, raw, 60, iter(bars), START_MS - STEP_MS, end_ms)

    def trade(
        self, version: StrategyVersion, bars: Sequence[Bar], end_ms: int, rounds: int = 1_000_000
    ) -> bool:
        """Feed all bars, and work until the last bucket is traded, or for so many rounds; says whether it is."""
        feed = self.feed(version, bars, end_ms)
        traded = MarkerFollower(self.log, TopicPartition("trade.portfolio", 0))
        idle = 0
        try:
            while traded.poll() < end_ms:
                if not feed.done:
                    feed.push(PUSH)
                rounds -= 1
                if rounds < 0:
                    return False
                idle = 0 if self.client.pump() else idle + 1
                assert idle < 200, f"trading stands still at {traded.closed_ms}"
            return True
        finally:
            feed.close()
            traded.close()

    def rows(self, name: str) -> list[Any]:
        return list(TableView(self.log, name, codec).refresh().rows())

    def events(self, name: str) -> list[Any]:
        records = read_all(self.log, all_partitions(self.log, name))
        return [codec.decode(one.value) for one in records if one.value and not is_reserved(one.key)]

    def bytes_of(self, name: str) -> list[tuple[bytes, bytes | None]]:
        """Keys and values of a topic in their order, without its markers and stamps."""
        records = read_all(self.log, all_partitions(self.log, name))
        return [(one.key, one.value) for one in records if not is_reserved(one.key)]


def whole_run(place: Place, messages: Sequence[bytes], bars: Sequence[Bar], end_ms: int) -> None:
    """A world, the strategies in it, their gates, and all bars traded."""
    place.open_world()
    versions = [place.publish(message) for message in messages]
    for one in versions:
        place.open_gates(one.strategy_id)
    assert place.trade(versions[0], bars, end_ms)


# ---- by hand ------------------------------------------------------------------------------------------------------------


@dataclass
class Counted:
    """What the strategy comes to in one loop: no engine, no service.

    Attributes:
        filled: symbol, signed quantity and price, in the order in which they are filled.
    """

    cash: Decimal = CASH
    held: dict[str, Decimal] = field(default_factory=dict)
    cost: dict[str, Decimal] = field(default_factory=dict)
    marks: dict[str, Decimal] = field(default_factory=dict)
    filled: list[tuple[str, Decimal, Decimal]] = field(default_factory=list)

    @property
    def equity(self) -> Decimal:
        return self.cash + sum(quantity * self.marks[one] for one, quantity in self.held.items())


Rule = Callable[[Decimal, Decimal, Decimal, Decimal], Decimal | None]
"""A share, of the equity, what is held, the gain on paper and the close; None for nothing to say."""


def scaling(equity: Decimal, held: Decimal, gain: Decimal, close: Decimal) -> Decimal | None:
    """The rule of `scaled` said again."""
    if not held:
        return Decimal("0.4")
    return Decimal("0.1") if held * close > equity / 4 else Decimal(0)


def waiting_for_gain(equity: Decimal, held: Decimal, gain: Decimal, close: Decimal) -> Decimal | None:
    """The rule of `patient` said again."""
    if not held:
        return Decimal("0.4")
    return Decimal(0) if abs(gain) > 300 else None


def counted(bars: Sequence[Bar], rule: Rule = scaling) -> Counted:
    """Decided on what the minute before has left, filled at the symbol's next open."""
    books, waiting = Counted(), dict[str, Decimal]()
    minutes: dict[int, dict[str, Bar]] = {}
    for bar in bars:
        minutes.setdefault(bar.open_time_ms, {})[bar.symbol] = bar
    for opened in sorted(minutes):
        now = minutes[opened]
        equity, held, open_before = books.equity, dict(books.held), dict(waiting)
        gains = {one: held[one] * books.marks[one] - books.cost[one] for one in held}
        for symbol, bar in now.items():
            if symbol in waiting:
                _fill(books, symbol, waiting.pop(symbol), bar.open)
        books.marks.update({symbol: bar.close for symbol, bar in now.items()})
        for symbol, bar in sorted(now.items()):
            has = held.get(symbol, Decimal(0))
            share = rule(equity, has, gains.get(symbol, Decimal(0)), bar.close)
            if share is None:
                continue
            wanted = (share * equity / (bar.close * LOT)).to_integral_value(ROUND_DOWN) * LOT
            delta = wanted - has - open_before.get(symbol, Decimal(0))
            if delta:
                waiting[symbol] = waiting.get(symbol, Decimal(0)) + delta
    return books


def _fill(books: Counted, symbol: str, quantity: Decimal, opened: Decimal) -> None:
    way, rounding = (1, ROUND_CEILING) if quantity > 0 else (-1, ROUND_FLOOR)
    price = (opened * (1 + way * SLIPPAGE) / CENT).to_integral_value(rounding) * CENT
    books.cash -= quantity * price + abs(quantity) * price * FEE
    held, cost = books.held.get(symbol, Decimal(0)), books.cost.get(symbol, Decimal(0))
    books.held[symbol] = held + quantity
    books.cost[symbol] = cost + (quantity * price if quantity > 0 else cost * quantity / held)
    books.marks.setdefault(symbol, price)
    books.filled.append((symbol, quantity, price))


def signed(fills: Sequence[Any]) -> list[tuple[int, str, Decimal, Decimal]]:
    """Fills as they are counted by hand, by time and symbol."""
    return sorted(
        (one.fill_time_ms, one.symbol, one.quantity if one.side.value == "BUY" else -one.quantity, one.price)
        for one in fills
    )
