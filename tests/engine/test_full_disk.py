"""A disk that is full, as the kernel tells it: a small file system for the stores, and the log on a broker that has room."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from tests.engine.driving import messages
from tests.engine.full_disk import LEFT, item
from tests.engine.models import counted
from tests.engine.program import address_of
from tests.engine.toys import ECHO

ROOT = Path(__file__).resolve().parents[2]
OWN_MOUNTS = ("unshare", "--user", "--map-root-user", "--mount")
ITEMS = 800


def why_not() -> str | None:
    """Why this machine lets no process of this user mount a file system for itself; None where it does."""
    try:
        done = subprocess.run(
            [*OWN_MOUNTS, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip()


def test_a_worker_on_a_full_disk_says_so_loses_nothing_and_goes_on_when_there_is_room(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(f"the kernel gives no file system of one's own: {reason}")
    place = tmp_path / "small"
    place.mkdir()
    program = [sys.executable, "-m", "tests.engine.full_disk", address_of(kafka_log), str(place), str(ITEMS)]
    script = 'mount -t tmpfs -o size=24m none "$0" && exec "$@"'
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
    assert len(said["told"]) == len(LEFT)
    for texts in said["told"]:
        assert all("QMTL-315" in text and "No space left on device" in text for text in texts), texts
        assert texts
    assert said["rebuilt"] == []  # what a full disk leaves behind is not taken for damage
    assert list(place.iterdir()) == []  # it was the other file system
    echoed = sorted(messages(kafka_log, ECHO.name), key=lambda one: one.seq)
    assert echoed == counted([item(number) for number in range(ITEMS)])
