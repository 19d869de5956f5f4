"""What compute nodes emit and keep."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias

from qmtl.foundation.common.commit_log import TextKey, commit_key, partition_key
from qmtl.foundation.contracts.dag import StrategyVersion
from qmtl.foundation.contracts.market import Bar


class NodeStatus(Enum):
    """The states of a node in the order of its life."""

    INITIALIZED = "initialized"
    PRE_WARMUP = "pre_warmup"
    ACTIVE = "active"
    COMPLETED = "completed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class NodeValue:
    """One output of an indicator node for one symbol and bucket.

    Attributes:
        interval: of the node, seconds; 0 in a record of old, which names no window either.
        input_window_hash: of all that the value is a function of.
        compute_key: the node's, in whose context it was computed; empty where nobody had said one, and in a record of old.
    """

    node_id: str
    symbol: str
    bucket_ms: int
    value: float
    interval: int = 0
    input_window_hash: str = ""
    compute_key: str = ""

    @property
    def partition_key(self) -> TextKey:
        """What chooses the partition: node, interval and bucket, whatever the window is."""
        return partition_key(self.node_id, self.interval, self.bucket_ms)

    @property
    def commit_key(self) -> TextKey:
        """The key of the record, see `qmtl.foundation.common.commit_log`; none of one that names no window."""
        return commit_key(self.node_id, self.interval, self.bucket_ms, self.input_window_hash)


@dataclass(frozen=True, slots=True)
class PositionTarget:
    """What share of its equity a strategy should hold: -1 (all short) to 1 (all long), exact.

    Attributes:
        reference_price: the price that the decision saw, quote currency.
        interval: of the node, seconds; 0 in a record of old, which names no window either.
        input_window_hash: of all that the target is a function of.
        compute_key: as in `NodeValue`.
    """

    node_id: str
    symbol: str
    bucket_ms: int
    target_percent: Decimal
    reference_price: Decimal
    interval: int = 0
    input_window_hash: str = ""
    compute_key: str = ""

    @property
    def partition_key(self) -> TextKey:
        """What chooses the partition: node, interval and bucket, whatever the window is."""
        return partition_key(self.node_id, self.interval, self.bucket_ms)

    @property
    def commit_key(self) -> TextKey:
        """The key of the record, see `qmtl.foundation.common.commit_log`; none of one that names no window."""
        return commit_key(self.node_id, self.interval, self.bucket_ms, self.input_window_hash)


NodeOutput: TypeAlias = NodeValue | PositionTarget


@dataclass(frozen=True, slots=True)
class PortWindow:
    """What came in at one port of a Python node: buckets, ascending, and the value of each."""

    buckets_ms: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class NodeWindow:
    """What a node remembers of one symbol between buckets: a row of `node.windows`.

    Attributes:
        seen: inputs so far.
        values: the last inputs, oldest first, at most `period`, as exact decimals.
        memory: what else the node needs, by name.
        ports: of a Python node, the last `period` inputs of each port, oldest first.
        bars: of a Python node that asks for them, the last bars, oldest first.
    """

    node_id: str
    symbol: str
    seen: int
    values: tuple[Decimal, ...] = ()
    memory: dict[str, str] | None = None
    ports: tuple[PortWindow, ...] = ()
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeState:
    """Where a node is in its life: a row of `node.state`.

    Attributes:
        compute_key: under which its windows in `node.windows` were computed; empty while nobody has said a context.
        cause_code, cause: of a node in state error, why, and what to do; empty of every other.
        ended: ids of the sources above it whose input has ended, as its ports lead to them.
    """

    node_id: str
    status: NodeStatus
    since_bucket_ms: int
    strategies: tuple[str, ...] = ()
    compute_key: str = ""
    cause_code: str = ""
    cause: str = ""
    ended: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDeployment:
    """A strategy that has, or had, nodes or its desk on a shard, as its task computes it: a row of `node.deployments`. One without nodes
    says that the shard has heard that it has none any more.

    Attributes:
        strategy: without those whose traffic has ended by then.
        closed_ms: the newest bucket that the shard had closed: all later ones are computed so. 0 before the first, and in a row of old.
    """

    shard: int
    strategy: StrategyVersion
    closed_ms: int = 0


@dataclass(frozen=True, slots=True)
class DagReader:
    """Which versions of a strategy a shard of the node workers computes: a row of `dag.readers`, which goes once it says nothing.

    Attributes:
        sentinels: one, two with a canary, and those that have the traffic before them; none once the strategy is retired there.
        behind: the topics of its plan that their nodes have left, sorted.
        found: ids of the nodes of others that it computes or reads for the strategy's tag queries, and of all those of before.
        revision: of the row that it has read.
        closed_ms: the newest bucket that it had closed by then.
    """

    shard: int
    world_id: str
    strategy_id: str
    sentinels: tuple[str, ...]
    behind: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    revision: int = 0
    closed_ms: int = 0


@dataclass(frozen=True, slots=True)
class ColumnChunk:
    """Some consecutive buckets of what a node gave of one symbol in a backtest: a row of `backtest.values`.

    Attributes:
        compute_key: of the node in the context in which it was computed.
        chunk: its place among those of the symbol, from 0.
        chunks: how many the symbol has.
        rows: buckets in this one, each that of a bar.
        values: float64, little-endian, 8 bytes for each bucket, also where nothing is there.
        there: a bit for each bucket, the highest of a byte first: whether the node gave anything.
    """

    compute_key: str
    node_id: str
    symbol: str
    chunk: int
    chunks: int
    rows: int
    values: bytes
    there: bytes


NodeTable: TypeAlias = NodeWindow | NodeState | NodeDeployment
