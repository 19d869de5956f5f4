"""A log as it was when it ended earlier: what recovery is run on to rebuild the state of an earlier moment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from qmtl.engine.log.port import (
    Group,
    Log,
    Membership,
    Positions,
    Reader,
    Record,
    TopicDescription,
    TopicPartition,
    Writer,
)
from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.wire.topics import TopicSpec


class LogUntil:
    """A log as it was when it ended at these offsets; for reading alone.

    Args:
        ends: one past the last record that is there, per partition; partitions that are not named are as they are.
    """

    def __init__(self, log: Log, ends: Positions) -> None:
        self._log = log
        self._ends = dict(ends)

    @property
    def log_id(self) -> str:
        return self._log.log_id

    def now_ms(self) -> int:
        return self._log.now_ms()

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        raise _only_reading()

    def describe(self, topic: str) -> TopicDescription | None:
        return self._log.describe(topic)

    def topics(self) -> list[str]:
        return self._log.topics()

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return {
            where: self._until(where, offset) for where, offset in self._log.begin_offsets(partitions).items()
        }

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return {
            where: self._until(where, offset) for where, offset in self._log.end_offsets(partitions).items()
        }

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return {
            where: self._until(where, offset)
            for where, offset in self._log.stable_offsets(partitions).items()
        }

    def offsets_at_time(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Positions:
        found = self._log.offsets_at_time(partitions, timestamp_ms)
        return {where: self._until(where, offset) for where, offset in found.items()}

    def _until(self, where: TopicPartition, offset: int) -> int:
        return min(offset, self._ends.get(where, offset))

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Positions:
        return self._log.committed(group, partitions)

    def members(self, group: str) -> Group:
        return self._log.members(group)

    def reader(self) -> Reader:
        return _ReaderUntil(self._log.reader(), self._ends)

    def writer(self, transactional_id: str) -> Writer:
        raise _only_reading()

    def membership(self, group: str, member: str, anchor: str) -> Membership:
        raise _only_reading()

    def close(self) -> None:
        """The log belongs to whoever opened it."""


class _ReaderUntil:
    """Leaves out what lies past the ends."""

    def __init__(self, reader: Reader, ends: Mapping[TopicPartition, int]) -> None:
        self._reader = reader
        self._ends = ends

    def assign(self, positions: Positions) -> None:
        self._reader.assign(positions)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._reader.pause(partitions)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        found = self._reader.poll(max_records, timeout_s)
        return [
            one
            for one in found
            if one.offset < self._ends.get(TopicPartition(one.topic, one.partition), one.offset + 1)
        ]

    def positions(self) -> Positions:
        return self._reader.positions()

    def close(self) -> None:
        self._reader.close()


def _only_reading() -> InvariantBroken:
    return InvariantBroken("a log that ends early is only for reading.")
