"""A program that imports into copies of a catalogue and is killed, or meets a full disk, at every point at which it touches the disk.

Run as `python -m tests.runtime.data.killed DIR`, where DIR holds a catalogue `base`. Each try is a process of its own on a copy. It prints
a JSON list: the names of the copies, with how each try ended.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from qmtl.foundation.common.errors import CatalogueUnwritable
from qmtl.runtime.data.catalogue import writing
from qmtl.runtime.data.parquet import arrow
from tests.runtime.data.walk import SYMBOL, walk

DISK: Final = frozenset({"open", "os.rename", "os.mkdir", "os.remove", "fcntl.flock"})
SIZES: Final = (0, 1, 100, 1000, 3000, 6000)
"""Bytes that a file may have on the full disk: what is met first differs, the part, the commit, or neither."""

FULL: Final = 40
DONE: Final = 41


def add(directory: Path) -> None:
    with writing(directory) as writer:
        writer.add(SYMBOL, 60, [walk(50, 90)], {"kind": "second"})


def killing(place: Path, at: int) -> Callable[[], None]:
    """Kill this process before the disk is touched for the `at`-th time."""
    passed = count(1)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in DISK and (event == "fcntl.flock" or str(place) in str(args[0])) and next(passed) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return lambda: sys.addaudithook(hook)


def filling(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def tried(place: Path, prepare: Callable[[], None]) -> int:
    """The exit code of a process that imports after this, negative for a signal."""
    child = os.fork()
    if child == 0:
        prepare()
        try:
            add(place)
        except CatalogueUnwritable:
            os._exit(FULL)
        os._exit(DONE)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(directory: Path) -> None:
    # Loaded once, before the tries; its threads begin with its first work, and so in each try alone.
    arrow("pyarrow.parquet")
    ended: list[tuple[str, int]] = []

    def on_a_copy(name: str, prepare: Callable[[], None]) -> int:
        shutil.copytree(directory / "base", directory / name)
        code = tried(directory / name, prepare)
        ended.append((name, code))
        return code

    for size in SIZES:
        on_a_copy(f"full-{size}", filling(size))
    for at in count(1):
        name = f"killed-{at}"
        if on_a_copy(name, killing(directory / name, at)) == DONE:
            break
    print(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
