"""In which world, domain and data a node computes: the one place where an incomplete context is made safe, and the key of caches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType
from typing import Final

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes
from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.identity import NODE_ID_PREFIX, require_node_id

_KEY: Final = "qmtl compute key v1"


class ExecutionDomain(Enum):
    BACKTEST = "backtest"
    DRYRUN = "dryrun"
    LIVE = "live"
    SHADOW = "shadow"


class Downgrade(Enum):
    """Why a context was made safe."""

    DECISION_UNAVAILABLE = "decision_unavailable"
    MISSING_AS_OF = "missing_as_of"
    OTHER_CONTEXT = "other_context"
    """What is there was computed of other data, in another domain, or is another world's own."""


DOMAIN_OF_MODE: Final[Mapping[str, ExecutionDomain]] = MappingProxyType(
    {
        # execution domains themselves
        "backtest": ExecutionDomain.BACKTEST,
        "dryrun": ExecutionDomain.DRYRUN,
        "live": ExecutionDomain.LIVE,
        "shadow": ExecutionDomain.SHADOW,
        # the world service's effective modes
        "validate": ExecutionDomain.BACKTEST,
        "compute-only": ExecutionDomain.BACKTEST,
        # modes of node sets and pipelines; `live` is above
        "simulate": ExecutionDomain.DRYRUN,
        "paper": ExecutionDomain.DRYRUN,
        # the lifecycle of strategies; `live` is above
        "dry-run": ExecutionDomain.DRYRUN,
    }
)
"""The one table of what the seeds' several vocabularies of modes mean. What is not in it is no domain: see `domain_of`."""


def domain_of(mode: str) -> ExecutionDomain | None:
    """The domain that a mode stands for, `None` for every other text: a name that nobody has defined never becomes live."""
    return DOMAIN_OF_MODE.get(mode)


@dataclass(frozen=True, slots=True)
class ComputeContext:
    """What was asked for. `evaluate_safe_mode` says what is granted.

    Attributes:
        world_id: not empty.
        execution_domain: `None` where no decision is there that names one.
        as_of: the snapshot or commit of the dataset that a run is bound to; blank is missing.
        partition: a tenant, strategy or portfolio within the world; no Kafka partition. Empty for all.
        dataset_fingerprint: digest of the very data behind `as_of`; empty where nobody has told it.
    """

    world_id: str
    execution_domain: ExecutionDomain | None
    as_of: str = ""
    partition: str = ""
    dataset_fingerprint: str = ""

    def __post_init__(self) -> None:
        if not self.world_id.strip():
            raise InvalidValue("world_id was empty; a context belongs to a world.", "Name the world.")

    def evaluate_safe_mode(self) -> SafeContext:
        """What is granted to this context; every compute key has come this way.

        A context without a domain, and a backtest or dry run without `as_of`, becomes a backtest that computes only: nothing of
        it is used again, no order leaves it, no version of a graph is marked by it. Never is anything made live that was not.
        """
        if self.execution_domain is None:
            return self._safe(Downgrade.DECISION_UNAVAILABLE)
        bound = self.execution_domain in (ExecutionDomain.BACKTEST, ExecutionDomain.DRYRUN)
        if bound and not self.as_of.strip():
            return self._safe(Downgrade.MISSING_AS_OF)
        return SafeContext(self, self.execution_domain, None)

    def _safe(self, downgrade: Downgrade) -> SafeContext:
        safe = replace(self, execution_domain=ExecutionDomain.BACKTEST)
        return SafeContext(safe, ExecutionDomain.BACKTEST, downgrade)


@dataclass(frozen=True, slots=True)
class SafeContext:
    """What `ComputeContext.evaluate_safe_mode` grants.

    Attributes:
        context: the context, downgraded where it had to be.
        execution_domain: the one that it runs in.
        downgrade: why it was made safe; `None` if it is as it was asked for.
    """

    context: ComputeContext
    execution_domain: ExecutionDomain
    downgrade: Downgrade | None

    @property
    def safe_mode(self) -> bool:
        """Whether it only computes."""
        return self.downgrade is not None

    @property
    def may_reuse(self) -> bool:
        """Whether anything that was computed in it may be used again, or anything else in it."""
        return not self.safe_mode

    @property
    def may_mark_versions(self) -> bool:
        """Whether a version sentinel may be written for it."""
        return not self.safe_mode


def compute_key(node_id: str, context: ComputeContext) -> str:
    """The key of everything that is kept or spared for a node: two contexts that differ in anything never share it.

    It is `blake3:` and the BLAKE3 hash of the canonical bytes of node id, world, domain, `as_of`, partition and fingerprint, each
    with its length, so that no text moves from one field into the next. Neither the node's id nor its topic depends on it.

    Raises:
        NodeIdMismatch: `node_id` is none.
        InvalidValue: the context can only be granted in safe mode, so that nothing of it may be found again.
    """
    require_node_id(node_id)
    granted = context.evaluate_safe_mode()
    if granted.downgrade is not None:
        raise InvalidValue(
            f"the context of world {context.world_id!a:.80} was in safe mode ({granted.downgrade.value});"
            " what it computes is not used again.",
            "Say as_of and a domain, or keep the results to this run.",
        )
    content = [
        _KEY,
        node_id,
        context.world_id,
        granted.execution_domain.value,
        context.as_of,
        context.partition,
        context.dataset_fingerprint,
    ]
    return NODE_ID_PREFIX + blake3_hex(canonical_bytes(content))
