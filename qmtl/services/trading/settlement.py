"""What the brokers' answers change: fills are booked, orders end, and what is held is marked to the close."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import assert_never

from qmtl.engine.processor import Arrival, Step
from qmtl.foundation.common.errors import InexactMoney, InvariantBroken, PoisonRecord, ReportRefused
from qmtl.foundation.common.money import ZERO, negated
from qmtl.foundation.contracts.broker import (
    FillBusted,
    FillCorrected,
    FillRevision,
    OrderAccepted,
    OrderEnded,
    OrderReport,
    OrderRestated,
)
from qmtl.foundation.contracts.market import WorldBar
from qmtl.foundation.contracts.trade import Account, BrokerMode, Fill, Order, OrderStatus, Position, Side
from qmtl.foundation.contracts.world import Activation, PositionSide, World
from qmtl.runtime.brokerage.broker import OrderMoved
from qmtl.runtime.brokerage.paper import PaperBroker, is_plain
from qmtl.runtime.execution import portfolio
from qmtl.runtime.execution.brokers import Instruments, withdrawn
from qmtl.runtime.orders.aggregate import is_open
from qmtl.runtime.orders.fills import Applied, Conflict, Duplicate, Revised, apply_fill, revise
from qmtl.runtime.orders.reports import told


def execute(step: Step, world_id: str, bars: Sequence[Arrival], bucket_ms: int) -> None:
    """Ask the paper broker what a bucket has made of the open orders that it has, and book it.

    Args:
        bars: the world's, in the order of the log; of several sources of a symbol it alone says which comes first.

    Raises:
        PoisonRecord: a bar at whose price money can't be kept exact.
    """
    rows: list[Order] = list(step.table("trade.open_orders").items(world_id))
    waiting = [order for order in rows if order.mode is BrokerMode.PAPER]
    if not waiting:
        return
    world: World | None = step.table("trade.worlds").get(world_id)
    if world is None:
        raise InvariantBroken(f"world {world_id!r} has open orders and no settings.")
    market = [arrival.message.bar for arrival in bars]
    limits = Instruments(world).__getitem__
    broker = PaperBroker(world.settings, limits, market, bucket_ms, position_of=partial(_held, step))
    late: dict[str, bool] = {}
    for order in waiting:
        at = broker.meets(order)
        if at is None and is_plain(order):
            continue
        whose = order.strategy_id
        if whose not in late:
            late[whose] = _is_stopped(step, world_id, whose)
        if at is None:
            _tell(step, world, order, broker, late[whose])
            continue
        with _exactly_at(bars[at]):
            _tell(step, world, order, broker, late[whose])


def _tell(step: Step, world: World, order: Order, broker: PaperBroker, late: bool) -> None:
    """Book all that the paper broker says of an order, each on what the one before has left.

    Args:
        late: fills come into a gate that is frozen or draining.
    """
    for at, report in enumerate(broker.look(order)):
        if at:
            order = step.table("trade.orders").get(order.world_id, order.order_id)
        match report:
            case Fill():
                book(step, world, order, replace(report, late=True) if late else report)
            case OrderMoved(terms=terms, at_ms=at_ms):
                keep(step, replace(order, terms=terms, updated_at_ms=at_ms))
            case OrderAccepted() | OrderEnded():
                keep(step, told(order, report))
            case _:
                assert_never(report)


def _held(step: Step, order: Order) -> Decimal:
    """What an order's scope holds of its symbol, signed."""
    scope = portfolio.scope_of_strategy(order.strategy_id, order.mode)
    key = portfolio.portfolio_key(order.world_id, scope, order.symbol)
    position: Position | None = step.table("trade.portfolio").get(*key)
    return ZERO if position is None else position.quantity


def cancel_stopped(step: Step, spoken_of: Sequence[Activation], bucket_ms: int) -> None:
    """Cancel what is open of the strategies whose gate a bucket has frozen, or changed to a drain that cancels, and left so.

    It comes after the bucket's fills: a market order is filled at the bar's open, and the gate was closed within the bar.
    """
    gates = step.table("trade.gates")
    found = {
        (one.world_id, one.strategy_id): None
        for one in spoken_of
        if _cancels(gates.get(one.world_id, one.strategy_id, one.side.value))
    }
    for world_id, strategy_id in sorted(found):
        world: World | None = step.table("trade.worlds").get(world_id)
        waiting: list[Order] = list(step.table("trade.open_orders").items(world_id))
        for order in waiting:
            if order.strategy_id == strategy_id and world is not None:
                withdraw(step, world, order, bucket_ms)


