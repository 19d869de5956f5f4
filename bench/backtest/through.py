"""The same strategies through a log: five processors, a transaction after the other, on Kafka or on the embedded log.

`python -m bench.backtest.through JSON` runs it in one process, as `qmtl demo` does, and tells what it took and what was ordered and filled. What
is timed begins with the first bar that is fed and ends when the last bucket is traded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from bench.backtest import workload
from bench.backtest.market import INTERVAL, START_MS, SYMBOL, market
from bench.backtest.ours import Asked, market_of, messages_of, peak_mb
from bench.backtest.ours import run as run_columns
from bench.engine import gauge
from bench.engine.gauge import Failed
from qmtl.bootstrap import make_workers, open_log, prepare
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import collect_seldom
from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission, StrategyVersion, TopicClass
from qmtl.foundation.contracts.world import (
    CreateWorld,
    EffectiveMode,
    PositionSide,
    SetActivation,
    WorldSettings,
)
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic, topic
from qmtl.interfaces.client import Client, command_id, submission_id
from qmtl.replay.feed import Feed, MarkerFollower

PUSH: Final = 500
AHEAD: Final = 2000
PATIENCE_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Through:
    """What a run through a log has come to.

    Attributes:
        published_s: until the last one was deployed and its gates open.
        seconds: of the bars.
        orders, fills: rows as `rows` gives them.
    """

    published_s: float
    seconds: float
    orders: list[str]
    fills: list[str]


def rows(messages: Sequence[Any]) -> list[str]:
    """Messages as the bytes of their records, in hexadecimal digits, sorted."""
    return sorted(codec.encode(one).hex() for one in messages)


def run(address: str, state: Path, asked: Asked) -> Through:
    """Run strategies over bars on a log that is empty."""
    messages = messages_of(asked, market_of(asked))
    log = open_log(address)
    try:
        prepare(log)
        workers = make_workers(log, TaskSettings(state), slot="bench")
        client = Client(log, workers)
        try:
            begun = time.perf_counter()
            _make_world(client)
            versions = [_publish(client, message) for message in messages]
            published_s, begun = time.perf_counter() - begun, time.perf_counter()
            _feed(log, client, versions[0], asked.bars)
            seconds = time.perf_counter() - begun
            orders = rows(list(client.view("trade.orders").rows()))
            fills = rows(list(client.view("trade.fills").rows()))
        finally:
            client.close()
            for worker in workers:
                worker.close()
    finally:
        log.close()
    return Through(published_s, seconds, orders, fills)


def _make_world(client: Client) -> None:
    terms = workload.terms([SYMBOL])
    settings = WorldSettings(
        terms.currency, terms.cash, terms.fee_rate, terms.slippage_rate, terms.instruments
    )
    world_id = terms.world_id
    client.command(CreateWorld(command_id("create", world_id), world_id, settings, START_MS))


def _publish(client: Client, message: bytes) -> StrategyVersion:
    """A strategy, and its open gates."""
    world_id = workload.WORLD
    context = ("paper", workload.FINGERPRINT, "", workload.FINGERPRINT)
    name = submission_id(world_id, message, context=context)
    outcome = client.submit(DagSubmission(name, world_id, message, START_MS, FULL_WEIGHT, *context))
    version = client.deployed(outcome)
    for side in PositionSide:
        client.command(
            SetActivation(
                command_id("activate", world_id, version.strategy_id, side.value),
                world_id,
                version.strategy_id,
                side,
                True,
                Decimal(1),
                False,
                False,
                EffectiveMode.PAPER,
                START_MS,
            )
        )
    return version


def _feed(log: Log, client: Client, version: StrategyVersion, count: int) -> None:
    """Bars until the last bucket is traded.

    Raises:
        Failed: trading stands still.
    """
    columns = workload.columns(market(count))
    step_ms = INTERVAL * 1000
    end_ms = START_MS + count * step_ms
    source = version.nodes[0]
    raw = node_topic(source.topic, TopicClass.RAW, source.partitions)
    feed = Feed(log, codec, raw, INTERVAL, columns.bars(), START_MS, end_ms)
    partitions = topic("trade.portfolio").partitions
    where = TopicPartition("trade.portfolio", partition_for(encode_key((workload.WORLD,)), partitions))
    traded = MarkerFollower(log, where)
    heard, closed = time.monotonic(), START_MS
    try:
        while closed < end_ms:
            if not feed.done and feed.closed_ms - closed < AHEAD * step_ms:
                feed.push(PUSH)
            client.pump()
            before, closed = closed, max(traded.poll(), START_MS)
            if closed > before:
                heard = time.monotonic()
            elif time.monotonic() - heard > PATIENCE_S:
                raise Failed(f"trading stands still at bucket {closed}, the feed is at {feed.closed_ms}")
    finally:
        feed.close()
        traded.close()


def measure(address: str, place: Path, asked: Asked, name: str) -> dict[str, Any]:
    """Seconds of a run in a process of its own; what is ordered and filled is what the backtest over columns says.

    Args:
        asked: strategies that all read the first symbol.

    Raises:
        Failed: it is something else, or the process ended badly.
    """
    told = {"log": address, "state": str(place), "asked": asdict(asked)}
    command = [sys.executable, "-m", "bench.backtest.through", json.dumps(told)]
    with gauge.started(command, name) as child:
        (found,) = child.finish(900.0)
    columns = run_columns(asked, market_of(asked))
    for what, mine, theirs in (
        ("orders", rows(columns.orders()), found["orders"]),
        ("fills", rows(columns.fills()), found["fills"]),
    ):
        if mine != theirs:
            apart = sorted({*mine} ^ {*theirs})[:1]
            first = [codec.decode(bytes.fromhex(one)) for one in apart]
            raise Failed(f"{name}: {len(theirs)} {what}, the backtest has {len(mine)}; one has {first}")
    return {
        "published_s": found["published_s"],
        "seconds": found["seconds"],
        "bars_per_s": asked.bars / found["seconds"],
        "orders": len(found["orders"]),
        "fills": len(found["fills"]),
        "peak_mb": found["peak_mb"],
    }


def main(told: dict[str, Any]) -> None:
    collect_seldom()
    found = run(told["log"], Path(told["state"]), Asked(**told["asked"]))
    print(json.dumps({**asdict(found), "peak_mb": peak_mb()}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
