"""Feeds bars of a catalogue to the strategies of a world, once it was seen that they are the bars to which the world is bound."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.engine.log.port import Log, TopicPartition
from qmtl.foundation.common.errors import NoAnswer, OtherData, UnknownId, UnknownWorld
from qmtl.foundation.common.wording import counted
from qmtl.foundation.contracts.context import THE_CONTEXT, LogContext
from qmtl.foundation.contracts.dag import PlannedNode, StrategyVersion, TopicClass
from qmtl.foundation.contracts.world import World
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic, topic
from qmtl.interfaces.client import Client
from qmtl.replay.feed import Feed, MarkerFollower
from qmtl.runtime.data.bound import BoundBars
from qmtl.runtime.data.reading import BarsRead
from qmtl.runtime.indicators.registry import SOURCE

BUCKETS_PER_PUSH: Final = 500
BUCKETS_AHEAD: Final = 2000
"""How far a feed may run ahead of trading."""

IDLE_ROUNDS: Final = 3000

Progress = Callable[[str, int, int], None]
"""Called with the step, how far it is, and how far it goes."""


@dataclass(frozen=True, slots=True)
class Source:
    """A raw topic, and the symbols that the nodes above it take."""

    topic: str
    partitions: int
    interval: int
    symbols: tuple[str, ...]


def sources_of(client: Client, world_id: str) -> tuple[Source, ...]:
    """What the strategies of a world read, sorted by topic.

    Raises:
        UnknownWorld: it was never created.
        UnknownId: no strategy is deployed in it.
    """
    if client.view("world.state").get(world_id) is None:
        raise UnknownWorld(f"world {world_id!r} does not exist.", "Create it with `qmtl world create`.")
    versions: Iterable[StrategyVersion] = client.view("dag.strategies").rows()
    nodes = [
        node
        for one in versions
        if one.world_id == world_id
        for node in (*one.nodes, *one.found)
        if node.node_type == SOURCE
    ]
    if not nodes:
        raise UnknownId(
            f"no strategy of world {world_id!r} reads bars.", "Deploy one with `qmtl dag publish`."
        )
    return tuple(_source(node) for _, node in sorted({one.topic: one for one in nodes}.items()))


def _source(node: PlannedNode) -> Source:
    symbols = sorted(json.loads(node.params_canon)["symbols"])
    return Source(node.topic, node.partitions, node.interval, tuple(symbols))


def require_bound(
    client: Client, world_id: str, bars: BoundBars | BarsRead, as_of: str = "", fingerprint: str = ""
) -> None:
    """Hold a selection of bars to what the world is bound to, to the context in which the log's nodes compute, and to the one that is said.

    Args:
        as_of, fingerprint: of the context that a submission says; empty where it says none.

    Raises:
        OtherData: they are other bars, or of another state of the data.
    """
    world: World | None = client.view("world.state").get(world_id)
    row: LogContext | None = client.view("dag.context").get(THE_CONTEXT)
    if world is not None:
        _require_bars(bars, f"world {world_id!r}", world.settings.dataset_fingerprint)
    if row is not None:
        _require_state(bars, "the context of the log", row.context.as_of, row.context.dataset_fingerprint)
    _require_state(bars, "the context of the run", as_of, fingerprint)


def _require_state(bars: BoundBars | BarsRead, who: str, as_of: str, fingerprint: str) -> None:
    _require_bars(bars, who, fingerprint)
    if as_of and not fingerprint and not bars.is_as_of(as_of):
        raise OtherData(
            f"{who} is as of {as_of!r}; chosen was {_told(bars)}.",
            "Name that commit with --as-of.",
        )


def _require_bars(bars: BoundBars | BarsRead, who: str, fingerprint: str) -> None:
    if fingerprint and fingerprint != bars.fingerprint:
        raise OtherData(
            f"{who} is bound to the data {fingerprint}; chosen was {bars.fingerprint}: {_told(bars)}.",
            "Choose what it is bound to (`qmtl data fingerprint` tells of a choice what it is), or create a world for these bars.",
        )


def _told(bars: BoundBars | BarsRead) -> str:
    if isinstance(bars, BoundBars):
        count, symbols, start_ms, end_ms = bars.bars, bars.symbols, bars.start_ms, bars.end_ms
    else:
        columns = bars.bars.values()
        count, symbols = sum(map(len, columns)), tuple(bars.bars)
        start_ms = min(int(one.open_time_ms[0]) for one in columns)
        end_ms = max(int(one.bucket_ms[-1]) for one in columns)
    state = "from files" if bars.commit is None else f"as of commit {bars.commit.number}, {bars.as_of}"
    return f"{counted(count, 'bar')} of {', '.join(symbols)}, {bars.interval} s, from {start_ms} to {end_ms}, {state}"


def feeds_of(log: Log, sources: Sequence[Source], bars: BoundBars) -> list[Feed]:
    """One feed per raw topic, over the same buckets."""
    return [
        Feed(
            log,
            codec,
            node_topic(one.topic, TopicClass.RAW, one.partitions),
            bars.interval,
            bars.read(one.symbols),
            bars.start_ms,
            bars.end_ms,
            ends=True,
        )
        for one in sources
    ]


def feed_and_trade(
    client: Client,
    world_id: str,
    feeds: Sequence[Feed],
    interval: int,
    start_ms: int,
    end_ms: int,
    progress: Progress,
) -> None:
    """Feed until the world has traded the last bucket. A feed that was killed goes on where it was.

    Raises:
        NoAnswer: nobody trades.
        ClockTaken: the clock of a deployed system ticks this log.
    """
    where = TopicPartition(
        "trade.portfolio", partition_for(encode_key((world_id,)), topic("trade.portfolio").partitions)
    )
    traded = MarkerFollower(client.log, where)
    step_ms = interval * 1000
    total = (end_ms - start_ms) // step_ms
    idle = 0
    try:
        while (closed := max(traded.poll(), start_ms)) < end_ms:
            progress("trading", (closed - start_ms) // step_ms, total)
            for feed in feeds:
                if not feed.done and feed.closed_ms - closed < BUCKETS_AHEAD * step_ms:
                    feed.push(BUCKETS_PER_PUSH)
            busy = client.pump()
            idle = 0 if busy or traded.closed_ms > closed else idle + 1
            if idle > IDLE_ROUNDS:
                fed = min(one.closed_ms for one in feeds)
                raise NoAnswer(
                    f"trading stands still at bucket {closed}, the feed is at {fed}.",
                    "Start all workers: `qmtl worker run NAME` for each of `qmtl topology`.",
                )
        progress("trading", total, total)
    finally:
        for feed in feeds:
            feed.close()
        traded.close()