def _cancels(gate: Activation) -> bool:
    return gate.freeze or gate.drain_cancels


def withdraw(step: Step, world: World, order: Order, at_ms: int) -> None:
    """Ask the order's broker to cancel it, once."""
    if order.status is not OrderStatus.PENDING_CANCEL:
        keep(step, withdrawn(order, world, at_ms))


def keep(step: Step, order: Order) -> None:
    """Put an order where it belongs now."""
    step.table("trade.orders").put(order)
    if is_open(order):
        step.table("trade.open_orders").put(order)
    else:
        step.table("trade.open_orders").delete(order.world_id, order.order_id)


def take(step: Step, report: OrderReport) -> None:
    """Book what the real broker has said of an order; what was said before changes nothing.

    Raises:
        ReportRefused: it contradicts what is known, or can't be booked; nothing was changed.
    """
    order: Order | None = step.table("trade.orders").get(report.world_id, report.order_id)
    world: World | None = step.table("trade.worlds").get(report.world_id)
    if order is None or world is None:
        raise _refused(report, "there is no such order")
    if order.mode is not BrokerMode.LIVE:
        raise _refused(report, "the order is of the paper broker")
    match report:
        case FillBusted() | FillCorrected():
            try:
                _revise(step, world, order, report)
            except (InexactMoney, InvariantBroken) as error:
                raise _refused(report, error.what) from error
        case Fill():
            if report.fee_currency != world.settings.currency:
                raise _refused(
                    report,
                    f"its fee is in {report.fee_currency!r} and the world's money is {world.settings.currency!r}",
                )
            try:
                book(step, world, order, _tagged(step, report))
            except (InexactMoney, InvariantBroken) as error:
                raise _refused(report, error.what) from error
        case _:
            if isinstance(report, OrderRestated) and report.cum_quantity is not None:
                raise _refused(report, "what was filled can't be restated: the position would not follow")
            try:
                after = told(order, report)
            except (InexactMoney, InvariantBroken) as error:
                raise _refused(report, error.what) from error
            if after != order:
                keep(step, after)


def _tagged(step: Step, fill: Fill) -> Fill:
    """The fill, as late where a gate of its strategy is frozen or draining; it counts all the same."""
    return replace(fill, late=True) if _is_stopped(step, fill.world_id, fill.strategy_id) else fill


def _is_stopped(step: Step, world_id: str, strategy_id: str) -> bool:
    """Whether a gate of a strategy is frozen or draining."""
    gates = step.table("trade.gates")
    for side in PositionSide:
        gate: Activation | None = gates.get(world_id, strategy_id, side.value)
        if gate is not None and (gate.freeze or gate.drain):
            return True
    return False


def _refused(report: OrderReport, why: str) -> ReportRefused:
    kind = f"fill {report.seq}" if isinstance(report, Fill) else type(report).__name__
    return ReportRefused(
        f"a report ({kind}) of order {report.order_id} of world {report.world_id!r} was not booked: {why}.",
        "Compare the order with the venue's; the letter has the report, and can be written back.",
    )


def book(step: Step, world: World, order: Order, fill: Fill) -> None:
    """Apply a fill to its order and its portfolio, once: `(order_id, seq)` says whether it was seen.

    Raises:
        InvariantBroken: the fill contradicts its order; a simulated one never does. Nothing was changed.
        InexactMoney: it can't be booked exactly; nothing was changed.
    """
    match apply_fill(order, fill):
        case Applied(order=after, late=late):
            booked = replace(fill, late=True) if late else fill
            _settle(step, world, after, booked, booked)
        case Duplicate():
            known: Fill | None = step.table("trade.fills").get(fill.world_id, fill.order_id, fill.seq)
            if known is None or (not known.revision and replace(known, late=fill.late) != fill):
                raise InvariantBroken(
                    f"fill {fill.seq} of order {order.order_id} came again with other content."
                )
        case Conflict(detail=detail):
            raise InvariantBroken(f"fill {fill.seq} of order {order.order_id}: {detail}.")
        case other:
            assert_never(other)


