"""Scrapes a worker as Prometheus does, by the client's own parser, and asks for its health."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from qmtl.engine.log.port import Log
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.interfaces.metrics.serve import Metrics
from tests.engine.toys import CODEC, Toy

LOOPBACK = "127.0.0.1"


class Answer(NamedTuple):
    """What came over HTTP."""

    status: int
    kind: str
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def ask(url: str, method: str = "GET") -> Answer:
    """One request; an error status is an answer too."""
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return Answer(response.status, response.headers["Content-Type"], response.read().decode())
    except urllib.error.HTTPError as refused:
        return Answer(refused.code, refused.headers["Content-Type"], refused.read().decode())


class Scrape:
    """The samples of one scrape, by name and labels."""

    def __init__(self, url: str) -> None:
        answer = ask(f"{url}/metrics")
        assert answer.status == 200, answer
        self.families = {one.name: one for one in text_string_to_metric_families(answer.body)}
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def get(self, name: str, **labels: str | int) -> float | None:
        """One sample; None where there is none."""
        wanted = frozenset((key, str(value)) for key, value in labels.items())
        return self._samples.get((name, wanted))

    def total(self, name: str, **labels: str | int) -> float:
        """The sum of all samples of a name that have these labels, whatever others they have."""
        wanted = {(key, str(value)) for key, value in labels.items()}
        return sum(value for (one, has), value in self._samples.items() if one == name and wanted <= has)

    def labelled(self, name: str) -> list[dict[str, str]]:
        """The labels of all samples of a name."""
        return [dict(labels) for one, labels in self._samples if one == name]


class Shown:
    """A toy's worker in this process, watched, with its address."""

    def __init__(self, worker: Worker, url: str) -> None:
        self.worker = worker
        self.url = url
        self._left = False

    def scrape(self) -> Scrape:
        return Scrape(self.url)

    def health(self) -> Answer:
        return ask(f"{self.url}/healthz")

    def leave(self) -> None:
        """The worker drains; the server stays."""
        if not self._left:
            self._left = True
            self.worker.close()

    def settle(self) -> None:
        """Steps until it finds nothing more to do."""
        idle = 0
        while idle < 3:
            idle = 0 if self.worker.step() else idle + 1


@contextmanager
def shown(
    log: Log,
    state: Path,
    make: type[Toy],
    *,
    poll: int = 4000,
    stale_s: float = 15.0,
    series: int = 200,
    on_restore: Callable[[str, int, int], None] | None = None,
) -> Iterator[Shown]:
    """A worker of a toy, served on a free port."""
    metrics = Metrics([make.name])
    settings = TaskSettings(state, poll, observer=metrics.watch, on_restore=on_restore)
    with metrics.serving(log, state, LOOPBACK, 0, stale_s=stale_s, series=series) as url:
        runs = Shown(Worker(log, make, CODEC, settings), url)
        try:
            yield runs
        finally:
            runs.leave()
