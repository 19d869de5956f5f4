"""The sample configuration is installed once, read as it is, and never written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qmtl.interfaces.server_config import ServerConfig, read_config
from tests.interfaces.cli.running import Ran, assert_one_screen, call


def init(capsys: pytest.CaptureFixture[str], *args: str) -> Ran:
    return call(capsys, "project", "init", *args)


def test_what_is_installed_is_the_sample_and_a_server_runs_on_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "new" / "place" / "qmtl.yml"
    told = [json.loads(init(capsys, str(file.parent), "--json").out) for _ in range(3)]
    assert told == [{"file": str(file), "state": state} for state in ("made", "there", "there")]
    assert read_config(file) == ServerConfig(), "in memory, until a line is uncommented"
    file.write_text(file.read_text(encoding="utf-8").replace("  # kafka_dsn:", "  kafka_dsn:"), "utf-8")
    assert read_config(file) == ServerConfig("localhost:9092")


def test_it_goes_where_one_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--config qmtl.yml" in init(capsys).out
    assert [one.name for one in tmp_path.iterdir()] == ["qmtl.yml"]


@pytest.mark.parametrize("mine", [b"", b"dagmanager:\n  kafka_dsn: a:1\n", b"\xff"])
def test_a_file_that_somebody_changed_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, mine: bytes
) -> None:
    file = tmp_path / "qmtl.yml"
    file.write_bytes(mine)
    assert json.loads(init(capsys, str(tmp_path), "--json").out)["state"] == "changed"
    ran = init(capsys, str(tmp_path))
    assert (ran.code, "stays as it is" in ran.out) == (0, True)
    assert file.read_bytes() == mine


def test_a_place_that_can_not_be_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_one_screen(init(capsys, str(tmp_path / "file")), "QMTL-801", 2, says=[str(tmp_path / "file")])
    (tmp_path / "qmtl.yml").mkdir()
    assert_one_screen(init(capsys, str(tmp_path)), "QMTL-801", 2, says=["qmtl.yml", "Is a directory"])
