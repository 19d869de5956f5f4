"""Strategy graphs: what is submitted, what the DAG Manager keeps, what it asks of the outside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

from qmtl.foundation.contracts.context import ClearContextHits, SetComputeContext
from qmtl.foundation.contracts.release import AbandonRelease, ReportBacktest, StartRelease
from qmtl.foundation.contracts.retention import (
    ArchiveTopic,
    ReportTopicArchived,
    SetRetention,
    TopicArchive,
)

FULL_WEIGHT: Final = 10_000
"""All of a strategy's traffic, in basis points."""

TAG_QUERY: Final = "tag_query"  # the `node_type` of a tag query

PORTFOLIO: Final = "portfolio"  # the `node_type` of a node that reads the portfolio back


class StrategyStatus(Enum):
    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"
    RETIRED = "retired"


class SentinelStatus(Enum):
    """The life of a version.

    A version is pending until all its topics are there, then active until it has no traffic left, then a rollback point until it
    is archived. A failed one, of which a topic could not be made, holds nothing.
    """

    PENDING = "pending"
    ACTIVE = "active"
    RETIRED = "retired"
    FAILED = "failed"


class TopicClass(Enum):
    RAW = "raw"
    INDICATOR = "indicator"
    TRADE_EXEC = "trade_exec"


class QueueRole(Enum):
    """What a topic is to its node: the one that it emits to, the one that takes its place once it is there, or one that it has left."""

    CURRENT = "current"
    NEXT = "next"
    FORMER = "former"


class Relation(Enum):
    EMITS = "EMITS"
    HAS = "HAS"
    USED_BY = "USED_BY"


