"""Trading on its topics: intents, market data and activation of a world in; orders, fills, portfolio and rejections out.

Per bucket and world, in this order: take over what changed of worlds and gates, execute the orders that wait on paper, book their fills,
mark to the bucket's close, cancel what a drain cancels, change to the other broker where a gate says so, then decide the intents. What the real broker says
is booked when it comes, and so belongs to the bucket that closes next. Decisions see the portfolio and the open orders as the bucket before left
them (the delayed edge), never the fills of their own bucket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from qmtl.engine.letters import Cause, letter_of
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import InvalidBar, PoisonRecord, ReportRefused
from qmtl.foundation.contracts.market import WorldBar, fault_of
from qmtl.foundation.contracts.trade import OrderIntent
from qmtl.foundation.contracts.world import Activation
from qmtl.foundation.wire.topics import TopicSpec, topic
from qmtl.services.trading.decision import decide
from qmtl.services.trading.sessions import change_sessions, open_missing_account
from qmtl.services.trading.settlement import cancel_stopped, execute, revalue_world, take

PORTFOLIO_EDGE: Final = Input("trade.portfolio", bucketed=True, lag=1)
OPEN_ORDERS_EDGE: Final = Input("trade.open_orders", bucketed=True, lag=1)


class Trading:
    """Gate, sizing, the two brokers' orders, simulated execution and portfolio of a world: one key, one task."""

    name = "trading"
    anchor = "trade.orders"
    tables = (
        "trade.worlds",
        "trade.gates",
        "trade.orders",
        "trade.open_orders",
        "trade.fills",
        "trade.portfolio",
    )
    emits = ("trade.rejections",)

    def inputs(self) -> tuple[Input, ...]:
        return (
            Input("world.state", bucketed=True),
            Input("activation", bucketed=True),
            Input("trade.market", bucketed=True, broadcast=True),
            Input("trade.intents", bucketed=True, broadcast=True),
            Input("order.reports"),
            PORTFOLIO_EDGE,
            OPEN_ORDERS_EDGE,
        )

    def closes(self) -> tuple[TopicSpec, ...]:
        return (topic("trade.portfolio"), topic("trade.open_orders"))

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Everything is in the tables."""

    def on_record(self, step: Step, arrival: Arrival) -> None:
        """Book what the real broker has said; what can't be booked is kept as a letter, and trading goes on."""
        try:
            take(step, arrival.message)
        except ReportRefused as refused:
            cause = Cause(refused.code, f"{refused.what} {refused.remedy}")
            step.emit("dead.letters", letter_of(self.name, arrival.partition, arrival, cause))

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        for arrival in bucket.arrivals["world.state"]:
            step.table("trade.worlds").put(arrival.message)
        gates: list[Activation] = [arrival.message for arrival in bucket.arrivals["activation"]]
        spoken_of = list(dict.fromkeys((gate.world_id, gate.strategy_id) for gate in gates))
        for gate in gates:
            step.table("trade.gates").put(gate)
        for whose in spoken_of:
            open_missing_account(step, whose, bucket.bucket_ms)
        for world_id, bars in _bars_by_world(bucket.arrivals["trade.market"]).items():
            execute(step, world_id, bars, bucket.bucket_ms)
            revalue_world(step, world_id, bars, bucket.bucket_ms)
        cancel_stopped(step, gates, bucket.bucket_ms)
        change_sessions(step, spoken_of, bucket.bucket_ms)
        cut_ms = bucket.cuts["trade.portfolio"]
        intents: list[OrderIntent] = [arrival.message for arrival in bucket.arrivals["trade.intents"]]
        decide(step, sorted(intents, key=_order), cut_ms)

    def flush(self, step: Step) -> None:
        """Everything is in the tables."""


def _order(intent: OrderIntent) -> tuple[str, str, str, int]:
    return (intent.world_id, intent.strategy_id, intent.symbol, intent.intent_index)


def _bars_by_world(arrivals: Sequence[Arrival]) -> dict[str, list[Arrival]]:
    """The bars of each world, worlds sorted, bars in the order of the log.

    Raises:
        PoisonRecord: one that is no bar. Nodes let none through; the log may hold one from before they looked.
    """
    out: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        message: WorldBar = arrival.message
        if (fault := fault_of(message.bar)) is not None:
            raise PoisonRecord(arrival, InvalidBar(fault, "Leave the bar out."))
        out.setdefault(message.world_id, []).append(arrival)
    return dict(sorted(out.items()))
