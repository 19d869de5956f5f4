"""How the tests of a log write to it, read from it and wait for it."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from qmtl.engine.log.port import Fence, Log, Membership, Positions, Reader, Record, TopicPartition
from qmtl.foundation.wire.topics import Cleanup, TopicSpec

PATIENCE_S = 60.0

Row = tuple[TopicPartition, bytes, bytes | None]


def until(condition: Callable[[], bool], seconds: float = PATIENCE_S) -> None:
    """Asks a condition every 10 ms until it is true; fails when it isn't in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        select.select([], [], [], 0.01)


def events(name: str, partitions: int = 1) -> TopicSpec:
    return TopicSpec(name, (), (), (), Cleanup.DELETE, "people", partitions=partitions)


def table(name: str, partitions: int = 1) -> TopicSpec:
    return TopicSpec(name, (), (), (), Cleanup.COMPACT, "people", partitions=partitions)


class Joined(NamedTuple):
    """A member that has tasks, and so may commit positions."""

    membership: Membership
    group: str

    def fence(self) -> Fence | None:
        return self.membership.fence()


def join(log: Log, group: str, anchor: str, member: str = "one") -> Joined:
    """Takes part in a group until tasks have come."""
    membership = log.membership(group, f"{group}.{member}", anchor)
    until(lambda: bool(membership.poll(0.05)))
    return Joined(membership, group)


def put(
    log: Log,
    rows: Iterable[Row],
    *,
    positions: Positions | None = None,
    by: Joined | None = None,
    writer: str = "writer",
) -> None:
    """One transaction of a new writer."""
    one = log.writer(writer)
    one.begin()
    for where, key, value in rows:
        one.append(where.topic, where.partition, key, value)
    one.commit(positions or {}, by.group if by else "", by.fence() if by else None)
    one.close()


def settled(log: Log, wheres: Sequence[TopicPartition]) -> Positions:
    """Where partitions end once nothing of a transaction is under way: Kafka writes its markers after it has said that all is done."""
    until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))
    return log.end_offsets(wheres)


def gather(reader: Reader, count: int, at_a_time: int = 2) -> list[Record]:
    """Polls until there are so many records."""
    out: list[Record] = []

    def enough() -> bool:
        out.extend(reader.poll(at_a_time, 0.05))
        return len(out) >= count

    until(enough)
    return out


def read_until(log: Log, start: Positions, target: Positions, at_a_time: int = 1000) -> list[Record]:
    """Everything committed from `start` until the position has reached `target`."""
    reader = log.reader()
    reader.assign(start)
    out: list[Record] = []

    def reached() -> bool:
        batch = reader.poll(at_a_time, 0.05)
        assert len(batch) <= at_a_time
        out.extend(batch)
        return all(reader.positions()[where] >= target[where] for where in target)

    try:
        until(reached)
    finally:
        reader.close()
    return out


def read_all(log: Log, partitions: Sequence[TopicPartition], at_a_time: int = 1000) -> list[Record]:
    """Everything committed, up to the high watermark of now."""
    return read_until(log, log.begin_offsets(partitions), log.end_offsets(partitions), at_a_time)


def values(records: Iterable[Record]) -> list[bytes | None]:
    return [record.value for record in records]
