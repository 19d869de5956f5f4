"""Writes files so that a kill, a full disk or a loss of power leaves what was there, or what was to be there, and nothing between."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes, staging: Path) -> None:
    """A file that appears whole under its name, or not at all; durable when this returns.

    Raises:
        OSError: no room, no right; nothing is left then but, where even that failed, a file in `staging`.
    """
    staging.mkdir(parents=True, exist_ok=True)
    draft = staging / f"{os.getpid()}-{path.name}"
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


def make_directory(directory: Path, above: Path) -> None:
    """A directory and those between it and `above`, which is there; their names are durable when this returns.

    Those that are there already are made durable too: who has made them may have been killed before.

    Raises:
        OSError: no room, no right, or a file has the name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    while directory != above:
        directory = directory.parent
        fsync_directory(directory)


def fsync_directory(directory: Path) -> None:
    """Make names in a directory durable."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
