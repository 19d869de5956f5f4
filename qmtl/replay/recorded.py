"""A log on which a task takes the steps again that it took before: its inputs from the real log up to a recorded cut, its own
tables and outputs on another log, so that nothing is touched."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from qmtl.engine.log.port import (
    Columns,
    Group,
    GroupState,
    Incarnation,
    Log,
    Membership,
    Positions,
    Reader,
    Record,
    TopicDescription,
    TopicPartition,
    TopicStanding,
    Writer,
    columns_of,
)
from qmtl.foundation.common.errors import InvariantBroken, LogError
from qmtl.foundation.wire.topics import TopicSpec

BATCH: Final = 5000


class RecordedLog:
    """The log of a task that is run again.

    Args:
        source: where the inputs are read.
        scratch: where the task's tables and outputs go.
        own: the topics that the task reads back from the scratch: its tables.

    Attributes:
        cut: how far the inputs go now.
        given: the offset behind the last record of each input that a reader was given.
    """

    def __init__(self, source: Log, scratch: Log, own: Collection[str]) -> None:
        self.cut: dict[TopicPartition, int] = {}
        self.given: dict[TopicPartition, int] = {}
        self._source = source
        self._scratch = scratch
        self._own = frozenset(own)

    @property
    def log_id(self) -> str:
        return self._scratch.log_id

    def now_ms(self) -> int:
        return self._scratch.now_ms()

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        self._scratch.ensure_topics(specs)

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        return self._source.look_up(names)

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        raise InvariantBroken("a task that is run again makes no topics.")

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        raise InvariantBroken("a task that is run again deletes no topics.")

    def describe(self, topic: str) -> TopicDescription | None:
        return self._source.describe(topic)

    def incarnations(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        mine = [name for name in topics if name in self._own]
        others = [name for name in topics if name not in self._own]
        return {**self._scratch.incarnations(mine), **self._source.incarnations(others)}

    def topics(self) -> list[str]:
        return self._source.topics()

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        mine, others = self._split(partitions)
        return {**self._scratch.begin_offsets(mine), **self._source.begin_offsets(others)}

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        mine, others = self._split(partitions)
        return {**self._scratch.end_offsets(mine), **{where: self.cut.get(where, 0) for where in others}}

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return self.end_offsets(partitions)

    def offsets_at_time(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Positions:
        return self._source.offsets_at_time(partitions, timestamp_ms)

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        return self._scratch.committed(group, partitions, wait_s)

    def members(self, group: str) -> Group:
        return Group(GroupState.UNKNOWN)

    def _split(
        self, partitions: Collection[TopicPartition]
    ) -> tuple[list[TopicPartition], list[TopicPartition]]:
        mine = [where for where in partitions if where.topic in self._own]
        return mine, [where for where in partitions if where.topic not in self._own]

    def reader(self) -> Reader:
        return _RecordedReader(self, self._source.reader(), self._scratch.reader(), self._own)

    def writer(self, transactional_id: str) -> Writer:
        return self._scratch.writer(transactional_id)

    def membership(self, group: str, member: str, anchor: str) -> Membership:
        raise InvariantBroken("a recorded log has no groups: a task that is run again belongs to nobody.")

    def close(self) -> None:
        """Both logs belong to whoever opened them."""


class _RecordedReader:
    """Gives everything up to the cut at once, and nothing past it."""

    def __init__(self, log: RecordedLog, source: Reader, scratch: Reader, own: frozenset[str]) -> None:
        self._log = log
        self._source = source
        self._scratch = scratch
        self._own = own
        self._positions: dict[TopicPartition, int] = {}
        self._ahead: dict[TopicPartition, deque[Record]] = {}
        self._on_scratch = False

    def assign(self, positions: Positions) -> None:
        self._on_scratch = bool(positions) and all(where.topic in self._own for where in positions)
        if self._on_scratch:
            self._scratch.assign(positions)
            return
        self._positions = dict(positions)
        self._ahead = {where: deque() for where in positions}
        self._source.assign(positions)

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """A cut is taken whole, so nothing waits."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if self._on_scratch:
            return self._scratch.poll(max_records, timeout_s)
        wanted = {where: self._log.cut.get(where, 0) for where in self._positions}
        while any(self._read_to(where) < end for where, end in wanted.items()):
            for record in self._source.poll(BATCH, 0.1):
                self._ahead[TopicPartition(record.topic, record.partition)].append(record)
        out: list[Record] = []
        for where, end in sorted(wanted.items()):
            waiting = self._ahead[where]
            while waiting and waiting[0].offset < end:
                out.append(waiting.popleft())
                self._log.given[where] = out[-1].offset + 1
            self._positions[where] = max(self._positions[where], end)
        return out

    def poll_columns(self, max_records: int, timeout_s: float, ends: Positions) -> list[Columns]:
        return columns_of(self.poll(max_records, timeout_s), ends)

    def _read_to(self, where: TopicPartition) -> int:
        return self._source.positions().get(where, 0)

    def positions(self) -> Positions:
        return self._scratch.positions() if self._on_scratch else dict(self._positions)

    def close(self) -> None:
        self._source.close()
        self._scratch.close()