def _revise(step: Step, world: World, order: Order, revision: FillRevision) -> None:
    """Book a bust or a correction: what the fill did is undone at its own price, and done anew as it is now.

    So cash and quantity are those of an order that was filled like that from the beginning. Profit that was realised against the fill meanwhile stays
    realised, and the undoing is marked as a trade of its own.
    """
    fill: Fill | None = step.table("trade.fills").get(revision.world_id, revision.order_id, revision.seq)
    if fill is None:
        raise InvariantBroken(f"fill {revision.seq} of order {order.order_id} is not there.")
    match revise(order, fill, revision):
        case Revised(order=after, fill=now):
            undone = replace(
                fill,
                side=Side.SELL if fill.side is Side.BUY else Side.BUY,
                fee=negated(fill.fee),
                fill_time_ms=max(fill.fill_time_ms, revision.at_ms),
            )
            moves = [one for one in (undone, now) if one.quantity]
            _settle(step, world, after, now, *moves)
        case Duplicate():
            pass
        case Conflict(detail=detail):
            raise InvariantBroken(f"fill {fill.seq} of order {order.order_id}: {detail}.")
        case other:
            assert_never(other)


def _settle(step: Step, world: World, order: Order, fill: Fill, *moves: Fill) -> None:
    rows = step.table("trade.portfolio")
    scope = portfolio.scope_of_strategy(order.strategy_id, order.mode)
    account = rows.get(*portfolio.portfolio_key(world.world_id, scope))
    position = rows.get(*portfolio.portfolio_key(world.world_id, scope, order.symbol))
    for move in moves:
        position, account = portfolio.apply_fill(position, account, move, scope)
    step.table("trade.fills").put(fill)
    keep(step, order)
    rows.put(position)
    rows.put(account)


def revalue_world(step: Step, world_id: str, bars: Sequence[Arrival], bucket_ms: int) -> None:
    """Mark every position of the world to the bucket's last close of its symbol, and every account to its positions.

    Args:
        bars: the world's, in the order of the log; of several sources of a symbol it alone says which comes last.

    Raises:
        PoisonRecord: a bar at whose close a position, or an account with it, can't be valued exactly.
    """
    last: dict[str, Arrival] = {}
    for arrival in bars:
        message: WorldBar = arrival.message
        last[message.bar.symbol] = arrival
    rows = step.table("trade.portfolio")
    held: dict[str, list[tuple[Position, Position]]] = {}
    accounts: list[Account] = []
    for row in rows.items(world_id):
        if isinstance(row, Account):
            accounts.append(row)
            continue
        before: Position = row
        position = before
        if (found := last.get(position.symbol)) is not None:
            with _exactly_at(found):
                position = portfolio.mark(position, found.message.bar.close, bucket_ms)
            rows.put(position)
        held.setdefault(position.scope, []).append((before, position))
    for account in accounts:
        moved = held.get(account.scope, [])
        try:
            valued = portfolio.revalue(account, [after for _, after in moved], bucket_ms)
        except InexactMoney:
            _blame(account, moved, last, bucket_ms)
            raise
        rows.put(valued)


def _blame(
    account: Account, moved: Sequence[tuple[Position, Position]], bars: Mapping[str, Arrival], bucket_ms: int
) -> None:
    """The first bar with which the account has no exact value any more, when its positions are marked one by one.

    At the marks before, and with the fills of this bucket, it had one.
    """
    marked = [before for before, _ in moved]
    for at, (_, after) in enumerate(moved):
        marked[at] = after
        if (bar := bars.get(after.symbol)) is not None:
            with _exactly_at(bar):
                portfolio.revalue(account, marked, bucket_ms)


@contextmanager
def _exactly_at(bar: Arrival) -> Iterator[None]:
    """A bar is what a world can't use where its price makes money inexact; the other worlds go on."""
    try:
        yield
    except InexactMoney as error:
        raise PoisonRecord(bar, error) from error
