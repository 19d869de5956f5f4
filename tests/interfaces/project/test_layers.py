"""New projects: every choice of layers is whole and the same bytes each time, a full one passes its own tests, and its README's commands run."""

from __future__ import annotations

import ast
import errno
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl import __version__
from qmtl.foundation.common.errors import ProjectNotMade, UsageError
from qmtl.interfaces.project.layers import LAYERS, chosen, contents
from qmtl.interfaces.project.making import make_project
from qmtl.runtime.data.bars import default_sources, read_bars
from qmtl.runtime.sdk.loading import load_strategy, message_of
from qmtl.services.dagmanager.admission import admit
from tests.interfaces.cli.running import call
from tests.interfaces.project.programs import a_program
from tests.misuse.small_disk import small_disk

ROOT = Path(__file__).parents[3]
NAMES = [one.name for one in LAYERS]
CONSOLE = re.compile(r"```console\n(.*?)```", re.DOTALL)


def made(*names: str, project: str = "trend") -> dict[str, bytes]:
    return contents(chosen(names), project)


# ---- what is in them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names", [one for size in range(1, len(NAMES) + 1) for one in combinations(NAMES, size)], ids="+".join
)
def test_every_choice_of_layers_is_whole(names: tuple[str, ...]) -> None:
    files = made(*names)
    there = {one.name for one in chosen(names)}
    assert there >= {"minimal", *names}
    assert ("trend/functions.py" in files) is ("python" in there)
    assert ("tests/test_functions.py" in files) is ({"python", "tests"} <= there)
    for path, data in files.items():
        text = data.decode()
        assert re.search("@[a-z]+@", path + text) is None, path
        assert text.endswith("\n"), path
        assert all(line == line.rstrip() for line in text.splitlines()), path
        if path.endswith(".py"):
            ast.parse(text)
        if path.endswith((".yml", ".yaml")):
            yaml.safe_load(text)
    project = tomllib.loads(files["pyproject.toml"].decode())["project"]
    assert (project["name"], project["dependencies"]) == ("trend", [f"qmtl>={__version__}"])
    readme = files["README.md"].decode()
    assert readme.startswith("# trend\n")
    for named in re.findall(r"`((?:trend|data|tests|\.github)/[\w./-]+)`", readme):
        assert named in files, named
    for command in commands(files):
        for word in shlex.split(command):
            if word.endswith((".py", ".csv")):
                assert word.rpartition("=")[2] in files, command


@given(st.lists(st.sampled_from(NAMES), max_size=8))
@settings(max_examples=30)
def test_the_order_in_which_layers_are_said_makes_no_difference_and_neither_does_what_they_need(
    names: list[str],
) -> None:
    needed = [need for name in names for one in LAYERS if one.name == name for need in one.needs]
    assert made(*names) == made(*reversed(names)) == made(*names, *needed) == made(*sorted(set(names)))
    assert list(made(*names)) == sorted(made(*names))


def test_without_a_word_all_layers_are_laid() -> None:
    assert made() == made(*NAMES)


def test_an_unknown_layer_is_refused() -> None:
    with pytest.raises(UsageError, match="'best'; there are minimal"):
        chosen(["minimal", "best"])


def test_what_a_layer_replaces_goes_on_saying_what_was_there() -> None:
    """The settings of a project with tests are those without, and more."""
    plain, tested = (made(name)["pyproject.toml"].decode().splitlines() for name in ("minimal", "tests"))
    assert [line for line in tested if line in plain and line] == [line for line in plain if line]


