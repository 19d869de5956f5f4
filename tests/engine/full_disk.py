"""A program that runs a counter on a small file system until it is full, makes room, and goes on until everything is counted.

Run as `python -m tests.engine.full_disk LOG STATE ITEMS`, where LOG is as `tests.engine.program` has it and STATE is a file system of
its own, which nobody else writes to. It prints a JSON object: what was told of the disk each time, and the stores that were thrown away.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
from pathlib import Path
from typing import Final

from qmtl.engine.store import Rebuilt
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from tests.contract.driving import until
from tests.engine.driving import messages
from tests.engine.program import open_log
from tests.engine.toys import CODEC, ECHO, ITEMS, Counter, Feed, Item, make_topics

LEFT: Final = (0, 16 << 10, 200 << 10)
"""How many bytes are left free each time: what is met first differs, the opening of the store or a write to it."""


class Said(logging.Handler):
    """Keeps the warnings of tasks that are closed for want of room."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if "is closed" in text:
            self.texts.append(text)


def item(number: int) -> Item:
    """Each has a row of its own, of about a kilobyte."""
    return Item(f"{number:040d}" * 20, number, 1)


def fill(place: Path, left: int) -> Path:
    """A file that takes what the file system has, but for so many bytes."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(b"\0" * 4096)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
        file.truncate(max(0, file.tell() - left))
    return ballast


def main(address: str, state: str, count: str) -> None:
    place, wanted = Path(state), int(count)
    said, rebuilt = Said(), list[Rebuilt]()
    logging.getLogger("qmtl.engine.worker").addHandler(said)
    log = open_log(address)
    make_topics(log)
    feed = Feed(log, ITEMS)
    worker = Worker(log, Counter, CODEC, TaskSettings(place / "tasks", 10, on_rebuild=rebuilt.append))
    given = 0
    told: list[list[str]] = []
    share = wanted // (len(LEFT) + 1)

    def give(more: int) -> None:
        nonlocal given
        more = min(more, wanted - given)
        if more:
            feed.put({0: [item(given + one) for one in range(more)]})
            given += more

    def full() -> bool:
        """Gives another few items of a share, and steps."""
        give(10 if given < most else 0)
        worker.step(0.01)
        return bool(said.texts)

    give(share)
    for left in LEFT:
        until(lambda: not worker.step(0.01) and len(messages(log, ECHO.name)) >= given, 60)
        said.texts.clear()
        ballast = fill(place, left)
        assert os.statvfs(place).f_bavail * 4096 <= left + 4096
        most = given + share
        until(full, 60)
        for _ in range(5):
            worker.step(0.01)  # it stays closed, and the program goes on
        told.append(list(dict.fromkeys(said.texts)))
        ballast.unlink()
    give(wanted)
    until(lambda: not worker.step(0.01) and len(messages(log, ECHO.name)) >= wanted, 60)
    worker.close()
    feed.close()
    log.close()
    print(json.dumps({"told": told, "rebuilt": [one.cause.name for one in rebuilt]}))


if __name__ == "__main__":
    main(*sys.argv[1:])
