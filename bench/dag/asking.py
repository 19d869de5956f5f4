"""Requests for diffs that nobody made before, by what of them is new and by how long they are, and such as are refused."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.dag.admission import PIPELINE
from bench.dag.standing import message
from qmtl.foundation.common.errors import DagCycle, DagTooLarge, InvalidName
from qmtl.foundation.contracts.diff import DiffRequest
from qmtl.services.dagmanager.raw import MAX_BYTES

FRESH: Final = 2_000_000_000
"""The first number of a pipeline that nobody publishes."""

REFUSED: Final = "refused"
"""The strategy whose messages are."""

_LENGTH: Final = len(message("d", range(1_000, 1_100))) / 100
"""Bytes of a pipeline."""


class Asking:
    """Asks of a graph of so many pipelines, in messages of so many nodes."""

    def __init__(self, pipelines: int, nodes: int) -> None:
        self._draw = random.Random(f"{pipelines} {nodes}")
        self._pipelines = pipelines
        self._count = nodes // PIPELINE
        self._numbers = itertools.count()
        self._fresh = FRESH

    def request(self, known: float = 1.0) -> DiffRequest:
        """One of whose nodes such a share exists, drawn by chance."""
        old = round(self._count * known)
        first, self._fresh = self._fresh, self._fresh + self._count - old
        numbers = [*self._draw.sample(range(self._pipelines), old), *range(first, self._fresh)]
        self._draw.shuffle(numbers)
        return self._of(numbers)

    def some(self, count: int) -> list[DiffRequest]:
        """Requests whose nodes all exist."""
        return [self.request() for _ in range(count)]

    def long(self, length: int) -> DiffRequest | None:
        """One of about so many bytes, whose nodes all exist; None where there are too few of them."""
        count = max(1, round(length / _LENGTH))
        if count > self._pipelines:
            return None
        return self._of(self._draw.sample(range(self._pipelines), count))

    def all_once(self) -> list[DiffRequest]:
        """Requests that together name all nodes."""
        places = range(0, self._pipelines, self._count)
        begins = (min(one, self._pipelines - self._count) for one in places)
        return [self._of(range(one, one + self._count)) for one in begins]

    def _of(self, numbers: Sequence[int]) -> DiffRequest:
        name = f"d{self._pipelines}-{next(self._numbers)}"
        return asked(name, name, message(name, numbers))


def asked(request_id: str, strategy_id: str, data: bytes) -> DiffRequest:
    """A request with this message."""
    return DiffRequest(request_id, strategy_id, data, 0, "w", "live")


def refused(nodes: int) -> Mapping[str, tuple[bytes, str]]:
    """Messages that are refused, each with the code of its refusal: a cycle through so many nodes, as many levels as fit into a message,
    one that is too long, and so many nodes with a fault in each."""
    common = {"node_type": "sma", "interval": 60, "period": 3}
    ring = [{**common, "name": f"n{at}", "inputs": [f"n{(at + 1) % nodes}"]} for at in range(nodes)]
    bad = [{**common, "name": f"n{at}|", "inputs": ["p_0"]} for at in range(nodes)]
    levels = MAX_BYTES // 2 - 100
    return {
        "cyclic": (_beside(ring), DagCycle.code),
        "deep": (b'{"nodes":' + b"[" * levels + b"]" * levels + b"}", DagTooLarge.code),
        "long": (message(REFUSED, range(round(MAX_BYTES / _LENGTH) + 100)), DagTooLarge.code),
        "faulty": (_beside(bad), InvalidName.code),
    }


def _beside(nodes: Sequence[Mapping[str, Any]]) -> bytes:
    """A message of these and of a pipeline that is sound."""
    whole = json.loads(message(REFUSED, [0]))
    return json.dumps({**whole, "nodes": [*whole["nodes"], *nodes]}).encode()
