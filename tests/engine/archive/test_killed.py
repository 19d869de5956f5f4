"""Who archives may be killed anywhere: what is left is no archive, the next one is whole, and the topic is as it was."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from qmtl.engine.archive.address import parse
from qmtl.engine.archive.objects import in_memory, open_objects
from qmtl.engine.archive.reading import load, manifests, restore
from qmtl.engine.archive.writing import require_unchanged
from qmtl.engine.log.embedded import EmbeddedLog
from tests.contract.driving import until
from tests.engine.archive.histories import (
    BESIDE,
    SMALL,
    SOME,
    SPEC,
    TOPIC,
    Clock,
    Transaction,
    archived,
    on_the_log,
    write,
)
from tests.engine.archive.stores import contents

ROOT: Final = Path(__file__).resolve().parents[3]
# Four objects and the manifest. A write waits for the disk for the object and for every directory that leads to it.
MOMENTS: Final = [("put", 0), ("disk", 2), ("put", 3), ("get", 0), ("get", 3), ("put", 4)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    log = EmbeddedLog(tmp_path / "log", clock_ms=Clock())
    log.ensure_topics([SPEC, BESIDE])
    write(log, SOME)
    yield log
    log.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "shelf"
    made.mkdir()
    return made


def start(log: EmbeddedLog, place: Path, *dies: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.engine.archive.archiving", f"embedded:{log.directory}", place, *dies],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_after_kills_at_chosen_moments_the_archive_is_the_one_of_an_undisturbed_run(
    log: EmbeddedLog, place: Path
) -> None:
    whole = in_memory()
    expected = archived(log, whole, SMALL)
    records, life = on_the_log(log), log.incarnations([TOPIC])
    store = open_objects(parse(f"file://{place}"))
    for moment, number in MOMENTS:
        process = start(log, place, moment, str(number))
        assert (process.communicate()[0], process.returncode) == ("", -signal.SIGKILL)
        assert manifests(store) == []
        assert set(contents(store).items()) <= set(contents(whole).items())
    process = start(log, place, "get", "4")  # the manifest is there, and nobody was told
    assert (process.communicate()[0], process.returncode) == ("", -signal.SIGKILL)
    assert list(restore(store, load(store, expected.name))) == records
    process = start(log, place)
    assert (process.communicate()[0], process.returncode) == (expected.name, 0)
    assert contents(store) == contents(whole)
    assert (on_the_log(log), log.incarnations([TOPIC])) == (records, life)
    require_unchanged(log, expected)


def test_a_kill_from_outside_between_any_two_instructions_leaves_nothing_that_counts(
    log: EmbeddedLog, place: Path
) -> None:
    chance = random.Random(3)
    rows = [(number % 3, str(number).encode(), chance.randbytes(200_000)) for number in range(60)]
    write(log, [Transaction((one,)) for one in rows])
    whole = in_memory()
    expected = archived(log, whole, SMALL)
    store = open_objects(parse(f"file://{place}"))
    for count in (1, 25):
        process = start(
            log, place, "put", str(len(expected.objects))
        )  # however late the kill from outside comes
        until(lambda: process.poll() is not None or len(list(place.rglob("*.avro*"))) >= count)  # noqa: B023 - used at once
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert manifests(store) == []
    process = start(log, place)
    assert (process.communicate()[0], process.returncode) == (expected.name, 0)
    assert contents(store) == contents(whole)
    assert list(restore(store, load(store, expected.name))) == on_the_log(log)
