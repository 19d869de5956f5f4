"""The topics of nodes as an operator sees them: what the tables say of each, and what the log does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from qmtl.engine.log.port import Log, Positions, TopicPartition, partitions_of
from qmtl.engine.view import TableView, read_all
from qmtl.foundation.contracts.dag import Queue, QueueRole, SentinelStatus, VersionSentinel
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.standing import standings
from qmtl.topology import PROTOTYPES

COUNTED: Final = 1000
"""A topic with at most so many offsets is read, so that its records and their bytes are counted."""

SAMPLED: Final = 300
"""Of a larger topic so many of the newest offsets are read, shared by its partitions, and its size is estimated from these: no client of
Kafka asks the brokers for it (DescribeLogDirs)."""

READERS: Final = ("nodes",)
"""The processors that read topics of nodes."""

_HOLDING: Final = (SentinelStatus.PENDING, SentinelStatus.ACTIVE)


class QueueState(Enum):
    """Where a queue is in its life."""

    MAKING = "making"
    READY = "ready"
    ORPHANED = "orphaned"
    """No version that is pending or active has its node, or the node has left it."""
    REMOVING = "removing"


@dataclass(frozen=True, slots=True)
class QueueStats:
    """One queue.

    Attributes:
        references: how many versions that are pending or active have its node.
        begin, end: of all partitions together, the first offset that is kept and the last stable one; None where the log has no
            such topic.
        records: how many are in it, without markers; None where that was not counted: then `end - begin` are more.
        bytes: of their keys and values, before compression; None where the log has no such topic.
        is_estimate: the bytes are not counted, but reckoned from the newest records of each partition.
        lag: offsets to the high watermark of the reader that is farthest behind; None where nobody is known to read it.
        buffering_since_ms: of its node, while the queue is its present one.
        older: records that were there when its node began to buffer, so that they may be of an older schema; None where they were not
            counted, or it is not buffering.
    """

    queue: Queue
    references: int
    begin: int | None = None
    end: int | None = None
    records: int | None = None
    bytes: int | None = None
    lag: int | None = None
    buffering_since_ms: int | None = None
    older: int | None = None
    is_estimate: bool = False

    @property
    def state(self) -> QueueState:
        if self.queue.removing:
            return QueueState.REMOVING
        if not self.references or self.queue.role is QueueRole.FORMER:
            return QueueState.ORPHANED
        return QueueState.READY if self.queue.ready else QueueState.MAKING


def references(versions: Iterable[VersionSentinel]) -> Counter[str]:
    """How many versions that are pending or active have each node."""
    return Counter(
        node_id for one in versions if one.status in _HOLDING for node_id in dict.fromkeys(one.node_ids)
    )


def chosen(queues: Iterable[Queue], tags: Collection[str], interval: int | None) -> list[Queue]:
    """The queues with all of these tags, a queue's class being one of them, at an interval in seconds if one is given."""
    return [
        one
        for one in queues
        if set(tags) <= {*one.tags, one.topic_class.value} and interval in (None, one.interval)
    ]


def queue_stats(
    log: Log, tags: Collection[str], interval: int | None, limit: int | None
) -> tuple[list[QueueStats], int]:
    """What there is to say of the first queues by their names, and how many there are in all.

    Args:
        limit: at most so many; None for all.
    """
    found = chosen(TableView(log, "dag.queues", codec).refresh().rows(), tags, interval)
    shown = found[:limit]
    held = references(TableView(log, "dag.sentinels", codec).refresh().rows())
    present = set(log.topics())
    wheres = {one.topic: partitions_of(one.topic, one.partitions) for one in shown if one.topic in present}
    every = [where for some in wheres.values() for where in some]
    begins, ends = log.begin_offsets(every), log.stable_offsets(every)
    spans = {topic: sum(ends[one] - begins[one] for one in some) for topic, some in wheres.items()}
    starts = {
        where: begins[where]
        if spans[topic] <= COUNTED
        else max(begins[where], ends[where] - max(1, SAMPLED // len(some)))
        for topic, some in wheres.items()
        for where in some
    }
    nodes = {one.node_id: one for one in TableView(log, "dag.nodes", codec).refresh().rows()}
    since = {
        one.topic: since_ms
        for one in shown
        if one.role is QueueRole.CURRENT
        and (node := nodes.get(one.node_id)) is not None
        and (since_ms := node.buffering_since_ms) is not None
    }
    records, sizes, older = _counted(log, starts, ends, since)
    lags = _lags(log) if wheres else {}
    out = []
    for one in shown:
        mine = wheres.get(one.topic)
        if mine is None:
            out.append(QueueStats(one, held[one.node_id]))
            continue
        counted = spans[one.topic] <= COUNTED
        parts = [(sizes[where], ends[where] - begins[where], ends[where] - starts[where]) for where in mine]
        out.append(
            QueueStats(
                one,
                held[one.node_id],
                sum(begins[where] for where in mine),
                sum(ends[where] for where in mine),
                records[one.topic] if counted else None,
                sum(size * span // read for size, span, read in parts if read),
                lags.get(one.topic),
                since.get(one.topic),
                older[one.topic] if counted and one.topic in since else None,
                not counted,
            )
        )
    return out, len(found)


def _counted(
    log: Log, starts: Positions, ends: Positions, since: Mapping[str, int]
) -> tuple[Counter[str], Counter[TopicPartition], Counter[str]]:
    """Records by topic, their bytes by partition, and how many of them come before the close of the bucket in which a topic's node began
    to buffer."""
    records: Counter[str] = Counter()
    sizes: Counter[TopicPartition] = Counter()
    older: Counter[str] = Counter()
    newer: set[TopicPartition] = set()
    for record in read_all(log, list(starts), starts):
        where = TopicPartition(record.topic, record.partition)
        if record.offset >= ends[where]:
            continue
        if is_marker(record.key) and decode_marker_bucket(record.key) >= since.get(record.topic, 0):
            newer.add(where)
        if not is_reserved(record.key):
            records[record.topic] += 1
            sizes[where] += len(record.key) + len(record.value or b"")
            older[record.topic] += where not in newer
    return records, sizes, older


def _lags(log: Log) -> Mapping[str, int]:
    """Per topic that is read, the offsets to its high watermark of the task that is farthest behind, its partitions summed."""
    out: dict[str, int] = {}
    for task in standings(log, [one for one in PROTOTYPES if one.name in READERS], codec):
        mine: Counter[str] = Counter()
        for one in task.inputs:
            mine[one.where.topic] += one.lag
        for topic, lag in mine.items():
            out[topic] = max(lag, out.get(topic, 0))
    return out
