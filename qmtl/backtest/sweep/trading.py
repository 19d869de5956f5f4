"""One strategy's trading over nodes that are computed already."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from qmtl.backtest.book import Book
from qmtl.backtest.run import ColumnMarks
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.contracts.world import Activation, World
from qmtl.runtime.columns import BarColumns


def traded(
    intents: Iterable[OrderIntent],
    bars: Mapping[str, BarColumns],
    marks: ColumnMarks,
    world: World,
    gates: Sequence[Activation],
    opened_ms: int,
    step_ms: int,
) -> Book:
    """What the rules of trading make of one strategy's intents; the books that `qmtl.backtest.run.backtest` leaves.

    Strategies of a world have accounts of their own and nothing in common, so the books of many are those of each alone; and a
    book of one costs what that one trades.

    Args:
        intents: of one strategy, by bucket.
        marks: of the bars.
        step_ms: between two buckets of the run.
    """
    book = Book(world, gates, opened_ms, marks)
    due: list[tuple[int, str, int]] = []  # bucket, symbol and place of the bars at which something is filled
    asked: set[tuple[str, int]] = set()
    for bucket_ms, group in groupby(intents, key=lambda one: one.bucket_ms):
        while due and due[0][0] < bucket_ms:
            _, symbol, at = heapq.heappop(due)
            book.execute(bars[symbol].bar(at))
        these = list(group)
        book.decide(these, bucket_ms - step_ms)
        for symbol in dict.fromkeys(one.symbol for one in these):
            reached = marks.next_bar(symbol, bucket_ms) if book.waits(symbol) else None
            if reached is not None and (symbol, reached) not in asked:
                asked.add((symbol, reached))
                heapq.heappush(due, (marks.bucket(symbol, reached), symbol, reached))
    while due:
        _, symbol, at = heapq.heappop(due)
        book.execute(bars[symbol].bar(at))
    last_ms = max(int(one.bucket_ms[-1]) for one in bars.values() if len(one))
    book.end(last_ms, last_ms)
    return book
