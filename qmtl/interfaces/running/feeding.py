"""Bars of files for a strategy that runs: fed into its sources bucket by bucket, as far ahead of trading as memory bears."""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Final

from qmtl.engine.log.port import Log, TopicPartition
from qmtl.foundation.common.errors import NotInCatalogue
from qmtl.foundation.contracts.dag import PlannedNode, StrategyVersion, TopicClass
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic, topic
from qmtl.replay.feed import Feed, MarkerFollower
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.reading import BarsRead
from qmtl.runtime.indicators.registry import SOURCE

BUCKETS_PER_PUSH: Final = 500
BUCKETS_AHEAD: Final = 2000
"""How far bars may run ahead of trading."""

_ORDER: Final = attrgetter("open_time_ms", "symbol")


class Feeding:
    """Feeds bars to the sources of a deployed strategy. A source that was fed so far already, by this run or another, goes on where it ends.

    Raises:
        NotInCatalogue: a source reads a symbol, or an interval, that the bars don't have.
        ClockTaken: the clock of a deployed system ticks this log; recorded bars would all be late.
    """

    def __init__(self, log: Log, strategy: StrategyVersion, read: BarsRead) -> None:
        self._step_ms = read.interval * 1000
        self.start_ms = min(int(one.open_time_ms[0]) for one in read.bars.values())
        self.end_ms = max(int(one.bucket_ms[-1]) for one in read.bars.values())
        sources = [one for one in strategy.nodes if one.node_type == SOURCE]
        chosen = [(one, _bars_of(one, read)) for one in sources]
        partitions = topic("trade.portfolio").partitions
        home = TopicPartition("trade.portfolio", partition_for(encode_key((strategy.world_id,)), partitions))
        self._traded = MarkerFollower(log, home)
        self._feeds: list[Feed] = []
        try:
            for one, bars in chosen:
                raw = node_topic(one.topic, TopicClass.RAW, one.partitions)
                feed = Feed(
                    log, codec, raw, read.interval, _merged(bars), self.start_ms, self.end_ms, ends=True
                )
                self._feeds.append(feed)
        except BaseException:
            self.close()
            raise

    @property
    def fed_ms(self) -> int | None:
        """The last bucket of these bars that all sources had closed by now; None where one has closed none."""
        fed_ms = min((one.closed_ms for one in self._feeds), default=self.start_ms)
        return min(fed_ms, self.end_ms) if fed_ms > self.start_ms else None

    def step(self) -> int:
        """Feed some more, if trading has come near.

        Returns: the newest bucket that trading has closed; not before the first bar.
        """
        traded_ms = max(self._traded.poll(), self.start_ms)
        for feed in self._feeds:
            if not feed.done and feed.closed_ms - traded_ms < BUCKETS_AHEAD * self._step_ms:
                feed.push(BUCKETS_PER_PUSH)
        return traded_ms

    def close(self) -> None:
        for feed in self._feeds:
            feed.close()
        self._traded.close()


def _bars_of(node: PlannedNode, read: BarsRead) -> Mapping[str, BarColumns]:
    symbols: list[str] = json.loads(node.params_canon)["symbols"]
    lacks = [symbol for symbol in symbols if symbol not in read.bars]
    if lacks or node.interval != read.interval:
        what = f"{lacks[0]} " if lacks else ""
        raise NotInCatalogue(
            f"the source {node.name!r} reads {what}every {node.interval} s; the data have {', '.join(read.bars)} every {read.interval} s.",
            "Give the data that the strategy reads.",
        )
    return {symbol: read.bars[symbol] for symbol in symbols}


def _merged(bars: Mapping[str, BarColumns]) -> Iterator[Bar]:
    """All bars by open time, then symbol."""
    return heapq.merge(*(map(one.bar, range(len(one))) for one in bars.values()), key=_ORDER)
