"""The stages of the chain behind a signal: gate, size, execution, fills, portfolio, risk, hours and routing.

Each is a value with one verb, without memory: what it knows comes in as an argument. What leads back from the portfolio to the gate is a `Snapshot` of a
bucket before, and a gate that is shown one of its own bucket refuses to decide: there is no hidden cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeAlias, assert_never

from qmtl.foundation.common.errors import InexactMoney, InvalidValue
from qmtl.foundation.common.money import ZERO, total
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.broker import (
    FillBusted,
    FillCorrected,
    OrderReport,
)
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import (
    BrokerMode,
    Fill,
    Order,
    OrderIntent,
    OrderRejection,
    Position,
    Side,
)
from qmtl.foundation.contracts.world import PositionSide, World
from qmtl.runtime.brokerage.broker import OrderMoved, PaperAnswer
from qmtl.runtime.brokerage.matching.model import FillModel
from qmtl.runtime.execution import portfolio
from qmtl.runtime.execution.brokers import handed_over, instrument_of, withdrawn
from qmtl.runtime.execution.gate import Admitted, Refused, admit
from qmtl.runtime.execution.judging import rejection
from qmtl.runtime.execution.sizing import OnTarget, Sized, Unsized, size
from qmtl.runtime.orders.aggregate import place
from qmtl.runtime.orders.fills import Applied, Conflict, Duplicate, apply_fill
from qmtl.runtime.orders.reports import told
from qmtl.runtime.risk.limits import RiskLimit
from qmtl.runtime.risk.state import RiskState
from qmtl.runtime.sdk.activation_manager import ActivationManager
from qmtl.runtime.sdk.execution_modeling import answers_of
from qmtl.runtime.sdk.risk_management import RiskDecision, control
from qmtl.runtime.sdk.timing_controls import AROUND_THE_CLOCK, Timing, TimingPolicy, timing
from qmtl.runtime.sdk.watermark import WatermarkGate
from qmtl.runtime.transforms.snapshot import Snapshot

WeightFn: TypeAlias = Callable[[PositionSide], Decimal]
"""How much of what a side wants may be opened, 0 to 1."""


@dataclass(frozen=True, slots=True)
class PassedIntent:
    """An intent that may become an order.

    Attributes:
        target_percent, weight: as the gate lets them pass.
        cut_off: what is told of the part that it does not; None where all passes.
    """

    intent: OrderIntent
    target_percent: Decimal
    weight: Decimal
    cut_off: OrderRejection | None = None


@dataclass(frozen=True, slots=True)
class SizedOrder:
    """How much of what is to be ordered, before there is an order."""

    intent: OrderIntent
    side: Side
    quantity: Decimal
    reduce_only: bool


@dataclass(frozen=True, slots=True)
class PreTradeGateNode:
    """Activation, hours of the watermark, and what is held: may an intent become an order?

    Attributes:
        interval: of the buckets, seconds.
        watermark: `WatermarkGate.for_mode(…)`; what is switched off waits for nothing.
        mode: whose book the snapshots are of.
    """

    interval: int
    watermark: WatermarkGate = field(default_factory=WatermarkGate)
    mode: BrokerMode = BrokerMode.PAPER

    def check(
        self,
        intent: OrderIntent,
        activation: ActivationManager,
        before: Snapshot,
        placed: Decimal = ZERO,
    ) -> PassedIntent | OrderRejection:
        """What the rules say of an intent (`qmtl.runtime.execution.gate.admit`).

        Args:
            before: the book as a bucket before the intent's has left it.
            placed: what was ordered in the intent's own bucket already, signed, base currency.

        Raises:
            InvalidValue: the snapshot is of the intent's own bucket, or of a later one.
        """
        if before.as_of_ms >= intent.bucket_ms:
            raise InvalidValue(
                f"a snapshot as of {before.as_of_ms} came to an intent of bucket {intent.bucket_ms}; it is of a bucket before.",
                "Hand over the snapshot that the bucket before has left.",
            )
        needed_ms = self.watermark.needed_bucket_ms(intent.bucket_ms, self.interval)
        held = total((before.held(intent.symbol), before.waiting(intent.symbol), placed))
        found = admit(
            intent,
            activation.long,
            activation.short,
            held,
            before.account.equity,
            cut_ready=self.watermark.ready(before.as_of_ms, needed_ms),
            closed_bucket_ms=before.as_of_ms,
            needed_bucket_ms=needed_ms,
            mode=self.mode,
        )
        match found:
            case Refused(reason=reason, detail=detail):
                return rejection(intent, reason, detail)
            case Admitted():
                cut_off = None if found.refused is None else rejection(intent, found.refused, found.detail)
                return PassedIntent(intent, found.target_percent, found.weight, cut_off)
            case _:
                assert_never(found)


@dataclass(frozen=True, slots=True)
class SizingNode:
    """How much to order so that the share is held that the gate has let pass.

    Attributes:
        world: its limits of each symbol.
        weight_fn: lessens what an order opens; what reduces is sized as the gate has let it pass. It never makes more of anything than the gate's own weight.
    """

    world: World
    weight_fn: WeightFn | None = None

    def size(
        self, passed: PassedIntent, before: Snapshot, placed: Decimal = ZERO
    ) -> SizedOrder | OrderRejection | None:
        """The order's side and quantity; None where what is held is what is wanted.

        Args:
            before, placed: as the gate was given them.

        Raises:
            InvalidValue: `weight_fn` gave something else than 0 to 1.
        """
        intent = passed.intent
        try:
            found = self._sized(passed, passed.weight, before, placed)
            if isinstance(found, Sized) and not found.reduce_only and self.weight_fn is not None:
                weight = self._weight(self.weight_fn, passed.target_percent)
                if weight < passed.weight:
                    found = self._sized(passed, weight, before, placed)
        except InexactMoney as error:
            return rejection(intent, RejectionReason.INVALID_INTENT, f"no exact size: {error.what}")
        match found:
            case Unsized(reason=reason, detail=detail):
                return rejection(intent, reason, detail)
            case OnTarget():
                return None
            case Sized(side=side, quantity=quantity, reduce_only=reduce_only):
                return SizedOrder(intent, side, quantity, reduce_only)
            case _:
                assert_never(found)

    def _sized(
        self, passed: PassedIntent, weight: Decimal, before: Snapshot, placed: Decimal
    ) -> Sized | OnTarget | Unsized:
        intent = passed.intent
        return size(
            intent,
            passed.target_percent,
            weight,
            before.account.equity,
            before.held(intent.symbol),
            total((before.waiting(intent.symbol), placed)),
            instrument_of(self.world, intent.symbol),
        )

    @staticmethod
    def _weight(weight_fn: WeightFn, target_percent: Decimal) -> Decimal:
        weight = weight_fn(PositionSide.LONG if target_percent >= 0 else PositionSide.SHORT)
        if not weight.is_finite() or not 0 <= weight <= 1:
            raise InvalidValue(f"weight_fn gave {weight}; a weight is 0 to 1.", "Give 0 to open nothing.")
        return weight


@dataclass(frozen=True, slots=True)
class ExecutionNode:
    """Makes orders of sizes, and on paper answers for the market; what a venue makes of an order comes back as reports.

    Attributes:
        model: how orders are filled that are not plain market orders.
    """

    world: World
    mode: BrokerMode = BrokerMode.PAPER
    model: FillModel = field(default_factory=FillModel)

    def order(self, sized: SizedOrder, before: Snapshot) -> Order:
        """The order: on paper it is accepted at once, live it waits to be published."""
        made = place(
            sized.intent,
            sized.side,
            sized.quantity,
            sized.reduce_only,
            before.cut_ms,
            self.mode,
            before.account.session,
        )
        return handed_over(made)

    def answers(
        self, order: Order, now: Snapshot, bars: Sequence[Bar], bucket_ms: int
    ) -> Sequence[PaperAnswer]:
        """What the bars of a bucket make of an open order; of a live one nothing, as its venue says it.

        Args:
            now: the book with all that was booked before in this bucket.
        """
        match self.mode:
            case BrokerMode.LIVE:
                return ()
            case BrokerMode.PAPER:
                return answers_of(
                    order, bars, self.world, bucket_ms, lambda one: now.held(one.symbol), self.model
                )
            case _:
                assert_never(self.mode)

    def cancel(self, order: Order, bucket_ms: int) -> Order:
        """The order once its broker was asked to cancel it; on paper that is done at once."""
        return withdrawn(order, self.world, bucket_ms)


@dataclass(frozen=True, slots=True)
class Booked:
    """What a report has made of its order, and the fill that it tells; None where it tells of none."""

    order: Order
    fill: Fill | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """The report was booked before: nothing changes."""


@dataclass(frozen=True, slots=True)
class Unbooked:
    """The report can't be booked: why, and the numbers. Nothing changes, and somebody has to look."""

    detail: str


