"""What comes onto a topic from a place on, for one question after the other, with one reader that stays open."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qmtl.engine.log.port import Log, Reader, Record, TopicPartition
from qmtl.engine.view import BATCH, all_partitions
from qmtl.foundation.common.errors import LogError

_WAIT_S: Final = 0.1


class Tail:
    """Reads a topic for whoever asks: places belong to the asker, the reader, which is a connection on Kafka, to all of them.
    Not thread-safe.

    Raises:
        UnknownTopic: the log has no such topic.
    """

    def __init__(self, log: Log, topic: str) -> None:
        self._log = log
        self._wheres = all_partitions(log, topic)
        self._reader: Reader | None = None
        self._stands: dict[TopicPartition, int] = {}

    def end(self) -> dict[TopicPartition, int]:
        """The places behind everything that can be read now."""
        return dict(self._log.stable_offsets(self._wheres))

    def read(self, at: dict[TopicPartition, int]) -> Iterator[Record]:
        """Every committed record from these places, the beginning where none is given, to the stable offsets as of now, and perhaps
        what came meanwhile. Moves the places: past each record once it is done with, in the end past everything.

        Raises:
            LogError: the log did not answer; what was not given is given by the next call.
        """
        target = self._log.stable_offsets(self._wheres)
        if all(at.get(where, 0) >= target[where] for where in self._wheres):
            return
        reader = self._reader_at(at)
        while any(reader.positions().get(where, 0) < target[where] for where in self._wheres):
            try:
                found = reader.poll(BATCH, _WAIT_S)
            except LogError:
                self.close()
                raise
            for record in found:
                yield record
                at[TopicPartition(record.topic, record.partition)] = record.offset + 1
        at.update(reader.positions())
        self._stands = dict(at)

    def close(self) -> None:
        """End the reader; the next question makes another one."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _reader_at(self, at: dict[TopicPartition, int]) -> Reader:
        """The reader at these places; until all of them were read, nobody knows where it stands."""
        stands, self._stands = self._stands, {}
        if self._reader is None:
            self._reader, stands = self._log.reader(), {}
        if not at or stands != at:
            begin = self._log.begin_offsets(self._wheres)
            self._reader.assign({where: max(at.get(where, 0), begin[where]) for where in self._wheres})
        return self._reader
