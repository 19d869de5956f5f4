"""How long the DAG Manager takes to admit a message: by the share of its nodes that are known, and by how many exist.

Each round admits a message of its own fast, some of them slowly too; the ratio is that of the processor's time, message by message,
and a time counts only if both say the same.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.services.dagmanager.admission import admit
from qmtl.services.dagmanager.graph import Graph as Admitted
from qmtl.services.dagmanager.prescan import Prescan

PIPELINE: Final = 5
"""Nodes of a strategy that follows the crossing of two averages."""

SHARES: Final[Mapping[str, float]] = {"none": 1.0, "most": 0.9, "first": 0.0}
"""How much of a message is known, under a word for what is new in it: none; a tenth, where most is known; all, where it is the first.
Measured in this order, as what is new is remembered."""


def pipeline(number: int) -> list[dict[str, Any]]:
    """Five nodes that no other number has, of about 220 bytes each."""
    note = {"metadata": {"note": "x" * 60}}
    common = {"interval": 60, "tags": ["crypto", f"set-{number % 100}"], **note}
    price, fast, slow, cross, target = (f"{kind}_{number}" for kind in ("p", "f", "s", "c", "t"))
    return [
        {"name": price, "node_type": "price", "params": {"symbols": [f"S{number}-USD", "BTC-USD"]}, **common},
        {"name": fast, "node_type": "sma", "period": 3 + number % 7, "inputs": [price], **common},
        {"name": slow, "node_type": "sma", "period": 20 + number % 50, "inputs": [price], **common},
        {"name": cross, "node_type": "cross", "inputs": [fast, slow], **common},
        {
            "name": target,
            "node_type": "position_target",
            "params": {"long_percent": 0.4, "short_percent": -0.4},
            "inputs": [cross],
            **common,
        },
    ]


def message(numbers: Sequence[int]) -> bytes:
    """A strategy of these pipelines."""
    return json.dumps(
        {
            "schema_version": "v1",
            "strategy_id": "bench",
            "meta": {"version": "v1"},
            "nodes": [node for number in numbers for node in pipeline(number)],
            "signals": [f"t_{number}" for number in numbers],
        }
    ).encode()


class Graph:
    """What exists: rows as the catalogue has them, texts in the memo of who admitted them."""

    def __init__(self, nodes: int) -> None:
        self._rows: dict[str, ComputeNode] = {}
        self._nodes = nodes
        self._fresh = 1_000_000_000
        self.pipelines = 0
        self.prescan = Prescan()

    def grow(self, nodes: int) -> None:
        """Admit messages until so many nodes exist."""
        while self.pipelines * PIPELINE < nodes:
            numbers = range(self.pipelines, self.pipelines + self._nodes // PIPELINE)
            for one in self.prescan.admit(message(numbers), 0, self._rows.get).nodes:
                self._rows[one.node.node_id] = one.node
            self.pipelines = numbers.stop

    def message(self, draw: random.Random, share: float) -> bytes:
        """One that nobody sent, of nodes of which so many exist."""
        count = self._nodes // PIPELINE
        known = round(count * share)
        first, self._fresh = self._fresh, self._fresh + count
        numbers = [*draw.sample(range(self.pipelines), known), *range(first, first + count - known)]
        draw.shuffle(numbers)
        return message(numbers)

    def fast(self, data: bytes) -> Admitted:
        return self.prescan.admit(data, 1, self._rows.get)

    def afresh(self, data: bytes) -> Admitted:
        return Prescan().admit(data, 1, self._rows.get)

    def slow(self, data: bytes) -> Admitted:
        return admit(data, 1, self._rows.get)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    Attributes:
        nodes: of each message.
        known: of the whole graph, one size after the other.
        rounds: messages of each kind.
        slow: of them, those that are admitted the slow way too.
        texts: bytes of messages that are shorter or longer than a strategy of `nodes`.
    """

    nodes: int = 1_000
    known: Sequence[int] = (1_000, 10_000, 50_000, 100_000)
    rounds: int = 40
    slow: int = 3
    texts: Sequence[int] = (10 << 10, 500 << 10)


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds on the clock, and of the processor."""

    wall: float
    cpu: float


def timed(judge: Callable[[bytes], Admitted], data: bytes) -> tuple[Timed, Admitted]:
    wall, cpu = time.perf_counter(), time.thread_time()
    out = judge(data)
    return Timed((time.perf_counter() - wall) * 1e3, (time.thread_time() - cpu) * 1e3), out


def measure(place: Path, sizes: Sizes) -> dict[str, Any]:
    """Times by how many nodes exist, by the share of the message's nodes that do; each row is printed.

    Raises:
        SystemExit: fast and slow admission differ.
    """
    found: dict[str, Any] = {}
    graph = Graph(sizes.nodes)
    for known in sorted(sizes.known):
        graph.grow(known)
        gc.collect()
        row = found[str(known)] = {
            share: admitted(graph, part, sizes.rounds if part else sizes.slow, sizes.slow)
            for share, part in SHARES.items()
        } | {"memo_bytes": graph.prescan.known.size + graph.prescan.rows.size}
        print(json.dumps({str(known): row}))
    return found


def admitted(graph: Graph, share: float, rounds: int, slow_rounds: int) -> dict[str, Any]:
    """Times of messages of which such a share is known. Where none is, nothing is remembered at all, and nothing will be.

    Raises:
        SystemExit: fast and slow admission differ.
    """
    draw = random.Random(f"{graph.pipelines} {share}")
    fast: list[Timed] = []
    slow: list[Timed] = []
    size = 0
    for number in range(rounds):
        data = graph.message(draw, share)
        size = len(data)
        took, found = timed(graph.fast if share else graph.afresh, data)
        fast.append(took)
        if number < slow_rounds:
            took, expected = timed(graph.slow, data)
            if found != expected:
                raise SystemExit("fast and slow admission differ: no time counts")
            slow.append(took)
    return {
        "message_bytes": size,
        "fast_ms": spread([one.wall for one in fast]),
        "fast_cpu_ms": spread([one.cpu for one in fast]),
        "slow_ms": spread([one.wall for one in slow]),
        "slow_cpu_ms": spread([one.cpu for one in slow]),
        "slow_to_fast": statistics.median(
            long.cpu / short.cpu for long, short in zip(slow, fast, strict=False)
        ),
    }


def spread(found: Sequence[float]) -> dict[str, float]:
    ordered = sorted(found)
    return {
        "least": ordered[0],
        "p50": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))],
    }
