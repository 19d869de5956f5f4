"""Where in the topics of its nodes a version begins: behind the close of the bucket after which it became active.

Nothing is kept for that but the bucket, in the version's row: markers are records of the topics themselves, so whoever looks finds
the same offsets, also on a copy of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache
from typing import Final, NamedTuple, TypeAlias

from qmtl.engine.log.port import Log, TopicPartition, partitions_of
from qmtl.engine.view import TableView
from qmtl.foundation.common.errors import WireError
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.dag import QueueRole, SentinelStatus, VersionSentinel
from qmtl.foundation.wire.keys import is_marker
from qmtl.foundation.wire.registry import codec
from qmtl.replay.span import read_spans, spans_of

FIRST_LOOK_BACK: Final = 512
_FIRST_EPOCH: Final = 1


class NoOffset(Enum):
    """Why there is no offset to tell."""

    OPEN = "open"
    """The topic has not closed that bucket yet."""
    GONE = "gone"
    """The marker has left the topic, by its age."""


Boundary: TypeAlias = int | NoOffset
"""The offset of the first record behind a bucket."""


class Closed(NamedTuple):
    """A close marker.

    Attributes:
        proves: no marker before it is of a later bucket. It closes records, and is of the first configuration of its writers: one without
            records may be said again by another feed, and an heir closes again what its predecessor has closed.
    """

    offset: int
    bucket_ms: int
    proves: bool


def boundaries(log: Log, versions: Iterable[VersionSentinel]) -> dict[str, dict[TopicPartition, Boundary]]:
    """Of each version, by its id, where it begins in the present topics of its nodes; nothing of one that was never active,
    or was over before the clock's first tick.

    Raises:
        LogError: the log did not answer.
    """
    present = set(log.topics())
    topics: dict[str, list[TopicPartition]] = {
        one.node_id: partitions_of(one.topic, one.partitions)
        for one in TableView(log, "dag.queues", codec).refresh().rows()
        if one.role is QueueRole.CURRENT and one.topic in present
    }

    @cache  # versions share nodes, and begin together
    def begins(wheres: tuple[TopicPartition, ...], bucket_ms: int) -> Mapping[TopicPartition, Boundary]:
        spans = spans_of(log, wheres)
        return {where: boundary(log, where, *spans[where], bucket_ms) for where in wheres}

    out: dict[str, dict[TopicPartition, Boundary]] = {}
    for one in versions:
        was_active = one.status is SentinelStatus.ACTIVE or one.active_since_ms
        nodes = sorted(set(one.node_ids)) if was_active else ()
        wheres = sorted(tuple(topics[node_id]) for node_id in nodes if node_id in topics)
        out[one.sentinel_id] = {
            where: at for some in wheres for where, at in begins(some, one.active_since_ms).items()
        }
    return out


def boundary(log: Log, where: TopicPartition, begin: int, end: int, bucket_ms: int) -> Boundary:
    """Where what came after a bucket begins, between the first offset that is kept and the last stable one.

    Looks from the end, in stretches that double, until it meets a marker that proves what is before it to be of buckets up to this one.
    """
    markers: list[Closed] = []
    size, start = FIRST_LOOK_BACK, end
    while start > begin:
        stretch = max(begin, start - size), start
        found = list(_markers(log, where, stretch))
        markers, start, size = [*found, *markers], stretch[0], size * 2
        if any(one.proves and one.bucket_ms <= bucket_ms for one in found):
            break
    return behind(markers, bucket_ms, since=0 if begin == 0 else None)


def behind(markers: Iterable[Closed], bucket_ms: int, since: int | None) -> Boundary:
    """The offset behind the first marker of a bucket; where it has none, behind the last one before the first marker of a later bucket.

    So the answer stays what it is, whatever is written later.

    Args:
        markers: in the order of the log.
        since: where the topic begins; None where its beginning is not kept, or not looked at.
    """
    found = since
    for one in markers:
        if one.bucket_ms > bucket_ms:
            return NoOffset.GONE if found is None else found
        found = one.offset + 1
        if one.bucket_ms == bucket_ms:
            return found
    return NoOffset.OPEN


def _markers(log: Log, where: TopicPartition, stretch: tuple[int, int]) -> Iterator[Closed]:
    for record in read_spans(log, {where: stretch}):
        if not is_marker(record.key) or record.value is None:
            continue
        try:
            marker = codec.decode(record.value)
        except WireError:
            continue  # whoever reads it for a bucket says what is wrong with it
        if isinstance(marker, CloseMarker):
            proves = marker.count > 0 and marker.config_epoch <= _FIRST_EPOCH
            yield Closed(record.offset, marker.bucket_ms, proves)
