"""Which records of a partition cleaning takes away, by the rules of Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile

from qmtl.engine.log.port import Record


def superseded(records: Iterable[Record], closed_before_ms: int, tombstones_before_ms: int) -> list[int]:
    """The offsets that compaction takes.

    Args:
        records: of one partition, in order.
        closed_before_ms: what is as young is not looked at: a version goes only when the one after it is old enough.
        tombstones_before_ms: a tombstone that is the last word on its key goes when it is older.
    """
    old = list(takewhile(lambda record: record.timestamp_ms < closed_before_ms, records))
    newest = {record.key: record.offset for record in old}
    return [
        record.offset
        for record in old
        if newest[record.key] != record.offset
        or (record.value is None and record.timestamp_ms < tombstones_before_ms)
    ]


def outlived(records: Iterable[Record], before_ms: int) -> list[int]:
    """The offsets that retention takes: of all records in front of the first one that is young enough."""
    return [record.offset for record in takewhile(lambda record: record.timestamp_ms < before_ms, records)]
