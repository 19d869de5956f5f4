"""Makes the directory of a new project: whole, or not at all, and never over anything."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import mkdtemp

from qmtl.foundation.common.errors import ProjectNotMade


def make_project(place: Path, files: Mapping[str, bytes]) -> None:
    """Write files into a directory beside the place, and give it the place's name once all of them lie there.

    Args:
        place: the directory to make; nothing may be there, and the one above it is there.
        files: by their paths in it.

    Raises:
        ProjectNotMade: something is at the place, or it can't be written. Then nothing of this try is left.
    """
    if os.path.lexists(place):
        raise _taken(place)
    try:
        beside = Path(mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    except OSError as error:
        raise _unwritable(place, error) from None
    try:
        whole = beside / place.name  # made here, so that it has the rights that a new directory has
        for path, data in files.items():
            file = whole / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        # Over a directory that is empty the system puts one by itself; over anything else it refuses.
        os.rename(whole, place)
    except OSError as error:
        raise (_taken(place) if os.path.lexists(place) else _unwritable(place, error)) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _taken(place: Path) -> ProjectNotMade:
    return ProjectNotMade(
        f"{place} is there already; a project is made where nothing is.",
        "Take another name, or another place with --into.",
    )


def _unwritable(place: Path, error: OSError) -> ProjectNotMade:
    return ProjectNotMade(
        f"{place} can't be written: {error.strerror}. Nothing of it was left.",
        "Make room, or name another place with --into, and say it again.",
    )
