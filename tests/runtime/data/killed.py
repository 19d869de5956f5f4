"""A program that imports into copies of a catalogue, and is killed, or meets a full disk, wherever it touches the disk.

Run as `python -m tests.runtime.data.killed DIR`, where DIR holds a catalogue `base`. Each try is a process of its own, on a copy of it or on
nothing. It prints a JSON list: the names of the catalogues, with how each try ended.

It kills at every call by which Python changes a disk, whoever makes it: nothing in the program under test has to help. In the midst of a write the
kernel kills, at the byte beyond which a file may not grow; before that byte, the write is done.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any, Final

from qmtl.foundation.common.errors import CatalogueUnwritable
from qmtl.runtime.data.catalogue import writing
from tests.runtime.data.walk import SYMBOL, walk

WRITES: Final = frozenset({"write", "writelines"})
CHANGES: Final = WRITES | {
    "flush",
    "truncate",
    "fsync",
    "rename",
    "replace",
    "link",
    "mkdir",
    "unlink",
    "flock",
}
SIZES: Final = (0, 1, 100, 1000, 3000, 6000)
"""Bytes that a file may have on the full disk: what is met first differs, the part, the commit, or neither."""
TORN: Final = 1
"""Bytes of a file that are written when the kernel kills."""

FULL: Final = 40
DONE: Final = 41

Prepare = Callable[[], None]


def add(directory: Path) -> None:
    with writing(directory) as writer:
        writer.add(SYMBOL, 60, [walk(50, 90)], {"kind": "second"})


def at_change(number: int, among: frozenset[str], act: Callable[[], None]) -> Prepare:
    """Do something before the disk is changed for the `number`-th time."""
    passed = count(1)

    def look(frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call" or function.__name__ not in among:
            return
        of_a_file = isinstance(getattr(function, "__self__", None), io.IOBase)
        if (of_a_file or function.__module__ in ("posix", "fcntl")) and next(passed) == number:
            act()

    return lambda: sys.setprofile(look)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def filling(size: int) -> Prepare:
    """The disk is full: no file may get longer."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def tearing() -> None:
    """From now on the kernel kills who writes beyond so many bytes of a file."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (TORN, TORN))


def tried(place: Path, prepare: Prepare) -> int:
    """The exit code of a process that imports after this, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = DONE
        prepare()
        try:
            add(place)
        except CatalogueUnwritable:
            code = FULL
        finally:
            sys.setprofile(None)
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(directory: Path) -> None:
    # Loaded once, before the tries; pyarrow's threads begin with its first work, and so in each try alone.
    for name in ("pyarrow.parquet", "numpy.ma", "email.parser"):
        import_module(name)
    ended: list[tuple[str, int]] = []

    def one(name: str, prepare: Prepare) -> int:
        if not name.startswith("new"):
            shutil.copytree(directory / "base", directory / name)
        code = tried(directory / name, prepare)
        ended.append((name, code))
        return code

    for size in SIZES:
        one(f"full-{size}", filling(size))
    for base in ("old", "new"):
        for at in count(1):
            if one(f"{base}-killed-{at}", at_change(at, CHANGES, die)) == DONE:
                break
        for at in count(1):
            if one(f"{base}-torn-{at}", at_change(at, WRITES, tearing)) == DONE:
                break
    print(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
