"""The ordinary course of one strategy's trading over the bars of a backtest, at the speed of its arithmetic.

What trading is, is said by the rules of `qmtl.runtime.execution`, and `Book` goes through a backtest with them. Here the same steps are done on
variables instead of rows, for a strategy whose gates are open and whose orders are filled by the next bar. What is out of the ordinary is
left to the rules: an intent that may lead to no order, or to less than it asks for, is judged by `judge`; where a number is too long for exact
arithmetic, or leaves what money may be, the whole strategy is gone through with `Book`. A property holds both to the same rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from decimal import Context, Decimal, Inexact, InvalidOperation, localcontext
from itertools import groupby
from typing import Final, NamedTuple, Protocol

from qmtl.backtest.signals import Want
from qmtl.foundation.common.errors import InexactMoney
from qmtl.foundation.common.identity import client_order_id
from qmtl.foundation.common.money import MAX_DIGITS, MAX_POINT, ZERO, quotient, round_places
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Account, OrderIntent, OrderRejection, Position, Side
from qmtl.foundation.contracts.world import Activation, EffectiveMode, World
from qmtl.runtime.brokerage.fees import FEE_PLACES
from qmtl.runtime.columns import BarColumns, Integers
from qmtl.runtime.execution import portfolio
from qmtl.runtime.execution.brokers import instrument_of
from qmtl.runtime.execution.gate import ORDER_MODES
from qmtl.runtime.execution.judging import judge, rejection
from qmtl.runtime.execution.portfolio import AVERAGE_PLACES, COST_PLACES

_EXACT: Final = Context(prec=MAX_DIGITS, traps=[Inexact, InvalidOperation])
_LIMIT: Final = Decimal(10) ** (MAX_POINT - 10)
"""Amounts are far inside of what money may be; beyond this the rules look at each of them."""

_ONE: Final = Decimal(1)


class Unusual(Exception):
    """The strategy is to be gone through with the rules themselves, from its beginning."""


class Placed(NamedTuple):
    """An order as it was placed.

    Attributes:
        want: the intent that it comes from.
        cut_ms: the cut of the portfolio that its size was computed on.
    """

    want: Want
    order_id: str
    side: Side
    quantity: Decimal
    reduce_only: bool
    cut_ms: int


class Booked(NamedTuple):
    """The execution that ends an order.

    Attributes:
        bucket_ms: the bucket of the bar that fills it; `time_ms` is the bar's open.
    """

    placed: Placed
    price: Decimal
    fee: Decimal
    slippage: Decimal
    time_ms: int
    bucket_ms: int


class Holding:
    """A position, and what of it is open, while it moves.

    Attributes:
        waiting: signed, base currency: what open orders can still add.
        rounds_fee: whether a fee has more digits than one may have.
    """

    __slots__ = (
        "_step_ms",
        "as_of_ms",
        "average_cost",
        "bars",
        "buckets",
        "cost",
        "fees",
        "fills",
        "instrument",
        "least",
        "lot",
        "mark",
        "place",
        "quantity",
        "realised",
        "rounds_fee",
        "tick",
        "unrealised",
        "waiting",
    )

    def __init__(self, world: World, bars: BarColumns, buckets: Integers, as_of_ms: int) -> None:
        self.instrument = instrument = instrument_of(world, bars.symbol)
        self.bars, self.buckets = bars, buckets
        self._step_ms = bars.interval * 1000
        self.lot, self.tick = instrument.lot, instrument.tick
        self.least = max(instrument.minimum, instrument.lot)
        self.quantity = self.cost = self.average_cost = self.realised = self.fees = ZERO
        self.mark = self.unrealised = self.waiting = ZERO
        self.fills = 0
        self.as_of_ms = as_of_ms
        self.place = -1
        lot, tick = _places(self.lot), _places(self.tick)
        self.rounds_fee = lot + tick + _places(world.settings.fee_rate) > FEE_PLACES
        if lot + max(tick, bars.close.places) + COST_PLACES > MAX_POINT:
            raise Unusual  # a sum may have more places than money

    def mark_to(self, bucket_ms: int) -> None:
        """Value it at the close of the last bar up to a bucket that is behind the one of its value."""
        buckets, begin = self.buckets, self.place
        # Mostly no bar is absent between the two, and a look is enough; a search goes all over the memory.
        place = begin + (bucket_ms - self.as_of_ms) // self._step_ms
        if begin < 0 or place >= len(buckets) or buckets.item(place) != bucket_ms:
            place = begin + int(buckets[begin + 1 :].searchsorted(bucket_ms, "right"))
            if place == begin:
                return
            bucket_ms = buckets.item(place)
        self.place = place
        self.mark = self.bars.close.at(place)
        self.unrealised = self.quantity * self.mark - self.cost
        self.as_of_ms = bucket_ms

    def to_row(self, world_id: str, scope: str) -> Position:
        return Position(
            world_id,
            scope,
            self.bars.symbol,
            self.quantity,
            self.cost,
            self.average_cost,
            self.realised,
            self.fees,
            self.mark,
            self.unrealised,
            self.fills,
            self.as_of_ms,
        )


class Sink(Protocol):
    """Who is told what happens, in its order."""

    def intent(self, want: Want) -> None:
        """What is wanted; its rejections and its order follow."""
        ...

    def placed(self, order: Placed) -> None: ...

    def booked(self, fill: Booked) -> None: ...

    def valued(self, traded: Iterable[Holding], ledger: Ledger) -> None:
        """The fills of a bucket are booked, and everything is marked to its close."""
        ...

    def rejected(self, row: OrderRejection) -> None: ...

    def ended(self, ledger: Ledger) -> None:
        """The run is over, and everything is marked to its end."""
        ...


class Ledger:
    """One strategy's account.

    Args:
        long, short: its gates, as they are in all of the run.
        opened_ms: the bucket with which the account begins.
        bars: of all symbols that it may want, with their buckets as a list.

    Raises:
        Unusual: the strategy is none for this course.
    """

    def __init__(
        self,
        world: World,
        strategy_id: str,
        long: Activation | None,
        short: Activation | None,
        opened_ms: int,
        bars: Mapping[str, tuple[BarColumns, Integers]],
        sink: Sink,
    ) -> None:
        self.world, self.strategy_id = world, strategy_id
        self.scope = portfolio.scope_of_strategy(strategy_id)
        self._gates = (long, short)
        self.is_open = long is not None or short is not None  # without a gate there is no account
        self._is_plain = _let_exits_pass(long, short)
        self._weights = (_weight(short), _weight(long)) if self._is_plain else (None, None)
        self._opened_ms, self._bars, self._sink = opened_ms, bars, sink
        self.holdings: dict[str, Holding] = {}
        self.cash = self.equity = world.settings.initial_cash
        self.exposure = self.realised = self.unrealised = self.fees = ZERO
        self.as_of_ms = opened_ms
        self._fee_rate, self._slippage_rate = world.settings.fee_rate, world.settings.slippage_rate
        self._due: list[tuple[int, str, str, int, Placed]] = []

    def run(self, wants: Iterable[Want], step_ms: int, last_ms: int) -> None:
        """Go through all intents, by bucket, then symbol, then index.

        Args:
            step_ms: between two buckets: the cut that is read is the bucket's before.
            last_ms: the last bucket of the run.

        Raises:
            Unusual: see above.
        """
        due = self._due
        try:
            with localcontext(_EXACT):
                for bucket_ms, group in groupby(wants, key=_bucket_of):
                    while due and due[0][0] < bucket_ms:
                        self._settle(due[0][0])
                    for want in group:
                        self._decide(want, bucket_ms - step_ms)
                while due:
                    self._settle(due[0][0])
                self._value(last_ms)
                self.as_of_ms = max(self.as_of_ms, last_ms)
                self._sink.ended(self)
        except (Inexact, InvalidOperation, InexactMoney):
            raise Unusual from None

    # ---- intents -----------------------------------------------------------------------------------------------------

    def _decide(self, want: Want, cut_ms: int) -> None:
        one = self.holdings.get(want.symbol)
        if one is None:
            one = self._begin(want.symbol)
        self._sink.intent(want)
        held = one.quantity + one.waiting if one.waiting else one.quantity
        percent = want.percent
        if not percent:
            desired = ZERO  # an exit asks for no equity
        else:
            self._value(cut_ms)
            weight = self._weights[percent > 0]
            equity = self.equity
            if weight is None or equity <= 0:
                self._judge(want, one, cut_ms)
                return
            lots = percent * weight * equity // (want.price * one.lot)
            desired = lots * one.lot
            if not desired and not held:
                self._judge(want, one, cut_ms)
                return
        wanted = desired - held
        if not wanted and self._is_plain:
            return  # on target
        delta = wanted // one.lot * one.lot
        quantity = delta.copy_abs()
        if quantity < one.least or quantity > _LIMIT or not self._is_plain:
            self._judge(want, one, cut_ms)
            return
        after = held + delta
        is_reduced = after.copy_abs() < held.copy_abs() and (not after or (after > 0) == (held > 0))
        self._place(want, one, Side.BUY if delta > 0 else Side.SELL, quantity, is_reduced, cut_ms)

    def _judge(self, want: Want, one: Holding, cut_ms: int) -> None:
        """By the rules, which say why."""
        self._value(cut_ms)
        intent = want.to_intent(self.world.world_id, self.strategy_id)
        found = judge(intent, *self._gates, self.to_row(), one.quantity, one.waiting, one.instrument, cut_ms)
        order = found.order
        for reason, detail in found.refused:
            self._reject(intent, reason, detail)
        if order is not None:
            self._place(want, one, order.side, order.quantity, order.reduce_only, cut_ms)

    def _reject(self, intent: OrderIntent, reason: RejectionReason, detail: str) -> None:
        self._sink.rejected(rejection(intent, reason, detail))

    def _place(
        self, want: Want, one: Holding, side: Side, quantity: Decimal, reduce_only: bool, cut_ms: int
    ) -> None:
        symbol, place = want.symbol, want.place
        order_id = client_order_id(
            self.world.world_id,
            self.strategy_id,
            symbol,
            side._value_,
            want.bucket_ms,
            want.percent,
            want.signal,
        )
        order = Placed(want, order_id, side, quantity, reduce_only, cut_ms)
        self._sink.placed(order)
        one.waiting += quantity if side is Side.BUY else -quantity
        if place + 1 < len(one.buckets):
            # The bar behind the one that closes the intent's bucket is the first that opens at or after this instant.
            heapq.heappush(self._due, (one.buckets.item(place + 1), symbol, order_id, place + 1, order))

    # ---- fills -------------------------------------------------------------------------------------------------------

    def _settle(self, bucket_ms: int) -> None:
        """Book what is filled in a bucket, and value everything at its close."""
        due = self._due
        traded: dict[str, Holding] = {}
        while due and due[0][0] == bucket_ms:
            _, symbol, _, place, order = heapq.heappop(due)
            one = traded[symbol] = self.holdings[symbol]
            self._book(one, order, place, bucket_ms)
        self._value(bucket_ms)  # whatever is filled in a bucket has its bar in it
        self._sink.valued(traded.values(), self)

    def _book(self, one: Holding, order: Placed, place: int, bucket_ms: int) -> None:
        bars, quantity, is_buy = one.bars, order.quantity, order.side is Side.BUY
        opened = bars.open.at(place)
        moved = opened
        if self._slippage_rate:
            adverse = opened * self._slippage_rate
            moved = opened + adverse if is_buy else opened - adverse
        ticks = moved // one.tick
        if is_buy and ticks * one.tick != moved:
            ticks += 1
        price = max(ticks, _ONE) * one.tick
        fee = quantity * price * self._fee_rate
        if one.rounds_fee:
            fee = round_places(fee, FEE_PLACES)
        slippage = price - opened if is_buy else opened - price
        time_ms = bars.open_time_ms.item(place)
        self._sink.booked(Booked(order, price, fee, slippage, time_ms, bucket_ms))

        change = quantity if is_buy else -quantity
        one.waiting -= change
        held, cost = one.quantity, one.cost
        if not held or (held > 0) == is_buy:
            cost += change * price
            realised = ZERO
        else:
            closed = -change if quantity <= held.copy_abs() else held
            removed = cost if closed == held else quotient(cost * closed, held, COST_PLACES)
            realised = closed * price - removed
            cost = cost - removed + (change + closed) * price
        one.quantity = held = held + change
        one.cost = cost
        one.average_cost = quotient(cost, held, AVERAGE_PLACES) if held else ZERO
        one.realised += realised
        one.fees += fee
        one.fills += 1
        self.cash += -change * price - fee
        self.realised += realised
        self.fees += fee

    # ---- values ------------------------------------------------------------------------------------------------------

    def _value(self, bucket_ms: int) -> None:
        """Mark what is held to the last closes up to a bucket, and the account to that."""
        newest = self.as_of_ms
        for one in self.holdings.values():
            if not one.fills or one.as_of_ms >= bucket_ms:
                continue
            one.mark_to(bucket_ms)
            if one.as_of_ms > newest:
                newest = one.as_of_ms
        if newest > self.as_of_ms:
            self._revalue(newest)

    def _revalue(self, as_of_ms: int) -> None:
        equity, exposure, unrealised = self.cash, ZERO, ZERO
        for one in self.holdings.values():
            value = one.quantity * one.mark
            equity += value
            exposure += value.copy_abs()
            unrealised += one.unrealised
            if one.realised.copy_abs() > _LIMIT or one.cost.copy_abs() > _LIMIT:
                raise Unusual
        self.equity, self.exposure, self.unrealised, self.as_of_ms = equity, exposure, unrealised, as_of_ms
        if exposure > _LIMIT or self.cash.copy_abs() > _LIMIT or self.fees.copy_abs() > _LIMIT:
            raise Unusual

    def positions(self) -> Iterator[Position]:
        """Of what was ever traded."""
        for one in self.holdings.values():
            if one.fills:
                yield one.to_row(self.world.world_id, self.scope)

    def _begin(self, symbol: str) -> Holding:
        bars, buckets = self._bars[symbol]
        one = self.holdings[symbol] = Holding(self.world, bars, buckets, self.as_of_ms)
        return one

    def to_row(self) -> Account:
        return Account(
            self.world.world_id,
            self.scope,
            self.world.settings.currency,
            self.world.settings.initial_cash,
            self.cash,
            self.equity,
            self.exposure,
            self.realised,
            self.unrealised,
            self.fees,
            self.as_of_ms,
        )


def _bucket_of(want: Want) -> int:
    return want.bucket_ms


def _places(value: Decimal) -> int:
    return max(-int(value.as_tuple().exponent), 0)


def _let_exits_pass(long: Activation | None, short: Activation | None) -> bool:
    """Whether the gates stop nobody on the way to flat; else each intent is judged."""
    rows = [row for row in (long, short) if row is not None]
    stopped = any(row.freeze or row.drain for row in rows)
    return not stopped and any(row.effective_mode in ORDER_MODES for row in rows)


def _weight(side: Activation | None) -> Decimal | None:
    """The share of the equity that an open side may use; None of one that is closed."""
    is_open = (
        side is not None
        and side.active
        and side.weight > 0
        and side.effective_mode is EffectiveMode.PAPER  # what is simulated is on paper
    )
    return side.weight if side is not None and is_open else None
