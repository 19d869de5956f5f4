"""The context in which the nodes of a log compute: what data, in which domain, for whom; and what was found to be of another one."""

from __future__ import annotations

from dataclasses import dataclass

from qmtl.foundation.common.compute_context import ComputeContext, ExecutionDomain

THE_CONTEXT = "compute"
"""The key of the one row of `dag.context`."""


@dataclass(frozen=True, slots=True)
class SaidContext:
    """A context that was granted, with its parts as `ComputeContext` has them."""

    world_id: str
    execution_domain: ExecutionDomain
    as_of: str
    partition: str
    dataset_fingerprint: str

    def read(self) -> ComputeContext:
        return ComputeContext(
            self.world_id, self.execution_domain, self.as_of, self.partition, self.dataset_fingerprint
        )


@dataclass(frozen=True, slots=True)
class SetComputeContext:
    """Say in which context all nodes compute from now on. What they have kept of another one is thrown away, and counted.

    Attributes:
        world_id: under whose name the log computes, for the strategies of all of its worlds; not empty.
        execution_domain: any name of a domain or mode, as in `domain_of`.
        as_of: the state of the dataset; a backtest or dry run needs one.
        partition: a tenant, strategy or portfolio within the world; no Kafka partition.
        dataset_fingerprint: of the very data behind `as_of`.
    """

    command_id: str
    world_id: str
    execution_domain: str
    issued_at_ms: int
    as_of: str = ""
    partition: str = ""
    dataset_fingerprint: str = ""


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
