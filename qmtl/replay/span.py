"""Reads stretches of the log that were fixed beforehand, and finds out which topics a log has and what they mean."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final, NamedTuple

from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import UnknownTopic, WireError
from qmtl.foundation.contracts.dag import CreateTopic
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker, is_reserved
from qmtl.foundation.wire.topics import TopicSpec, node_topic, topic

BATCH: Final = 5000
_FIRST_LOOK_BACK: Final = 512

Spans = Mapping[TopicPartition, tuple[int, int]]
"""Per partition the first offset, and the offset before which it ends."""


class MarkerPlace(NamedTuple):
    """A close marker: its bucket, and its offset."""

    bucket_ms: int
    offset: int


def spans_of(log: Log, partitions: Collection[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
    """All that is committed as of now."""
    begin = log.begin_offsets(partitions)
    stable = log.stable_offsets(partitions)
    return {where: (begin[where], stable[where]) for where in partitions}


def read_spans(log: Log, spans: Spans) -> Iterator[Record]:
    """The records of each span in offset order, one partition after the other, partitions sorted."""
    reader = log.reader()
    try:
        for where, (start, end) in sorted(spans.items()):
            if start >= end:
                continue
            reader.assign({where: start})
            while reader.positions().get(where, start) < end:
                for record in reader.poll(BATCH, 0.1):
                    if record.offset >= end:
                        break
                    yield record
    finally:
        reader.close()


def last_marker(
    log: Log, where: TopicPartition, span: tuple[int, int], before_ms: int | None = None
) -> MarkerPlace | None:
    """The newest close marker in a span, of a bucket before `before_ms` if that is given; None where there is none.

    Looks from the end, in stretches that double, so that a long partition is not read for its last records.
    """
    begin, end = span
    size = _FIRST_LOOK_BACK
    while begin < end:
        start = max(begin, end - size)
        found = None
        for record in read_spans(log, {where: (start, end)}):
            if is_marker(record.key) and record.value is not None:
                bucket_ms = decode_marker_bucket(record.key)
                if before_ms is None or bucket_ms < before_ms:
                    found = MarkerPlace(bucket_ms, record.offset)
        if found is not None:
            return found
        end, size = start, size * 2
    return None


def known_topics(log: Log, codec: Codec) -> dict[str, TopicSpec]:
    """The catalogue's topics and the topics of nodes, as far as they are on the log, by name in order."""
    present = log.topics()
    nodes = _node_topics(log, codec) if "dag.tasks" in present else {}
    out = {}
    for name in present:
        try:
            out[name] = topic(name)
        except UnknownTopic:
            if name in nodes:
                out[name] = nodes[name]
    return out


def _node_topics(log: Log, codec: Codec) -> dict[str, TopicSpec]:
    """What the DAG Manager has asked to be made."""
    out = {}
    for record in read_all(log, all_partitions(log, "dag.tasks")):
        if record.value is None or is_reserved(record.key):
            continue
        try:
            wish = codec.decode(record.value)
        except WireError:
            continue  # a damaged row describes no topic; reading the table itself shows the damage
        if isinstance(wish, CreateTopic):
            out[wish.topic] = node_topic(wish.topic, wish.topic_class, wish.partitions)
    return out
