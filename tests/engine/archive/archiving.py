"""A program that archives a topic, and dies of a SIGKILL where it is told to.

Run as `python -m tests.engine.archive.archiving LOG STORE [MOMENT NUMBER]`, where LOG is as `qmtl` has it, STORE is a directory and
MOMENT is `put`, `get` or `disk`: before the write, the read, or the wait for the disk of that number it dies.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from unittest.mock import patch

from qmtl.bootstrap import open_log
from qmtl.engine.archive.address import parse
from qmtl.engine.archive.objects import open_objects
from tests.engine.archive.histories import SMALL, archived
from tests.engine.archive.stores import Watched


def main(address: str, place: str, moment: str = "", number: str = "0") -> None:
    def dying(name: str) -> Callable[[int], None]:
        def at(now: int) -> None:
            if name == moment and now == int(number):
                os.kill(os.getpid(), signal.SIGKILL)

        return at

    waits, fsync = 0, os.fsync

    def wait(file: int) -> None:
        nonlocal waits
        dying("disk")(waits)
        waits += 1
        fsync(file)

    log = open_log(address, read_only=True)
    store = Watched(open_objects(parse(f"file://{place}")), dying("put"), dying("get"))
    with patch.object(os, "fsync", wait):
        sys.stdout.write(archived(log, store, SMALL).name)
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
