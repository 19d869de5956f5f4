"""A look at a topic from outside: records up to the last stable offset, and tables as the last value per key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from qmtl.engine.log.port import Log, Record, TopicPartition, partitions_of
from qmtl.foundation.common.errors import UnknownTopic
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key, is_reserved

BATCH = 5000


def all_partitions(log: Log, topic: str) -> list[TopicPartition]:
    """The partitions of a topic on the log.

    Raises:
        UnknownTopic: the log has no such topic.
    """
    found = log.describe(topic)
    if found is None:
        raise UnknownTopic(f"the log has no topic {topic!r}.", "`qmtl topic list` shows what there is.")
    return partitions_of(topic, found.partitions)


def read_all(
    log: Log, partitions: Sequence[TopicPartition], start: Mapping[TopicPartition, int] | None = None
) -> Iterator[Record]:
    """Every committed record from `start` (the beginning where not given) to the stable offsets as of now.

    Per partition in offset order; partitions interleave.
    """
    yield from read_to(log, log.stable_offsets(partitions), start)


def read_to(
    log: Log, target: Mapping[TopicPartition, int], start: Mapping[TopicPartition, int] | None = None
) -> Iterator[Record]:
    """Every committed record from `start` up to these offsets, as `read_all`."""
    begin = dict(log.begin_offsets([*target]))
    begin.update({where: max(offset, begin[where]) for where, offset in (start or {}).items()})
    begin = {where: offset for where, offset in begin.items() if offset < target[where]}
    if not begin:
        return
    reader = log.reader()
    try:
        reader.assign(begin)
        while any(reader.positions().get(where, 0) < target[where] for where in begin):
            for record in reader.poll(BATCH, 0.1):
                if record.offset < target[TopicPartition(record.topic, record.partition)]:
                    yield record
    finally:
        reader.close()


class TableView:
    """The last value per key of a topic, brought up to date on demand."""

    def __init__(self, log: Log, topic: str, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._partitions = all_partitions(log, topic)
        self._next: dict[TopicPartition, int] = {}
        self._values: dict[bytes, bytes] = {}

    def refresh(self) -> TableView:
        """Read what has been committed since the last time."""
        target = self._log.stable_offsets(self._partitions)
        if all(self._next.get(where, 0) >= target[where] for where in self._partitions):
            return self
        for record in read_to(self._log, target, self._next):
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if is_reserved(record.key):
                continue
            if record.value is None:
                self._values.pop(record.key, None)
            else:
                self._values[record.key] = record.value
        self._next.update(target)  # past the markers behind the last records, too
        return self

    def rows(self) -> list[Any]:
        """The values in key order."""
        return [self._codec.decode(self._values[key]) for key in sorted(self._values)]

    def get(self, *key: str | int) -> Any:
        """One value by its key's parts; None where there is none."""
        found = self._values.get(encode_key(key))
        return None if found is None else self._codec.decode(found)
