"""The trading of one world over the bars of a backtest: the rules of the trading processor, on rows in memory.

The processor makes a row of every account and position in every bucket. Nobody reads most of these: between two intents, and with no
order open, a bucket changes nothing but marks. So a bucket is gone through only where something may happen in it, and what lies
between is marked when it is read. What is left at the end, and every order, fill and rejection, is what the processor leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from qmtl.foundation.common.errors import InexactMoney, InvariantBroken
from qmtl.foundation.common.money import ZERO, total
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Account, Fill, Order, OrderIntent, OrderRejection, Position
from qmtl.foundation.contracts.world import Activation, PositionSide, World
from qmtl.runtime.brokerage.fees import PercentFee
from qmtl.runtime.brokerage.fills import market_fill
from qmtl.runtime.brokerage.slippage import ConstantSlippage
from qmtl.runtime.execution import portfolio
from qmtl.runtime.execution.brokers import instrument_of
from qmtl.runtime.execution.judging import judge, rejection
from qmtl.runtime.orders.aggregate import is_open, pending
from qmtl.runtime.orders.fills import Applied, apply_fill


class Marks(Protocol):
    """What the bars say at the close of a bucket."""

    def close(self, symbol: str, bucket_ms: int) -> tuple[Decimal, int] | None:
        """The close of the symbol's last bar up to a bucket, and the bucket of that bar; None before its first."""
        ...


@dataclass(slots=True)
class Strategy:
    """One strategy's account: what it holds and what of it is open.

    Attributes:
        positions: by symbol, in the order of their first fill.
        waiting: open orders by symbol, the oldest first.
    """

    account: Account
    long: Activation | None
    short: Activation | None
    positions: dict[str, Position] = field(default_factory=dict)
    waiting: dict[str, list[Order]] = field(default_factory=dict)


