"""The rows of a backtest on a log: what the processors of trading write, written as fast as they are found.

Of a strategy's orders most fields are the same, so the rest alone is written each time (`Codec.series`). Whatever is recorded is on the topics
of the catalogue, under the keys and in the bytes that the processors write: intents, orders (new, then filled), fills, rejections, and the
portfolio at the close of every bucket in which something was filled, and at the end. Buckets between are left out, as nothing but marks
differs in them; so are open orders and close markers, which only processors read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import MISSING, dataclass, fields
from functools import cached_property
from typing import Any, Final

from qmtl.backtest.ledger import Booked, Holding, Ledger, Placed
from qmtl.backtest.signals import Want
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.view import read_all
from qmtl.foundation.common.errors import OtherRun
from qmtl.foundation.common.money import ZERO
from qmtl.foundation.contracts.trade import (
    Account,
    Fill,
    Order,
    OrderIntent,
    OrderRejection,
    OrderStatus,
    OrderType,
    Position,
    TimeInForce,
)
from qmtl.foundation.contracts.world import Activation, World
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.runtime.execution.portfolio import scope_of_strategy

WRITER: Final = "qmtl.backtest"
ROWS: Final = 20_000
"""Rows of a transaction: so much of a run is in memory at most."""

RECORDED: Final = (
    "world.state",
    "activation",
    "trade.intents",
    "trade.orders",
    "trade.fills",
    "trade.rejections",
    "trade.portfolio",
)
"""The topics that have rows of a backtest."""

_PARTITION: Final = 0
"""One process writes everything, and the topics of trading are a world's."""


class Recorder:
    """Writes the rows of a run, a transaction at a time.

    Args:
        log: one that nobody else writes; its topics are made.

    Attributes:
        append: takes topic, partition, key and value of a row, which its caller counts in `rows`.
        rows: how many were written.

    Raises:
        OtherRun: the log has rows of another run.
    """

    def __init__(self, log: Log) -> None:
        log.ensure_topics(CATALOGUE)
        written = [TopicPartition(name, _PARTITION) for name in RECORDED]
        if any(log.end_offsets(written).values()):
            raise OtherRun(
                "the log that is to take the rows of a backtest has rows of a run already.",
                "Name a directory or a namespace that is not there yet.",
            )
        codec.fingerprint(Order)  # all messages are known to this process from now on
        self._log = log
        self._writer = log.writer(WRITER)
        self.append = self._writer.append
        self._writer.begin()
        self._committed = 0
        self.rows = 0

    def turn(self) -> None:
        """Commit, if there is enough for a transaction."""
        if self.rows - self._committed >= ROWS:
            self._commit()
            self._writer.begin()

    def put(self, topic_name: str, row: object) -> None:
        """Write one message."""
        key = encode_key(topic(topic_name).key_of(row))
        self.append(topic_name, _PARTITION, key, codec.encode(row))
        self.rows += 1
        self.turn()

    def begun(self, world: World, gates: Iterable[Activation]) -> None:
        """Say what the run trades on."""
        self.put("world.state", world)
        for gate in gates:
            self.put("activation", gate)

    def _commit(self) -> None:
        self._writer.commit({}, "", None)
        self._committed = self.rows

    def close(self) -> None:
        """Commit the rest."""
        self._commit()
        self._writer.close()

    def read(self, topic_name: str) -> Iterator[Any]:
        """The rows of a topic in the order in which they were written; what is open is committed first."""
        if self.rows > self._committed:
            self._commit()
            self._writer.begin()
        for record in read_all(self._log, [TopicPartition(topic_name, _PARTITION)]):
            if record.value is not None:
                yield codec.decode(record.value)


@dataclass(frozen=True, slots=True)
class _Symbol:
    """How the rows of one symbol are written."""

    intent_key: bytes
    portfolio_key: bytes
    intent: Callable[..., bytes]
    new: Callable[..., bytes]
    filled: Callable[..., bytes]
    fill: Callable[..., bytes]
    position: Callable[..., bytes]