@dataclass(frozen=True, slots=True)
class DagSubmission:
    """A strategy's DAG message as it was published: UTF-8 JSON of at most 1 MiB.

    Attributes:
        weight_bp: the share of the strategy's traffic that its version gets beside an active one, in basis points; a part makes it a canary.
        world_id, execution_domain, as_of, partition, dataset_fingerprint: as in `DiffRequest`. What lacks of them is answered in safe
            mode, as a diff is, and nothing is deployed. The first submission that is deployed says the context of the log.
    """

    submission_id: str
    world_id: str
    dag_json: bytes
    submitted_at_ms: int
    weight_bp: int = FULL_WEIGHT
    execution_domain: str = ""
    as_of: str = ""
    partition: str = ""
    dataset_fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class ComputeNode:
    """A content-addressed node: a row of `dag.nodes`. What its id stands for never changes; the row goes once nobody has needed it for
    long, and comes again with the node.

    Attributes:
        node_id: `blake3:<64 hex>`.
        interval: seconds.
        period: how many intervals of input the node needs before it emits.
        params_canon: canonical JSON of the functional parameters.
        dependencies: node ids of the inputs by port, in the order of the ports.
        tags: sorted, each once: what order its author had them in makes no difference.
        owner: the version that brought it first, by its sentinel's id.
        schema_hash: of its messages' schema, byte by byte, as the version of QMTL writes it that had the node submitted last; empty in rows of old.
        buffering_since_ms: since when its history is of an older schema of the same compatibility, by the clock's ticks; None where
            it is not, 0 before the first tick.
        generation: which of its names of topics is the present one, or the next; also those count that were refused because somebody
            else's topic looks alike. None comes again: a new row begins behind those that rows which went have had (`TopicLife`).
        unneeded_since_ms: the first tick that found no version and no queue that has it; None while one has.
        code: of a Python node, where its function was found when it was published last: `package.module:qualname`. No part of its id.
    """

    node_id: str
    node_type: str
    interval: int
    period: int
    code_hash: str
    schema_compat_id: str
    params_canon: str
    dependencies: tuple[str, ...]
    tags: tuple[str, ...] = ()
    created_at_ms: int = 0
    owner: str = ""
    schema_hash: str = ""
    buffering_since_ms: int | None = None
    generation: int = 1
    unneeded_since_ms: int | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """The topic of a node: a row of `dag.queues`.

    Attributes:
        tags: of the node.
        ready: the topic is there, as it was asked for.
        orphaned_at_ms: since when no version that is pending or active has the node; None while one has it.
        removing: it is being removed, and is nobody's to read any more.
        brokers: where it lies, if not on the log's own; empty for every topic that the DAG Manager makes, and read by nobody.
        lag_alert_threshold: offsets that a reader may be behind, if the topic has a bound of its own; None, as the DAG Manager sets it:
            that of its class (`get_config`), which is that of the alert `QmtlLag`. `queue-stats` tells who is over it.
        role: of the topics of a node one is current.
        spared: how often in a row it could not be archived or removed, and `spared_at_ms` when it was tried last, by the clock's ticks;
            0 and None from when a version has the node again.
        archiving: its archive was asked for and not told of; `archivals`, how often that was asked for.
        archive: None while it is not archived, or is used again.
    """

    topic: str
    node_id: str
    topic_class: TopicClass
    partitions: int
    interval: int
    ttl_ms: int
    retention_ms: int
    created_at_ms: int
    tags: tuple[str, ...] = ()
    ready: bool = False
    orphaned_at_ms: int | None = None
    removing: bool = False
    brokers: tuple[str, ...] = ()
    lag_alert_threshold: int | None = None
    role: QueueRole = QueueRole.CURRENT
    spared: int = 0
    spared_at_ms: int | None = None
    archiving: bool = False
    archivals: int = 0
    archive: TopicArchive | None = None


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that nodes compute with, a model for instance: a row of `dag.artifacts`. Its bytes lie elsewhere.

    Attributes:
        checksum: `blake3:<64 hex>` of its bytes.
        path: where it lies, as it was said last.
        size: bytes.
        framework, dtype: empty where nobody has told them.
        unneeded_since_ms: the first tick that found no row of a node that uses it; None while one does, and before.
    """

    checksum: str
    path: str
    size: int
    framework: str = ""
    dtype: str = ""
    unneeded_since_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One relationship of the graph: a row of `dag.edges`."""

    relation: Relation
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class VersionSentinel:
    """A boundary of graph versions and a rollback point: a row of `dag.sentinels`.

    Attributes:
        node_ids: all nodes of the version, inputs before the nodes that read them.
        names: what the strategy calls each of them, in the same order.
        signals: node ids whose output is the strategy's order intents.
        submission_id: the newest submission of this version.
        traffic_weight: the share of the strategy's traffic that it has, or gets once it is active, in basis points.
        active_since_ms: the bucket after which it became active; 0 while it is pending, or before the clock's first tick. The close
            markers of this bucket are the boundary: in each topic the marker's offset is where the version before ends.
        retired_at_ms: since when it is a rollback point only, or has failed, by the clock's ticks; None before.
        release_tag: what people call the release.
        was_stable: it is retired, and was the stable one until a newer one took its place or its strategy was taken out; nobody has
            gone back from it. To return to it is no promotion.
    """

    sentinel_id: str
    version: str
    commit_hash: str
    created_at_ms: int
    world_id: str
    strategy_id: str
    node_ids: tuple[str, ...]
    names: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()
    submission_id: str = ""
    status: SentinelStatus = SentinelStatus.ACTIVE
    traffic_weight: int = FULL_WEIGHT
    active_since_ms: int = 0
    retired_at_ms: int | None = None
    release_tag: str = ""
    was_stable: bool = False


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node of a deployed strategy with the topic that it emits to, in topological order within its plan.

    Attributes:
        dependencies: node ids of the inputs by port; of a tag query those that answer it, in the order of their topics.
        code, code_hash: of a Python node, where its function is and which it has to be; empty of a built-in.
    """

    name: str
    node_id: str
    node_type: str
    interval: int
    period: int
    params_canon: str
    dependencies: tuple[str, ...]
    topic: str
    partitions: int
    reused: bool
    code: str = ""
    code_hash: str = ""


@dataclass(frozen=True, slots=True)
class Canary:
    """A second version of a strategy that has a part of its traffic.

    Attributes:
        traffic_weight: its part in basis points, less than all; see `qmtl.foundation.common.traffic`.
        signals: node ids whose output is the order intents of this version.
    """

    version: str
    sentinel_id: str
    submission_id: str
    traffic_weight: int
    signals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """Who has a strategy's traffic until others can take it over: a part of its row, for as long as a shard may need it.

    Attributes:
        until_ms: the last bucket that is theirs, epoch ms; None while not every shard has said that it computes what comes after them.
        nodes: what their signals are computed with and the row has not in its own plan, inputs before the nodes that read them.
        found: ids of those among the nodes that are others', and answer a tag query of theirs.
        sentinel_id, signals, canary, desk: as in `StrategyVersion`.
    """

    sentinel_id: str
    signals: tuple[str, ...]
    canary: Canary | None
    nodes: tuple[PlannedNode, ...]
    found: tuple[str, ...] = ()
    desk: int | None = None
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class StrategyVersion:
    """A strategy as it is deployed in a world: a row of `dag.strategies`. It is written once all its topics are there.

    Attributes:
        nodes: the plan, inputs before the nodes that read them; of both versions where there are two. Empty once it is retired.
        signals: node ids whose output is the strategy's order intents, for the traffic that is not the canary's.
        found: the nodes of others that answer its tag queries, with all that they are computed from, inputs before the nodes that
            read them; what the strategy has itself is there again where one of them reads it.
        crowded: its tag queries with more answers than a row can name, sorted; each keeps those that it had, or has none.
        revision: counts what the DAG Manager has written of the strategy; a shard says with it what it has read. 0 in a row of old.
        desk: the shard on which all its intents are given; None in a row of old: the highest on which a signal of it lives.
        before: who has its traffic before the versions of this row, oldest first, each from the end of the one before. Its own have what
            comes after the last one's end, and so nothing while that is not known.
    """

    world_id: str
    strategy_id: str
    version: str
    sentinel_id: str
    submission_id: str
    status: StrategyStatus
    nodes: tuple[PlannedNode, ...]
    signals: tuple[str, ...]
    canary: Canary | None = None
    found: tuple[PlannedNode, ...] = ()
    crowded: tuple[str, ...] = ()
    revision: int = 0
    desk: int | None = None
    before: tuple[Split, ...] = ()


@dataclass(frozen=True, slots=True)
class DagOutcome:
    """What became of a submission: a row of `dag.diffs` per submission id, until its time is over (`Retention`).

    Attributes:
        code: empty where accepted, else the stable error code.
        buffering_nodes: of the reused ones, those whose topic has a history of an older schema.
        safe_mode: why its context was made safe, `missing_as_of` for example: no version is marked, no node used again, nothing
            deployed. Empty where it is granted as it was asked for.
        decided_ms: by the clock's ticks, or what the submission said where that is later; 0 in rows of old, until a tick has seen them.
        request_digest: of the content that it answers (`qmtl.services.dagmanager.repeats`), to which other content under its id has no
            answer here: it was refused (QMTL-608). Empty in rows of old.
    """

    submission_id: str
    world_id: str
    strategy_id: str
    accepted: bool
    code: str
    detail: str
    sentinel_id: str = ""
    new_nodes: tuple[str, ...] = ()
    reused_nodes: tuple[str, ...] = ()
    buffering_nodes: tuple[str, ...] = ()
    safe_mode: str = ""
    decided_ms: int = 0
    request_digest: str = ""


@dataclass(frozen=True, slots=True)
class CreateTopic:
    """What the DAG Manager asks of the topic admin: a row of `dag.tasks`."""

    topic: str
    topic_class: TopicClass
    partitions: int
    replication: int
    config: dict[str, str]


@dataclass(frozen=True, slots=True)
class ReportTopicCreated:
    """What the topic admin found: the topic is there with the configuration asked for, or why not."""

    topic: str
    created: bool
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class RemoveTopic:
    """What the DAG Manager asks of the topic admin: a row of `dag.tasks`. With `archive` the topic goes only if what `archived` names is there,
    is read back whole, and has all that is in it; a row of old names none, and is not carried out."""

    topic: str
    node_id: str
    archive: bool
    archived: TopicArchive | None = None


@dataclass(frozen=True, slots=True)
class ReportTopicRemoved:
    """What became of a removal; one that failed has left the topic as it was.

    Attributes:
        archive: where its records were stored; empty where they were not.
        digest: of what was stored.
        broker_load_percent: how busy the brokers were then, of what they are said to bear; 0 where nobody measures it.
    """

    topic: str
    removed: bool
    code: str
    detail: str
    archive: str = ""
    records: int = 0
    digest: str = ""
    broker_load_percent: int = 0


# ---- commands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SetTrafficWeight:
    """Give a version that is active a share of its strategy's traffic, in basis points: none retires it, all retires the other."""

    command_id: str
    sentinel_id: str
    traffic_weight: int
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class RollBack:
    """Make a version that was retired its strategy's only one again."""

    command_id: str
    sentinel_id: str
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class RedoDiff:
    """Deploy a version anew, as the version that is named, with new topics for its computed nodes, and swap to it once they are there.

    Attributes:
        version: of the topics, `v1.2.3-hotfix` for example.
    """

    command_id: str
    sentinel_id: str
    version: str
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class RetireStrategy:
    """Take a strategy out of a world; its versions stay rollback points."""

    command_id: str
    world_id: str
    strategy_id: str
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class CollectGarbage:
    """Look now, and not at the next tick only, for what can be archived or removed; of retired or failed versions alone that `sentinel` means."""

    command_id: str
    sentinel: str
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class DagCommandOutcome:
    """What became of a command: a row of `dag.outcomes` per command id, until its time is over (`Retention`).

    Attributes:
        code: empty where accepted, else the stable error code.
        decided_ms, request_digest: as in `DagOutcome`.
    """

    command_id: str
    accepted: bool
    code: str
    detail: str
    decided_ms: int = 0
    request_digest: str = ""


