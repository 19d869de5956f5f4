"""The engines that we are measured beside: an environment of its own for each, at the versions and hashes of its lock file, and one run in it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.backtest.count import Expected
from bench.backtest.market import Integers
from bench.engine.gauge import Failed
from bench.engine.peers import WORK, NoEnvironment

HERE: Final = Path(__file__).parent / "apps"
CASH: Final = 10_000_000
"""What a peer begins with: enough for the fees of a million bars, and few enough digits for a float to have some left for cents."""

PATIENCE_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Peer:
    """One engine.

    Attributes:
        name: of its lock file and its program.
        package: what it is called by its installer.
        python: the version of Python that it needs, `3.12` for instance.
        cash_off: by how many units of currency its cash may be off in the end: what floats or digits of its own make of it.
        quick: a run is over in a second, and is made more often.
    """

    name: str
    package: str
    python: str
    cash_off: float
    quick: bool = False


PEERS: Final = (
    Peer("vectorbt", "vectorbt", "3.11", 1e-4, quick=True),
    Peer("backtrader", "backtrader", "3.11", 1e-4),
    Peer("nautilus", "nautilus-trader", "3.12", 0.0),
    Peer("nautilus2", "nautilus-trader", "3.12", 0.0, quick=True),
)


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a peer's run has come to.

    Attributes:
        told: seconds, megabytes, and whatever else it says of itself.
        price: of each fill, as it has it.
        bought: whether it was a purchase.
        at: the bar at whose close it was ordered.
        fee: of each.
        more: what else its program has written down.
    """

    told: dict[str, Any]
    price: NDArray[np.float64]
    bought: NDArray[np.bool_]
    at: Integers
    fee: NDArray[np.float64]
    more: Mapping[str, NDArray[np.float64]]


def environment(peer: Peer, work: Path = WORK) -> Path:
    """The Python of a peer's environment, made in `work` when it isn't there or when its lock file has changed.

    Raises:
        NoEnvironment: it could not be made.
    """
    lock = HERE / f"{peer.name}.lock"
    base = _python(peer)
    mark = hashlib.sha256(lock.read_bytes() + peer.python.encode()).hexdigest()
    place = work / f"backtest-{peer.name}-venv"
    python, ready = place / "bin" / "python", place / "ready"
    if ready.exists() and ready.read_text() == mark:
        return python
    print(f"{peer.name}: making an environment from {lock.name}", flush=True)
    shutil.rmtree(place, ignore_errors=True)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoEnvironment(f"{peer.name}: its environment could not be made: {error}") from None
    _install(peer, [str(base), "-m", "venv", str(place)])
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    _install(peer, [*pip, "install", "--require-hashes", "--only-binary", ":all:", "-r", str(lock)])
    ready.write_text(mark)
    return python


def _python(peer: Peer) -> Path:
    """An interpreter of the version that a peer needs: this one, or as the shell finds it, or where pyenv keeps it."""
    name = f"python{peer.python}"
    if f"{sys.version_info.major}.{sys.version_info.minor}" == peer.python:
        return Path(sys.executable)
    candidates = [shutil.which(name), *_of_pyenv(peer.python)]
    for one in candidates:
        if one is None:
            continue
        asked = [str(one), "-c", "import sys; print(sys.executable)"]
        said = subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if said.returncode == 0:  # a shim of pyenv is there for versions that are not chosen, too
            return Path(said.stdout.strip())
    raise NoEnvironment(f"{peer.name}: needs Python {peer.python}; there is no {name} on the PATH")


def _of_pyenv(version: str) -> Iterator[Path]:
    yield from sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"), reverse=True)


def _install(peer: Peer, command: list[str]) -> None:
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoEnvironment(f"{peer.name}: {command[0]} could not be run: {error}") from None
    if done.returncode != 0:
        said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise NoEnvironment(
            f"{peer.name}: its environment could not be made: {said[-1] if said else 'no word why'}"
        )


def version(peer: Peer) -> str:
    """The version of its lock file."""
    lines = (HERE / f"{peer.name}.lock").read_text().splitlines()
    (found,) = [line.split("==")[1].split()[0] for line in lines if line.startswith(f"{peer.package}==")]
    return found


def run(peer: Peer, python: Path, bars: Path, strategy: str) -> Found:
    """One run in a process of its own.

    Args:
        bars: a file that `Market.write` has made.

    Raises:
        Failed: it ended badly, or was not done in time.
    """
    with tempfile.TemporaryDirectory(prefix="bench-backtest-") as name:
        out = Path(name) / "fills.npz"
        told = {"bars": str(bars), "out": str(out), "strategy": strategy, "cash": CASH}
        command = [str(python), str(HERE / f"{peer.name}_app.py"), json.dumps(told)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
                cwd=name,
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{peer.name} was not done after {PATIENCE_S:g} s") from None
        if done.returncode != 0:
            raise Failed(
                f"{peer.name} ended with code {done.returncode}: {' '.join(done.stderr.splitlines()[-3:])}"
            )
        said = json.loads(done.stdout.splitlines()[-1])
        with np.load(out) as fills:
            kept = {one: fills[one] for one in fills.files}
        return Found(said, kept.pop("price"), kept.pop("bought"), kept.pop("at"), kept.pop("fee"), kept)


def fault(peer: Peer, found: Found, want: Expected) -> str | None:
    """What is not as it was counted; None where all of it is, cash within what a peer's own digits make of it."""
    if len(found.price) != want.fills:
        return f"{len(found.price)} fills, counted were {want.fills}"
    for name, mine, counted in (
        ("price", found.price, want.price / 100),
        ("side", found.bought, np.arange(want.fills) % 2 == 0),
        ("bar", found.at, want.at),
    ):
        wrong = np.flatnonzero(mine != counted)
        if len(wrong):
            first = int(wrong[0])
            return f"{name} of fill {first + 1} is {mine[first]}, counted was {counted[first]}"
    if found.told["position"] != want.position:
        return f"{found.told['position']} units are held at the end, counted were {want.position}"
    off = cash_off(found, want)
    if abs(off) > peer.cash_off:
        return f"cash is off by {off:g}, {peer.cash_off:g} are allowed"
    return None


def cash_off(found: Found, want: Expected) -> float:
    """By how much the change of cash is another one than was counted."""
    return float(found.told["cash_change"]) - want.cash / 1e5
