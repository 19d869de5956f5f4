"""A program that runs the counter in one slot until SIGTERM, and says when it begins and when it has finished to open a task.

Run as `python -m tests.neighbours.program LOG STATE SLOT POLL`, where LOG is as for `tests.engine.program`.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.table import Table
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker, run
from tests.engine.program import open_log
from tests.neighbours.toys import CODEC, Tally

SESSION_MS = 3000


class Talking(Tally):
    """Says when it is made, and when its table is back."""

    def __init__(self) -> None:
        print("opening", flush=True)

    def restore(self, tables: Mapping[str, Table]) -> None:
        print("opened", *(table.partition for table in tables.values()), flush=True)


def main(address: str, state: str, slot: str, poll: str) -> None:
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    log = open_log(address, KafkaSettings(session_timeout_ms=SESSION_MS))  # who is gone is to be missed soon
    worker = Worker(log, Talking, CODEC, TaskSettings(Path(state), int(poll)), slot)
    try:
        run([worker], lambda: bool(stopping))
    finally:
        worker.close()
        log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