# ---- what is told ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueueUpdated:
    """The queues that carry a set of tags at an interval have changed; exactly the fields that the seed gives.

    Attributes:
        queues: all that carry data, in the order of their names: their topics are there, and an active version has their nodes.
        etag: another one for each other set.
    """

    type: str
    tags: tuple[str, ...]
    interval: int
    queues: tuple[str, ...]
    etag: str
    ts: str


@dataclass(frozen=True, slots=True)
class QueueCollected:
    """A queue was removed, after `QueueUpdated` had told that it is no more; `action`: `delete`, or `archive` where it is archived."""

    type: str
    topic: str
    tags: tuple[str, ...]
    interval: int
    action: str
    etag: str
    ts: str


@dataclass(frozen=True, slots=True)
class SentinelWeightUpdated:
    """The share of a strategy's traffic that a version has, in basis points, has changed."""

    type: str
    sentinel_id: str
    world_id: str
    strategy_id: str
    version: str
    traffic_weight: int
    etag: str
    ts: str


@dataclass(frozen=True, slots=True)
class TagSet:
    """How often the queues with a set of tags at an interval have changed: a row of `dag.tags`. `changed_at_ms` is by the record that the last
    change came from, and `told` how many of the changes `QueueUpdated` has told of."""

    tags: tuple[str, ...]
    interval: int
    changes: int
    changed_at_ms: int
    told: int = 0


