"""What the DAG Manager's topics hold, counted as they grow; a look takes what has been written since the last one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, assert_never

from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import TopicCollision
from qmtl.foundation.contracts.context import LogContext
from qmtl.foundation.contracts.dag import (
    FULL_WEIGHT,
    AdminAct,
    AdminEntry,
    ComputeNode,
    Queue,
    ReportTopicCreated,
    ReportTopicRemoved,
    SentinelStatus,
    StrategyVersion,
    TopicReport,
    VersionSentinel,
)
from qmtl.foundation.contracts.release import Release, ReleaseStage
from qmtl.foundation.contracts.retention import ReportTopicArchived
from qmtl.foundation.wire.keys import decode_key, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shards import is_settled
from qmtl.interfaces.replicas import OF_CATALOGUE, ReplicaCheck, wanted_by

TOPICS: Final = (
    "dag.nodes",
    "dag.queues",
    "dag.sentinels",
    "dag.strategies",
    "dag.context",
    "dag.releases",
    "dag.reports",
    "dag.admin.log",
)

EXPIRING: Final = ("dag.artifacts", "dag.diffs", "dag.nodes", "dag.outcomes", "dag.readers")
"""The tables whose rows go by themselves once nobody has needed them for long."""

SETTLE_S: Final = 0.5
"""A gap counts if it is there after so long, too: two topics are not read at one moment."""

LOOKS_A_CHECK: Final = 4
"""Replicas are looked at with every fourth look."""

_Row: TypeAlias = (
    ComputeNode | Queue | VersionSentinel | StrategyVersion | LogContext | Release | TopicReport | AdminEntry
)

StrategyKey: TypeAlias = tuple[str, str]
"""World and strategy."""


@dataclass(frozen=True, slots=True)
class Survey:
    """How much there is.

    Attributes:
        nodes: rows of `dag.nodes`.
        unneeded: of these, those that a tick found to be needed by no version and no queue; they go by themselves.
        expired: by table, rows that went because nobody needed them, since the log began; in the order of the tables.
        queues: rows of `dag.queues`.
        orphans: of these, those that a tick found to be orphans, and that are not being removed.
        gaps: strategies of which the traffic is not given to versions, all of it and once: the versions of the deployed plan are not
            those that are active, or their weights do not sum up to all.
        handovers: strategies whose versions have no traffic yet, as not every shard has said that it computes them.
        created, failed: reports of topics that were made, and that could not be. One that was passed over, as another topic looks like
            it, is neither: its node gets one of the next name, and no version fails.
        stalled: times that an answer to a diff request was not acknowledged for too long.
        repeated: requests that came under an id under which something else was asked before.
        buffering: nodes whose topic has a history of an older schema.
        oldest_ms: since when the first of them is; None where there is none, or no tick has come since.
        crossed: how often a node had something that another context had computed.
        uncleared: how many of these nobody has cleared.
        releases: rows of `dag.releases` by stage, in the order of the stages.
        archived, unarchived: reports of topics that were archived, and that could not be.
        thin: topics of the catalogue and of nodes that have fewer replicas than they are to have, as of the last look at each.
        kept: by code, reports of topics that could not be removed; in the order of the codes.
    """

    nodes: int = 0
    queues: int = 0
    orphans: int = 0
    gaps: int = 0
    handovers: int = 0
    created: int = 0
    failed: int = 0
    stalled: int = 0
    repeated: int = 0
    buffering: int = 0
    oldest_ms: int | None = None
    crossed: int = 0
    uncleared: int = 0
    releases: tuple[int, ...] = (0,) * len(ReleaseStage)
    thin: int = 0
    unneeded: int = 0
    expired: tuple[tuple[str, int], ...] = ()
    kept: tuple[tuple[str, int], ...] = ()
    archived: int = 0
    unarchived: int = 0


class Surveyor:
    """Counts on one log, again and again. Not thread-safe.

    Args:
        wait: waits so many seconds.
    """

    def __init__(self, log: Log, wait: Callable[[float], object]) -> None:
        self._log = log
        self._wait = wait
        self._wheres: list[TopicPartition] = []
        self._next: dict[TopicPartition, int] = {}
        self._nodes: set[bytes] = set()
        self._buffering: dict[bytes, int] = {}
        self._unneeded: set[bytes] = set()
        self._expired: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._queues: set[bytes] = set()
        self._replicas: dict[str, int] = dict(OF_CATALOGUE)
        self._check = ReplicaCheck(log)
        self._looks, self._thin = 0, 0
        self._orphans: set[bytes] = set()
        self._versions: dict[bytes, tuple[StrategyKey, str, int]] = {}
        self._plans: dict[bytes, tuple[StrategyKey, frozenset[str]]] = {}
        self._handovers: set[bytes] = set()
        self._created, self._failed, self._stalled, self._repeated = 0, 0, 0, 0
        self._archived, self._unarchived = 0, 0
        self._crossed, self._uncleared = 0, 0
        self._releases: dict[bytes, ReleaseStage] = {}

    def look(self) -> Survey:
        """As of now.

        Raises:
            LogError: the log did not answer.
        """
        self._read()
        if gaps := self._gaps():
            self._wait(SETTLE_S)
            self._read()
            gaps &= self._gaps()
        return Survey(
            len(self._nodes),
            len(self._queues),
            len(self._orphans),
            len(gaps),
            len(self._handovers),
            self._created,
            self._failed,
            self._stalled,
            self._repeated,
            len(self._buffering),
            min((since_ms for since_ms in self._buffering.values() if since_ms), default=None),
            self._crossed,
            self._uncleared,
            tuple([sum(one is stage for one in self._releases.values()) for stage in ReleaseStage]),
            self._count_thin(),
            len(self._unneeded),
            tuple(sorted(self._expired.items())),
            tuple(sorted(self._kept.items())),
            self._archived,
            self._unarchived,
        )

    def _count_thin(self) -> int:
        """The metadata of a whole cluster are large, and change seldom."""
        if self._looks % LOOKS_A_CHECK == 0:
            self._thin = self._check.look(self._replicas)
        self._looks += 1
        return self._thin

    def _read(self) -> None:
        if not self._wheres:
            self._wheres = [where for name in TOPICS for where in all_partitions(self._log, name)]
        for record in read_all(self._log, self._wheres, self._next):
            self._next[TopicPartition(record.topic, record.partition)] = record.offset + 1
            if is_reserved(record.key):
                continue
            if record.value is None:
                self._forget(record.topic, record.key)
            else:
                self._take(record.key, codec.decode(record.value))

    def _forget(self, topic: str, key: bytes) -> None:
        match topic:
            case "dag.nodes":
                self._nodes.discard(key)
                self._buffering.pop(key, None)
                self._unneeded.discard(key)
            case "dag.queues":
                self._queues.discard(key)
                self._orphans.discard(key)
                (name,) = decode_key(key)
                self._replicas.pop(str(name), None)
            case "dag.sentinels":
                self._versions.pop(key, None)
            case "dag.releases":
                self._releases.pop(key, None)
            case _:
                self._plans.pop(key, None)
                self._handovers.discard(key)

    def _take(self, key: bytes, row: Any) -> None:
        found: _Row = row
        match found:
            case ComputeNode():
                self._nodes.add(key)
                if found.buffering_since_ms is None:
                    self._buffering.pop(key, None)
                else:
                    self._buffering[key] = found.buffering_since_ms
                is_needed = found.unneeded_since_ms is None
                (self._unneeded.discard if is_needed else self._unneeded.add)(key)
            case Queue():
                self._queues.add(key)
                self._replicas[found.topic] = wanted_by(found)
                is_orphan = found.orphaned_at_ms is not None and not found.removing
                (self._orphans.add if is_orphan else self._orphans.discard)(key)
            case VersionSentinel():
                self._versions.pop(key, None)
                if found.status is SentinelStatus.ACTIVE:
                    whose = (found.world_id, found.strategy_id)
                    self._versions[key] = (whose, found.sentinel_id, found.traffic_weight)
            case StrategyVersion():
                self._plans.pop(key, None)
                (self._handovers.discard if is_settled(found) else self._handovers.add)(key)
                if found.nodes:
                    canary = () if found.canary is None else (found.canary.sentinel_id,)
                    whose = (found.world_id, found.strategy_id)
                    self._plans[key] = (whose, frozenset((found.sentinel_id, *canary)))
            case LogContext():
                self._crossed, self._uncleared = sum(found.hits), found.uncleared
            case Release():
                self._releases[key] = found.stage
            case ReportTopicCreated():
                self._created += found.created
                self._failed += not found.created and found.code != TopicCollision.code
            case AdminEntry():
                self._stalled += found.act is AdminAct.STALLED
                self._repeated += found.act is AdminAct.REPEATED
                if found.act is AdminAct.EXPIRED:
                    self._expired[found.subject] += int(found.detail)
            case ReportTopicArchived():
                self._archived += found.archived
                self._unarchived += not found.archived
            case ReportTopicRemoved():
                if not found.removed:
                    self._kept[found.code] += 1
            case _:
                assert_never(found)

    def _gaps(self) -> set[StrategyKey]:
        active: dict[StrategyKey, dict[str, int]] = {}
        for whose, sentinel_id, weight in self._versions.values():
            active.setdefault(whose, {})[sentinel_id] = weight
        planned = dict(self._plans.values())
        return {
            whose
            for whose in active.keys() | planned.keys()
            if active.get(whose, {}).keys() != planned.get(whose, frozenset())
            or sum(active.get(whose, {}).values()) != FULL_WEIGHT
        }
