"""A strategy gone through with the rules of trading alone: slower than the ledger, and what the ledger is held to."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeAlias

from qmtl.backtest.book import Book
from qmtl.backtest.marks import ColumnMarks
from qmtl.backtest.signals import Want
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderIntent, OrderRejection, Position
from qmtl.foundation.contracts.world import Activation, World
from qmtl.runtime.columns import BarColumns

Tell: TypeAlias = Callable[[str, object], None]
"""Takes a topic, and the next row of it."""


@dataclass(frozen=True, slots=True)
class ByRules:
    """What the strategy has come to. It is an `Outcome`."""

    intents: tuple[OrderIntent, ...]
    book: Book

    @property
    def orders(self) -> dict[str, Order]:
        return self.book.orders

    @property
    def fills(self) -> list[Fill]:
        return self.book.fills

    @property
    def rejections(self) -> list[OrderRejection]:
        return self.book.rejections

    def rows(self) -> Iterator[Position | Account]:
        return self.book.rows()


class Steps:
    """The buckets of a run, one after the other, each with its intents.

    Args:
        gates: of this strategy.
        opened_ms: the bucket with which the account begins.
        step_ms: between two buckets: the cut that is read is the bucket's before.
        tell: is told each row when it is found, in the order of `Sink`.
    """

    def __init__(
        self,
        world: World,
        gates: Sequence[Activation],
        opened_ms: int,
        bars: Mapping[str, BarColumns],
        step_ms: int,
        tell: Tell,
    ) -> None:
        self._bars, self._step_ms, self._tell = bars, step_ms, tell
        self._marks = ColumnMarks(bars)
        self.book = Book(world, gates, opened_ms, self._marks)
        self._due: list[tuple[int, str, int]] = []  # bucket, symbol, place of the bars that fill something
        self._asked: set[tuple[str, int]] = set()

    def settle_before(self, bucket_ms: int) -> None:
        """Book what is filled in the buckets before one."""
        while self._due and self._due[0][0] < bucket_ms:
            self._settle()

    def decide(self, bucket_ms: int, intents: Iterable[OrderIntent]) -> None:
        """Take the intents of a bucket, by symbol, then signal, on what the bucket before has left."""
        self.settle_before(bucket_ms)
        book, marks, tell = self.book, self._marks, self._tell
        for intent in intents:
            tell("trade.intents", intent)
            refused, ordered = len(book.rejections), len(book.orders)
            book.decide([intent], bucket_ms - self._step_ms)
            for row in book.rejections[refused:]:
                tell("trade.rejections", row)
            if len(book.orders) > ordered:
                tell("trade.orders", next(reversed(book.orders.values())))
            reached = marks.next_bar(intent.symbol, bucket_ms) if book.waits(intent.symbol) else None
            if reached is not None and (intent.symbol, reached) not in self._asked:
                self._asked.add((intent.symbol, reached))
                due = (marks.bucket(intent.symbol, reached), intent.symbol, reached)
                heapq.heappush(self._due, due)

    def end(self, last_ms: int) -> None:
        """The run is over with this bucket."""
        while self._due:
            self._settle()
        self.book.end(last_ms, last_ms)
        _tell_of(self.book, {one.symbol for one in self.book.rows()}, self._tell)

    def _settle(self) -> None:
        """Book what is filled in the next bucket, and value everything at its close."""
        book, due, tell = self.book, self._due, self._tell
        bucket_ms = due[0][0]
        traded: set[str] = set()
        while due and due[0][0] == bucket_ms:
            _, symbol, at = heapq.heappop(due)
            filled = len(book.fills)
            book.execute(self._bars[symbol].bar(at))
            for fill in book.fills[filled:]:
                tell("trade.orders", book.orders[fill.order_id])
                tell("trade.fills", fill)
                traded.add(symbol)
        if traded:  # an order that waited when another came may have been filled before
            book.value(bucket_ms)
            _tell_of(book, traded, tell)


def by_rules(
    world: World,
    strategy_id: str,
    gates: Sequence[Activation],
    opened_ms: int,
    bars: Mapping[str, BarColumns],
    wants: Iterable[Want],
    step_ms: int,
    last_ms: int,
    tell: Tell,
) -> ByRules:
    """Go through all intents, by bucket, then symbol, then signal.

    Args:
        last_ms: the last bucket of the run.
        gates, opened_ms, step_ms, tell: as in `Steps`.
    """
    steps = Steps(world, gates, opened_ms, bars, step_ms, tell)
    intents = [want.to_intent(world.world_id, strategy_id) for want in wants]
    for bucket_ms, group in groupby(intents, key=_bucket_of):
        steps.decide(bucket_ms, group)
    steps.end(last_ms)
    return ByRules(tuple(intents), steps.book)


def _tell_of(book: Book, symbols: Collection[str], tell: Tell) -> None:
    """The positions of these symbols, by symbol, and the account."""
    positions = [row for row in book.rows() if isinstance(row, Position) and row.symbol in symbols]
    for row in sorted(positions, key=lambda one: one.symbol):
        tell("trade.portfolio", row)
    for account in book.rows():
        if isinstance(account, Account):
            tell("trade.portfolio", account)


def _bucket_of(intent: OrderIntent) -> int:
    return intent.bucket_ms
