"""Execution against the next bar, booking of fills, and marking to the close: what changes the portfolio."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import assert_never

from qmtl.engine.processor import Arrival, Step
from qmtl.foundation.common.errors import InexactMoney, InvariantBroken, PoisonRecord
from qmtl.foundation.contracts.market import WorldBar
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderStatus, Position
from qmtl.foundation.contracts.world import Activation, Instrument, World
from qmtl.runtime.brokerage.fees import PercentFee
from qmtl.runtime.brokerage.fills import market_fill
from qmtl.runtime.brokerage.slippage import ConstantSlippage
from qmtl.runtime.data.instruments import instrument_for
from qmtl.services.trading import portfolio
from qmtl.services.trading.orders import Applied, Conflict, Duplicate, apply_fill, is_open, transition


def open_missing_account(step: Step, activation: Activation, bucket_ms: int) -> None:
    """Give a strategy its account when its gate is first spoken of."""
    world: World | None = step.table("trade.worlds").get(activation.world_id)
    scope = portfolio.scope_of_strategy(activation.strategy_id)
    rows = step.table("trade.portfolio")
    if world is not None and rows.get(*portfolio.portfolio_key(world.world_id, scope)) is None:
        rows.put(portfolio.open_account(world.world_id, scope, world.settings, bucket_ms))


def execute(step: Step, world_id: str, bars: Sequence[Arrival]) -> None:
    """Fill the open orders of the world that a bar of this bucket reaches, each at the first such bar, and book the fills.

    Args:
        bars: the world's, in the order of the log; of several sources of a symbol it alone says which comes first.

    Raises:
        PoisonRecord: a bar at whose price money can't be kept exact.
    """
    waiting: list[Order] = list(step.table("trade.open_orders").items(world_id))
    if not waiting:
        return
    world: World | None = step.table("trade.worlds").get(world_id)
    if world is None:
        raise InvariantBroken(f"world {world_id!r} has open orders and no settings.")
    fees = PercentFee(world.settings.fee_rate)
    slippage = ConstantSlippage(world.settings.slippage_rate)
    for order in waiting:
        for arrival in bars:
            message: WorldBar = arrival.message
            bar = message.bar
            if bar.symbol == order.symbol and bar.open_time_ms >= order.created_at_ms:
                tick = instrument_of(world, order.symbol).tick
                with _exactly_at(arrival):
                    fill = market_fill(order, bar, fees, slippage, tick, world.settings.currency)
                    book(step, world, order, fill)
                break


def cancel_drained(step: Step, spoken_of: Sequence[Activation], bucket_ms: int) -> None:
    """Cancel what is open of the strategies whose gate a bucket has changed to a drain that cancels, and left so.

    It comes after the bucket's fills: a market order is filled at the bar's open, and the gate was closed within the bar.
    """
    gates = step.table("trade.gates")
    found = {
        (one.world_id, one.strategy_id): None
        for one in spoken_of
        if gates.get(one.world_id, one.strategy_id, one.side.value).drain_cancels
    }
    for world_id, strategy_id in sorted(found):
        waiting: list[Order] = list(step.table("trade.open_orders").items(world_id))
        for order in waiting:
            if order.strategy_id == strategy_id:
                step.table("trade.orders").put(transition(order, OrderStatus.CANCELED, bucket_ms))
                step.table("trade.open_orders").delete(world_id, order.order_id)


def book(step: Step, world: World, order: Order, fill: Fill) -> None:
    """Apply a fill to its order and its portfolio, once: `(order_id, seq)` says whether it was seen.

    Raises:
        InvariantBroken: the fill contradicts its order; a simulated one never does.
    """
    match apply_fill(order, fill):
        case Applied(order=after):
            _settle(step, world, after, fill)
        case Duplicate():
            known: Fill | None = step.table("trade.fills").get(fill.world_id, fill.order_id, fill.seq)
            if known != fill:
                raise InvariantBroken(
                    f"fill {fill.seq} of order {order.order_id} came again with other content."
                )
        case Conflict(detail=detail):
            raise InvariantBroken(f"fill {fill.seq} of order {order.order_id}: {detail}.")
        case other:
            assert_never(other)


def _settle(step: Step, world: World, order: Order, fill: Fill) -> None:
    step.table("trade.fills").put(fill)
    step.table("trade.orders").put(order)
    if is_open(order):
        step.table("trade.open_orders").put(order)
    else:
        step.table("trade.open_orders").delete(order.world_id, order.order_id)
    rows = step.table("trade.portfolio")
    scope = portfolio.scope_of_strategy(order.strategy_id)
    account = rows.get(*portfolio.portfolio_key(world.world_id, scope))
    position = rows.get(*portfolio.portfolio_key(world.world_id, scope, order.symbol))
    position, account = portfolio.apply_fill(position, account, fill, scope)
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


def instrument_of(world: World, symbol: str) -> Instrument:
    """The world's limits of a symbol; the finest steps where it states none."""
    for one in world.settings.instruments:
        if one.symbol == symbol:
            return one
    return instrument_for(symbol)
