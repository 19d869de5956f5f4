"""What the decisions of one bucket see: worlds and gates as they are, books and open orders as the bucket before has left them.

Each row is read once per bucket, however many intents ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from qmtl.engine.processor import Step
from qmtl.foundation.common.money import ZERO, plus, total
from qmtl.foundation.contracts.trade import Account, BrokerMode, Order, Position
from qmtl.foundation.contracts.world import Activation, Instrument, World
from qmtl.runtime.execution.brokers import Instruments
from qmtl.runtime.execution.gate import mode_of
from qmtl.runtime.orders.aggregate import pending
from qmtl.services.trading import sessions
from qmtl.services.trading.sessions import Book, Whose

Holding = tuple[str, str, str, BrokerMode]
"""World id, strategy id, symbol, broker."""


class Trader:
    """A strategy in one world.

    Attributes:
        long, short: its gates.
        books: those in which an intent may become an order: first the one that it trades in, then the live one where it has been live and is
            on paper again.
    """

    __slots__ = ("books", "long", "short")

    def __init__(self, step: Step, world: World, whose: Whose, cut_ms: int) -> None:
        gates = sessions.gates_of(step, whose)
        self.long: Final[Activation | None] = gates[0]
        self.short: Final[Activation | None] = gates[1]
        mode = mode_of(*gates)
        modes = [mode or BrokerMode.PAPER]
        if mode is BrokerMode.PAPER and sessions.was_live(step, whose, cut_ms):
            modes.append(BrokerMode.LIVE)
        self.books: Final[tuple[tuple[BrokerMode, Book], ...]] = tuple(
            (one, sessions.book_at(step, world, whose[1], one, cut_ms)) for one in modes
        )


class Cut:
    """Args:
    bucket_ms: whose cut of portfolio and open orders is read; 0 is genesis: initial cash and nothing else.
    """

    def __init__(self, step: Step, bucket_ms: int) -> None:
        self._step, self.bucket_ms = step, bucket_ms
        self._worlds: dict[str, World | None] = {}
        self._traders: dict[Whose, Trader] = {}
        self._instruments: dict[str, Instruments] = {}
        self._waiting: dict[str, dict[Holding, list[Decimal]]] = {}
        self._placed: dict[Holding, Decimal] = {}
        self._portfolio = step.table("trade.portfolio")

    def world(self, world_id: str) -> World | None:
        try:
            return self._worlds[world_id]
        except KeyError:
            found: World | None = self._step.table("trade.worlds").get(world_id)
            self._worlds[world_id] = found
            return found

    def trader(self, world: World, whose: Whose) -> Trader:
        found = self._traders.get(whose)
        if found is None:
            found = self._traders[whose] = Trader(self._step, world, whose, self.bucket_ms)
        return found

    def instrument(self, world: World, symbol: str) -> Instrument:
        found = self._instruments.get(world.world_id)
        if found is None:
            found = self._instruments[world.world_id] = Instruments(world)
        return found[symbol]

    def held(self, book: Book, symbol: str) -> Decimal:
        """The position of a book in a symbol, signed."""
        if not book.carried:
            return ZERO
        account: Account = book.account
        found: Position | None = self._portfolio.at(self.bucket_ms, account.world_id, account.scope, symbol)
        return ZERO if found is None else found.quantity

    def place(self, order: Order) -> None:
        """An order of this bucket: it is not in the cut, and not to be ordered twice."""
        holding = (order.world_id, order.strategy_id, order.symbol, order.mode)
        before = self._placed.get(holding)
        self._placed[holding] = pending(order) if before is None else plus(before, pending(order))

    def waiting(self, holding: Holding, taken_back: Decimal | None = None) -> Decimal:
        """What open orders can still add to a position, signed.

        Args:
            taken_back: the position where all that is wanted is to take it back: what would add to it was asked to be cancelled, and
                selling what then never comes would open the other side.
        """
        orders = self._open(holding[0]).get(holding)
        if orders is not None and taken_back is not None:
            orders = [one for one in orders if taken_back and (one > 0) != (taken_back > 0)]
        open_quantity = total(orders) if orders else ZERO
        placed = self._placed.get(holding)
        return open_quantity if placed is None else plus(open_quantity, placed)

    def _open(self, world_id: str) -> dict[Holding, list[Decimal]]:
        found = self._waiting.get(world_id)
        if found is None:
            found = {}
            orders: Iterator[Order] = self._step.table("trade.open_orders").items_at(self.bucket_ms, world_id)
            for order in orders:
                holding = (order.world_id, order.strategy_id, order.symbol, order.mode)
                found.setdefault(holding, []).append(pending(order))
            self._waiting[world_id] = found  # only whole: a sum that left one out would order it again
        return found
