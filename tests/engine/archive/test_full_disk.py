"""A disk that is full, as the kernel tells it: a coded error and no archive until there is room for all of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from qmtl.engine.archive.objects import in_memory
from qmtl.engine.log.embedded import EmbeddedLog
from tests.engine.archive.histories import (
    BESIDE,
    SMALL,
    SPEC,
    Clock,
    Transaction,
    archived,
    on_the_log,
    write,
)
from tests.engine.test_full_disk import OWN_MOUNTS, ROOT, why_not


def test_an_archive_on_a_full_disk_says_so_and_is_none_until_there_is_room(tmp_path: Path) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"the kernel gives no file system of one's own: {reason}")
    log = EmbeddedLog(tmp_path / "log", clock_ms=Clock())
    log.ensure_topics([SPEC, BESIDE])
    chance = random.Random(5)
    write(log, [Transaction(((number % 3, b"k", chance.randbytes(30_000)),)) for number in range(12)])
    records = on_the_log(log)
    place = tmp_path / "small"
    place.mkdir()
    program = [
        sys.executable,
        "-m",
        "tests.engine.archive.full_disk",
        f"embedded:{log.directory}",
        str(place),
    ]
    script = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
    done = subprocess.run(
        [*OWN_MOUNTS, "sh", "-c", script, str(place), *program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert len(said["problems"]) > 3
    for text in said["problems"]:
        assert text.startswith("[QMTL-901] file://")
        assert "No space left on device" in text
        assert "Nothing was deleted." in text
        assert "has room" in text
    assert set(map(len, said["left"])) == {0}
    assert said["digest"] == archived(log, in_memory(), SMALL).digest
    assert on_the_log(log) == records
    log.close()
