"""How long a diff takes in the engine, by what of the message is new, by how long it is, and by how large the graph is.

It is what the DAG Manager does to compare a message with its graph (`decide_ms`), and all that comes of a request on the embedded log,
commits included (`step_ms`). The DAG Manager has seen the text of each node of its graph once, as one that has run for long; what is new
is new to it too. A message that is refused is answered as well (`refused`), and whoever sends many of them takes as much of its time.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench.dag.admission import PIPELINE, SHARES, Sizes, spread
from bench.dag.asking import REFUSED, Asking, asked, refused
from bench.dag.standing import Standing
from bench.engine.gauge import Failed
from qmtl.foundation.contracts.diff import AckChunk, DiffRequest, NodeOrigin
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.diff_stream import WINDOW, answer
from qmtl.services.dagmanager.diffing import difference
from qmtl.services.dagmanager.prescan import Prescan

REQUESTS: Final = "dag.diff.requests"
ACKS: Final = "dag.diff.acks"


def measure(place: Path, sizes: Sizes) -> dict[str, Any]:
    """Times by how many nodes exist; each row is printed.

    Raises:
        Failed: an answer is not what it has to be.
    """
    found: dict[str, Any] = {}
    pipelines = 0
    for known in sorted(sizes.known):
        standing = Standing(place, pipelines)
        standing.grow(known, sizes.nodes)
        pipelines = standing.pipelines
        row = found[str(known)] = _Asked(standing, sizes).row()
        standing.close()
        print(json.dumps({str(known): row}), flush=True)
    return found


def scaling(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """By what of a message is new: the times of decisions by how many nodes exist, and how the largest graph's median is to the smallest's."""
    out: dict[str, Any] = {}
    for share in SHARES:
        times = {size: row[share]["decide_ms"] for size, row in found.items()}
        ordered = [times[size]["p50"] for size in sorted(times, key=int)]
        out[share] = {
            "p50_ms": {size: one["p50"] for size, one in times.items()},
            "p95_ms": {size: one["p95"] for size, one in times.items()},
            "flat": ordered[-1] / ordered[0],
        }
    return out


class _Asked:
    """One DAG Manager that is asked, in each way so many times."""

    def __init__(self, standing: Standing, sizes: Sizes) -> None:
        self._standing = standing
        self._sizes = sizes
        self._catalogue, self._prescan = Catalogue(standing.tables), Prescan()
        self._asking = Asking(standing.pipelines, sizes.nodes)

    def row(self) -> dict[str, Any]:
        for request in self._asking.all_once():
            difference(self._catalogue, request, self._prescan)
            self._answered(request)
        gc.collect()
        row: dict[str, Any] = {}
        for length in self._sizes.texts:
            if self._asking.long(length) is not None:
                row[f"{length >> 10}_KiB"] = self._times(self._long(length), 1.0)
        for share, part in SHARES.items():
            row[share] = self._times(
                (self._asking.request(part) for _ in range(2 * self._sizes.rounds)), part
            )
        return row | {"refused": self._refused()}

    def _long(self, length: int) -> Iterator[DiffRequest]:
        for _ in range(2 * self._sizes.rounds):
            request = self._asking.long(length)
            assert request is not None
            yield request

    def _times(self, requests: Iterator[DiffRequest], known: float) -> dict[str, Any]:
        """Every second request is decided alone, the others go all the way."""
        decide, step = [], []
        length = nodes = 0
        for request in requests:
            length = len(request.dag_json)
            began = time.perf_counter()
            told = difference(self._catalogue, request, self._prescan)
            decide.append((time.perf_counter() - began) * 1e3)
            nodes = len(told.nodes)
            there = sum(one.origin is NodeOrigin.REUSED for one in told.nodes)
            if there != round(known * (nodes // PIPELINE)) * PIPELINE:
                raise Failed(f"{request.request_id}: {there} of {nodes} nodes were found")
            step.append(self._answered(next(requests)))
        return {
            "nodes": nodes,
            "message_bytes": length,
            "decide_ms": spread(decide),
            "step_ms": spread(step),
        }

    def _answered(self, request: DiffRequest) -> float:
        """Have a request answered, and the answer taken; returns how long the first took, in milliseconds."""
        standing = self._standing
        standing.send(REQUESTS, [request])
        began = time.perf_counter()
        standing.run()
        took = (time.perf_counter() - began) * 1e3
        row = standing.table("dag.diff.streams").get(request.request_id)
        for seq in (*range(WINDOW - 1, row.chunks - 1, WINDOW), row.chunks - 1):
            standing.send(ACKS, [AckChunk(request.request_id, seq)])
            standing.run()
        return took

    def _refused(self) -> dict[str, Any]:
        found = {}
        for how, (data, code) in refused(self._sizes.nodes).items():
            took = []
            for number in range(self._sizes.slow):
                request = asked(f"{how}-{number}", REFUSED, data)
                began = time.perf_counter()
                (chunk,) = answer(self._catalogue, request, self._prescan)
                took.append((time.perf_counter() - began) * 1e3)
                if chunk.accepted or chunk.code != code:
                    raise Failed(
                        f"a message that is {how} was answered by {chunk.code}: {chunk.detail[:300]}"
                    )
            found[how] = {"message_bytes": len(data), "code": code, "ms": spread(took)}
        return found
