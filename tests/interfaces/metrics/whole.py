"""All processors in this process on an embedded log, and what they show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from qmtl.bootstrap import make_workers, open_log, outside_of, prepare
from qmtl.engine.task import TaskSettings
from qmtl.interfaces.client import Client
from qmtl.interfaces.metrics.serve import Metrics
from qmtl.services.dagmanager.broker_load import PrometheusLoad
from qmtl.topology import NAMES
from tests.contract.driving import until
from tests.interfaces.cli.deployed import settle
from tests.interfaces.metrics.scraping import LOOPBACK, Scrape


@contextmanager
def running(directory: Path) -> Iterator[tuple[Client, Metrics]]:
    """All workers, watched."""
    log = open_log(f"embedded:{directory / 'log'}")
    prepare(log)
    outside = outside_of(log, PrometheusLoad("http://127.0.0.1:9", 1000))
    metrics = Metrics(NAMES, outside)
    workers = make_workers(log, TaskSettings(directory / "tasks", observer=metrics.watch), outside=outside)
    try:
        yield Client(log, workers), metrics
    finally:
        for one in workers:
            one.close()
        log.close()


@contextmanager
def served(client: Client, metrics: Metrics, directory: Path) -> Iterator[str]:
    """Where they are scraped, once they have come to rest and the graph was measured."""
    settle(client)
    with metrics.serving(client.log, directory / "tasks", LOOPBACK, 0) as url:
        until(lambda: Scrape(url).get("queues_total") is not None)
        yield url
