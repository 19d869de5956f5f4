"""The topics of nodes as an operator sees them: what the tables say of each, and what the log does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from threading import Lock
from typing import Any, Final, assert_never

from qmtl.engine.entry import entries
from qmtl.engine.log.port import Log, Positions, TopicPartition, partitions_of
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.contracts.dag import ComputeNode, Queue, QueueRole, SentinelStatus, VersionSentinel
from qmtl.foundation.wire.keys import decode_key, decode_marker_bucket, is_marker, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import get_config
from qmtl.interfaces.query_limits import Budget, TokenBucket
from qmtl.interfaces.replicas import has_replicas, wanted_by
from qmtl.interfaces.standing import contained
from qmtl.services.dagmanager.indexes import (
    COMPUTE_PK,
    KAFKA_TOPIC,
    QUEUE_INTERVAL,
    QUEUE_TAGS,
    Index,
    Lookup,
)
from qmtl.topology import PROTOTYPES

COUNTED: Final = 1000
"""A topic with at most so many offsets is read, so that its records and their bytes are counted."""

SAMPLED: Final = 300
"""Of a larger topic so many of the newest offsets are read, shared by its partitions, and its size is estimated from these: no client of
Kafka asks the brokers for it (DescribeLogDirs)."""

TABLES: Final = ("dag.queues", "dag.sentinels", "dag.nodes")

READERS: Final = ("nodes",)
"""The processors that read topics of nodes."""

PER_S: Final = 5
"""A desk answers so many requests a second."""

BUDGET_S: Final = 0.3
"""So long a request at a desk may take."""

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
        bytes: of their keys and values, before compression; None where the log has no such topic, or nobody counted.
        is_estimate: the bytes are not counted, but reckoned from the newest records of each partition.
        replicas: of the partition that has the fewest; None where the log has no such topic or no replicas, or nobody counted.
        lag: offsets to the high watermark of the reader that is farthest behind; None where nobody is known to read it.
        buffering_since_ms: of its node, while the queue is its present one.
        older: records that were there when its node began to buffer, so that they may be of an older schema; where the bytes are
            estimated these are too, by the offset behind which the bucket ends. None where nobody counted, or it is not buffering.
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
    replicas: int | None = None

    @property
    def replicas_wanted(self) -> int:
        """How many its topic is to have."""
        return wanted_by(self.queue)

    @property
    def is_thin(self) -> bool | None:
        """Whether it has fewer replicas than it is to have; None where that is not known."""
        return None if self.replicas is None else self.replicas < self.replicas_wanted

    @property
    def lag_bound(self) -> int:
        """Offsets that a reader may be behind."""
        own = self.queue.lag_alert_threshold
        return get_config(self.queue.topic_class).lag_alert_threshold if own is None else own

    @property
    def lags(self) -> bool | None:
        """Whether a reader is farther behind than it may be; None where nobody is known to read it."""
        return None if self.lag is None else self.lag > self.lag_bound

    @property
    def state(self) -> QueueState:
        if self.queue.removing:
            return QueueState.REMOVING
        if not self.references or self.queue.role is QueueRole.FORMER:
            return QueueState.ORPHANED
        return QueueState.READY if self.queue.ready else QueueState.MAKING


class QueueTables:
    """The rows that tell of queues, and by what they are found; a look takes what was written since the last one. Not thread-safe."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._wheres = [where for name in TABLES for where in all_partitions(log, name)]
        self._next: dict[TopicPartition, int] = {}
        self._queues: Lookup[Queue] = Lookup(KAFKA_TOPIC, QUEUE_TAGS, QUEUE_INTERVAL)
        self._nodes: Lookup[ComputeNode] = Lookup(COMPUTE_PK)
        self._versions: dict[str, VersionSentinel] = {}
        self._held: Counter[str] = Counter()

    def look(self) -> None:
        """As of now, in one reading: of three, each costs as much as all together."""
        for record in read_all(self._log, self._wheres, self._next):
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if is_reserved(record.key):
                continue
            if record.value is None:
                (key,) = decode_key(record.key)
                self._drop(record.topic, str(key))
            else:
                self._put(codec.decode(record.value))

    def _put(self, row: Any) -> None:
        found: Queue | ComputeNode | VersionSentinel = row
        match found:
            case Queue():
                self._queues.put(found)
            case ComputeNode():
                self._nodes.put(found)
            case VersionSentinel():
                self._count(self._versions.get(found.sentinel_id), -1)
                self._versions[found.sentinel_id] = found
                self._count(found, +1)
            case _:
                assert_never(found)

    def _drop(self, table: str, key: str) -> None:
        match table:
            case "dag.queues":
                self._queues.drop(key)
            case "dag.nodes":
                self._nodes.drop(key)
            case _:
                self._count(self._versions.pop(key, None), -1)

    def _count(self, version: VersionSentinel | None, by: int) -> None:
        if version is not None and version.status in _HOLDING:
            for node_id in dict.fromkeys(version.node_ids):
                self._held[node_id] += by

    def chosen(
        self, tags: Collection[str], interval: int | None, limit: int | None
    ) -> tuple[list[Queue], int]:
        """The first queues by their names of those with all of these tags, a queue's class being one of them, at an interval in seconds if
        one is given; and how many there are in all.

        Args:
            limit: at most so many; None for all.
        """
        wanted: list[tuple[Index, Hashable]] = [(QUEUE_TAGS, tag) for tag in tags]
        if interval is not None:
            wanted.append((QUEUE_INTERVAL, interval))
        found = self._queues.matching(wanted)
        return self._queues.first(found, limit), len(found)

    def references(self, node_id: str) -> int:
        """How many versions that are pending or active have a node."""
        return self._held[node_id]

    def node(self, node_id: str) -> ComputeNode | None:
        return self._nodes.get(node_id)


