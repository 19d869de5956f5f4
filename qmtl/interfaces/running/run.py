"""`Runner.run`: publishes a strategy to a world and tells what becomes of it, until it is stopped.

It computes nothing and decides nothing: nodes run in the node workers, orders are let through by trading, by what the world service has said. Of
activation it shows the order gate, switched by each event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

from qmtl.foundation.common.errors import CommandRefused, InvalidDag, NoAnswer, UnknownWorld
from qmtl.foundation.contracts.dag import DagOutcome, SentinelStatus, StrategyVersion
from qmtl.interfaces.client import IDLE_S, Client
from qmtl.interfaces.feeding import require_bound
from qmtl.interfaces.running.address import log_address
from qmtl.interfaces.running.events import (
    Completed,
    FedBefore,
    Refused,
    RunEvent,
    Stopped,
    Submitted,
    Unanswered,
    VersionChanged,
)
from qmtl.interfaces.running.feeding import Feeding
from qmtl.interfaces.running.following import Follower, places
from qmtl.interfaces.running.publication import publish
from qmtl.runtime.data.reading import BarsRead
from qmtl.runtime.indicators.registry import TAG_QUERY
from qmtl.runtime.sdk.loading import load_strategy, message_of
from qmtl.runtime.sdk.strategy import Strategy

WAIT_S: Final = 30.0
POLL_S: Final = 0.2
"""How long a look at the log may wait for something new; a stop is heard as fast."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run is told beside strategy, world and log.

    Attributes:
        domain: in which it is to run, or a mode that stands for one; with `as_of`, `partition` and `fingerprint` the context. Where nothing of it is said,
            the log's.
        as_of: the state of the data to which a backtest or dry run is bound.
        partition: a tenant, strategy or portfolio within the world.
        fingerprint: of the very data behind `as_of`.
        interval: seconds, of a strategy that has none; without it that of `bars`.
        since_ms: tell intents, orders, fills and rejections that were written from then on; None for those from now on.
        bars: feed them to the strategy's sources; the run ends when they are traded.
        code: on an embedded log, packages whose functions nodes may run, beside the strategy's own.
        wait_s: seconds that an answer may take.
    """

    domain: str = ""
    as_of: str = ""
    partition: str = ""
    fingerprint: str = ""
    interval: int | None = None
    since_ms: int | None = None
    bars: BarsRead | None = None
    code: Sequence[str] = ()
    wait_s: float = WAIT_S

    @property
    def context(self) -> tuple[str, str, str, str]:
        return (self.domain, self.as_of, self.partition, self.fingerprint)


NOTHING_MORE: Final = RunOptions()


def follow(
    strategy: Strategy | type[Strategy] | bytes | str,
    world_id: str,
    gateway_url: str | Path,
    options: RunOptions = NOTHING_MORE,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[RunEvent]:
    """The events of a run, from its publication to `Stopped`, which is always the last one.

    On Kafka everybody's workers do the work. An embedded log is held by this process, which runs all processors itself.

    Args:
        strategy: one, its class, a DAG message, or a text that names one (`FILE.py:CLASS`).
        gateway_url: the address of a log, see `log_address`.
        stopped: asked again and again; True ends the run. What is deployed goes on.

    Raises:
        NoGateway, UsageError: as `log_address`.
        StrategyNotLoaded: a text that names none.
        NoAnswer, LogError: nobody answered, or the log failed.
        NotInCatalogue, ClockTaken: as `Feeding`.
        OtherData: as `require_bound`; nothing is published.
    """
    from qmtl.interfaces.cli import session

    address = log_address(gateway_url)
    try:
        message = _message(strategy, options)
    except InvalidDag as refused:
        yield Refused.of(refused)
        yield Stopped("refused")
        return
    with session.client(address, options.wait_s, code=options.code) as client:
        _require_bound(client, world_id, options)  # before anything is deployed
        begins = places(client.log, options.since_ms)
        try:
            submitted, outcome = publish(client, message, world_id, options.context, session.now_ms())
        except (InvalidDag, UnknownWorld, CommandRefused) as refused:
            yield Refused.of(refused)
            yield Stopped("refused")
            return
        yield submitted
        names = {one.node_id: one.name for one in submitted.nodes}
        follower = Follower(
            client.log,
            world_id,
            submitted.strategy_id,
            submitted.sentinel_id,
            names,
            begins,
        )
        with closing(follower):
            if options.bars is None:
                events = _until_stopped(client, follower, stopped)
            else:
                events = _until_traded(client, follower, outcome, options, options.bars, stopped)
            yield from _with_unanswered(events, client, submitted)


def _message(strategy: Strategy | type[Strategy] | bytes | str, options: RunOptions) -> bytes:
    if isinstance(strategy, str):
        strategy = load_strategy(strategy)
    interval = options.interval or (None if options.bars is None else options.bars.interval)
    return message_of(strategy() if isinstance(strategy, type) else strategy, interval)


def _with_unanswered(events: Iterator[RunEvent], client: Client, submitted: Submitted) -> Iterator[RunEvent]:
    """The events, and once the version is active its tag queries that nobody answers."""
    asked = {one.node_id: one.name for one in submitted.nodes if one.node_type == TAG_QUERY}
    is_active = False
    for event in events:
        yield event
        if isinstance(event, VersionChanged):
            is_active = event.status is SentinelStatus.ACTIVE
        if not (asked and is_active):
            continue
        key = (submitted.world_id, submitted.strategy_id)
        row: StrategyVersion | None = client.view("dag.strategies").get(*key)
        read = {one.node_id: one.dependencies for one in row.nodes} if row is not None else {}
        if asked.keys() <= read.keys():
            yield from (Unanswered(*one) for one in asked.items() if not read[one[0]])
            asked = {}


def _require_bound(client: Client, world_id: str, options: RunOptions) -> None:
    if options.bars is not None:
        require_bound(client, world_id, options.bars, options.as_of, options.fingerprint)


def _until_stopped(client: Client, follower: Follower, stopped: Callable[[], bool]) -> Iterator[RunEvent]:
    while not stopped():
        if client.workers:
            client.pump()
        yield from follower.poll(0.0 if client.workers else POLL_S)
    yield Stopped("stopped")


def _until_traded(
    client: Client,
    follower: Follower,
    outcome: DagOutcome,
    options: RunOptions,
    bars: BarsRead,
    stopped: Callable[[], bool],
) -> Iterator[RunEvent]:
    try:
        deployed = client.deployed(outcome)
    except CommandRefused as refused:
        yield from follower.drain()
        yield Refused.of(refused)
        yield Stopped("refused")
        return
    _require_bound(client, outcome.world_id, options)  # as it is what the log computes in by now
    with closing(Feeding(client.log, deployed, bars)) as feeding:
        if (fed_ms := feeding.fed_ms) is not None:
            yield FedBefore(fed_ms, fed_ms >= feeding.end_ms)
        moved_s, reached_ms = monotonic(), -1
        while not stopped():
            traded_ms = feeding.step()
            if traded_ms >= feeding.end_ms:
                while (
                    client.workers and client.pump()
                ):  # what a venue says of the last orders comes after their bucket
                    yield from follower.poll(0.0)
                yield from follower.drain()
                yield Completed(feeding.end_ms, follower.failed)
                yield Stopped("completed")
                return
            busy = bool(client.workers) and client.pump()
            yield from follower.poll(0.0 if client.workers else IDLE_S)
            if busy or traded_ms > reached_ms:
                moved_s, reached_ms = monotonic(), traded_ms
            elif monotonic() - moved_s > options.wait_s:
                raise NoAnswer(
                    f"trading stands still behind the bucket {traded_ms} for {options.wait_s:g} s; the bars go to {feeding.end_ms}.",
                    "Start all workers: `qmtl worker run NAME` for each of `qmtl topology`.",
                )
    yield Stopped("stopped")


def run(
    strategy: Strategy | type[Strategy] | bytes | str,
    world_id: str,
    gateway_url: str | Path,
    on_event: Callable[[RunEvent], object],
    options: RunOptions = NOTHING_MORE,
    stopped: Callable[[], bool] | None = None,
) -> Stopped | Refused:
    """As `follow`, and calls back with each event, until SIGTERM, Ctrl-C or `stopped`.

    Returns: why it ended; what was refused, where that is why.
    """
    from qmtl.interfaces.cli.signals import stopped as by_signal

    last: RunEvent | None = None
    refused: Refused | None = None
    with by_signal() as came:
        asked = came if stopped is None else lambda: came() or stopped()
        for event in follow(strategy, world_id, gateway_url, options, asked):
            on_event(event)
            last = event
            refused = event if isinstance(event, Refused) else refused
    assert isinstance(last, Stopped)
    return refused or last