class AdminAct(Enum):
    """What the admin log tells of. The topics of a moment are those that were created until then and not removed."""

    REQUESTED = "requested"
    CREATED = "created"
    NOT_CREATED = "not_created"
    CONDEMNED = "condemned"
    REMOVED = "removed"
    NOT_REMOVED = "not_removed"
    ACTIVATED = "activated"
    RETIRED = "retired"
    WEIGHED = "weighed"
    COLLIDED = "collided"
    DIFFED = "diffed"
    COMMANDED = "commanded"
    STALLED = "stalled"
    GIVEN_UP = "given_up"
    BUFFERED = "buffered"
    RECOMPUTED = "recomputed"
    SETTLED = "settled"
    CROWDED = "crowded"
    CROSSED = "crossed"
    RELEASED = "released"
    FORGOTTEN = "forgotten"
    HANDED_OVER = "handed_over"
    EXPIRED = "expired"
    REPEATED = "repeated"
    ARCHIVED = "archived"
    NOT_ARCHIVED = "not_archived"


@dataclass(frozen=True, slots=True)
class AdminEntry:
    """One line of the admin log, which is kept for good.

    Attributes:
        subject: what was acted on: a topic, a sentinel, a node, a submission, a command or a request for a diff; a table of which rows
            have expired, with their number as the detail.
        cause: the submission, the command, or the tick that it came from.
        at_ms: by the record that it came from.
        digest: of what came in or went out, each as a whole record: of a submission and its outcome, of a request and its chunks, of a
            command, of what came under the id of another one; of the row of a version that was forgotten.
    """

    act: AdminAct
    subject: str
    node_id: str
    cause: str
    at_ms: int
    detail: str = ""
    digest: str = ""


DagCommand: TypeAlias = (
    SetTrafficWeight
    | RollBack
    | RedoDiff
    | RetireStrategy
    | CollectGarbage
    | SetComputeContext
    | ClearContextHits
    | StartRelease
    | ReportBacktest
    | AbandonRelease
    | SetRetention
)
TopicReport: TypeAlias = ReportTopicCreated | ReportTopicRemoved | ReportTopicArchived
TopicTask: TypeAlias = CreateTopic | RemoveTopic | ArchiveTopic
QueueEvent: TypeAlias = QueueUpdated | QueueCollected
DagState: TypeAlias = ComputeNode | Queue | Edge | VersionSentinel | StrategyVersion | DagOutcome