Ingested: TypeAlias = Booked | Known | Unbooked


@dataclass(frozen=True, slots=True)
class FillIngestNode:
    """One stream of fills out of what brokers say, each counted once by (order id, seq), whatever was delivered how often."""

    def ingest(
        self, now: Snapshot, report: OrderReport | OrderMoved, *, is_stopped: bool = False
    ) -> Ingested:
        """What a report makes of its order.

        Args:
            is_stopped: a gate of the strategy is frozen or draining: a fill counts all the same, and is marked late.
        """
        order = now.orders.get(report.order_id)
        if order is None:
            return Unbooked(f"there is no order {report.order_id}")
        match report:
            case Fill():
                return _filled(order, replace(report, late=True) if is_stopped else report)
            case FillBusted() | FillCorrected():
                return Unbooked(
                    f"a revision of fill {report.seq} of order {order.order_id} needs the fill, which a book does not keep"
                )
            case OrderMoved(terms=terms, at_ms=at_ms):
                return Booked(replace(order, terms=terms, updated_at_ms=at_ms))
            case _:
                after = told(order, report)
                return Known() if after == order else Booked(after)


def _filled(order: Order, fill: Fill) -> Ingested:
    match apply_fill(order, fill):
        case Applied(order=after, late=late):
            return Booked(after, replace(fill, late=True) if late else fill)
        case Duplicate():
            return Known()
        case Conflict(detail=detail):
            return Unbooked(detail)
        case other:
            assert_never(other)


