"""Whatever ends an import, the catalogue has the commit whole or not at all, and the import said again completes it, byte for byte."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qmtl.foundation.common.errors import NotInCatalogue
from qmtl.runtime.data.catalogue import Catalogue, writing
from qmtl.runtime.data.conformance import Conformance
from tests.runtime.data.killed import DONE, FULL, add
from tests.runtime.data.power import Disk, written
from tests.runtime.data.walk import SYMBOL, walk

ROOT = Path(__file__).parents[3]


def based(place: Path) -> Path:
    """A catalogue with one commit, to which `add` brings another one."""
    with writing(place) as writer:
        writer.add(SYMBOL, 60, [walk(0, 60)], {"kind": "first"})
    return place


def files_in(place: Path) -> dict[str, bytes]:
    """Each file; a draft without the number of its process."""
    return {
        re.sub("staging/[0-9]+-", "staging/", str(path.relative_to(place))): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


class Undisturbed:
    """The catalogue of an import that nothing ends, to which all others are held."""

    def __init__(self, place: Path) -> None:
        add(place)
        self.files = files_in(place)
        self.commits = Catalogue(place).commits()
        self.states = [state(place, number) for number in range(len(self.commits) + 1)]
        self._seen: list[dict[str, bytes]] = []

    def holds(self, place: Path, name: str) -> int:
        """The commits that are there; they are the first ones of the undisturbed catalogue, all bars in them, and what is missing can be made up for."""
        found = files_in(place)
        try:
            catalogue = Catalogue(place)
            there = catalogue.commits()
            catalogue.audit()
        except NotInCatalogue:
            there = ()
        if found in self._seen:
            return len(there)
        self._seen.append(found)
        assert there == self.commits[: len(there)], name
        assert state(place, len(there)) == self.states[len(there)], name
        add(place)
        assert files_in(place) == self.files, name
        return len(there)


def state(place: Path, number: int) -> tuple[str, ...]:
    """All bars as of a commit, each part held to its digest, each bar to what bars are."""
    if not number:
        return ()
    catalogue, held = Catalogue(place), Conformance(SYMBOL, 60)
    for chunk in catalogue.read(SYMBOL, 60, as_of=number):
        held.take(chunk)
    return (catalogue.fingerprint([SYMBOL], 60, as_of=number), str(held.findings().bars))


def test_a_killed_import_and_a_full_disk_leave_a_commit_whole_or_absent(tmp_path: Path) -> None:
    based(tmp_path / "base")
    program = [sys.executable, "-m", "tests.runtime.data.killed", str(tmp_path)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    ended = [(name, int(code)) for name, code in json.loads(done.stdout)]
    whole = {"new": Undisturbed(tmp_path / "whole-new"), "old": Undisturbed(based(tmp_path / "whole-old"))}
    there: dict[str, set[int]] = {"new": set(), "old": set()}
    for name, code in ended:
        base = "new" if name.startswith("new") else "old"
        commits = whole[base].holds(tmp_path / name, name)
        there[base].add(commits)
        old = 0 if base == "new" else 1
        assert commits in ((old + 1,) if code == DONE else (old,) if code == FULL else (old, old + 1)), name
    assert there == {"new": {0, 1}, "old": {1, 2}}
    codes = [code for _, code in ended]
    assert codes.count(FULL) >= 3
    # Each of three or four files is written, flushed, synced and renamed, and so is what is above it.
    assert codes.count(-signal.SIGKILL) >= 30
    assert codes.count(-signal.SIGXFSZ) >= 6


@pytest.mark.parametrize("base", ["new", "old"])
def test_a_loss_of_power_leaves_a_commit_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str
) -> None:
    whole = Undisturbed(tmp_path / "whole" if base == "new" else based(tmp_path / "whole"))
    disk = Disk(tmp_path / "disk")
    disk.root.mkdir()
    if base == "old":
        based(disk.root / "c")
        disk.settle()
    with disk.watched(monkeypatch):
        add(disk.root / "c")
    assert len(disk.images) >= 5
    there = [
        whole.holds(written(image, tmp_path / str(at)) / "c", f"image {at}")
        for at, image in enumerate(disk.images)
    ]
    assert set(there) == {len(whole.commits) - 1, len(whole.commits)}
    # Who is told that it is done has it for good.
    for at, image in enumerate(disk.now()):
        assert whole.holds(written(image, tmp_path / f"end-{at}") / "c", "the end") == len(whole.commits)
