"""A program that archives a topic on a small file system that is full, again and again with a little more room, and then with enough.

Run as `python -m tests.engine.archive.full_disk LOG STORE`, where LOG is as `qmtl` has it and STORE is a file system of its own. It prints
a JSON object: the errors, the manifests that were there after each, and in the end the archive's digest.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from qmtl.bootstrap import open_log
from qmtl.engine.archive.address import parse
from qmtl.engine.archive.manifest import ArchiveManifest
from qmtl.engine.archive.objects import open_objects
from qmtl.engine.archive.reading import load, manifests, verify
from qmtl.foundation.common.errors import ArchiveError
from tests.engine.archive.histories import SMALL, archived
from tests.engine.full_disk import fill


def main(address: str, place: str) -> None:
    log, store = open_log(address, read_only=True), open_objects(parse(f"file://{place}"))
    problems: list[str] = []
    left: list[list[str]] = []
    done: ArchiveManifest | None = None
    room = 0
    while done is None:
        ballast = fill(Path(place), room)
        try:
            done = archived(log, store, SMALL)
        except ArchiveError as problem:
            problems.append(str(problem))
            left.append(manifests(store))
        ballast.unlink()
        room += 32 << 10
    verify(store, load(store, done.name))
    log.close()
    sys.stdout.write(json.dumps({"problems": problems, "left": left, "digest": done.digest}))


if __name__ == "__main__":
    main(*sys.argv[1:])
