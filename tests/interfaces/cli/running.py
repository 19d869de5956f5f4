"""The command line as people run it, and in this process where many runs are wanted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from qmtl.interfaces.cli.main import main


class Ran(NamedTuple):
    """How a command line ended."""

    code: int
    out: str
    err: str

    def lines(self) -> list[Any]:
        """What it printed as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QMTL_")}
    return {**kept, **more}


def start(cwd: Path, *args: str, **env: str) -> subprocess.Popen[str]:
    """Start `qmtl` as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "qmtl", *args],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def run(cwd: Path, *args: str, **env: str) -> Ran:
    """Run `qmtl` as a process of its own."""
    process = start(cwd, *args, **env)
    out, err = process.communicate(timeout=240)
    return Ran(process.returncode, out, err)


def call(capsys: pytest.CaptureFixture[str], *args: str) -> Ran:
    """Run `qmtl` in this process."""
    capsys.readouterr()
    code = main(args)
    return Ran(code, *capsys.readouterr())


def assert_one_screen(ran: Ran, code: str, exit_code: int, *, says: Sequence[str] = ()) -> None:
    """An error as every error is shown: coded, few lines on stderr, nothing of Python in it."""
    assert ran.code == exit_code, ran
    assert ran.err.startswith(f"[{code}] "), ran
    assert "Traceback" not in ran.err
    assert 1 <= len(ran.err.splitlines()) <= 4
    assert len(ran.err) < 4000
    assert all(one in ran.err for one in says), ran
