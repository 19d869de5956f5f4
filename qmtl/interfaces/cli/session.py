"""A client on a log for one command: with its own workers on the embedded log, with everybody's on Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmtl.interfaces.client import Client

WAIT_S = 30.0


@contextmanager
def client(address: str, wait_s: float = WAIT_S) -> Iterator[Client]:
    """Open the log and give a client.

    On the embedded log nobody else can run the processors, so this process does, with the stores beside the log.
    """
    from qmtl.bootstrap import make_workers, open_log, prepare
    from qmtl.engine.task import TaskSettings
    from qmtl.interfaces.client import Client

    log = open_log(address)
    workers = []
    try:
        prepare(log)
        if address.startswith("embedded:"):
            place = Path(address.removeprefix("embedded:"))
            workers = make_workers(log, TaskSettings(place.parent / "tasks"))
        made = Client(log, workers, wait_s)
        try:
            yield made
        finally:
            made.close()
    finally:
        for worker in workers:
            worker.close()
        log.close()


def now_ms() -> int:
    """The wall clock, which only people's commands carry."""
    return int(time.time() * 1000)
