"""What the graph holds, by what it is asked for: memory beside the tables of the DAG Manager, made from them again at any time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from heapq import nsmallest
from itertools import chain
from operator import itemgetter
from typing import NamedTuple, TypeAlias, assert_never

from qmtl.engine.table import Table
from qmtl.foundation.contracts.context import THE_CONTEXT, LogContext
from qmtl.foundation.contracts.dag import (
    Artifact,
    ComputeNode,
    Queue,
    QueueRole,
    SentinelStatus,
    StrategyVersion,
    TagSet,
    VersionSentinel,
)
from qmtl.foundation.contracts.node import DagReader
from qmtl.foundation.contracts.release import Release
from qmtl.services.dagmanager.counting import add
from qmtl.services.dagmanager.indexes import COMPUTE_BUFFERING_SINCE
from qmtl.services.dagmanager.lines import Line
from qmtl.services.dagmanager.needs import Needs
from qmtl.services.dagmanager.outcomes import Outcomes
from qmtl.services.dagmanager.tag_queries import TagQueries

TagKey: TypeAlias = tuple[tuple[str, ...], int]
"""Tags, and an interval in seconds."""

HOLDING = (SentinelStatus.PENDING, SentinelStatus.ACTIVE)
"""A version in one of these keeps the queues of its nodes."""

OVER = (SentinelStatus.RETIRED, SentinelStatus.FAILED)
"""A version in one of these is forgotten one day."""

ReaderKey: TypeAlias = tuple[int, str, str]
"""Shard, world id, strategy id."""


class Version(NamedTuple):
    """What is remembered of a version; its nodes are in its row."""

    sentinel_id: str
    world_id: str
    strategy_id: str
    label: str
    status: SentinelStatus
    retired_at_ms: int | None
    release_tag: str = ""


class Catalogue:
    """Queues by node, tags and orphanhood, and versions by what they hold. All writes to these tables go through it.

    References are counted from the versions' own lists of nodes, and stored nowhere: a node is held by the versions that are
    pending or active, and kept by those that can be rolled back to.

    Args:
        tables: what is remembered of them is read once, here; empty, before there are any.

    Attributes:
        tag_queries: who asks for nodes by tags, and who answers.
        past_versions: those that are over.
        needs: who needs the rows of nodes and artifacts.
        outcomes: what was decided on submissions and commands.
        state: another object once a row of a node or a queue was written or forgotten.
    """

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._nodes: dict[str, ComputeNode] = {}
        self._queues: dict[str, Queue] = {}
        self._queue_of: dict[str, Queue] = {}
        self._next: dict[str, Queue] = {}
        self._buffering: list[tuple[int, str]] = []  # sorted
        self._tagged: dict[TagKey, dict[str, None]] = {}
        self._same_tags: Counter[TagKey] = Counter()
        self._orphans: dict[str, None] = {}
        self._held: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._carried: Counter[str] = Counter()
        self._read: Counter[str] = Counter()
        self._computed: Counter[str] = Counter()
        self._behind: Counter[str] = Counter()
        self._versions: dict[str, Version] = {}
        self._missing: dict[str, dict[str, None]] = {}
        self._untold: dict[TagKey, None] = {}
        self._open: dict[tuple[str, str], Release] = {}
        self._over: dict[str, int | None] = {}
        self._touched: dict[tuple[str, str], None] = {}
        self._silent: dict[ReaderKey, None] = {}
        self.past_versions = Line()
        self.needs = Needs(tables, self._nodes)
        self.outcomes = Outcomes(tables)
        self.tag_queries = TagQueries()
        self.state = object()

        if tables:
            self._remember(tables)

    def _remember(self, tables: Mapping[str, Table]) -> None:
        for node in tables["dag.nodes"].load():
            self._keep(node)
        self.tag_queries.learn_all(self._nodes.values())
        for queue in tables["dag.queues"].load():
            self._index(queue)
        for sentinel in tables["dag.sentinels"].load():
            self._count(sentinel, +1)
            self.needs.count(dict.fromkeys(sentinel.node_ids), +1)
            self._note(sentinel)
        for reader in tables["dag.readers"].load():
            self._count_reads(reader, +1)
            self._note_silence(reader)
        for queue in self._queues.values():
            self._sort(queue)
        self.tag_queries.changed()  # every row that asks has its answers
        for release in tables["dag.releases"].load():
            self._note_release(release)
        for row in tables["dag.tags"].load():
            if row.changes != row.told:
                self._untold[row.tags, row.interval] = None
        self.needs.restore()
        self.outcomes.restore()

    # ---- what is there ---------------------------------------------------------------------------------------------

    def node(self, node_id: str) -> ComputeNode | None:
        return self._nodes.get(node_id)

    def nodes_of(self, node_ids: Sequence[str]) -> list[ComputeNode | None]:
        """As `node`, of each in their order."""
        return list(map(self._nodes.get, node_ids))

    def queue(self, topic: str) -> Queue | None:
        return self._queues.get(topic)

    def queue_of(self, node_id: str) -> Queue | None:
        """The topic of a node, also while it is being made or removed."""
        return self._queue_of.get(node_id)

    def queues_of(self, node_ids: Sequence[str]) -> list[Queue | None]:
        """As `queue_of`, of each in their order."""
        return list(map(self._queue_of.get, node_ids))

    def next_of(self, node_id: str) -> Queue | None:
        """The topic that takes the place of the present one once it is there."""
        return self._next.get(node_id)

    def arrived(self) -> list[Queue]:
        """The next topics of nodes that are there, in the order of their names."""
        return sorted(filter(is_usable, self._next.values()), key=lambda queue: queue.topic)

    def buffering(self, until_ms: int) -> list[str]:
        """The nodes that are buffering since then or before, the longest first; those that no tick has seen yet at any time."""
        end = bisect_right(self._buffering, max(until_ms, 0), key=itemgetter(0))
        return [one for _, one in self._buffering[:end]]

    def sentinel(self, sentinel_id: str) -> VersionSentinel | None:
        found: VersionSentinel | None = self._tables["dag.sentinels"].get(sentinel_id)
        return found

    def strategy(self, world_id: str, strategy_id: str) -> StrategyVersion | None:
        """What is deployed; None where nothing is, or nothing any more."""
        found: StrategyVersion | None = self._tables["dag.strategies"].get(world_id, strategy_id)
        return found if found is not None and found.nodes else None

    def context(self) -> LogContext | None:
        """In which context all is computed; None where nobody has said one."""
        found: LogContext | None = self._tables["dag.context"].get(THE_CONTEXT)
        return found

    def put_context(self, row: LogContext) -> None:
        self._tables["dag.context"].put(row)

    def release(self, release_id: str) -> Release | None:
        found: Release | None = self._tables["dag.releases"].get(release_id)
        return found

    def release_of(self, world_id: str, strategy_id: str) -> Release | None:
        """The release of a strategy that is under way."""
        return self._open.get((world_id, strategy_id))

    def open_releases(self) -> list[Release]:
        """Those that are under way, in the order of their strategies."""
        return [self._open[key] for key in sorted(self._open)]

    def touched_releases(self) -> list[Release]:
        """Those that are under way and a version of whose strategy has changed since this was asked last."""
        keys, self._touched = sorted(self._touched), {}
        return [self._open[key] for key in keys if key in self._open]

    def past_releases(self) -> list[tuple[str, int | None]]:
        """The ids of those that are over, in their order, and since which tick."""
        return sorted(self._over.items(), key=lambda one: one[0])

    def artifact(self, checksum: str) -> Artifact | None:
        found: Artifact | None = self._tables["dag.artifacts"].get(checksum)
        return found

    def silent_readers(self, most: int) -> list[ReaderKey]:
        """The rows of readers that say nothing, the first so many of them."""
        return nsmallest(most, self._silent)

    def versions(self) -> list[Version]:
        """All versions in the order of their ids, whatever came first: a process that was restarted says the same."""
        return [self._versions[one] for one in sorted(self._versions)]

    def pending_of(self, world_id: str, strategy_id: str) -> list[str]:
        """The ids of the versions of a strategy that wait for their topics, in their order."""
        key = (world_id, strategy_id)
        found = map(self._versions.__getitem__, sorted(self._missing))
        return [one.sentinel_id for one in found if (one.world_id, one.strategy_id) == key]

    def is_ready(self, node_id: str) -> bool:
        """Whether the topic of a node is there, and stays."""
        queue = self._queue_of.get(node_id)
        return queue is not None and is_usable(queue)

    def waiting_for(self, node_id: str) -> list[str]:
        """The pending versions for which the topic of a node is missing, in the order of their ids."""
        return sorted(one for one, missing in self._missing.items() if node_id in missing)

    def is_complete(self, sentinel_id: str) -> bool:
        """Whether the topics of all nodes of a pending version are ready."""
        return not self._missing[sentinel_id]

    def is_held(self, node_id: str) -> bool:
        """Whether a version that is pending or active has the node."""
        return self._held[node_id] > 0

    def keepers(self, node_id: str) -> int:
        """How many versions that can be rolled back to have the node."""
        return self._kept[node_id]

    def references(self, node_id: str) -> int:
        """How many versions hold the node."""
        return self._held[node_id]

    def is_read(self, node_id: str) -> bool:
        """Whether a worker still computes a version that has the node: it may be behind."""
        return self._read[node_id] > 0

    def is_behind(self, topic: str) -> bool:
        """Whether a worker still has a plan with a topic that its node has left."""
        return self._behind[topic] > 0

    def is_computed(self, sentinel_id: str) -> bool:
        """Whether a worker still computes a version."""
        return self._computed[sentinel_id] > 0

    def orphans(self) -> Iterator[Queue]:
        """The queues of nodes that no version holds, but those that are being removed, in the order of their names."""
        return (self._queues[topic] for topic in sorted(self._orphans))

    def tagged(self, key: TagKey) -> tuple[str, ...]:
        """The topics that carry data with exactly these tags at this interval, in the order of their names."""
        return tuple(sorted(self._tagged.get(key, ())))

    def count_tagged(self, key: TagKey) -> int:
        """How many queues there are with exactly these tags at this interval, whatever becomes of them."""
        return self._same_tags[key]

    def untold(self) -> list[TagSet]:
        """The tag sets that have changed since they were told of, in their order."""
        rows = self._tables["dag.tags"]
        return [rows.get(*_tag_key(key)) for key in sorted(self._untold)]

    @property
    def queue_count(self) -> int:
        return len(self._queues)

    # ---- what changes ------------------------------------------------------------------------------------------------

    def put_node(self, node: ComputeNode) -> None:
        self._tables["dag.nodes"].put(node)
        self._judge([node.node_id, *self._keep(node)])
        self.tag_queries.learn(node)

    def drop_node(self, node: ComputeNode) -> None:
        """Forget a node that nothing has, and that no other one reads."""
        self.state = object()
        self._tables["dag.nodes"].delete(node.node_id)
        del self._nodes[node.node_id]
        self._note_buffering(node.node_id, COMPUTE_BUFFERING_SINCE.values(node), ())
        self.tag_queries.forget(node.node_id)
        self._judge(self.needs.forget(node))

    def put_queue(self, queue: Queue, at_ms: int) -> None:
        """Write a queue down.

        Args:
            at_ms: by the record that it came from.
        """
        self._tables["dag.queues"].put(queue)
        self._judge(self._index(queue))
        if is_usable(queue) and queue.role is QueueRole.CURRENT:
            for missing in self._missing.values():
                missing.pop(queue.node_id, None)
        self._mind(queue.topic, at_ms)

    def drop_queue(self, queue: Queue) -> None:
        """Forget a queue whose topic is no more."""
        self.state = object()
        self._tables["dag.queues"].delete(queue.topic)
        del self._queues[queue.topic]
        add(self._same_tags, [(queue.tags, queue.interval)], -1)
        self._judge(self.needs.count([queue.node_id], -1))
        self._orphans.pop(queue.topic, None)
        for queues in (self._queue_of, self._next):
            if (last := queues.get(queue.node_id)) is not None and last.topic == queue.topic:
                del queues[queue.node_id]

    def put_sentinel(self, sentinel: VersionSentinel, at_ms: int) -> None:
        """Write a version down.

        Args:
            at_ms: by the record that it came from.
        """
        before = self.sentinel(sentinel.sentinel_id)
        if before is None and (
            readers := self._computed[sentinel.sentinel_id]
        ):  # one that was forgotten is back
            add(self._read, dict.fromkeys(sentinel.node_ids), readers)
        self._tables["dag.sentinels"].put(sentinel)
        self._mind_all(
            [*self._count(sentinel, +1), *(self._count(before, -1) if before is not None else ())], at_ms
        )
        had = () if before is None else before.node_ids
        if had != sentinel.node_ids:
            self._judge(self.needs.count(dict.fromkeys(sentinel.node_ids), +1))
            self._judge(self.needs.count(dict.fromkeys(had), -1))
        self._note(sentinel)
        if (key := (sentinel.world_id, sentinel.strategy_id)) in self._open:
            self._touched[key] = None

    def drop_sentinel(self, sentinel: VersionSentinel, at_ms: int) -> None:
        """Forget a version that nobody can roll back to any more."""
        self._tables["dag.sentinels"].delete(sentinel.sentinel_id)
        self._mind_all(self._count(sentinel, -1), at_ms)
        self._judge(self.needs.count(dict.fromkeys(sentinel.node_ids), -1))
        self._versions.pop(sentinel.sentinel_id, None)
        self._missing.pop(sentinel.sentinel_id, None)
        self.past_versions.drop(sentinel.sentinel_id)

    def put_reader(self, reader: DagReader) -> None:
        rows = self._tables["dag.readers"]
        before: DagReader | None = rows.get(reader.shard, reader.world_id, reader.strategy_id)
        if before is not None:
            self._count_reads(before, -1)
        rows.put(reader)
        self._count_reads(reader, +1)
        self._note_silence(reader)

    def drop_reader(self, key: ReaderKey) -> None:
        """Forget a reader that says nothing."""
        self._tables["dag.readers"].delete(*key)
        del self._silent[key]

    def note_behind(self, left: Mapping[str, str]) -> None:
        """Nodes have left these topics: a worker that computes a version with one of them reads it until it says otherwise.

        Args:
            left: topics by node.
        """
        readers: Iterable[DagReader] = list(self._tables["dag.readers"].items())
        for reader in readers:
            versions = [found for one in reader.sentinels if (found := self.sentinel(one)) is not None]
            computed = chain(reader.found, *(version.node_ids for version in versions))
            if topics := {left[one] for one in computed if one in left}:
                self.put_reader(replace(reader, behind=tuple(sorted({*reader.behind, *topics}))))

    def put_release(self, row: Release) -> None:
        self._tables["dag.releases"].put(row)
        self._note_release(row)

    def drop_release(self, release_id: str) -> None:
        """Forget a release that is over."""
        self._tables["dag.releases"].delete(release_id)
        del self._over[release_id]

    def told(self, row: TagSet) -> None:
        """Somebody was told of all changes of a tag set."""
        self._tables["dag.tags"].put(replace(row, told=row.changes))
        self._untold.pop((row.tags, row.interval), None)

    # ---- indexes -------------------------------------------------------------------------------------------------------

    def _index(self, queue: Queue) -> list[str]:
        """Take a queue's row; returns the nodes that are to be judged."""
        self.state = object()
        judged = []
        if queue.topic not in self._queues:
            self._same_tags[queue.tags, queue.interval] += 1
            judged = self.needs.count([queue.node_id], +1)
        self._queues[queue.topic] = queue
        for role, queues in ((QueueRole.CURRENT, self._queue_of), (QueueRole.NEXT, self._next)):
            if queue.role is role:
                queues[queue.node_id] = queue
            elif (last := queues.get(queue.node_id)) is not None and last.topic == queue.topic:
                del queues[queue.node_id]
        return judged

    def _keep(self, node: ComputeNode) -> list[str]:
        """Take a node's row; returns the nodes that it reads, and nobody read before."""
        self.state = object()
        known = self._nodes.get(node.node_id)
        self._nodes[node.node_id] = node
        before = () if known is None else COMPUTE_BUFFERING_SINCE.values(known)
        self._note_buffering(node.node_id, before, COMPUTE_BUFFERING_SINCE.values(node))
        return self.needs.learn(node) if known is None else []

    def _note_buffering(self, node_id: str, before: Iterable[int], now: Iterable[int]) -> None:
        if before == now:
            return
        for one in before:
            del self._buffering[bisect_left(self._buffering, (one, node_id))]
        for one in now:
            insort(self._buffering, (one, node_id))

    def _judge(self, node_ids: Iterable[str]) -> None:
        """Find out whether the rows of nodes are needed; the time of one that is again will begin anew."""
        for node in self.needs.judge(node_ids):
            self._tables["dag.nodes"].put(node)
            self._keep(node)

    def _mind_all(self, node_ids: Iterable[str], at_ms: int) -> None:
        for node_id in dict.fromkeys(node_ids):
            for queues in (self._queue_of, self._next):
                if (queue := queues.get(node_id)) is not None:
                    self._mind(queue.topic, at_ms)

    def _mind(self, topic: str, at_ms: int) -> None:
        """Find out what a queue is now, and note where those with its tags have changed by it."""
        queue = self._queues[topic]
        if queue.orphaned_at_ms is not None and self._is_wanted(queue):
            if queue.archiving:
                self._tables["dag.tasks"].delete(queue.topic)
            queue = used_again(queue)
            self._index(queue)
            self._tables["dag.queues"].put(queue)
        if self._sort(queue):
            key = (queue.tags, queue.interval)
            rows = self._tables["dag.tags"]
            known: TagSet = rows.get(*_tag_key(key)) or TagSet(*key, 0, at_ms)
            rows.put(replace(known, changes=known.changes + 1, changed_at_ms=at_ms))
            self._untold[key] = None

    def _sort(self, queue: Queue) -> bool:
        """Put a queue among those with its tags if it carries data, and among the orphans if it is one; says whether the first
        was changed."""
        if self._is_wanted(queue) or queue.removing:
            self._orphans.pop(queue.topic, None)
        else:
            self._orphans[queue.topic] = None
        if not queue.tags:
            return False  # nobody can ask for it
        key = (queue.tags, queue.interval)
        same = self._tagged.get(key, {})
        is_current = queue.role is QueueRole.CURRENT
        carries = is_current and queue.node_id in self._carried and is_usable(queue)
        if (queue.topic in same) == carries:
            return False
        self.tag_queries.carries(queue, self._nodes[queue.node_id], carries=carries)
        if queue.topic in same:
            del same[queue.topic]
            if not same:
                del self._tagged[key]
        else:
            self._tagged.setdefault(key, {})[queue.topic] = None
        return True

    def _is_wanted(self, queue: Queue) -> bool:
        """Whether a version holds the node, and the node has not left the topic."""
        return self.is_held(queue.node_id) and queue.role is not QueueRole.FORMER

    def _count(self, sentinel: VersionSentinel, by: int) -> list[str]:
        """Count what a version holds, carries or keeps; returns the nodes of which another thing is true from now on."""
        nodes = dict.fromkeys(sentinel.node_ids)
        match sentinel.status:
            case SentinelStatus.PENDING:
                return add(self._held, nodes, by)
            case SentinelStatus.ACTIVE:
                self.tag_queries.ask((sentinel.world_id, sentinel.strategy_id), nodes, by)
                return [*add(self._held, nodes, by), *add(self._carried, nodes, by)]
            case SentinelStatus.RETIRED:
                add(self._kept, nodes, by)
                return []
            case SentinelStatus.FAILED:
                return []
            case _:
                assert_never(sentinel.status)

    def _note(self, sentinel: VersionSentinel) -> None:
        """Remember what is asked of a version again and again."""
        self._versions[sentinel.sentinel_id] = Version(
            sentinel.sentinel_id,
            sentinel.world_id,
            sentinel.strategy_id,
            sentinel.version,
            sentinel.status,
            sentinel.retired_at_ms,
            sentinel.release_tag,
        )
        if sentinel.status in OVER:
            self.past_versions.put(sentinel.sentinel_id, sentinel.retired_at_ms)
        else:
            self.past_versions.drop(sentinel.sentinel_id)
        if sentinel.status is SentinelStatus.PENDING:
            self._missing[sentinel.sentinel_id] = {
                one: None for one in sentinel.node_ids if not self.is_ready(one)
            }
        else:
            self._missing.pop(sentinel.sentinel_id, None)

    def _note_release(self, row: Release) -> None:
        key = (row.world_id, row.strategy_id)
        if row.stage.is_over:
            self._over[row.release_id] = row.since_ms
            if (last := self._open.get(key)) is not None and last.release_id == row.release_id:
                del self._open[key]
        else:
            self._open[key] = row

    def _note_silence(self, reader: DagReader) -> None:
        key = (reader.shard, reader.world_id, reader.strategy_id)
        if reader.sentinels or reader.behind or reader.found:
            self._silent.pop(key, None)
        else:
            self._silent[key] = None

    def _count_reads(self, reader: DagReader, by: int) -> None:
        add(self._computed, reader.sentinels, by)
        add(self._behind, reader.behind, by)
        for sentinel in (self.sentinel(one) for one in reader.sentinels):
            if sentinel is not None:
                add(self._read, dict.fromkeys(sentinel.node_ids), by)
        add(self._read, reader.found, by)


def used_again(queue: Queue) -> Queue:
    """A queue that a version has again: whatever is told of its archive is of what it was before."""
    return replace(queue, orphaned_at_ms=None, spared=0, spared_at_ms=None, archiving=False, archive=None)


def is_usable(queue: Queue) -> bool:
    """Whether its topic is there, and stays."""
    return queue.ready and not queue.removing


def _tag_key(key: TagKey) -> tuple[str | int, ...]:
    """The key of a row of `dag.tags`, whose parts are the number of tags, the tags and the interval."""
    tags, interval = key
    return (len(tags), *tags, interval)
