"""The stages of one strategy in their order, one bucket at a time: what the bucket before has left comes in, what this one leaves goes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.money import ZERO, plus
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.broker import OrderReport
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Fill, Order, OrderIntent, OrderRejection
from qmtl.foundation.contracts.world import Activation
from qmtl.runtime.execution.judging import rejection
from qmtl.runtime.orders.aggregate import pending
from qmtl.runtime.sdk.activation_manager import ActivationManager
from qmtl.runtime.transforms.execution_nodes import (
    Booked,
    ExecutionNode,
    FillIngestNode,
    Known,
    PassedIntent,
    PortfolioNode,
    PreTradeGateNode,
    Ready,
    SizingNode,
    Unbooked,
)
from qmtl.runtime.transforms.publisher import OrderPublishNode
from qmtl.runtime.transforms.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class ChainState:
    """All that a chain remembers: the delayed edge, and the gates.

    Attributes:
        before: what the bucket before has left.
    """

    before: Snapshot
    activation: ActivationManager = field(default_factory=ActivationManager)


@dataclass(frozen=True, slots=True)
class ChainBucket:
    """What one bucket brings.

    Attributes:
        reports: what the real broker has said since the bucket before.
    """

    bucket_ms: int
    activations: tuple[Activation, ...] = ()
    bars: tuple[Bar, ...] = ()
    intents: tuple[OrderIntent, ...] = ()
    reports: tuple[OrderReport, ...] = ()


@dataclass(frozen=True, slots=True)
class ChainStep:
    """What a bucket has made.

    Attributes:
        state: for the bucket after it.
        orders: those that were placed; `published` of them were handed over.
        unbooked: reports that somebody has to look at.
    """

    state: ChainState
    orders: tuple[Order, ...]
    fills: tuple[Fill, ...]
    rejections: tuple[OrderRejection, ...]
    unbooked: tuple[Unbooked, ...]
    published: int
    ready: Ready


@dataclass(frozen=True, slots=True)
class Chain:
    """Gate, size, execution, publication, fills and portfolio of one strategy in one book."""

    pretrade: PreTradeGateNode
    sizing: SizingNode
    execution: ExecutionNode
    publish: OrderPublishNode
    fills: FillIngestNode
    portfolio: PortfolioNode

    def begin(self, first_bucket_ms: int) -> ChainState:
        """What there is before the first bucket."""
        return ChainState(self.portfolio.genesis(first_bucket_ms))

    def step(self, state: ChainState, bucket: ChainBucket) -> ChainStep:
        """One bucket: reports and fills are booked, what is held is marked, a stopped gate cancels, and intents are decided on what the bucket before has left.

        Raises:
            InvariantBroken: the paper broker says what its order can't have.
            InexactMoney: a fill or a mark has no exact value.
        """
        before, gates = state.before, state.activation
        for one in bucket.activations:
            gates = gates.updated(one)
        is_stopped = any(one is not None and (one.freeze or one.drain) for one in (gates.long, gates.short))
        now, fills, unbooked = before, list[Fill](), list[Unbooked]()
        for report in bucket.reports:
            found = self.fills.ingest(now, report, is_stopped=is_stopped)
            now = self._booked(now, found, fills, unbooked)
        for order in now.open_orders:
            for answer in self.execution.answers(order, now, bucket.bars, bucket.bucket_ms):
                found = self.fills.ingest(now, answer, is_stopped=is_stopped)
                if isinstance(found, Unbooked):
                    raise InvariantBroken(f"the paper broker's answer was not booked: {found.detail}.")
                now = self._booked(now, found, fills, unbooked)
        now = self.portfolio.value(now, bucket.bars, bucket.bucket_ms)
        if any(_cancels(gates.side(one.side)) for one in bucket.activations):
            for order in now.open_orders:
                now = self.portfolio.keep(now, self.execution.cancel(order, bucket.bucket_ms))
        orders, rejections = self._decided(bucket.intents, gates, before, now.orders.keys())
        for order in orders:
            now = self.portfolio.keep(now, order)
        published = sum(self.publish.publish(order) for order in orders)
        after, ready = self.portfolio.close(now, bucket.bucket_ms)
        return ChainStep(
            ChainState(after, gates),
            tuple(orders),
            tuple(fills),
            tuple(rejections),
            tuple(unbooked),
            published,
            ready,
        )

    def _booked(
        self,
        now: Snapshot,
        found: Booked | Known | Unbooked,
        fills: list[Fill],
        unbooked: list[Unbooked],
    ) -> Snapshot:
        match found:
            case Booked():
                if found.fill is not None:
                    fills.append(found.fill)
                return self.portfolio.book(now, found)
            case Known():
                return now
            case Unbooked():
                unbooked.append(found)
                return now

    def _decided(
        self, intents: Sequence[OrderIntent], gates: ActivationManager, before: Snapshot, known: Iterable[str]
    ) -> tuple[list[Order], list[OrderRejection]]:
        orders: list[Order] = []
        rejections: list[OrderRejection] = []
        placed: dict[str, Decimal] = {}
        seen: set[tuple[str, int]] = set()
        ids = set(known)
        for intent in sorted(intents, key=lambda one: (one.symbol, one.intent_index)):
            which = (intent.symbol, intent.intent_index)
            if which in seen:
                detail = f"an intent of {intent.symbol} with the index {intent.intent_index} came before in this bucket"
                rejections.append(rejection(intent, RejectionReason.DUPLICATE_INTENT, detail))
                continue
            seen.add(which)
            ordered = placed.get(intent.symbol, ZERO)
            passed = self.pretrade.check(intent, gates, before, ordered)
            if not isinstance(passed, PassedIntent):
                rejections.append(passed)
                continue
            if passed.cut_off is not None:
                rejections.append(passed.cut_off)
            sized = self.sizing.size(passed, before, ordered)
            if sized is None:
                continue
            if isinstance(sized, OrderRejection):
                rejections.append(sized)
                continue
            order = self.execution.order(sized, before)
            if order.order_id in ids:
                detail = f"order {order.order_id} exists"
                rejections.append(rejection(intent, RejectionReason.DUPLICATE_INTENT, detail))
                continue
            ids.add(order.order_id)
            orders.append(order)
            placed[intent.symbol] = plus(ordered, pending(order))
        return orders, rejections


def _cancels(gate: Activation | None) -> bool:
    return gate is not None and (gate.freeze or gate.drain_cancels)
