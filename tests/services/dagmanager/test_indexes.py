"""Nodes and queues by tag, by interval, by when they began to buffer: a look-up takes what it finds in hand, and nothing else there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from math import log2
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from qmtl.foundation.contracts.dag import ComputeNode, Queue, SentinelStatus, TopicClass, VersionSentinel
from qmtl.runtime.indicators.tag_query import TagQueryParams
from qmtl.services.dagmanager.catalogue import Catalogue
from tests.services.dagmanager.desk import Desk

FOUND = 3
MINUTE, HOUR = 60, 3600
DUE_MS = 1_000

LookUp: TypeAlias = Callable[[Catalogue], Any]


# ---- what is counted -----------------------------------------------------------------------------------------------


class Touches:
    """How many entries of dicts and lists were handed out."""

    def __init__(self) -> None:
        self.count = 0

    def each(self, entries: Any) -> Iterator[Any]:
        for one in entries:
            self.count += 1
            yield one

    def counting(self, value: Any) -> Any:
        """A copy whose entries are counted as they are taken, also within one another; what holds none is itself."""
        if isinstance(value, dict):
            return CountingDict(self, {key: self.counting(one) for key, one in value.items()})
        return CountingList(self, value) if isinstance(value, list) else value


class CountingDict(dict[Any, Any]):
    def __init__(self, touches: Touches, entries: dict[Any, Any]) -> None:
        super().__init__(entries)
        self._touches = touches

    def __getitem__(self, key: Any) -> Any:
        self._touches.count += 1
        return super().__getitem__(key)

    def get(self, key: Any, default: Any = None) -> Any:
        self._touches.count += 1
        return super().get(key, default)

    def __contains__(self, key: object) -> bool:
        self._touches.count += 1
        return super().__contains__(key)

    def __iter__(self) -> Iterator[Any]:
        return self._touches.each(super().__iter__())

    def keys(self) -> Any:
        return self._touches.each(super().keys())

    def values(self) -> Any:
        return self._touches.each(super().values())

    def items(self) -> Any:
        return self._touches.each(super().items())


class CountingList(list[Any]):
    def __init__(self, touches: Touches, entries: list[Any]) -> None:
        super().__init__(entries)
        self._touches = touches

    def __getitem__(self, at: Any) -> Any:
        found = super().__getitem__(at)
        self._touches.count += len(found) if isinstance(at, slice) else 1
        return found

    def __iter__(self) -> Iterator[Any]:
        return self._touches.each(super().__iter__())


# ---- a graph in which little is found --------------------------------------------------------------------------------


def rows(name: str, interval: int, tags: tuple[str, ...], since_ms: int | None) -> tuple[ComputeNode, Queue]:
    node = ComputeNode(name, "sma", interval, 3, "c", "s", "{}", (), tags, buffering_since_ms=since_ms)
    queue = Queue(f"q.{name}", name, TopicClass.INDICATOR, 1, interval, 1, 1, 0, tags, ready=True)
    return node, queue


def touched(directory: Path, others: int, look_up: LookUp) -> tuple[Any, int]:
    """What is found, and how many entries were touched, where there are so many others that differ in one thing from what is found."""
    desk = Desk(directory / f"{others}")
    there = [rows(f"n{at}", MINUTE, ("a", "b"), DUE_MS) for at in range(FOUND)]
    for at in range(others):
        there += [
            rows(f"o{at}", HOUR, ("a", "b"), DUE_MS + 1 + at),
            rows(f"p{at}", MINUTE, ("c", f"d{at}"), None),
        ]
    for node, queue in there:
        desk.table("dag.nodes").put(node)
        desk.table("dag.queues").put(queue)
    ids = tuple(node.node_id for node, _ in there)
    status = SentinelStatus.ACTIVE
    desk.table("dag.sentinels").put(VersionSentinel("v", "v1", "c", 0, "w", "s", ids, ids, status=status))
    desk.again()
    catalogue, touches = desk._manager._catalogue, Touches()
    for name, value in vars(catalogue).items():
        setattr(catalogue, name, touches.counting(value))
    catalogue._tables = {}  # all of it is answered from memory
    for field in fields(catalogue.tag_queries):
        value = getattr(catalogue.tag_queries, field.name)
        setattr(catalogue.tag_queries, field.name, touches.counting(value))
    found = look_up(catalogue)
    desk.close()
    return found, touches.count


def question(mode: str) -> TagQueryParams:
    return TagQueryParams(("a", "b"), mode, MINUTE, "mean")


_, QUEUE = rows("n1", MINUTE, ("a", "b"), DUE_MS)
NODES = [f"n{at}" for at in range(FOUND)]
TOPICS = [f"q.{one}" for one in NODES]
LOOK_UPS: dict[str, tuple[LookUp, Any]] = {
    "the queues with these tags at an interval": (lambda one: list(one.tagged((("a", "b"), MINUTE))), TOPICS),
    "how many queues have these tags at an interval": (
        lambda one: one.count_tagged((("a", "b"), MINUTE)),
        FOUND,
    ),
    "the nodes with any tag at an interval": (
        lambda one: list(one.tag_queries.answers(question("any"))),
        NODES,
    ),
    "the nodes with all tags at an interval": (
        lambda one: list(one.tag_queries.answers(question("all"))),
        NODES,
    ),
    "the nodes that have been buffering since an instant": (lambda one: one.buffering(DUE_MS), NODES),
    "the queue of a topic": (lambda one: one.queue("q.n1"), QUEUE),
    "the queue of a node": (lambda one: one.queue_of("n1"), QUEUE),
}
FEW, MANY = 4, 400


@pytest.mark.parametrize("what", LOOK_UPS)
def test_a_look_up_touches_what_it_finds_however_much_else_there_is(tmp_path: Path, what: str) -> None:
    look_up, wanted = LOOK_UPS[what]
    (little, few), (much, many) = (touched(tmp_path, others, look_up) for others in (FEW, MANY))
    assert little == much == wanted
    assert 0 < few <= 10 * FOUND
    assert many - few <= log2(MANY / FEW) + 1  # where what is sorted is searched by halves