class QueueStatsDesk:
    """Answers requests of others, so many a second and each in its time: whatever serves them at an edge has one. Thread-safe.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._tables = QueueTables(log)
        self._tokens = TokenBucket(PER_S, clock)
        self._turn = Lock()

    def ask(
        self, tags: Collection[str], interval: int | None, limit: int | None
    ) -> tuple[list[QueueStats], int]:
        """As `queue_stats`, without what would take reading the topics themselves: records and bytes are not counted.

        Raises:
            TooManyQueries: more than `PER_S` in a second.
            QueryTimedOut: it took longer than `BUDGET_S`, the wait for those before it included.
            LogError: the log did not answer.
        """
        self._tokens.take()
        budget = Budget(BUDGET_S, self._clock)
        if not self._turn.acquire(timeout=budget.left_s):
            raise budget.exceeded()
        try:
            return queue_stats(self._log, tags, interval, limit, budget, self._tables, count=False)
        finally:
            self._turn.release()


def queue_stats(
    log: Log,
    tags: Collection[str],
    interval: int | None,
    limit: int | None,
    budget: Budget | None = None,
    tables: QueueTables | None = None,
    *,
    count: bool = True,
) -> tuple[list[QueueStats], int]:
    """What there is to say of the first queues by their names, and how many there are in all.

    Args:
        limit: at most so many; None for all.
        budget: how long that may take; None, as long as it takes.
        tables: as they were read before; None, they are read now.
        count: records and bytes, which takes reading the topics, and replicas, which takes asking the cluster for its metadata.

    Raises:
        QueryTimedOut: it took longer.
        LogError: the log did not answer.
    """
    check = _unbounded if budget is None else budget.check
    tables = tables or QueueTables(log)
    tables.look()
    check()
    shown, count_of_all = tables.chosen(tags, interval, limit)
    present = frozenset(log.topics())
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
    since = {
        one.topic: since_ms
        for one in shown
        if one.role is QueueRole.CURRENT
        and (node := tables.node(one.node_id)) is not None
        and (since_ms := node.buffering_since_ms) is not None
    }
    check()
    records, sizes, older = _counted(log, starts if count else {}, ends, since, check)
    standing = log.look_up(list(wheres)) if count and has_replicas(log) else {}
    check()
    large = {topic: wheres[topic] for topic in since if topic in wheres and spans[topic] > COUNTED}
    guessed = _reckoned_older(log, large, since, begins) if count else {}
    check()
    lags = _lags(log, wheres.keys(), present) if wheres else {}
    check()
    out = []
    for one in shown:
        mine = wheres.get(one.topic)
        if mine is None:
            out.append(QueueStats(one, tables.references(one.node_id)))
            continue
        counted = count and spans[one.topic] <= COUNTED
        parts = [(sizes[where], ends[where] - begins[where], ends[where] - starts[where]) for where in mine]
        out.append(
            QueueStats(
                one,
                tables.references(one.node_id),
                sum(begins[where] for where in mine),
                sum(ends[where] for where in mine),
                records[one.topic] if counted else None,
                sum(size * span // read for size, span, read in parts if read) if count else None,
                lags.get(one.topic),
                since.get(one.topic),
                older[one.topic] if counted and one.topic in since else guessed.get(one.topic),
                count and not counted,
                there.found.replication if (there := standing.get(one.topic)) and there.found else None,
            )
        )
    return out, count_of_all


def _unbounded() -> None:
    """All the time that it takes."""


def _counted(
    log: Log,
    starts: Positions,
    ends: Positions,
    since: Mapping[str, int],
    check: Callable[[], None],
) -> tuple[Counter[str], Counter[TopicPartition], Counter[str]]:
    """Records by topic, their bytes by partition, and how many of them come before the close of the bucket in which a topic's node began
    to buffer."""
    records: Counter[str] = Counter()
    sizes: Counter[TopicPartition] = Counter()
    older: Counter[str] = Counter()
    newer: set[TopicPartition] = set()
    for seen, record in enumerate(read_all(log, list(starts), starts)):
        if seen % SAMPLED == 0:
            check()
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


def _reckoned_older(
    log: Log, large: Mapping[str, Sequence[TopicPartition]], since: Mapping[str, int], begins: Positions
) -> Mapping[str, int]:
    """Offsets of each of these topics before the bucket in which its node began to buffer; found by a few looks at its markers."""
    by_bucket: dict[int, list[str]] = {}
    for topic in large:
        by_bucket.setdefault(since[topic], []).append(topic)
    out: dict[str, int] = {}
    for bucket_ms, topics in sorted(by_bucket.items()):
        wheres = [where for topic in topics for where in large[topic]]
        places = entries(log, wheres, bucket_ms, codec, time.monotonic)
        for topic in topics:
            out[topic] = sum(places.get(where, begins[where]) - begins[where] for where in large[topic])
    return out


def _lags(log: Log, topics: Collection[str], present: Collection[str]) -> Mapping[str, int]:
    """Of these topics those that are read: the offsets to its high watermark of the task that is farthest behind, its partitions summed.

    Args:
        topics: that are there; the log is asked about no others, however many are read.
        present: all that the log has.
    """
    tasks = [
        {where: position for where, position in positions.items() if where.topic in topics}
        for one in PROTOTYPES
        if one.name in READERS
        for positions in contained(log, one, codec, present).values()
    ]
    wheres = sorted({where for task in tasks for where in task})
    begins, ends = log.begin_offsets(wheres), log.end_offsets(wheres)
    out: dict[str, int] = {}
    for positions in tasks:
        mine: Counter[str] = Counter()
        for where, position in positions.items():
            mine[where.topic] += max(0, ends[where] - max(position, begins[where]))
        for topic, lag in mine.items():
            out[topic] = max(lag, out.get(topic, 0))
    return out
