"""Environments of the libraries that we are measured against: one each, at the versions and hashes of its lock file."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WORK = HERE.parent / ".work"


class NoEnvironment(Exception):
    """A library could not be installed; says why, and is shown to whoever asked for its part."""


def environment(name: str, work: Path = WORK) -> Path:
    """The Python of a library's environment, made in `work` when it isn't there or when its lock file has changed.

    Raises:
        NoEnvironment: it could not be made.
    """
    lock = HERE / f"{name}.lock"
    mark = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    place = work / f"{name}-venv"
    python = place / "bin" / "python"
    ready = place / "ready"
    if ready.exists() and ready.read_text() == mark:
        return python
    print(f"{name}: making an environment from {lock.name}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoEnvironment(f"{name}: its environment could not be made: {error}") from None
    _run(name, [sys.executable, "-m", "venv", str(place)])
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    _run(name, [*pip, "install", "--require-hashes", "-r", str(lock)])
    ready.write_text(mark)
    return python


def versions(name: str) -> dict[str, str]:
    """The versions of a library's lock file."""
    lines = (HERE / f"{name}.lock").read_text().splitlines()
    pins = [
        line.split(" ")[0].split("==") for line in lines if "==" in line and not line.startswith((" ", "#"))
    ]
    wanted = {"quixstreams", "faust-streaming", "confluent-kafka", "aiokafka", "rocksdict", "fastavro"}
    return {pin[0]: pin[1] for pin in pins if pin[0] in wanted}


def _run(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoEnvironment(f"{name}: {command[0]} could not be run: {error}") from None
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise NoEnvironment(
            f"{name}: its environment could not be made: {said[-1] if said else 'no word why'}"
        )
