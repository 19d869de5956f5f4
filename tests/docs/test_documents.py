"""The documents say what is true: the commands of README and docs/ run, and ARCHITECTURE's picture is the topology's."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import qmtl.examples
from qmtl.topology import mermaid, problems

ROOT = Path(__file__).parents[2]
RUN = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"<!-- run -->\n```python\n(.*?)```", re.DOTALL)


DOCUMENTS = (
    "README.md",
    "docs/operations.md",
    "docs/dagmanager.md",
    "docs/strategies.md",
    "docs/running.md",
    "docs/data.md",
    "docs/report.md",
    "docs/backtest.md",
    "docs/sweep.md",
    "docs/honesty.md",
    "docs/live.md",
)


def commands() -> list[str]:
    """The commands that are marked to be run, in order: those of README first, which make what the others look at."""
    text = "".join((ROOT / name).read_text() for name in DOCUMENTS)
    return [line for block in RUN.findall(text) for line in block.splitlines() if line.strip()]


MINE = "embedded:mine/"
"""The log of a reader's own; the others look at what the demo has left, or at none."""


@pytest.mark.parametrize("is_mine", [False, True], ids=["the demo's log", "a log of one's own"])
def test_every_marked_command_of_the_documents_runs_in_order(tmp_path: Path, is_mine: bool) -> None:
    examples = Path(str(qmtl.examples.__file__)).parent
    for command in [one for one in commands() if (MINE in one) is is_mine]:
        words = shlex.split(command.replace("{examples}", str(examples)))
        assert words[0] == "qmtl"
        done = subprocess.run(
            [sys.executable, "-m", "qmtl", *words[1:]],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": "7"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command


PROGRAMS = [
    program
    for name in (
        "README.md",
        "docs/strategies.md",
        "docs/backtest.md",
        "docs/brokerage.md",
        "docs/venues.md",
        "docs/risk.md",
    )
    for program in PYTHON.findall((ROOT / name).read_text())
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_marked_program_of_the_documents_runs(program: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_readme_has_commands_to_run() -> None:
    assert min(Counter(MINE in one for one in commands()).values()) >= 10
    assert PYTHON.findall((ROOT / "README.md").read_text())


def test_the_picture_in_the_architecture_is_drawn_from_the_topology() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    found = re.search(r"<!-- topology -->\n```mermaid\n(.*?)```", text, re.DOTALL)
    assert found is not None
    assert found.group(1) == mermaid(), (
        "run `qmtl topology --format mermaid` and put its output between the marks"
    )


def test_topology_and_catalogue_agree() -> None:
    assert problems() == []


def test_no_document_names_a_command_that_does_not_exist() -> None:
    from qmtl.interfaces.cli.main import VERBS

    for name in ("ARCHITECTURE.md", *DOCUMENTS):
        for verb in re.findall(r"`qmtl ([a-z]+)", (ROOT / name).read_text()):
            assert verb in VERBS, f"{name} names `qmtl {verb}`"
