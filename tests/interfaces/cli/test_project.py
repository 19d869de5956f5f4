"""The sample configuration is installed once, read as it is, and never written over; a new project is made whole, and over nothing."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from qmtl.interfaces.server_config import ServerConfig, read_config
from tests.interfaces.cli.running import Ran, assert_one_screen, call

Capture = pytest.CaptureFixture[str]


def init(capsys: Capture, *args: str) -> Ran:
    return call(capsys, "project", "init", *args)


# ---- the configuration alone -------------------------------------------------------------------------------------------


def test_what_is_installed_is_the_sample_and_a_server_runs_on_it(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "new" / "place" / "qmtl.yml"
    told = [json.loads(init(capsys, "--into", str(file.parent), "--json").out) for _ in range(3)]
    assert told == [{"file": str(file), "state": state} for state in ("made", "there", "there")]
    assert read_config(file) == ServerConfig(), "in memory, until a line is uncommented"
    file.write_text(file.read_text(encoding="utf-8").replace("  # kafka_dsn:", "  kafka_dsn:"), "utf-8")
    assert read_config(file) == ServerConfig("localhost:9092")


def test_it_goes_where_one_is(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "--config qmtl.yml" in init(capsys).out
    assert [one.name for one in tmp_path.iterdir()] == ["qmtl.yml"]


@pytest.mark.parametrize("mine", [b"", b"dagmanager:\n  kafka_dsn: a:1\n", b"\xff"])
def test_a_file_that_somebody_changed_stays_as_it_is(capsys: Capture, tmp_path: Path, mine: bytes) -> None:
    file = tmp_path / "qmtl.yml"
    file.write_bytes(mine)
    assert json.loads(init(capsys, "--into", str(tmp_path), "--json").out)["state"] == "changed"
    ran = init(capsys, "--into", str(tmp_path))
    assert (ran.code, "stays as it is" in ran.out) == (0, True)
    assert file.read_bytes() == mine


def test_a_place_that_can_not_be_written_is_named(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ran = init(capsys, "--into", str(tmp_path / "file"))
    assert_one_screen(ran, "QMTL-801", 2, says=[str(tmp_path / "file")])
    (tmp_path / "qmtl.yml").mkdir()
    ran = init(capsys, "--into", str(tmp_path))
    assert_one_screen(ran, "QMTL-801", 2, says=["qmtl.yml", "Is a directory"])


FIELD = re.compile(
    r"((?:  # .+\n)+)"  # what it means
    r"  # Unit: (?P<unit>[^\n]+?)\. Default: (?P<default>[^\n]+)\.\n"
    r"  # (?P<name>\w+): (?P<value>[^\n]+)\n"
)


def test_every_field_of_the_settings_is_in_the_sample_with_its_meaning_unit_and_default(
    capsys: Capture, tmp_path: Path
) -> None:
    init(capsys, "--into", str(tmp_path))
    found = {one["name"]: one for one in FIELD.finditer((tmp_path / "qmtl.yml").read_text(encoding="utf-8"))}
    said = [one for one in fields(ServerConfig) if one.name != "unused"]
    assert sorted(found) == sorted(one.name for one in said)
    for one in said:
        assert one.default is not MISSING
        quoted = json.dumps(one.default) if one.default == "0" else str(one.default)
        if one.default is None:
            assert re.fullmatch("none|what .+", found[one.name]["default"]), one.name
        else:
            assert found[one.name]["default"] == quoted, one.name
        if "int" in str(one.type):
            assert re.match("seconds|days|messages per second|port", found[one.name]["unit"]), one.name


# ---- a project ---------------------------------------------------------------------------------------------------------


def test_a_project_is_told_with_its_layers_and_files(capsys: Capture, tmp_path: Path) -> None:
    ran = init(capsys, "trend", "--into", str(tmp_path), "--template", "data", "--json")
    (told,) = ran.lines()
    assert told["layers"] == ["minimal", "data"]
    there = [
        path.relative_to(tmp_path / "trend") for path in (tmp_path / "trend").rglob("*") if path.is_file()
    ]
    assert told["files"] == sorted(map(str, there))
    ran = init(capsys, "other", "--into", str(tmp_path))
    assert "minimal, python, data, config, tests, ci" in ran.out
    assert f"next: cd {tmp_path / 'other'}" in ran.out


def test_the_layers_are_listed_with_what_they_bring(capsys: Capture) -> None:
    listed = {one["layer"]: one for one in call(capsys, "project", "layers", "--json").lines()}
    assert listed["tests"]["needs"] == ["minimal", "data"]
    assert "NAME/functions.py" in listed["python"]["files"]
    shown = call(capsys, "project", "layers").out
    assert all(name in shown for name in listed)


def test_nothing_is_written_over(capsys: Capture, tmp_path: Path) -> None:
    for name in ("directory", "file", "link", "made"):
        ran = None
        if name == "directory":
            (tmp_path / name).mkdir()
        elif name == "file":
            (tmp_path / name).write_bytes(b"mine")
        elif name == "link":
            (tmp_path / name).symlink_to("nowhere")
        else:
            assert init(capsys, name, "--into", str(tmp_path), "--template", "minimal").code == 0
            (tmp_path / name / "README.md").write_bytes(b"mine")
        ran = init(capsys, name, "--into", str(tmp_path), "--template", "minimal")
        assert_one_screen(ran, "QMTL-820", 2, says=[str(tmp_path / name), "is there already"])
    assert (tmp_path / "file").read_bytes() == (tmp_path / "made" / "README.md").read_bytes() == b"mine"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["directory", "file", "link", "made"]
    assert list((tmp_path / "directory").iterdir()) == []


def test_a_place_that_is_none_is_named(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, why in (("file", "Not a directory"), ("absent", "No such file")):
        ran = init(capsys, "trend", "--into", str(tmp_path / place))
        assert_one_screen(ran, "QMTL-820", 2, says=[str(tmp_path / place / "trend"), why, "--into"])
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", ["NAME was ''"]),
        (".", ["NAME was '.'", "--into"]),
        ("a/b", ["NAME was 'a/b'", "Say for example b.", "--into"]),
        ("../up", ["Say for example up."]),
        ("My-Trend", ["'My-Trend'", "Say for example my_trend."]),
        ("2fast", ["'2fast'", "a letter first"]),
        ("_hidden", ["Say for example hidden."]),
        ("trend_", ["no '_' last"]),
        ("größe", ["'gr\\xf6\\xdfe'", "ASCII"]),
        ("a" * 61, ["60 at most"]),
        ("class", ["a word of Python's own"]),
        ("match", ["a word of Python's own"]),
        ("json", ["standard library"]),
        ("random", ["standard library"]),
        ("tests", ["a folder beside the package"]),
        ("qmtl", ["installed here"]),
        ("numpy", ["installed here"]),
    ],
)
def test_what_may_be_no_package_is_no_name(
    capsys: Capture, tmp_path: Path, name: str, says: list[str]
) -> None:
    assert_one_screen(init(capsys, name, "--into", str(tmp_path)), "QMTL-801", 2, says=says)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("trend", "--template", "best"), ["'best'", "minimal, python, data", "qmtl project layers"]),
        (("--template", "data"), ["--template was said without NAME"]),
        (("trend", "more"), ["unexpected extra argument"]),
    ],
)
def test_what_is_said_wrong_makes_nothing(
    capsys: Capture, tmp_path: Path, args: tuple[str, ...], says: list[str]
) -> None:
    assert_one_screen(init(capsys, *args, "--into", str(tmp_path)), "QMTL-801", 2, says=says)
    assert list(tmp_path.iterdir()) == []