class Book:
    """The books of all strategies of a world.

    Args:
        gates: of the strategies, open from the first bucket on.
        opened_ms: the bucket with which the accounts begin.
        marks: of all symbols; asked at the buckets that are gone through alone.
    """

    def __init__(self, world: World, gates: Sequence[Activation], opened_ms: int, marks: Marks) -> None:
        self.world = world
        self.fills: list[Fill] = []
        self.orders: dict[str, Order] = {}
        self.rejections: list[OrderRejection] = []
        self.strategies: dict[str, Strategy] = {}
        self._marks = marks
        self._fees = PercentFee(world.settings.fee_rate)
        self._slippage = ConstantSlippage(world.settings.slippage_rate)
        self._instruments = {one.symbol: one for one in world.settings.instruments}
        for gate in sorted(gates, key=lambda one: (one.strategy_id, one.side.value)):
            one = self.strategies.get(gate.strategy_id)
            if one is None:
                scope = portfolio.scope_of_strategy(gate.strategy_id)
                account = portfolio.open_account(world.world_id, scope, world.settings, opened_ms)
                one = self.strategies[gate.strategy_id] = Strategy(account, None, None)
            if gate.side is PositionSide.LONG:
                one.long = gate
            else:
                one.short = gate

    def decide(self, intents: Iterable[OrderIntent], cut_ms: int) -> None:
        """Turn the intents of one bucket into orders or rejections, in their order, on what the bucket before has left.

        Call it before the bucket's own fills are booked: then the book is at that cut.
        """
        seen: set[tuple[str, str, int]] = set()
        for intent in intents:
            one = self.strategies.get(intent.strategy_id)
            which = (intent.strategy_id, intent.symbol, intent.intent_index)
            if which in seen:
                detail = f"an intent of {intent.symbol} with the index {intent.intent_index} came before in this bucket"
                self._reject(intent, RejectionReason.DUPLICATE_INTENT, detail)
                continue
            seen.add(which)
            if one is None:  # nobody ever opened a gate: it is refused, and has no account
                scope = portfolio.scope_of_strategy(intent.strategy_id)
                one = Strategy(
                    portfolio.open_account(self.world.world_id, scope, self.world.settings, cut_ms),
                    None,
                    None,
                )
            self._value(one, cut_ms)
            try:
                self._place(one, intent, cut_ms)
            except InexactMoney as error:
                self._reject(intent, RejectionReason.INVALID_INTENT, f"no exact size: {error.what}")

    def _place(self, one: Strategy, intent: OrderIntent, cut_ms: int) -> None:
        position = one.positions.get(intent.symbol)
        waiting = one.waiting.setdefault(intent.symbol, [])
        found = judge(
            intent,
            one.long,
            one.short,
            one.account,
            ZERO if position is None else position.quantity,
            total([pending(order) for order in waiting]),
            instrument_of(self.world, intent.symbol),
            cut_ms,
        )
        for reason, detail in found.refused:
            self._reject(intent, reason, detail)
        order = found.order
        if order is None:
            return
        if order.order_id in self.orders:
            self._reject(intent, RejectionReason.DUPLICATE_INTENT, f"order {order.order_id} exists")
            return
        self.orders[order.order_id] = order
        waiting.append(order)

    def waits(self, symbol: str) -> bool:
        """Whether an order waits for a bar of a symbol."""
        return any(one.waiting.get(symbol) for one in self.strategies.values())

    def execute(self, bar: Bar) -> None:
        """Fill what waits for a bar of its symbol, and book the fills; a strategy's in the order of their ids, as a table has them."""
        for one in self.strategies.values():
            waiting = one.waiting.get(bar.symbol)
            if not waiting:
                continue
            left = []
            for order in waiting if len(waiting) == 1 else sorted(waiting, key=_id):
                if bar.open_time_ms < order.created_at_ms:
                    left.append(order)
                    continue
                after = self._fill(one, order, bar)
                if is_open(after):
                    left.append(after)
            one.waiting[bar.symbol] = left

    def _fill(self, one: Strategy, order: Order, bar: Bar) -> Order:
        tick = instrument_of(self.world, order.symbol).tick
        fill = market_fill(order, bar, self._fees, self._slippage, tick, self.world.settings.currency)
        applied = apply_fill(order, fill)
        if not isinstance(applied, Applied):
            raise InvariantBroken(f"a simulated fill of order {order.order_id} does not fit it.")
        self.fills.append(fill)
        self.orders[order.order_id] = applied.order
        position = one.positions.get(order.symbol)
        one.positions[order.symbol], one.account = portfolio.apply_fill(
            position, one.account, fill, one.account.scope
        )
        return applied.order

    def _value(self, one: Strategy, bucket_ms: int) -> None:
        """Mark what a strategy holds to the last closes up to a bucket, and its account to that."""
        newest = one.account.as_of_ms
        for symbol, position in one.positions.items():
            found = self._marks.close(symbol, bucket_ms)
            if found is not None and found[1] > position.as_of_ms:
                price, at_ms = found
                one.positions[symbol] = portfolio.mark(position, price, at_ms)
                newest = max(newest, at_ms)
        if newest > one.account.as_of_ms:
            one.account = portfolio.revalue(one.account, one.positions.values(), newest)

    def value(self, bucket_ms: int) -> None:
        """Mark everything to the last closes up to a bucket."""
        for one in self.strategies.values():
            self._value(one, bucket_ms)

    def end(self, bucket_ms: int, valued_ms: int) -> None:
        """Mark everything to the end of the run.

        Args:
            bucket_ms: the last bucket.
            valued_ms: the last bucket in which the world had a bar.
        """
        for one in self.strategies.values():
            self._value(one, bucket_ms)
            one.account = portfolio.revalue(one.account, one.positions.values(), valued_ms)

    def rows(self) -> Iterator[Position | Account]:
        """The portfolio, as it is now."""
        for one in self.strategies.values():
            yield one.account
            yield from one.positions.values()

    def _reject(self, intent: OrderIntent, reason: RejectionReason, detail: str) -> None:
        self.rejections.append(rejection(intent, reason, detail))


def _id(order: Order) -> str:
    return order.order_id
