"""Strategy graphs: what is submitted, what the DAG Manager keeps, what it asks of the outside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias


class StrategyStatus(Enum):
    PENDING = "pending"
    READY = "ready"
    FAILED = "failed"


class TopicClass(Enum):
    RAW = "raw"
    INDICATOR = "indicator"
    TRADE_EXEC = "trade_exec"


class Relation(Enum):
    EMITS = "EMITS"
    HAS = "HAS"


@dataclass(frozen=True, slots=True)
class DagSubmission:
    """A strategy's DAG message as it was published: UTF-8 JSON of at most 1 MiB."""

    submission_id: str
    world_id: str
    dag_json: bytes
    submitted_at_ms: int


@dataclass(frozen=True, slots=True)
class ComputeNode:
    """A content-addressed node: a row of `dag.nodes`, write-once.

    Attributes:
        node_id: `blake3:<64 hex>`.
        interval: seconds.
        period: how many intervals of input the node needs before it emits.
        params_canon: canonical JSON of the functional parameters.
        dependencies: node ids of the inputs by port, in the order of the ports.
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


@dataclass(frozen=True, slots=True)
class Queue:
    """The topic of a node: a row of `dag.queues`."""

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


@dataclass(frozen=True, slots=True)
class Edge:
    """One relationship of the graph: a row of `dag.edges`."""

    relation: Relation
    source: str
    target: str


@dataclass(frozen=True, slots=True)
class VersionSentinel:
    """A boundary of graph versions and a rollback point: a row of `dag.sentinels`."""

    sentinel_id: str
    version: str
    commit_hash: str
    created_at_ms: int
    world_id: str
    strategy_id: str
    node_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedNode:
    """A node of a deployed strategy with the topic that it emits to, in topological order within its plan."""

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


@dataclass(frozen=True, slots=True)
class StrategyVersion:
    """A strategy as it is deployed in a world: a row of `dag.strategies`.

    Attributes:
        nodes: the plan, inputs before the nodes that read them.
        signals: node ids whose output is the strategy's order intents.
    """

    world_id: str
    strategy_id: str
    version: str
    sentinel_id: str
    submission_id: str
    status: StrategyStatus
    nodes: tuple[PlannedNode, ...]
    signals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DagOutcome:
    """What became of a submission: a row of `dag.diffs` per submission id.

    Attributes:
        code: empty where accepted, else the stable error code.
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
class QueueUpdated:
    """The queues that carry a set of tags at an interval have changed; exactly the fields that the seed gives."""

    type: str
    tags: tuple[str, ...]
    interval: int
    queues: tuple[str, ...]
    etag: str
    ts: str


DagState: TypeAlias = ComputeNode | Queue | Edge | VersionSentinel | StrategyVersion | DagOutcome
