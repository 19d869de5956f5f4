"""What a run tells its author, each as a value: what became of the publication, of the nodes, of the order gate and of the orders."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias, TypeVar

from qmtl.foundation.common.errors import CommandRefused, InvalidDag, QmtlError, Reason, UnknownWorld
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.dag import SentinelStatus
from qmtl.foundation.contracts.diff import NodeOrigin
from qmtl.foundation.contracts.node import NodeStatus
from qmtl.foundation.contracts.trade import OrderStatus, Side
from qmtl.foundation.contracts.world import EffectiveMode, PositionSide, WorldStatus


class GateState(Enum):
    """What the order gate of one side of a strategy lets through."""

    CLOSED = "closed"
    """Nothing that opens; exits pass. So it is before anybody has said anything."""

    OPEN = "open"
    DRAINING = "draining"
    """No new order; open ones may be filled."""

    FROZEN = "frozen"
    """Nothing, exits neither."""


@dataclass(frozen=True, slots=True)
class PublishedNode:
    """A node of the strategy, and whether it was there before.

    Attributes:
        name: what the message calls it.
    """

    name: str
    node_type: str
    node_id: str
    origin: NodeOrigin


@dataclass(frozen=True, slots=True)
class Submitted:
    """The DAG Manager has taken the strategy.

    Attributes:
        submission_id: the same for the same content in the same world and context.
        sentinel_id: of its version.
        is_new: it was published now; else the answer was there already.
    """

    submission_id: str
    world_id: str
    strategy_id: str
    version: str
    sentinel_id: str
    is_new: bool
    nodes: tuple[PublishedNode, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """The strategy does not run; nothing comes after that but the end.

    Attributes:
        code: of the error; with `what` and `remedy` as it has them, and the exit code that it stands for.
        reasons: all that were told, in the order of the message; empty where there is but the one.
        more: how many there are besides.
    """

    code: str
    what: str
    remedy: str
    exit_code: int
    reasons: tuple[Reason, ...] = ()
    more: int = 0

    @classmethod
    def of(cls, error: QmtlError) -> Refused:
        reasons = tuple(getattr(error, "reasons", ()))
        return cls(error.code, error.what, error.remedy, error.exit_code, reasons, getattr(error, "more", 0))

    def error(self) -> QmtlError:
        """The error that it was."""
        for of_message in _kinds(InvalidDag):
            if of_message.code == self.code:
                return of_message(self.what, self.remedy, self.reasons, self.more)
        kinds = {one.code: one for one in (*_kinds(CommandRefused), *_kinds(UnknownWorld))}
        return kinds.get(self.code, CommandRefused)(self.what, self.remedy)


E = TypeVar("E", bound=QmtlError)


def _kinds(error: type[E]) -> tuple[type[E], ...]:
    """A class of errors and all that are of it."""
    return (error, *(kind for one in error.__subclasses__() for kind in _kinds(one)))


@dataclass(frozen=True, slots=True)
class VersionChanged:
    """The life of the strategy's version.

    Attributes:
        weight_bp: its share of the strategy's traffic, basis points.
    """

    sentinel_id: str
    version: str
    status: SentinelStatus
    weight_bp: int


@dataclass(frozen=True, slots=True)
class WorldChanged:
    """What the world service has decided of the world."""

    world_id: str
    status: WorldStatus


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """The life of a node of the strategy.

    Attributes:
        status: None where no worker has it, or has it any more.
        since_bucket_ms: 0 where no bucket has brought it there.
        cause_code, cause: of a node in error, why, and what to do; the strategy has nothing from it, and nothing that is computed from it.
    """

    node_id: str
    name: str
    status: NodeStatus | None
    since_bucket_ms: int
    cause_code: str = ""
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Activated:
    """The world service has spoken of the order gate of one side.

    Attributes:
        side: the one that was spoken of.
        long, short: what each side lets through now; one that is frozen or drains stops both.
        weight: 0 to 1, multiplies every quantity.
        version, etag: of the row of `activation`.
        at_ms: when it was said.
    """

    side: PositionSide
    long: GateState
    short: GateState
    active: bool
    weight: Decimal
    freeze: bool
    drain: bool
    effective_mode: EffectiveMode
    version: int
    etag: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Intent:
    """What the strategy wants of a symbol from the close of a bucket on.

    Attributes:
        target_percent: share of its equity, -1 to 1.
        reference_price: what the decision saw, quote currency.
        index: which signal it comes from, from 0.
    """

    symbol: str
    bucket_ms: int
    target_percent: Decimal
    reference_price: Decimal
    index: int


@dataclass(frozen=True, slots=True)
class Ordered:
    """An order as it is now.

    Attributes:
        quantity, filled: unsigned, base currency.
    """

    order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    filled: Decimal
    status: OrderStatus
    reduce_only: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class Filled:
    """One execution.

    Attributes:
        seq: counts the fills of the order from 1.
        quantity: unsigned, base currency.
        price: quote currency, slippage included.
        fee: in `fee_currency`; negative is a rebate.
    """

    order_id: str
    seq: int
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """An intent, or a part of one, that became no order.

    Attributes:
        detail: the numbers that broke the rule.
    """

    symbol: str
    bucket_ms: int
    index: int
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class Unanswered:
    """No node has the tags of a tag query at its interval yet: the query and what reads it are silent until one has."""

    node_id: str
    name: str


@dataclass(frozen=True, slots=True)
class FedBefore:
    """The sources have closed buckets of the bars that the run was given: no bar of these is fed again, and a node that is new sees none of them.

    Attributes:
        bucket_ms: the last one.
        is_all: no bucket is left to feed.
    """

    bucket_ms: int
    is_all: bool


@dataclass(frozen=True, slots=True)
class Completed:
    """All bars that the run was given have been computed and traded on.

    Attributes:
        bucket_ms: the last bucket.
        failed: nodes of the strategy that are in state error by then, in the order of the message; `NodeChanged` has told their causes.
    """

    bucket_ms: int
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last event of a run.

    Attributes:
        why: `completed`, `refused`, or `stopped`, which its caller or a signal did. What is deployed goes on without it.
    """

    why: str


RunEvent: TypeAlias = (
    Submitted
    | Refused
    | VersionChanged
    | WorldChanged
    | NodeChanged
    | Activated
    | Intent
    | Ordered
    | Filled
    | Rejected
    | Unanswered
    | FedBefore
    | Completed
    | Stopped
)
