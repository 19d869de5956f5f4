"""The context in which the nodes of a log compute: what data, in which domain, for whom; and what was found to be of another one."""

from __future__ import annotations

from dataclasses import dataclass

from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain

THE_CONTEXT = "compute"
"""The key of the one row of `dag.context`."""

ALL_WORLDS = "all worlds"
"""Stands for the world in the compute keys of a log whose worlds share what is computed; no world has it as its id, as an id has no space."""


@dataclass(frozen=True, slots=True)
class SaidContext:
    """A context that was granted, with its parts as `ComputeContext` has them.

    Attributes:
        world_id: the world whose own it is; `ALL_WORLDS` where worlds share.
        shared_worlds: whether strategies of any world use what is computed in it. A row of old does not say so and was shared; it
            names the world that was said then, which is in its keys and keeps no other one out.
    """

    world_id: str
    execution_domain: ExecutionDomain
    as_of: str
    partition: str
    dataset_fingerprint: str
    shared_worlds: bool = True

    def read(self) -> ComputeContext:
        return ComputeContext(
            self.world_id, self.execution_domain, self.as_of, self.partition, self.dataset_fingerprint
        )

    def admits(self, world_id: str) -> bool:
        """Whether strategies of a world may use what is computed in it."""
        return self.shared_worlds or self.world_id == world_id


@dataclass(frozen=True, slots=True)
class SetComputeContext:
    """Say in which context all nodes compute from now on. What they have kept of another one is thrown away, and counted.

    Attributes:
        world_id: the world that has the log for its own; empty with `shared_worlds`.
        execution_domain: any name of a domain or mode, as in `domain_of`.
        as_of: the state of the dataset; a backtest or dry run needs one.
        partition: a tenant, strategy or portfolio within the world; no Kafka partition.
        dataset_fingerprint: of the very data behind `as_of`.
        shared_worlds: the strategies of all worlds share what is computed. Only who says so shares.
    """

    command_id: str
    world_id: str
    execution_domain: str
    issued_at_ms: int
    as_of: str = ""
    partition: str = ""
    dataset_fingerprint: str = ""
    shared_worlds: bool = False


@dataclass(frozen=True, slots=True)
class ClearContextHits:
    """Somebody has looked at the cross-context hits: what was found until then holds nothing up any more.

    Attributes:
        reason: what the cause was; not empty.
    """

    command_id: str
    reason: str
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class LogContext:
    """The row of `dag.context`: written by the first submission that is deployed, in the step that takes it, or by a command.

    Attributes:
        what: `THE_CONTEXT`.
        hits: of each shard of the node workers, in their order, those of its `NodeContext`.
        cleared: how many of all these somebody has looked at.
        since_ms: when it was said.
    """

    what: str
    context: SaidContext
    since_ms: int
    hits: tuple[int, ...] = ()
    cleared: int = 0

    @property
    def uncleared(self) -> int:
        return sum(self.hits) - self.cleared


NO_CONTEXT = SaidContext("", ExecutionDomain.BACKTEST, "", "", "")
"""That of a shard which has heard of none: nothing is computed in it."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """The context in which a shard computes: a row of `node.context`.

    Attributes:
        context: `NO_CONTEXT` in rows of old, of shards that were given values of a context before they heard of one.
        hits: how often a node had something of another context, since the log began: kept by itself when the context changed, or
            given by another shard in a bucket. What was computed in no context is not used in one either, and is no hit: a hit takes
            two contexts.
        last_hits: ids of some of those that were found last.
    """

    shard: int
    context: SaidContext
    hits: int = 0
    last_hits: tuple[str, ...] = ()
