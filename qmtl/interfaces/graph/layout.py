"""Where the nodes of a graph lie: in layers from the sources down, with few crossings, and the same for the same graph."""

from __future__ import annotations

import itertools
from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

SWEEPS: Final = 12
"""Times that the layers are put in order, down and up in turn; the order with the fewest crossings counts."""

ALIGNMENTS: Final = 16


@dataclass(frozen=True, slots=True)
class Layers:
    """A graph in layers.

    Attributes:
        rows: of each layer its vertices from left to right. A vertex below `nodes` is the node of that number; one above is a bend, where an
            edge goes through a layer that it has no end in.
        edges: each by its vertices, from the node that is read to the one that reads it: one per layer.
        nodes: how many there are.
    """

    rows: tuple[tuple[int, ...], ...]
    edges: tuple[tuple[int, ...], ...]
    nodes: int

    def steps(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Of each gap between two layers, the pairs that are joined, each once."""
        layer_of = {vertex: number for number, row in enumerate(self.rows) for vertex in row}
        found: list[dict[tuple[int, int], None]] = [{} for _ in self.rows[1:]]
        for edge in self.edges:
            for upper, lower in itertools.pairwise(edge):
                found[layer_of[upper]][upper, lower] = None
        return tuple(tuple(one) for one in found)


def layered(reads: Sequence[Sequence[int]]) -> Layers:
    """Put nodes into layers: each below all that it reads, and a source right above the first node that reads it.

    Args:
        reads: of each node the numbers of those that it reads, which are lower than its own.
    """
    depth = [0] * len(reads)
    for node, inputs in enumerate(reads):
        depth[node] = max((depth[one] + 1 for one in inputs), default=0)
    nearest: dict[int, int] = {}
    for node, inputs in enumerate(reads):
        for one in inputs:
            nearest[one] = min(nearest.get(one, depth[node]), depth[node])
    for node, inputs in enumerate(reads):
        if not inputs and node in nearest:
            depth[node] = nearest[node] - 1
    rows: list[list[int]] = [[] for _ in range(max(depth, default=-1) + 1)]
    for node, layer in enumerate(depth):
        rows[layer].append(node)
    edges: list[tuple[int, ...]] = []
    free = len(reads)
    bends: dict[tuple[int, int], int] = {}  # edges of one source go down together
    for node, inputs in enumerate(reads):
        for one in dict.fromkeys(inputs):
            way = [one]
            for layer in range(depth[one] + 1, depth[node]):
                if (one, layer) not in bends:
                    bends[one, layer] = free
                    rows[layer].append(free)
                    free += 1
                way.append(bends[one, layer])
            edges.append((*way, node))
    return _in_order(Layers(tuple(map(tuple, rows)), tuple(edges), len(reads)))


def _in_order(layers: Layers) -> Layers:
    """The layers with each in an order of few crossings."""
    steps = layers.steps()
    above: dict[int, list[int]] = {}
    below: dict[int, list[int]] = {}
    for pairs in steps:
        for upper, lower in pairs:
            below.setdefault(upper, []).append(lower)
            above.setdefault(lower, []).append(upper)
    rows = [list(row) for row in layers.rows]
    best, fewest = [list(row) for row in rows], crossings(rows, steps)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        numbers = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
        for number in numbers:
            fixed = {vertex: at for at, vertex in enumerate(rows[number - 1 if down else number + 1])}
            near = above if down else below
            was = {vertex: at for at, vertex in enumerate(rows[number])}

            def middle(
                vertex: int,
                fixed: Mapping[int, int] = fixed,
                near: Mapping[int, list[int]] = near,
                was: Mapping[int, int] = was,
            ) -> tuple[float, int]:
                places = [fixed[one] for one in near.get(vertex, ())]
                return (sum(places) / len(places) if places else was[vertex], was[vertex])

            rows[number].sort(key=middle)
        count = crossings(rows, steps)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return Layers(tuple(map(tuple, best)), layers.edges, layers.nodes)


def crossings(rows: Sequence[Sequence[int]], steps: Sequence[Sequence[tuple[int, int]]]) -> int:
    """How many pairs of lines cross between neighbouring layers."""
    total = 0
    for (upper, lower), pairs in zip(itertools.pairwise(rows), steps, strict=True):
        left = {vertex: at for at, vertex in enumerate(upper)}
        right = {vertex: at for at, vertex in enumerate(lower)}
        seen: list[int] = []
        for _, end in sorted((left[one], right[other]) for one, other in pairs):
            total += len(seen) - bisect_left(seen, end + 1)
            insort(seen, end)
    return total


def centres(layers: Layers, width_of: Callable[[int], float], gap: float) -> dict[int, float]:
    """The middle of each vertex from left to right, 0 being the left edge of the picture: near those that it is joined with, in the order of its
    layer, and apart from its neighbours.

    Args:
        width_of: a vertex.
        gap: between two vertices of a layer.
    """
    near: dict[int, list[int]] = {}
    for pairs in layers.steps():
        for upper, lower in pairs:
            near.setdefault(upper, []).append(lower)
            near.setdefault(lower, []).append(upper)
    at: dict[int, float] = {}
    for row in layers.rows:
        edge = 0.0
        for vertex in row:
            at[vertex] = edge + width_of(vertex) / 2
            edge += width_of(vertex) + gap
        shift = (edge - gap) / 2
        for vertex in row:
            at[vertex] -= shift
    for turn in range(ALIGNMENTS):
        for row in layers.rows if turn % 2 == 0 else reversed(layers.rows):
            wanted = []
            for vertex in row:
                others = [at[one] for one in near.get(vertex, ())]
                wanted.append(sum(others) / len(others) if others else at[vertex])
            apart = [(width_of(one) + width_of(other)) / 2 + gap for one, other in itertools.pairwise(row)]
            for vertex, place in zip(row, _kept_apart(wanted, apart), strict=True):
                at[vertex] = place
    left = min((at[one] - width_of(one) / 2 for one in at), default=0.0)
    return {vertex: place - left for vertex, place in at.items()}


def _kept_apart(wanted: Sequence[float], apart: Sequence[float]) -> list[float]:
    """Places in the same order, as near to the wanted ones as their distances let them: the middle between pushing all to the right and all to
    the left, each of which keeps the distances, and so does the middle."""
    right, left = list(wanted), list(wanted)
    for at, distance in enumerate(apart):
        right[at + 1] = max(right[at + 1], right[at] + distance)
    for at in range(len(apart) - 1, -1, -1):
        left[at] = min(left[at], left[at + 1] - apart[at])
    return [(one + other) / 2 for one, other in zip(right, left, strict=True)]
