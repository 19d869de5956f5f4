"""The effect at the edge to a venue: it does what the order management system asks for, and writes what came of it.

It sends an order only where its own claim lies on the log and the order management system has answered it soon. A claim is good for one call. The name in it is
of this process and its life: what a process before it has claimed, it asks for and never sends. What it has done for a request it keeps in memory, so that a transaction that fails after the
venue was reached writes the same answers again instead of asking for the same deed twice.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, assert_never

from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import (
    InvariantBroken,
    LogUnreachable,
    NoVenue,
    OrderTooOld,
    VenueRefused,
    VenueUnanswered,
)
from qmtl.foundation.contracts.broker import (
    CancelOrder,
    LookAtOrder,
    OrderEnded,
    OrderUnknown,
    PlaceOrder,
    SendClaim,
    SendOrder,
    UseVenue,
    VenueReport,
    VenueRequest,
    VenueStanding,
)
from qmtl.foundation.contracts.trade import Order, OrderStatus
from qmtl.foundation.wire.topics import TopicSpec
from qmtl.runtime.brokerage.real import RealBroker
from qmtl.runtime.venues.port import Venue

TURN_S: Final = 4.0
"""A transaction reaches the venue for no longer, and has time left for its commit."""
CLAIM_S: Final = 30.0
"""An order is not sent longer after its claim: one that is not at the venue `SETTLE_MS` after it counts as one that never arrived."""
REMEMBERED: Final = 100_000
"""Answers and claims in memory; a transaction that failed reads far fewer records again."""

_logger: Final = logging.getLogger(__name__)

Place: TypeAlias = tuple[int, int]
"""Partition and offset of a request."""
Answered: TypeAlias = tuple[VenueRequest, Sequence[VenueReport]]


@dataclass(slots=True)
class Desk:
    """What of a process reaches a venue; it outlives the processor, which is made anew after a transaction that failed.

    Args:
        venue: None where none is configured: every order is refused.
        claimant: names this process for its life; no two have the same.
        max_age_ms: an order that was created longer ago by the wall clock is not sent; 0: none is too old.
        wall: the time, epoch ms.
        clock: seconds that only go forward.

    Attributes:
        users: the worlds that want the connection.
        is_connected: as this process has made it.
        answers: to a request that may be read again, with the request: a topic that was made anew has other ones at the same places.
        claims: by world and order, when this process has claimed what it has not tried to send yet, by `clock`.
        counted: how often which kind of answer was given; another thread reads it.
        refused: how often an order was ended with which code; another thread reads it.
    """

    venue: Venue | None
    claimant: str
    max_age_ms: int
    wall: Callable[[], int] = lambda: int(time.time() * 1000)
    clock: Callable[[], float] = time.monotonic
    users: set[str] = field(default_factory=set)
    is_connected: bool = False
    answers: OrderedDict[Place, Answered] = field(default_factory=OrderedDict)
    claims: OrderedDict[tuple[str, str], float] = field(default_factory=OrderedDict)
    counted: dict[str, int] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)

    def connect(self) -> None:
        """
        Raises:
            NoVenue, VenueRefused, VenueUnanswered
        """
        if self.venue is None:
            raise NoVenue(
                "no venue is configured for live orders (QMTL_VENUE).",
                "Name one for `qmtl worker run egress`, or keep the strategy on paper.",
            )
        if not self.is_connected:
            self.venue.connect()
            self.is_connected = True

    def close(self) -> None:
        """Give the connection back."""
        if self.venue is not None and self.is_connected:
            self.venue.close()
        self.is_connected = False


class Egress:
    """Turns each request into a call of the venue and its answers into records.

    Args:
        desk: outlives the processor; without one no venue is reached.
    """

    name = "egress"
    anchor = "venue.requests"
    tables = ()
    emits = ("venue.reports",)

    def __init__(self, desk: Desk | None = None) -> None:
        self._desk = desk or Desk(None, "nobody", 0)
        self._requests: list[tuple[Place, VenueRequest]] = []

    def inputs(self) -> tuple[Input, ...]:
        return (Input("venue.requests"),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Forget what was gathered: it is read again."""
        self._requests.clear()

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise InvariantBroken("the egress has no bucketed input.")

    def on_record(self, step: Step, arrival: Arrival) -> None:
        self._requests.append(((arrival.partition, arrival.offset), arrival.message))

    def flush(self, step: Step) -> None:
        """Do what was gathered, in its order, each once. Of several looks at an order the last one is enough.

        Raises:
            LogUnreachable: the turn is over; what was done is remembered, and the next transaction goes on behind it.
        """
        requests, self._requests = self._requests, []
        began, answers = self._desk.clock(), self._desk.answers
        looks = {_whose(one.order): place for place, one in requests if isinstance(one, LookAtOrder)}
        for place, request in requests:
            if place in answers and answers[place][0] == request:
                continue
            if isinstance(request, LookAtOrder) and looks[_whose(request.order)] != place:
                answers[place] = request, ()
                continue
            if self._desk.clock() - began > TURN_S:
                raise LogUnreachable(
                    f"the venue takes long: {len(requests)} requests wait.", "It goes on by itself."
                )
            answers[place] = request, self._do(request)
            while len(answers) > REMEMBERED:
                answers.popitem(last=False)
        for place, _ in requests:
            for report in answers[place][1]:
                step.emit("venue.reports", report)

    def _do(self, request: VenueRequest) -> Sequence[VenueReport]:
        match request:
            case UseVenue():
                out = self._use(request)
            case PlaceOrder(order=order):
                out = self._connected(order) or (self._claim(order),)
            case SendOrder(order=order):
                if request.claimant != self._desk.claimant:
                    return ()  # of a process before this one, which may have sent it: it is asked for, at a tick
                out = self._send(order)
            case CancelOrder(order=order):
                out = self._unreached(order) or self._broker().cancel(order)
            case LookAtOrder(order=order):
                out = self._unreached(order) or self._broker().look(order)
            case _:
                assert_never(request)
        for report in out:
            kind = type(report).__name__
            self._desk.counted[kind] = self._desk.counted.get(kind, 0) + 1
            if isinstance(report, OrderEnded) and report.code:
                self._desk.refused[report.code] = self._desk.refused.get(report.code, 0) + 1
        return out

    def _use(self, request: UseVenue) -> Sequence[VenueReport]:
        desk = self._desk
        if not request.wanted:
            desk.users.discard(request.world_id)
            if not desk.users:
                desk.close()
            return (self._standing(request.world_id, False),)
        desk.users.add(request.world_id)
        try:
            desk.connect()
        except (NoVenue, VenueRefused, VenueUnanswered) as error:
            return (self._standing(request.world_id, False, error.code, error.what),)
        return (self._standing(request.world_id, True),)

    def _claim(self, order: Order) -> VenueReport:
        now_ms, most_ms = self._desk.wall(), self._desk.max_age_ms
        age_ms = now_ms - order.created_at_ms
        if most_ms and age_ms > most_ms:
            detail = f"it is {age_ms} ms old, and one of more than {most_ms} is not sent"
            return self._rejected(order, OrderTooOld.code, detail)
        claims = self._desk.claims
        claims[_whose(order)] = self._desk.clock()
        while len(claims) > REMEMBERED:
            claims.popitem(last=False)
        return SendClaim(order.world_id, order.order_id, self._desk.claimant, now_ms)

    def _send(self, order: Order) -> Sequence[VenueReport]:
        """Use the claim of an order up, and send it; where that was done before, however it ended, nothing is."""
        claimed = self._desk.claims.pop(_whose(order), None)
        if claimed is None:
            return ()  # it is asked for, at a tick
        if unsent := self._connected(order):
            return unsent
        if (waited := self._desk.clock() - claimed) > CLAIM_S:
            detail = f"it was claimed {waited:.0f} s ago, and one of more than {CLAIM_S:.0f} is not sent"
            return (self._rejected(order, OrderTooOld.code, detail),)
        broker = self._broker()
        try:
            return broker.place(order)
        except Exception as error:  # a bug of the adapter: the order may be there all the same
            _logger.exception(
                "order %s of world %s was sent, and no answer understood", order.order_id, order.world_id
            )
            detail = f"its answer was not understood: {type(error).__name__}"
            unknown = OrderUnknown(
                order.world_id, order.order_id, VenueUnanswered.code, detail, self._desk.wall()
            )
            return (unknown,)

    def _connected(self, order: Order) -> Sequence[VenueReport]:
        """Why an order can't be sent, as its end; nothing where there is a connection."""
        try:
            self._desk.connect()
        except (NoVenue, VenueRefused, VenueUnanswered) as error:
            return (
                self._rejected(order, error.code, error.what),
                self._standing(order.world_id, False, error.code, error.what),
            )
        return ()

    def _unreached(self, order: Order) -> Sequence[VenueReport]:
        """Why nobody can be asked; nothing where there is a connection."""
        try:
            self._desk.connect()
        except (NoVenue, VenueRefused, VenueUnanswered) as error:
            unknown = OrderUnknown(order.world_id, order.order_id, error.code, error.what, self._desk.wall())
            return (unknown, self._standing(order.world_id, False, error.code, error.what))
        return ()

    def _broker(self) -> RealBroker:
        venue = self._desk.venue
        if venue is None:
            raise InvariantBroken("a broker was asked for without a venue.")
        return RealBroker(venue, self._desk.wall)

    def _rejected(self, order: Order, code: str, detail: str) -> OrderEnded:
        return OrderEnded(
            order.world_id, order.order_id, OrderStatus.REJECTED, code, detail, self._desk.wall()
        )

    def _standing(self, world_id: str, connected: bool, code: str = "", detail: str = "") -> VenueStanding:
        venue = self._desk.venue
        name = "" if venue is None else venue.name
        return VenueStanding(world_id, name, connected, code, detail, self._desk.wall())


def _whose(order: Order) -> tuple[str, str]:
    return order.world_id, order.order_id