class Recorded:
    """Writes the steps of one strategy. It is a `Sink`."""

    def __init__(self, recorder: Recorder, world: World, strategy_id: str) -> None:
        self._recorder, self._append = recorder, recorder.append
        self._scope = scope = scope_of_strategy(strategy_id)
        self._world, self._strategy_id = world, strategy_id
        self._symbols: dict[str, _Symbol] = {}
        self._keys: dict[str, bytes] = {}  # of the orders that are open
        same = {"world_id": world.world_id, "scope": scope, "currency": world.settings.currency}
        kept = {"initial_cash": world.settings.initial_cash}
        self._account = codec.series(Account, {**_defaults(Account), **same, **kept})
        self._account_key = encode_key((world.world_id, scope, ""))
        self._world_key = encode_key((world.world_id,))

    def intent(self, want: Want) -> None:
        one = self._symbols.get(want.symbol) or self._of(want.symbol)
        self._append(
            "trade.intents",
            _PARTITION,
            one.intent_key + encode_key((want.bucket_ms, want.signal)),
            one.intent(want.bucket_ms, want.percent, want.price, want.node_id, want.signal),
        )
        self._recorder.rows += 1

    def placed(self, order: Placed) -> None:
        want = order.want
        key = self._keys[order.order_id] = self._world_key + encode_key((order.order_id,))
        self._append(
            "trade.orders",
            _PARTITION,
            key,
            self._symbols[want.symbol].new(
                order.order_id,
                order.side,
                order.quantity,
                order.reduce_only,
                want.price,
                want.bucket_ms,
                want.bucket_ms,
                order.cut_ms,
            ),
        )
        self._recorder.rows += 1

    def booked(self, fill: Booked) -> None:
        order, want = fill.placed, fill.placed.want
        one = self._symbols[want.symbol]
        key = self._keys.pop(order.order_id)
        quantity, order_id, side = order.quantity, order.order_id, order.side
        self._append(
            "trade.orders",
            _PARTITION,
            key,
            one.filled(
                order_id,
                side,
                quantity,
                quantity,
                fill.price,
                order.reduce_only,
                want.price,
                want.bucket_ms,
                fill.time_ms,
                order.cut_ms,
            ),
        )
        self._append(
            "trade.fills",
            _PARTITION,
            key + _FIRST,
            one.fill(order_id, side, quantity, fill.price, fill.fee, fill.slippage, fill.time_ms),
        )
        self._recorder.rows += 2

    def valued(self, traded: Iterable[Holding], ledger: Ledger) -> None:
        rows = 1
        for one in traded:
            rows += 1
            symbol = self._symbols[one.bars.symbol]
            self._append(
                "trade.portfolio",
                _PARTITION,
                symbol.portfolio_key,
                symbol.position(
                    one.quantity,
                    one.cost,
                    one.average_cost,
                    one.realised,
                    one.fees,
                    one.mark,
                    one.unrealised,
                    one.fills,
                    one.as_of_ms,
                ),
            )
        self._append(
            "trade.portfolio",
            _PARTITION,
            self._account_key,
            self._account(
                ledger.cash,
                ledger.equity,
                ledger.exposure,
                ledger.realised,
                ledger.unrealised,
                ledger.fees,
                ledger.as_of_ms,
            ),
        )
        self._recorder.rows += rows
        self._recorder.turn()

    def rejected(self, row: OrderRejection) -> None:
        self._recorder.put("trade.rejections", row)

    def ended(self, ledger: Ledger) -> None:
        if ledger.is_open:
            self.valued([one for _, one in sorted(ledger.holdings.items()) if one.fills], ledger)

    def own(self, topic_name: str) -> Iterator[Any]:
        """The strategy's rows of a topic."""
        return (row for row in self._recorder.read(topic_name) if row.strategy_id == self._strategy_id)

    def _of(self, symbol: str) -> _Symbol:
        world_id = self._world.world_id
        whose: dict[str, Any] = {
            "world_id": world_id,
            "strategy_id": self._strategy_id,
            "symbol": symbol,
        }
        kind = {
            **_defaults(Order),
            **whose,
            "order_type": OrderType.MARKET,
            "time_in_force": TimeInForce.GTC,
        }
        begun = {"status": OrderStatus.NEW, "cum_quantity": ZERO, "average_price": ZERO, "last_seq": 0}
        made = self._symbols[symbol] = _Symbol(
            encode_key((world_id, self._strategy_id, symbol)),
            encode_key((world_id, self._scope, symbol)),
            codec.series(OrderIntent, whose),
            codec.series(Order, {**kind, **begun}),
            codec.series(Order, {**kind, "status": OrderStatus.FILLED, "last_seq": 1}),
            codec.series(
                Fill, {**_defaults(Fill), **whose, "seq": 1, "fee_currency": self._world.settings.currency}
            ),
            codec.series(Position, {"world_id": world_id, "scope": self._scope, "symbol": symbol}),
        )
        return made


def _defaults(message: type) -> dict[str, Any]:
    """What the rows of a backtest, plain market orders of its one session on paper, have in each field that has a default."""
    return {one.name: one.default for one in fields(message) if one.default is not MISSING}


_FIRST: Final = encode_key((1,))


class OnLog:
    """What a strategy has come to, read from the log. It is an `Outcome`."""

    def __init__(self, written: Recorded, ledger: Ledger) -> None:
        self._written, self._ledger = written, ledger

    @cached_property
    def intents(self) -> tuple[OrderIntent, ...]:
        return tuple(self._written.own("trade.intents"))

    @cached_property
    def orders(self) -> dict[str, Order]:
        return {row.order_id: row for row in self._written.own("trade.orders")}

    @cached_property
    def fills(self) -> list[Fill]:
        return list(self._written.own("trade.fills"))

    @cached_property
    def rejections(self) -> list[OrderRejection]:
        return list(self._written.own("trade.rejections"))

    def rows(self) -> Iterator[Position | Account]:
        if self._ledger.is_open:
            yield self._ledger.to_row()
            yield from self._ledger.positions()
