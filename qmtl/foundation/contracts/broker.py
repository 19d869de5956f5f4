"""What brokers say of orders, what is asked of a venue, and what was attempted there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from qmtl.foundation.contracts.trade import Fill, Order, OrderStatus

# ---- what a broker says of an order ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OrderAccepted:
    """The broker works the order: FIX 35=8 with 150=0.

    Attributes:
        venue_order_id: the id that the venue gave it; empty where none did.
    """

    world_id: str
    order_id: str
    venue_order_id: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class OrderEnded:
    """Nothing more of the order will be filled; its fills were said before.

    Attributes:
        status: `CANCELED`, `REJECTED` or `EXPIRED`.
        code: why, as a stable code; empty where it was asked for.
    """

    world_id: str
    order_id: str
    status: OrderStatus
    code: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class OrderUnknown:
    """The venue was asked and gave no answer that counts: the order may be there or not, and nobody sends it again."""

    world_id: str
    order_id: str
    code: str
    detail: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class OrderAbsent:
    """The venue has no order of that id, now. What was sent a moment ago may still be on its way."""

    world_id: str
    order_id: str
    at_ms: int


OrderReport: TypeAlias = OrderAccepted | Fill | OrderEnded
"""What trading books; the same of either broker."""

VenueAnswer: TypeAlias = OrderAccepted | Fill | OrderEnded | OrderUnknown | OrderAbsent

# ---- what is asked of a venue, and what comes back ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    """An order that may go to the venue: whoever would send it says so first (`SendClaim`)."""

    world_id: str
    order: Order


@dataclass(frozen=True, slots=True)
class SendOrder:
    """It may be sent now, by this one sender, once.

    Attributes:
        claimant: whose claim it was.
    """

    world_id: str
    order: Order
    claimant: str


@dataclass(frozen=True, slots=True)
class CancelOrder:
    """An order that is to be cancelled at the venue."""

    world_id: str
    order: Order


@dataclass(frozen=True, slots=True)
class LookAtOrder:
    """An order of which the venue is to be asked what has become of it."""

    world_id: str
    order: Order


@dataclass(frozen=True, slots=True)
class UseVenue:
    """A world needs its connection, or needs it no more."""

    world_id: str
    wanted: bool


VenueRequest: TypeAlias = PlaceOrder | SendOrder | CancelOrder | LookAtOrder | UseVenue


@dataclass(frozen=True, slots=True)
class SendClaim:
    """A sender is about to send an order. Once this is on the log, the order may have been sent.

    Attributes:
        claimant: the process that would send it, as it has named itself for its life.
    """

    world_id: str
    order_id: str
    claimant: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class VenueStanding:
    """Whether the venue is connected for a world.

    Attributes:
        code: why it is not though it is wanted; empty else.
    """

    world_id: str
    venue: str
    connected: bool
    code: str
    detail: str
    at_ms: int


VenueReport: TypeAlias = (
    SendClaim | VenueStanding | OrderAccepted | Fill | OrderEnded | OrderUnknown | OrderAbsent
)

# ---- what is known of it --------------------------------------------------------------------------------------------


class AttemptState(Enum):
    REQUESTED = "requested"
    """It was let through, and nobody has sent it."""
    CLAIMED = "claimed"
    """It may have been sent."""
    UNKNOWN = "unknown"
    """It was sent, and the venue has not said what became of it."""
    WORKING = "working"
    """The venue has it."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An order on its way to the venue or there: a row of `oms.attempts`, until it has ended.

    Attributes:
        order: as it was when it was let through.
        claimed_ms: when it was claimed, by the clock of whoever sends; 0 before.
        last_seq: the `seq` of its last fill that was passed on.
        canceling: its cancellation was asked for.
    """

    order: Order
    state: AttemptState
    claimed_ms: int
    venue_order_id: str
    last_seq: int
    canceling: bool


class SessionState(Enum):
    OPEN = "open"
    """Orders go out."""
    BLOCKED = "blocked"
    """Nobody may trade live any more; what is at the venue is watched and can be cancelled."""
    CLOSED = "closed"
    """There is no connection, and none is needed."""


@dataclass(frozen=True, slots=True)
class BrokerSession:
    """The connection of a world to its venue: a row of `ops.sessions`.

    Attributes:
        number: how often it was opened.
        reason: the activation, or the orders, that it follows from.
        venue: as it has named itself; empty before it was connected.
        connected: as the venue's side has said last.
        code, detail: why it is not connected though it is wanted.
        changed_ms: the bucket after which the state changed.
        newest_ms: the newest bucket of which an order was seen: trading writes them bucket by bucket, so what comes again is known by it.
        newest: the ids of the orders of that bucket.
    """

    world_id: str
    number: int
    state: SessionState
    reason: str
    venue: str
    connected: bool
    code: str
    detail: str
    changed_ms: int
    newest_ms: int = 0
    newest: tuple[str, ...] = ()