@dataclass(frozen=True, slots=True)
class Ready:
    """The marker that a state topic is closed for a bucket: what the gate of the next one waits for."""

    topic: str
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class PortfolioNode:
    """Books fills, marks to the close, and closes each bucket, the empty ones too.

    Attributes:
        interval: of the buckets, seconds.
        topic: of the markers; the gate's watermark names the same.
    """

    world: World
    strategy_id: str
    interval: int
    mode: BrokerMode = BrokerMode.PAPER
    topic: str = "trade.portfolio"

    def genesis(self, first_bucket_ms: int) -> Snapshot:
        """The book before its first bucket: initial cash and nothing else, and ready for that bucket to be decided."""
        scope = portfolio.scope_of_strategy(self.strategy_id, self.mode)
        account = portfolio.open_account(self.world.world_id, scope, self.world.settings, first_bucket_ms)
        return Snapshot(first_bucket_ms - self.interval * 1000, account, is_genesis=True)

    def keep(self, now: Snapshot, order: Order) -> Snapshot:
        """The book with an order as it is now."""
        return replace(now, orders={**now.orders, order.order_id: order})

    def book(self, now: Snapshot, booked: Booked) -> Snapshot:
        """The book with what `FillIngestNode` has made of a report.

        Raises:
            InvariantBroken, InexactMoney: as `qmtl.runtime.execution.portfolio.apply_fill`.
        """
        after = self.keep(now, booked.order)
        if booked.fill is None:
            return after
        symbol = booked.fill.symbol
        position, account = portfolio.apply_fill(
            now.positions.get(symbol), now.account, booked.fill, now.account.scope
        )
        return replace(after, account=account, positions={**now.positions, symbol: position})

    def value(self, now: Snapshot, bars: Sequence[Bar], bucket_ms: int) -> Snapshot:
        """The book at the last closes of a bucket; without a bar it keeps its marks.

        Raises:
            InexactMoney: a position has no exact value at a close.
        """
        if not bars:
            return now
        closes = {bar.symbol: bar.close for bar in bars}
        positions: dict[str, Position] = {
            symbol: portfolio.mark(one, closes[symbol], bucket_ms) if symbol in closes else one
            for symbol, one in now.positions.items()
        }
        account = portfolio.revalue(now.account, positions.values(), bucket_ms)
        return replace(now, account=account, positions=positions)

    def close(self, now: Snapshot, bucket_ms: int) -> tuple[Snapshot, Ready]:
        """The snapshot that the bucket leaves, and its marker."""
        return replace(now, as_of_ms=bucket_ms, is_genesis=False), Ready(self.topic, bucket_ms)


@dataclass(frozen=True, slots=True)
class RiskControlNode:
    """Holds orders against limits, and makes those smaller that are too large."""

    world: World
    limits: tuple[RiskLimit, ...] = ()

    def control(self, state: RiskState, order: Order) -> RiskDecision:
        """Whether an order stays, becomes smaller or is withheld.

        Args:
            state: of the bucket before.
        """
        return control(self.limits, state, order, instrument_of(self.world, order.symbol))


@dataclass(frozen=True, slots=True)
class TimingGateNode:
    """Whether orders may be placed at an instant, and when they may be again."""

    policy: TimingPolicy = AROUND_THE_CLOCK

    def check(self, at_ms: int) -> Timing:
        """Args:
        at_ms: UTC epoch ms.
        """
        return timing(self.policy, at_ms)


@dataclass(frozen=True, slots=True)
class Routed:
    """Where an order goes."""

    order: Order
    exchange: str


@dataclass(frozen=True, slots=True)
class Unrouted:
    """No route is for the order's symbol; it goes nowhere."""

    order: Order
    detail: str


@dataclass(frozen=True, slots=True)
class RouterNode:
    """Sends orders to exchanges by their symbols.

    Attributes:
        routes: symbol and exchange; each symbol once.
        otherwise: the exchange of all other symbols; empty where they have none.

    Raises:
        InvalidValue: a symbol with two routes.
    """

    routes: tuple[tuple[str, str], ...]
    otherwise: str = ""

    def __post_init__(self) -> None:
        symbols = [symbol for symbol, _ in self.routes]
        twice = sorted({one for one in symbols if symbols.count(one) > 1})
        if twice:
            raise InvalidValue(f"routes named {twice[0]!r} twice; a symbol has one.", "Take one of them out.")

    def route(self, order: Order) -> Routed | Unrouted:
        """Where an order goes."""
        exchange = dict(self.routes).get(order.symbol, self.otherwise)
        if not exchange:
            return Unrouted(order, f"no route for {order.symbol}; there are {len(self.routes)}")
        return Routed(order, exchange)
