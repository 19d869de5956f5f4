"""What compute nodes emit and keep."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias

from qmtl.foundation.contracts.dag import StrategyVersion


class NodeStatus(Enum):
    """The states of a node in the order of its life."""

    INITIALIZED = "initialized"
    PRE_WARMUP = "pre_warmup"
    ACTIVE = "active"
    COMPLETED = "completed"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class NodeValue:
    """One output of an indicator node for one symbol and bucket."""

    node_id: str
    symbol: str
    bucket_ms: int
    value: float


@dataclass(frozen=True, slots=True)
class PositionTarget:
    """What share of its equity a strategy should hold: -1 (all short) to 1 (all long), exact.

    Attributes:
        reference_price: the price that the decision saw, quote currency.
    """

    node_id: str
    symbol: str
    bucket_ms: int
    target_percent: Decimal
    reference_price: Decimal


NodeOutput: TypeAlias = NodeValue | PositionTarget


@dataclass(frozen=True, slots=True)
class NodeWindow:
    """What a node remembers of one symbol between buckets: a row of `node.windows`.

    Attributes:
        seen: inputs so far.
        values: the last inputs, oldest first, at most `period`, as exact decimals.
        memory: what else the node needs, by name.
    """

    node_id: str
    symbol: str
    seen: int
    values: tuple[Decimal, ...] = ()
    memory: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NodeState:
    """Where a node is in its life: a row of `node.state`."""

    node_id: str
    status: NodeStatus
    since_bucket_ms: int
    strategies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeDeployment:
    """A strategy that has, or had, nodes on a shard, as its task computes it: a row of `node.deployments`. One without nodes says that
    the shard has heard that it has none any more."""

    shard: int
    strategy: StrategyVersion


NodeTable: TypeAlias = NodeWindow | NodeState | NodeDeployment