def test_the_bars_are_a_whole_day_of_those_that_come_with_qmtl(tmp_path: Path) -> None:
    (shipped,) = [one for one in default_sources() if one.symbol == "BTC-USD"]
    mine = tmp_path / "bars.csv"
    mine.write_bytes(made("data")["data/btc-usd_1m.csv"])
    day = 86_400_000
    whole = [one for one in read_bars(shipped.path, "BTC-USD", 60) if one.open_time_ms // day == 17_626]
    assert list(read_bars(mine, "BTC-USD", 60)) == whole
    assert len(whole) == 1_440


def test_the_workflow_runs_what_the_readme_says() -> None:
    workflow: Any = yaml.safe_load(made("ci")[".github/workflows/tests.yml"])
    steps = [one["run"] for one in workflow["jobs"]["tests"]["steps"] if "run" in one]
    readme = made("ci")["README.md"].decode()
    assert steps == ['pip install -e ".[test]"', "pytest"]
    assert "\n".join(steps) in readme


# ---- what they do -------------------------------------------------------------------------------------------------------


def commands(files: Mapping[str, bytes]) -> list[str]:
    """The commands of a README but those that install."""
    blocks = CONSOLE.findall(files["README.md"].decode())
    return [line for block in blocks for line in block.splitlines() if not line.startswith("pip ")]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("projects") / "trend"
    make_project(place, made())
    return place


def test_the_full_project_passes_its_own_tests(full: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("QMTL_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"],
        cwd=full,
        env={**env, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None
    assert int(found[1]) >= 12


def test_the_commands_of_its_readme_run_in_their_order(
    full: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(full)
    with a_program():
        for command in commands(made()):
            words = shlex.split(command)
            if words[0] == "qmtl":
                done = call(capsys, *words[1:])
                assert done.code == 0, f"{command}\n{done.out}\n{done.err}"
                assert done.out.strip(), command
                assert "rejected" not in done.out, "the gates are open"
            else:
                assert words == ["pytest"], "it has a test above"
    assert Path("results/report.html").stat().st_size > 1_000
    ignored = {one.rstrip("/") for one in Path(".gitignore").read_text(encoding="utf-8").split()}
    there = {path.name for path in full.iterdir()} - {path.partition("/")[0] for path in made()}
    assert {"results", ".qmtl"} <= there <= ignored


@pytest.mark.parametrize("name", ["minimal", "python"])
def test_a_project_of_few_layers_has_a_sound_strategy(tmp_path: Path, name: str) -> None:
    make_project(tmp_path / f"my_{name}", made(name, project=f"my_{name}"))
    with a_program():
        message = message_of(load_strategy(str(tmp_path / f"my_{name}" / f"my_{name}" / "strategy.py")))
    graph = admit(message, 0)
    assert (graph.strategy_id, len(graph.signals)) == (f"my_{name}", 1)
    kinds = {one.node.node_type for one in graph.nodes}
    assert ("python" in kinds) is (name == "python")


# ---- how they are made --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 100, 3_000, 50_000])
def test_on_a_disk_that_fills_nothing_is_left_and_with_room_it_is_made(tmp_path: Path, size: int) -> None:
    place = tmp_path / "trend"
    with small_disk(size), pytest.raises(ProjectNotMade) as caught:
        make_project(place, made())
    for word in (str(place), "too large", "Nothing of it was left", "Make room"):
        assert word in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    make_project(place, made())
    found = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    assert found == made()
    assert [one.name for one in tmp_path.iterdir()] == ["trend"]


def test_what_came_to_the_place_meanwhile_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "trend"
    rename = os.rename

    def somebody_is_faster(old: Path, new: Path) -> None:
        place.mkdir()
        (place / "mine").write_bytes(b"mine")
        rename(old, new)

    monkeypatch.setattr(os, "rename", somebody_is_faster)
    with pytest.raises(ProjectNotMade, match="is there already"):
        make_project(place, made("minimal"))
    assert [one.name for one in tmp_path.rglob("*")] == ["trend", "mine"]


def test_what_a_killed_try_has_left_hinders_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "trend"

    class Killed(BaseException):
        pass

    def dies(old: Path, new: Path) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", dies)
        patched.setattr("shutil.rmtree", lambda *of, **more: None)
        with pytest.raises(Killed):
            make_project(place, made("minimal"))
    assert not place.exists()
    make_project(place, made("minimal"))
    assert (place / "README.md").exists()


def test_a_place_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(old: Path, new: Path) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "rename", refused)
    with pytest.raises(ProjectNotMade, match="Permission denied"):
        make_project(tmp_path / "trend", made("minimal"))
    assert list(tmp_path.iterdir()) == []
