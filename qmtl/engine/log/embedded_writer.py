"""A transaction of the embedded log, from its first record to its commit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from qmtl.engine.log.port import Fence, Positions, TopicPartition
from qmtl.foundation.common.errors import Fenced, InvariantBroken

if TYPE_CHECKING:
    from qmtl.engine.log.embedded import EmbeddedLog


class Sent:
    """What a transaction has for one partition. Keys and values lie apart: as pairs, each would be one more object to collect.

    Attributes:
        tracked: the place of the last record that is tracked.
    """

    __slots__ = ("keys", "tracked", "values", "where")

    def __init__(self, where: TopicPartition) -> None:
        self.where = where
        self.keys: list[bytes] = []
        self.values: list[bytes | None] = []
        self.tracked: int | None = None


class EmbeddedWriter:
    """Collects a transaction and writes it as one batch."""

    def __init__(self, log: EmbeddedLog, transactional_id: str, epoch: int) -> None:
        self._log = log
        self._id = transactional_id
        self._epoch = epoch
        self._sent: dict[tuple[str, int], Sent] | None = None

    def begin(self) -> None:
        if self._sent is not None:
            raise InvariantBroken(f"transaction {self._id!r} is already open.")
        self._sent = {}

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, *, track: bool = False
    ) -> None:
        if self._sent is None:
            raise InvariantBroken(f"transaction {self._id!r} is not open.")
        one = self._sent.get((topic, partition))
        if one is None:
            where = TopicPartition(topic, partition)
            self._log.bounds(where)  # it is there
            one = self._sent[topic, partition] = Sent(where)
        if track:
            one.tracked = len(one.keys)
        one.keys.append(key)
        one.values.append(value)

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        if self._sent is None:
            raise InvariantBroken(f"transaction {self._id!r} is not open.")
        self.prove()
        sent, self._sent = self._sent, None
        return self._log.write(sent.values(), positions, group)

    def abort(self) -> None:
        self._sent = None

    def prove(self) -> None:
        if self._log.epochs[self._id] != self._epoch:
            raise Fenced(f"transactional id {self._id!r} belongs to a newer writer.", "This one stops.")

    def close(self) -> None:
        self._sent = None
