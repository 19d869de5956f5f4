"""The topic catalogue as one value: what each topic carries, under which key, who owns it and how long it keeps it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from operator import attrgetter
from typing import Any, Final

from qmtl.foundation.common.commit_log import TextKey
from qmtl.foundation.common.errors import UnknownTopic
from qmtl.foundation.contracts import (
    broker,
    context,
    control,
    dag,
    diff,
    market,
    node,
    release,
    retention,
    trade,
    world,
)
from qmtl.foundation.contracts.dag import TopicClass
from qmtl.foundation.wire.keys import RecordKey, encode_key, partition_for

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
FOREVER: Final = -1

SHARDS: Final = 4
"""Over how many tasks the compute nodes are spread, and so how many workers can share them."""


class Cleanup(Enum):
    """Kafka's `cleanup.policy`."""

    COMPACT = "compact"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic.

    Attributes:
        key: attribute paths of the message that make up the record key, in order; or the one attribute that is it, as a `TextKey`.
        task_key: the leading attributes that choose the partition; a prefix of the task, whatever the full key is.
        messages: the closed set of message types; a value of any other type is refused.
        owner: the one processor that writes it, or `people` where commands and data come in.
        marked: carries close markers, so that a reader can take it bucket by bucket.
        by_writer: each task of the owner writes the partition of its own number, whatever the key. A marked topic with several
            writers needs it, as a partition is closed by one.
        min_compaction_lag_ms: how long every version stays readable (compacted topics).
        delete_retention_ms: how long a tombstone stays; a local store older than this is thrown away.
        retention_ms: age at which records go (deleted topics); -1 is never.
    """

    name: str
    key: tuple[str, ...]
    task_key: tuple[str, ...]
    messages: tuple[type, ...]
    cleanup: Cleanup
    owner: str
    partitions: int = 1
    replication: int = 3
    marked: bool = False
    by_writer: bool = False
    min_compaction_lag_ms: int = DAY_MS
    delete_retention_ms: int = 7 * DAY_MS
    retention_ms: int = FOREVER

    @property
    def compacted(self) -> bool:
        return self.cleanup is Cleanup.COMPACT

    @property
    def is_table(self) -> bool:
        """Whether the topic is a table: last value per key, owned by a processor."""
        return self.compacted

    @property
    def transactional(self) -> bool:
        """Whether every record comes in a transaction: processors write so, and a marker lies in one with what it closes. What
        people write otherwise may come by a producer of their own."""
        return self.marked or self.owner != "people"

    def key_of(self, message: object) -> RecordKey:
        """The record key's parts, or its text."""
        return getter(self.key)(message)

    def task_key_of(self, message: object) -> RecordKey:
        """The parts, or the text, that choose the partition."""
        return getter(self.task_key)(message)

    def partition_of(self, message: object) -> int:
        """The partition of a message; not for a topic whose partitions are its writers'."""
        if self.partitions == 1:
            return 0
        return partition_for(encode_key(self.task_key_of(message)), self.partitions)

    def config(self) -> dict[str, str]:
        """The broker's topic configuration, by Kafka's names."""
        if self.compacted:
            return {
                "cleanup.policy": "compact",
                "min.compaction.lag.ms": str(self.min_compaction_lag_ms),
                "delete.retention.ms": str(self.delete_retention_ms),
                "min.cleanable.dirty.ratio": "0.3",
            }
        return {"cleanup.policy": "delete", "retention.ms": str(self.retention_ms)}


@cache
def getter(fields: tuple[str, ...]) -> Callable[[object], RecordKey]:
    """The function that takes the parts of a key, or the text that is the whole key, out of a message."""
    if not fields:
        return lambda message: ()
    first, every = attrgetter(fields[0]), attrgetter(*fields)

    def parts(message: object) -> tuple[str | int, ...]:
        values: tuple[Any, ...] = every(message) if len(fields) > 1 else (first(message),)
        for value in values:
            kind = type(value)
            if kind is not str and kind is not int:
                return spelled(values)
        return values

    def spelled(values: tuple[Any, ...]) -> tuple[str | int, ...]:
        out: list[str | int] = []
        for value in values:
            if isinstance(value, Enum):
                out.append(value.value)
            elif isinstance(value, tuple):  # its length goes first, so that no two tuples run into each other
                out.append(len(value))
                out.extend(value)
            else:
                out.append(value)
        return tuple(out)

    def one(message: object) -> RecordKey:
        value = first(message)
        if type(value) is str:
            return (value,)
        return value if type(value) is TextKey else parts(message)

    return one if len(fields) == 1 else parts


