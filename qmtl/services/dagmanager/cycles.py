"""The cycles of a graph: one from each part in which every node leads to every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def cycles(inputs: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """One cycle of every strongly connected part, as names of which each reads the next and the last the first.

    Each begins at the node that stands first in `inputs`; so do they among themselves. Without recursion and linear in the edges,
    so that a cycle of any length ends.

    Args:
        inputs: what each node reads, all of it keys of the same mapping.
    """
    part = _parts(inputs)
    places = {name: place for place, name in enumerate(inputs)}
    found = []
    told: set[int] = set()
    for name, reads in inputs.items():
        if part[name] in told or not any(part[read] == part[name] for read in reads):
            continue
        told.add(part[name])
        cycle = _back_to(name, inputs, part)
        first = min(range(len(cycle)), key=lambda at: places[cycle[at]])
        found.append(cycle[first:] + cycle[:first])
    return found


def _back_to(start: str, inputs: Mapping[str, Sequence[str]], part: Mapping[str, int]) -> list[str]:
    """The shortest way from a node over what it reads back to itself, within its part: breadth first."""
    came_from: dict[str, str] = {}
    queue = [start]
    for name in queue:  # grows while it is read
        for read in inputs[name]:
            if read == start:
                way = [name]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if part[read] == part[start] and read not in came_from:
                came_from[read] = name
                queue.append(read)
    raise AssertionError(start)


def _parts(inputs: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The strongly connected part of each node, by number. Source: R. Tarjan, Depth-first search and linear graph algorithms, 1972."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    part: dict[str, int] = {}
    open_nodes: list[str] = []
    for root in inputs:
        if root in numbers:
            continue
        way = [(root, iter(inputs[root]))]
        numbers[root] = lowest[root] = len(numbers)
        open_nodes.append(root)
        while way:
            name, rest = way[-1]
            for read in rest:
                if read not in numbers:
                    numbers[read] = lowest[read] = len(numbers)
                    open_nodes.append(read)
                    way.append((read, iter(inputs[read])))
                    break
                if read not in part:
                    lowest[name] = min(lowest[name], numbers[read])
            else:
                way.pop()
                if way:
                    above = way[-1][0]
                    lowest[above] = min(lowest[above], lowest[name])
                if lowest[name] == numbers[name]:
                    while True:
                        one = open_nodes.pop()
                        part[one] = numbers[name]
                        if one == name:
                            break
    return part
