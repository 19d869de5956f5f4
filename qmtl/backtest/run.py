"""A backtest: bars through the nodes of strategies, their intents through the rules of trading, bucket by bucket where something happens."""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby

from qmtl.backtest.book import Book
from qmtl.backtest.signals import Nodes, intents_of
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.contracts.world import Activation, World
from qmtl.runtime.columns import BarColumns
from qmtl.services.dagmanager.graph import Graph


class ColumnMarks:
    """Closes of bars that lie in columns."""

    def __init__(self, bars: Mapping[str, BarColumns]) -> None:
        self._bars = bars
        self._buckets = {symbol: one.bucket_ms.tolist() for symbol, one in bars.items()}

    def close(self, symbol: str, bucket_ms: int) -> tuple[Decimal, int] | None:
        buckets = self._buckets[symbol]
        at = bisect_right(buckets, bucket_ms) - 1
        return None if at < 0 else (self._bars[symbol].close.at(at), buckets[at])

    def next_bar(self, symbol: str, created_at_ms: int) -> int | None:
        """The place of the first bar that opens at or after an instant."""
        step_ms = self._bars[symbol].interval * 1000
        at = bisect_left(self._buckets[symbol], created_at_ms + step_ms)
        return at if at < len(self._buckets[symbol]) else None

    def bucket(self, symbol: str, at: int) -> int:
        found: int = self._buckets[symbol][at]
        return found

    def last_before(self, bucket_ms: int) -> int:
        """The last bucket before this one in which any symbol has a bar; 0 where there is none."""
        found = 0
        for buckets in self._buckets.values():
            at = bisect_left(buckets, bucket_ms) - 1
            if at >= 0:
                found = max(found, buckets[at])
        return found


@dataclass(frozen=True, slots=True)
class Run:
    """What a backtest has come to."""

    intents: tuple[OrderIntent, ...]
    book: Book
    computed: int


def backtest(
    graphs: Sequence[Graph],
    bars: Mapping[str, BarColumns],
    world: World,
    gates: Sequence[Activation],
    opened_ms: int,
    step_ms: int,
) -> Run:
    """Run strategies of one world over bars.

    Args:
        step_ms: between two buckets of the run: the cut that is read is the bucket's before.
    """
    nodes, marks = Nodes(bars), ColumnMarks(bars)
    book = Book(world, gates, opened_ms, marks)
    intents = [one for graph in graphs for one in intents_of(graph, nodes.of(graph), bars, world.world_id)]
    if len(graphs) > 1:
        intents.sort(key=lambda one: (one.bucket_ms, one.strategy_id, one.symbol, one.intent_index))
    due: list[tuple[int, str, int]] = []  # bucket, symbol and place of the bars at which something is filled
    asked: dict[tuple[str, int], None] = {}
    for bucket_ms, group in groupby(intents, key=lambda one: one.bucket_ms):
        while due and due[0][0] < bucket_ms:
            _, symbol, at = heapq.heappop(due)
            book.execute(bars[symbol].bar(at))
        these = list(group)
        book.decide(these, bucket_ms - step_ms)
        for symbol in {one.symbol: None for one in these}:
            reached = marks.next_bar(symbol, bucket_ms) if book.waits(symbol) else None
            if reached is not None and (symbol, reached) not in asked:
                asked[symbol, reached] = None
                heapq.heappush(due, (marks.bucket(symbol, reached), symbol, reached))
    while due:
        _, symbol, at = heapq.heappop(due)
        book.execute(bars[symbol].bar(at))
    last_ms = max(int(one.bucket_ms[-1]) for one in bars.values() if len(one))
    book.end(last_ms, last_ms)
    return Run(tuple(intents), book, nodes.computed)
