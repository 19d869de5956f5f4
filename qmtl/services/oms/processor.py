"""The order management system on its topics: live orders, gates and what the venue's side has said in; requests to it, and reports to trading, out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias, assert_never

from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.contracts.broker import (
    Attempt,
    BrokerSession,
    OrderAbsent,
    OrderAccepted,
    OrderEnded,
    OrderUnknown,
    SendClaim,
    SessionState,
    UseVenue,
    VenueReport,
    VenueStanding,
)
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order, OrderStatus
from qmtl.foundation.contracts.world import Activation, PositionSide
from qmtl.foundation.wire.topics import TopicSpec
from qmtl.services.oms.rules import (
    Ruled,
    asked_now,
    blocked,
    on_order,
    on_report,
    seen,
    session_of,
    stands,
    was_seen,
)

Heard: TypeAlias = Activation | Order | VenueReport


class Oms:
    """Single writer of what is attempted at venues, by world. It reaches nothing itself: who does is `egress`.

    Gates are taken as they come, before the orders and reports of the same reading: of what is on the log, the last word of a gate counts.
    """

    name = "oms"
    anchor = "oms.attempts"
    tables = ("oms.gates", "oms.attempts", "ops.sessions")
    emits = ("venue.requests", "order.reports")

    def inputs(self) -> tuple[Input, ...]:
        return (
            Input("activation"),
            Input("trade.orders"),
            Input("venue.reports"),
            Input("clock", bucketed=True, broadcast=True),
        )

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the tables."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        message: Heard = arrival.message
        match message:
            case Activation():
                step.table("oms.gates").put(message)
                self._follow(step, message.world_id, by_gate=True)
            case Order():
                if message.mode is BrokerMode.LIVE:
                    self._take(step, message)
            case VenueStanding():
                session: BrokerSession | None = step.table("ops.sessions").get(message.world_id)
                if session is not None and (now := stands(session, message)) != session:
                    step.table("ops.sessions").put(now)
            case SendClaim() | OrderAccepted() | Fill() | OrderEnded() | OrderUnknown() | OrderAbsent():
                known = self._known(step, message.world_id, message.order_id)
                why_not = "" if known is None else _why_not(step, known.order)
                ruled = on_report(message, known, why_not, step.closed_ms)
                self._apply(step, message.world_id, message.order_id, known, ruled)
            case _:
                assert_never(message)

    def _take(self, step: Step, order: Order) -> None:
        known = self._known(step, order.world_id, order.order_id)
        session: BrokerSession | None = step.table("ops.sessions").get(order.world_id)
        again = was_seen(order, session)
        if order.status is OrderStatus.PENDING_NEW and not again:
            step.table("ops.sessions").put(seen(order, session))
        ruled = on_order(order, known, _why_not(step, order), step.closed_ms, again=again)
        self._apply(step, order.world_id, order.order_id, known, ruled)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        """At each tick the venue is asked what has become of what may be there, and for a connection that is wanted and missing."""
        for request in asked_now(list(step.table("oms.attempts").items())):
            step.emit("venue.requests", request)
        sessions: list[BrokerSession] = list(step.table("ops.sessions").items())
        for one in sessions:
            if one.state is not SessionState.CLOSED and not one.connected:
                step.emit("venue.requests", UseVenue(one.world_id, True))

    def flush(self, step: Step) -> None:
        """Everything is in the tables."""

    def _known(self, step: Step, world_id: str, order_id: str) -> Attempt | None:
        found: Attempt | None = step.table("oms.attempts").get(world_id, order_id)
        return found

    def _apply(self, step: Step, world_id: str, order_id: str, known: Attempt | None, ruled: Ruled) -> None:
        if ruled.attempt != known:
            if ruled.attempt is None:
                step.table("oms.attempts").delete(world_id, order_id)
            else:
                step.table("oms.attempts").put(ruled.attempt)
        for request in ruled.requests:
            step.emit("venue.requests", request)
        for report in ruled.reports:
            step.emit("order.reports", report)
        if (ruled.attempt is None) != (known is None):
            self._follow(step, world_id, by_gate=False)

    def _follow(self, step: Step, world_id: str, *, by_gate: bool) -> None:
        """Open, block or close the connection of a world, as its gates and orders are now."""
        sessions = step.table("ops.sessions")
        known: BrokerSession | None = sessions.get(world_id)
        if not by_gate and known is not None and known.state is SessionState.OPEN:
            return  # only a gate takes it from there
        gates: list[Activation] = list(step.table("oms.gates").items(world_id))
        has_open = any(True for _ in step.table("oms.attempts").items(world_id))
        changed = session_of(world_id, gates, has_open, known, step.closed_ms)
        if changed is not None:
            sessions.put(changed)
            step.emit("venue.requests", UseVenue(world_id, changed.state is not SessionState.CLOSED))


def _why_not(step: Step, order: Order) -> str:
    gates, whose = step.table("oms.gates"), (order.world_id, order.strategy_id)
    return blocked(
        order, *(gates.get(*whose, side.value) for side in (PositionSide.LONG, PositionSide.SHORT))
    )