def _events(
    name: str,
    key: str,
    task_key: str,
    messages: tuple[type, ...],
    owner: str,
    *,
    marked: bool = False,
    by_writer: bool = False,
    partitions: int = 1,
    days: int = -1,
) -> TopicSpec:
    retention = FOREVER if days < 0 else days * DAY_MS
    return TopicSpec(
        name,
        _names(key),
        _names(task_key),
        messages,
        Cleanup.DELETE,
        owner,
        partitions=partitions,
        marked=marked,
        by_writer=by_writer,
        retention_ms=retention,
    )


def _table(
    name: str,
    key: str,
    task_key: str,
    messages: tuple[type, ...],
    owner: str,
    *,
    marked: bool = False,
    by_writer: bool = False,
    partitions: int = 1,
) -> TopicSpec:
    return TopicSpec(
        name,
        _names(key),
        _names(task_key),
        messages,
        Cleanup.COMPACT,
        owner,
        partitions=partitions,
        marked=marked,
        by_writer=by_writer,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATALOGUE: Final[tuple[TopicSpec, ...]] = (
    # Time. A tick is a close marker: the topic carries nothing else.
    _events("clock", "", "", (control.CloseMarker,), "people", marked=True, days=7),
    # The DAG Manager: one graph, one partition.
    _events("dag.submissions", "submission_id", "", (dag.DagSubmission,), "people"),
    _events(
        "dag.commands",
        "command_id",
        "",
        (
            dag.SetTrafficWeight,
            dag.RollBack,
            dag.RedoDiff,
            dag.RetireStrategy,
            dag.CollectGarbage,
            context.SetComputeContext,
            context.ClearContextHits,
            release.StartRelease,
            release.ReportBacktest,
            release.AbandonRelease,
            retention.SetRetention,
        ),
        "people",
    ),
    _table("dag.nodes", "node_id", "", (dag.ComputeNode,), "dagmanager"),
    _table("dag.queues", "topic", "", (dag.Queue,), "dagmanager"),
    _table("dag.artifacts", "checksum", "", (dag.Artifact,), "dagmanager"),
    _table("dag.edges", "relation source target", "", (dag.Edge,), "dagmanager"),
    _table("dag.sentinels", "sentinel_id", "", (dag.VersionSentinel,), "dagmanager"),
    _table("dag.strategies", "world_id strategy_id", "", (dag.StrategyVersion,), "dagmanager"),
    _table("dag.diffs", "submission_id", "", (dag.DagOutcome,), "dagmanager"),
    _table("dag.outcomes", "command_id", "", (dag.DagCommandOutcome,), "dagmanager"),
    _table("dag.pace", "what", "", (retention.GcPace, retention.Retention), "dagmanager"),
    _table("dag.lives", "prefix", "", (retention.TopicLife,), "dagmanager"),
    _table("dag.context", "what", "", (context.LogContext,), "dagmanager"),
    _table("dag.releases", "release_id", "", (release.Release,), "dagmanager"),
    _table("dag.release.messages", "release_id", "", (release.ReleaseMessage,), "dagmanager"),
    _table("dag.readers", "shard world_id strategy_id", "", (node.DagReader,), "dagmanager"),
    _table("dag.tags", "tags interval", "", (dag.TagSet,), "dagmanager"),
    _table(
        "dag.tasks", "topic", "", (dag.CreateTopic, dag.RemoveTopic, retention.ArchiveTopic), "dagmanager"
    ),
    _events(
        "dag.reports",
        "topic",
        "",
        (dag.ReportTopicCreated, dag.ReportTopicRemoved, retention.ReportTopicArchived),
        "topicadmin",
    ),
    _events("dag.admin.log", "subject", "", (dag.AdminEntry,), "dagmanager"),
    # The diff by message: a row per chunk until it is acknowledged.
    _events("dag.diff.requests", "request_id", "", (diff.DiffRequest,), "people", days=7),
    _events("dag.diff.acks", "request_id seq", "", (diff.AckChunk,), "people", days=7),
    _table("dag.diff.chunks", "request_id seq", "", (diff.DiffChunk,), "dagmanager"),
    _table("dag.diff.streams", "request_id", "", (diff.DiffStream,), "dagmanager"),
    _events(
        "queue",
        "tags interval",
        "tags interval",
        (dag.QueueUpdated, dag.QueueCollected),
        "dagmanager",
        days=30,
    ),
    _events("sentinel_weight", "sentinel_id", "", (dag.SentinelWeightUpdated,), "dagmanager", days=30),
    # Worlds.
    _events("world.commands", "world_id", "world_id", (world.CreateWorld, world.SetActivation), "people"),
    _table("world.state", "world_id", "world_id", (world.World,), "worldservice", marked=True),
    _table(
        "activation",
        "world_id strategy_id side",
        "world_id",
        (world.Activation,),
        "worldservice",
        marked=True,
    ),
    _table("world.outcomes", "world_id command_id", "world_id", (world.CommandOutcome,), "worldservice"),
    _table("world.holds", "task", "", (world.PromotionHold,), "worldservice", by_writer=True),
    # Compute nodes; each node's own topic is made at run time (`node_topic`).
    _table(
        "node.windows", "node_id symbol", "", (node.NodeWindow,), "nodes", by_writer=True, partitions=SHARDS
    ),
    _table(
        "node.deployments",
        "shard strategy.world_id strategy.strategy_id",
        "",
        (node.NodeDeployment,),
        "nodes",
        by_writer=True,
        partitions=SHARDS,
    ),
    _table("node.context", "shard", "", (context.NodeContext,), "nodes", by_writer=True, partitions=SHARDS),
    _table("node.state", "node_id", "", (node.NodeState,), "nodes", by_writer=True, partitions=SHARDS),
    _events(
        "trade.intents",
        "world_id strategy_id symbol bucket_ms intent_index",
        "",
        (trade.OrderIntent,),
        "nodes",
        marked=True,
        by_writer=True,
        partitions=SHARDS,
        days=90,
    ),
    _events(
        "trade.market",
        "world_id bar.symbol",
        "",
        (market.WorldBar,),
        "nodes",
        marked=True,
        by_writer=True,
        partitions=SHARDS,
        days=90,
    ),
    # Trading: gate, sizing, orders, simulated execution and portfolio share the world's key and so one task.
    # What trading has taken over of worlds and gates: the interleaving that it saw, on the log.
    _table("trade.worlds", "world_id", "world_id", (world.World,), "trading"),
    _table("trade.gates", "world_id strategy_id side", "world_id", (world.Activation,), "trading"),
    _table("trade.orders", "world_id order_id", "world_id", (trade.Order,), "trading"),
    _table("trade.open_orders", "world_id order_id", "world_id", (trade.Order,), "trading", marked=True),
    _table("trade.fills", "world_id order_id seq", "world_id", (trade.Fill,), "trading"),
    _table(
        "trade.portfolio",
        "world_id scope symbol",
        "world_id",
        (trade.Position, trade.Account),
        "trading",
        marked=True,
    ),
    _events(
        "trade.rejections",
        "world_id strategy_id symbol bucket_ms intent_index",
        "world_id",
        (trade.OrderRejection,),
        "trading",
        days=90,
    ),
    # Live orders: what they have come to, and whether their worlds' connections are there. What this task has seen of gates is on the log.
    _table("oms.gates", "world_id strategy_id side", "world_id", (world.Activation,), "oms"),
    _table("oms.attempts", "order.world_id order.order_id", "order.world_id", (broker.Attempt,), "oms"),
    _table("ops.sessions", "world_id", "world_id", (broker.BrokerSession,), "oms"),
    _events(
        "order.reports",
        "world_id order_id",
        "world_id",
        (
            broker.OrderAccepted,
            trade.Fill,
            broker.OrderEnded,
            broker.RequestPending,
            broker.RequestRejected,
            broker.OrderReplaced,
            broker.OrderRestated,
            broker.OrderMarked,
            broker.OrderTriggered,
            broker.FillBusted,
            broker.FillCorrected,
        ),
        "oms",
    ),
    # The edge to a venue: what is asked of it, and what it has answered.
    _events(
        "venue.requests",
        "world_id",
        "world_id",
        (
            broker.PlaceOrder,
            broker.SendOrder,
            broker.CancelOrder,
            broker.LookAtOrder,
            broker.UseVenue,
        ),
        "oms",
        days=90,
    ),
    _events(
        "venue.reports",
        "world_id",
        "world_id",
        (
            broker.SendClaim,
            broker.VenueStanding,
            broker.OrderAccepted,
            trade.Fill,
            broker.OrderEnded,
            broker.OrderUnknown,
            broker.OrderAbsent,
        ),
        "egress",
        days=90,
    ),
    # What nodes gave in backtests, for later ones; no processor reads it.
    _table("backtest.values", "compute_key symbol chunk", "", (node.ColumnChunk,), "backtest"),
    # What a task had read at each step; where it reads one partition, or buckets alone, nothing is open and nothing is written.
    _events("task.cuts", "processor task", "", (control.TaskCut,), "every processor", days=90),
    # The schemas of everything that is written here, published before the first value of each.
    _table("schemas", "fingerprint", "", (control.SchemaText,), "every processor"),
    # What operators have decided about tasks.
    _events("ops.acceptances", "processor task", "", (control.Acceptance,), "people"),
    # What nobody could use.
    _events("dead.letters", "topic", "", (control.DeadLetter,), "every processor", days=90),
    # What came after its bucket had closed.
    _events("late.records", "topic", "", (control.LateRecord,), "every processor", days=90),
    # Which letters people have written back; it must outlive the letters, or one could be written back twice.
    _events("dead.redriven", "topic", "", (control.Redriven,), "people"),
)

_BY_NAME: Final[Mapping[str, TopicSpec]] = {spec.name: spec for spec in CATALOGUE}


def topic(name: str) -> TopicSpec:
    """The catalogue's entry.

    Raises:
        UnknownTopic: no such entry.
    """
    spec = _BY_NAME.get(name)
    if spec is None:
        raise UnknownTopic(
            f"topic {name!r} is not in the catalogue.", "`qmtl topic list` shows what there is."
        )
    return spec


LAG_ALERT_THRESHOLD: Final = 10_000
"""Offsets: the bound of the alert `QmtlLag`, too."""


@dataclass(frozen=True, slots=True)
class TopicTypeConfig:
    """What a class of node topics gets at creation, and the keys of its records.

    Attributes:
        key, task_key: as in `TopicSpec`.
        lag_alert_threshold: offsets that a reader may be behind, where a topic has no bound of its own.
    """

    partitions: int
    replication: int
    retention_ms: int
    messages: tuple[type, ...]
    key: tuple[str, ...] = ("symbol",)
    task_key: tuple[str, ...] = ("symbol",)
    lag_alert_threshold: int = LAG_ALERT_THRESHOLD


_TOPIC_CONFIG: Final[Mapping[TopicClass, TopicTypeConfig]] = {
    TopicClass.RAW: TopicTypeConfig(3, 3, 7 * DAY_MS, (market.Bar, market.EndOfInput)),
    TopicClass.INDICATOR: TopicTypeConfig(
        1, 2, 30 * DAY_MS, (node.NodeValue, node.PositionTarget), ("commit_key",), ("partition_key",)
    ),
    TopicClass.TRADE_EXEC: TopicTypeConfig(1, 3, 90 * DAY_MS, (trade.OrderIntent,)),
}


def get_config(topic_type: TopicClass) -> TopicTypeConfig:
    """The defaults of a class of node topics."""
    return _TOPIC_CONFIG[topic_type]


def node_topic(name: str, topic_class: TopicClass, partitions: int | None = None) -> TopicSpec:
    """The entry of a node's own topic, whose name the DAG Manager has computed."""
    config = get_config(topic_class)
    return TopicSpec(
        name,
        config.key,
        config.task_key,
        config.messages,
        Cleanup.DELETE,
        "people" if topic_class is TopicClass.RAW else "nodes",
        partitions=config.partitions if partitions is None else partitions,
        replication=config.replication,
        marked=True,
        retention_ms=config.retention_ms,
    )
