"""Writes the bars of an exchange to the raw topics of a world as they close: what a market-data worker does."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qmtl.engine.log.port import Log, partitions_of
from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.dag import TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import TopicSpec, node_topic
from qmtl.interfaces.feeding import Source
from qmtl.replay.feed import Feed, last_closed
from qmtl.runtime.data.conformance import Conformance
from qmtl.runtime.data.merging import cut
from qmtl.runtime.data.provider import Provider

BUCKETS_PER_PUSH: Final = 500


@dataclass(frozen=True, slots=True)
class Polled:
    """What a turn has written.

    Attributes:
        bars, buckets: over all topics; a bucket in which nothing was traded is closed without a bar.
        closed_ms: up to here all topics are closed.
    """

    bars: int
    buckets: int
    closed_ms: int


class Poller:
    """Goes on in each topic behind the last bucket that is closed there, whoever has closed it."""

    def __init__(
        self,
        log: Log,
        provider: Provider,
        sources: Sequence[Source],
        *,
        names: Mapping[str, str] | None = None,
        start_ms: int | None = None,
        ticks: bool = False,
    ) -> None:
        """Prepare it; nothing is asked yet.

        Args:
            sources: all with bars of one length.
            names: how the provider calls a symbol, where it has another name for it.
            start_ms: open time of the first bar in a topic without any; by default that of the first turn.
            ticks: whether the clock is ticked, too: where no clock runs.

        Raises:
            InvalidValue: no source, bars of several lengths, or a start off their grid.
        """
        intervals = sorted({one.interval for one in sources})
        if len(intervals) != 1 or (start_ms is not None and start_ms % (intervals[0] * 1000)):
            raise InvalidValue(
                f"the sources have bars of {intervals} s and begin at {start_ms}; they have one length, and begin with a bar.",
                "Poll for each length by itself, from the open time of a bar.",
            )
        self._log = log
        self._provider = provider
        self._sources = tuple(sources)
        self._interval = intervals[0]
        self._names = dict(names or {})
        self._start_ms = start_ms
        self._ticks = ticks

    def poll(self) -> Polled:
        """Write what has closed since the last turn.

        Raises:
            HistoryUnavailable, DataLate, InvalidBar, ConflictingBars: as the provider; what was closed before stays, and the next turn goes on there.
            ClockTaken: as `Feed`.
        """
        first = self._sources[0].symbols[0]
        end_ms = self._provider.closed_ms(self._names.get(first, first), self._interval)
        if end_ms is None:
            raise InvalidValue(
                "the provider never grows; there is nothing to wait for.", "Use `qmtl data feed`."
            )
        if self._start_ms is None:
            self._start_ms = end_ms
        bars = buckets = 0
        for source in self._sources:
            topic = node_topic(source.topic, TopicClass.RAW, source.partitions)
            begin_ms = self._closed(topic)
            if begin_ms < 0:
                begin_ms = self._start_ms
            if begin_ms >= end_ms:
                continue
            found = list(self._merged(source, begin_ms, end_ms))
            feed = Feed(self._log, codec, topic, self._interval, found, begin_ms, end_ms, ticks=self._ticks)
            try:
                while not feed.done:
                    feed.push(BUCKETS_PER_PUSH)
            finally:
                feed.close()
            bars += len(found)
            buckets += (end_ms - begin_ms) // (self._interval * 1000)
        return Polled(bars, buckets, end_ms)

    def _closed(self, topic: TopicSpec) -> int:
        return min(last_closed(self._log, where) for where in partitions_of(topic.name, topic.partitions))

    def _merged(self, source: Source, begin_ms: int, end_ms: int) -> Iterator[Bar]:
        every = [self._of(symbol, begin_ms, end_ms) for symbol in source.symbols]
        return heapq.merge(*every, key=lambda bar: (bar.open_time_ms, bar.symbol))

    def _of(self, symbol: str, begin_ms: int, end_ms: int) -> Iterator[Bar]:
        theirs = self._names.get(symbol, symbol)
        held = Conformance(theirs, self._interval)
        for chunk in self._provider.history(theirs, self._interval, begin_ms, end_ms):
            for bar in cut(held.take(chunk), begin_ms, end_ms).bars():
                yield replace(bar, symbol=symbol)
