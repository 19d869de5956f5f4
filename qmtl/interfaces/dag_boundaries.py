"""Where in the topics of its nodes a version begins: behind the close of the bucket after which it became active.

Nothing is kept for that but the bucket, in the version's row: markers are records of the topics themselves, so whoever looks finds
the same offsets, also on a copy of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import Final, NamedTuple, TypeAlias

from qmtl.engine.log.port import Log, Positions, TopicPartition, partitions_of
from qmtl.engine.view import TableView, read_all
from qmtl.foundation.common.errors import WireError
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.dag import QueueRole, SentinelStatus, VersionSentinel
from qmtl.foundation.wire.keys import is_marker
from qmtl.foundation.wire.registry import codec
from qmtl.replay.span import spans_of

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
    wheres: dict[str, list[TopicPartition]] = {}
    wanted: dict[int, set[TopicPartition]] = {}  # versions that begin together share a bucket, and topics
    buckets: dict[str, int] = {}
    for one in versions:
        was_active = one.status is SentinelStatus.ACTIVE or one.active_since_ms
        nodes = set(one.node_ids) if was_active else ()
        mine = sorted(where for node_id in nodes for where in topics.get(node_id, ()))
        wheres[one.sentinel_id], buckets[one.sentinel_id] = mine, one.active_since_ms
        wanted.setdefault(one.active_since_ms, set()).update(mine)
    found = {bucket_ms: behind_bucket(log, some, bucket_ms) for bucket_ms, some in wanted.items()}
    return {
        sentinel_id: {where: found[buckets[sentinel_id]][where] for where in mine}
        for sentinel_id, mine in wheres.items()
    }


def behind_bucket(
    log: Log, wheres: Iterable[TopicPartition], bucket_ms: int
) -> dict[TopicPartition, Boundary]:
    """Per partition, where what came after a bucket begins.

    Looks from their ends, in stretches that double, until each has a marker that proves what is before it to be of buckets up to this one.
    Where retention has cut a topic between an heir's markers and its predecessor's, the heir's are all that can be gone by.
    """
    spans = spans_of(log, sorted(wheres))
    left, size = set(spans), FIRST_LOOK_BACK
    out: dict[TopicPartition, Boundary] = {}
    while left:
        starts = {where: max(spans[where][0], spans[where][1] - size) for where in left}
        markers: dict[TopicPartition, list[Closed]] = {where: [] for where in left}
        for where, marker in _markers(log, starts):
            markers[where].append(marker)
        for where, found in markers.items():
            begin = spans[where][0]
            if starts[where] == begin or any(one.proves and one.bucket_ms <= bucket_ms for one in found):
                out[where] = behind(found, bucket_ms, since=0 if starts[where] == 0 else None)
                left.discard(where)
        size *= 2
    return out


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


def _markers(log: Log, starts: Positions) -> Iterator[tuple[TopicPartition, Closed]]:
    for record in read_all(log, list(starts), starts):
        if not is_marker(record.key) or record.value is None:
            continue
        try:
            marker = codec.decode(record.value)
        except WireError:
            continue  # whoever reads it for a bucket says what is wrong with it
        if isinstance(marker, CloseMarker):
            proves = marker.count > 0 and marker.config_epoch <= _FIRST_EPOCH
            where = TopicPartition(record.topic, record.partition)
            yield where, Closed(record.offset, marker.bucket_ms, proves)
