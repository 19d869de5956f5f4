"""Runs one after the other, each in a process of its own, of which the middle one is told; none counts whose result is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from bench.backtest import peers
from bench.backtest.count import Expected, expected
from bench.backtest.market import Market
from bench.backtest.ours import Asked
from bench.backtest.peers import PEERS, Found, Peer
from bench.engine.gauge import ROOT, Failed
from bench.engine.peers import NoEnvironment

QUICK_ROUNDS: Final = 5
"""Of runs that are over in a second."""

Say = Callable[[str], None]


def ours(asked: Asked, want: Expected, rounds: int) -> dict[str, Any]:
    """The middle one of some runs of ours.

    Raises:
        Failed: its result is not as it was counted, or its process ended badly.
    """
    runs = [once(asked) for _ in range(rounds)]
    for one in runs:
        require(f"ours, {asked.strategy}", one["fault"], one["fills"], want.fills * asked.many)
    return middle(runs, asked.bars)


def once(asked: Asked) -> dict[str, Any]:
    """What a run tells that has a process of its own.

    Raises:
        Failed: it ended badly.
    """
    command = [sys.executable, "-m", "bench.backtest.ours", json.dumps(asdict(asked))]
    done = subprocess.run(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise Failed(f"ours ended with code {done.returncode}: {' '.join(done.stderr.splitlines()[-3:])}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def peer(one: Peer, bars: Market, strategy: str, rounds: int) -> tuple[dict[str, Any], Found]:
    """The middle one of some runs of a peer, and the last one with its fills.

    Raises:
        NoEnvironment: it could not be installed.
        Failed: its result is not as it was counted, or it ended badly.
    """
    python = peers.environment(one)
    want = expected(strategy, bars)
    runs, found = [], None
    with tempfile.TemporaryDirectory(prefix="bench-backtest-") as name:
        file = Path(name) / "bars.npz"
        bars.write(file)
        for _ in range(rounds):
            found = peers.run(one, python, file, strategy)
            require(one.name, peers.fault(one, found, want), len(found.price), want.fills)
            runs.append({**found.told, "cash_off": peers.cash_off(found, want)})
    assert found is not None  # there is at least one round
    return {**middle(runs, len(bars)), "version": peers.version(one)}, found


def require(who: str, fault: str | None, fills: int, counted: int) -> None:
    """No figure without a right result.

    Raises:
        Failed: something is wrong, or the number of fills is another one than was counted.
    """
    if fault is not None:
        raise Failed(f"{who}: {fault}; its figures do not count")
    if fills != counted:
        raise Failed(f"{who}: {fills} fills, counted were {counted}; its figures do not count")


def middle(runs: Sequence[dict[str, Any]], bars: int) -> dict[str, Any]:
    """The run with the median of the seconds, with the seconds of all of them."""
    ordered = sorted(runs, key=lambda one: float(one["seconds"]))
    found = ordered[(len(ordered) - 1) // 2]
    told = {name: value for name, value in found.items() if name != "fault"}
    return {
        **told,
        "bars_per_s": bars / found["seconds"],
        "seconds_of_all": [one["seconds"] for one in runs],
    }


def peers_named(names: Sequence[str]) -> list[Peer]:
    """Raises: Failed: there is none of that name."""
    known = {one.name: one for one in PEERS}
    if unknown := sorted({*names} - {*known}):
        raise Failed(f"there is no peer {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def each_peer(
    names: Sequence[str],
    bars: Market,
    strategy: str,
    rounds: int,
    left_out: dict[str, str],
    say: Say,
) -> dict[str, tuple[dict[str, Any], Found]]:
    """What the peers take that can be had; the others stand under `left_out`, each with its reason."""
    out = {}
    for one in peers_named(names):
        try:
            out[one.name] = peer(
                one, bars, strategy, max(rounds, QUICK_ROUNDS) if one.quick and rounds > 1 else rounds
            )
        except (NoEnvironment, Failed) as failure:
            left_out[f"{one.name}, {strategy}"] = str(failure)
            say(f"LEFT OUT {failure}")
            continue
        told = out[one.name][0]
        say(f"{one.name} {told['version']}, {strategy}: {told['bars_per_s']:,.0f} bars/s")
    return out
