"""What is told of live orders: by who reaches the venue what it has met there, and by who lets them out what is open."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from qmtl.engine.log.port import Log
from qmtl.engine.observer import TaskId
from qmtl.engine.view import TableView
from qmtl.foundation.common.errors import NoVenue, OrderTooOld, VenueRefused, VenueUnanswered
from qmtl.foundation.contracts.broker import (
    Attempt,
    AttemptState,
    BrokerSession,
    OrderAbsent,
    OrderAccepted,
    OrderEnded,
    OrderUnknown,
    SendClaim,
    SessionState,
    VenueStanding,
)
from qmtl.foundation.contracts.trade import Fill
from qmtl.foundation.wire.registry import codec
from qmtl.interfaces.metrics.sampled import Sample, Sampled
from qmtl.interfaces.metrics.watch import Watch
from qmtl.services.egress.processor import Desk
from qmtl.services.oms.processor import Oms

KINDS: Final = tuple(
    one.__name__
    for one in (SendClaim, VenueStanding, OrderAccepted, Fill, OrderEnded, OrderUnknown, OrderAbsent)
)
CODES: Final = (VenueRefused.code, VenueUnanswered.code, NoVenue.code, OrderTooOld.code)
"""Why the venue's side ends an order that was to be placed."""

EVERY_S: Final = 15.0
"""What is younger is told again."""

_WAIT_S: Final = 0.5
_TASK: Final = TaskId(Oms.name, 0)
_UNPROVEN: Final = (AttemptState.CLAIMED, AttemptState.UNKNOWN)


class VenueCounts(Collector):
    """Collects, of a desk. Each kind and code is there from the beginning: a rate needs the zero before the first."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def collect(self) -> Iterator[Metric]:
        answers = CounterMetricFamily(
            "qmtl_venue_answers", "What was written of the venue, by the kind of record.", labels=("kind",)
        )
        for kind, count in (dict.fromkeys(KINDS, 0) | self._desk.counted).items():
            answers.add_metric((kind,), count)
        yield answers
        ended = CounterMetricFamily(
            "qmtl_live_orders_refused",
            "Live orders that the venue, or who reaches it, has ended with a code.",
            labels=("code",),
        )
        for code, count in (dict.fromkeys(CODES, 0) | self._desk.refused).items():
            ended.add_metric((code,), count)
        yield ended
        yield GaugeMetricFamily(
            "qmtl_venue_connected", "1 while this process has its venue connected.", self._desk.is_connected
        )


@dataclass(frozen=True, slots=True)
class Live:
    """What is open, as the tables have it.

    Attributes:
        unproven_ms: when the oldest order was claimed of which nobody knows whether the venue has it; None where there is none.
        missing: worlds whose connection is wanted and not there.
    """

    orders: Mapping[AttemptState, int] = field(default_factory=dict)
    sessions: Mapping[SessionState, int] = field(default_factory=dict)
    unproven_ms: int | None = None
    missing: int = 0


class LiveGauges:
    """Collects for `Gauges`, by the process that has the task whose tables they are. Both have a row per world or per open order, and no history."""

    def __init__(self, log: Log, watch: Watch) -> None:
        self._log = log
        self._watch = watch
        self._views: tuple[TableView, TableView] | None = None
        self._found = (
            Sampled("qmtl-live", self._look, Live(), every_s=EVERY_S, wait_s=_WAIT_S)
            if _TASK.processor in watch.polls()
            else None
        )

    def _look(self) -> Live:
        if self._views is None:
            self._views = (
                TableView(self._log, "oms.attempts", codec),
                TableView(self._log, "ops.sessions", codec),
            )
        attempts: list[Attempt] = self._views[0].refresh().rows()
        sessions: list[BrokerSession] = self._views[1].refresh().rows()
        return Live(
            Counter(one.state for one in attempts),
            Counter(one.state for one in sessions),
            min((one.claimed_ms for one in attempts if one.state in _UNPROVEN), default=None),
            sum(one.state is not SessionState.CLOSED and not one.connected for one in sessions),
        )

    def stop(self) -> None:
        if self._found is not None:
            self._found.stop()

    def get(self) -> Sample[Live] | None:
        """What was measured last; None where this process does not let live orders out."""
        return None if self._found is None else self._found.get()

    def collect(self, taken: Sample[Live] | None) -> Iterator[Metric]:
        """What to tell of it now."""
        if taken is None or taken.age_s is None or _TASK not in self._watch.tasks():
            return
        found = taken.value
        orders = GaugeMetricFamily(
            "qmtl_live_orders", "Live orders that have not ended, by their state.", labels=("state",)
        )
        for state in AttemptState:
            orders.add_metric((state.value,), found.orders.get(state, 0))
        yield orders
        age_s = 0.0 if found.unproven_ms is None else max(0.0, time.time() - found.unproven_ms / 1000)
        yield GaugeMetricFamily(
            "qmtl_live_orders_unproven_seconds",
            "How long ago the oldest order was claimed of which nobody knows whether the venue has it; 0 where there is none.",
            age_s,
        )
        sessions = GaugeMetricFamily(
            "qmtl_live_sessions", "Worlds by the state of their connection.", labels=("state",)
        )
        for each in SessionState:
            sessions.add_metric((each.value,), found.sessions.get(each, 0))
        yield sessions
        yield GaugeMetricFamily(
            "qmtl_live_sessions_missing", "Worlds whose connection is wanted and not there.", found.missing
        )
