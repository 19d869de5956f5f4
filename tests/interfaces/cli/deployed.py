"""A log on which strategies were published, weighed and replaced by the real processors, and what a test knows of it without the CLI."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qmtl.bootstrap import make_workers, open_log, prepare
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView, all_partitions, read_all
from qmtl.foundation.contracts.dag import DagSubmission, Queue, TopicClass
from qmtl.foundation.contracts.world import CreateWorld
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import node_topic
from qmtl.interfaces.client import Client
from qmtl.replay.feed import Feed
from qmtl.topology import NAMES
from tests.replay.logs import MINUTE_MS, SETTINGS, START_MS, bar, commit, ticks
from tests.services.graphs import crossing, strategy, text

WORLD = "w1"
OLD, STABLE, CANARY, OTHER = "v1", "v2", "v3", "v9"
"""Versions of s1: one that was replaced, the one that replaced it, and its canary with a tenth; and that of s2."""

SUBMISSIONS = (
    (strategy(crossing(3, 8), "s1", version=OLD), 10_000),
    (strategy(crossing(5, 8), "s1", version=STABLE), 10_000),
    (strategy(crossing(5, 13), "s1", version=CANARY), 1_000),
    (strategy(crossing(5, 8), "s2", version=OTHER), 10_000),
)


@contextmanager
def client_on(directory: Path, names: Sequence[str] = NAMES) -> Iterator[Client]:
    """A client with these workers in this process."""
    log = open_log(f"embedded:{directory / 'log'}")
    prepare(log)
    workers = make_workers(log, TaskSettings(directory / "tasks"), names)
    try:
        yield Client(log, workers)
    finally:
        for one in workers:
            one.close()
        log.close()


def settle(client: Client) -> None:
    """Until nobody finds anything to do."""
    idle = 0
    while idle < 3:
        idle = 0 if client.pump() else idle + 1


def feed_bars(client: Client, minutes: int, *, settled: bool = True) -> Queue:
    """Bars of the minutes that were not fed yet, up to this one, in the queue of the price node, which is returned."""
    (source,) = [one for one in client.view("dag.queues").rows() if one.topic_class is TopicClass.RAW]
    spec = node_topic(source.topic, source.topic_class, source.partitions)
    bars = [bar(symbol, minute) for minute in range(minutes) for symbol in ("BTC-USD", "ETH-USD")]
    feed = Feed(client.log, codec, spec, 60, bars, START_MS, START_MS + minutes * MINUTE_MS)
    feed.push(minutes)
    feed.close()
    if settled:
        settle(client)
    found: Queue = source
    return found


def deploy(directory: Path) -> None:
    """Make the log."""
    with client_on(directory) as client:
        client.command(CreateWorld("make", WORLD, SETTINGS, START_MS))
        for number, (message, weight) in enumerate(SUBMISSIONS):
            data = text(message)
            client.deployed(
                client.submit(
                    DagSubmission(f"s{number}", WORLD, data, START_MS, weight, execution_domain="live")
                )
            )
        commit(client.log, ticks(1, 2), "clock")
        settle(client)


class Deployed:
    """A directory with such a log.

    Attributes:
        address: as the command line takes it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = f"embedded:{directory / 'log'}"

    def copy(self, directory: Path) -> Deployed:
        """One of its own to change."""
        shutil.copytree(self.directory, directory)
        return Deployed(directory)

    def rows(self, name: str) -> list[Any]:
        """A table, folded from its topic."""
        log = open_log(self.address, read_only=True)
        try:
            return TableView(log, name, codec).refresh().rows()
        finally:
            log.close()

    def messages(self, name: str) -> list[Any]:
        """Everything in a topic, without markers and stamps."""
        log = open_log(self.address, read_only=True)
        try:
            found = read_all(log, all_partitions(log, name))
            return [codec.decode(one.value) for one in found if one.value and one.key[:1] != b"\x00"]
        finally:
            log.close()

    def sentinel(self, version: str) -> Any:
        """The row of a version."""
        (found,) = [one for one in self.rows("dag.sentinels") if one.version == version]
        return found
