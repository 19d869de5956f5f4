"""The broker that simulates: it accepts everything, and fills against the bars of one bucket."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import negated, plus, total
from qmtl.foundation.contracts.broker import OrderAccepted, OrderEnded
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import (
    BrokerMode,
    Fill,
    Order,
    OrderStatus,
    OrderType,
    Side,
    TimeInForce,
)
from qmtl.foundation.contracts.world import Instrument, WorldSettings
from qmtl.runtime.brokerage.broker import OrderMoved, PaperAnswer
from qmtl.runtime.brokerage.fees import PercentFee
from qmtl.runtime.brokerage.fills import market_fill
from qmtl.runtime.brokerage.matching.auction import AT_OPEN, AUCTIONED
from qmtl.runtime.brokerage.matching.match import Rules, ended, match
from qmtl.runtime.brokerage.matching.model import FillModel, Session, utc_day
from qmtl.runtime.brokerage.matching.result import Executed
from qmtl.runtime.brokerage.slippage import ConstantSlippage

_PLAIN_MODEL = FillModel()


def is_plain(order: Order) -> bool:
    """Whether it is a market order good till cancelled with no terms: filled whole at the next open."""
    return (
        order.order_type is OrderType.MARKET
        and order.time_in_force is TimeInForce.GTC
        and order.terms is None
    )


class PaperBroker:
    """It is a `Broker`, pure, of one bucket of one world.

    Args:
        settings: of the world: fee, slippage and currency.
        instrument_of: the limits of a symbol.
        bars: of the bucket, in the order of the log; empty where nothing is to be filled.
        at_ms: the bucket.
        model: how orders are filled that are not plain market orders.
        session_of: the session that holds an instant (epoch ms), or the next one after it; by itself the UTC day.
        position_of: what a reduce-only order may reduce, signed; None leaves that unchecked.
    """

    mode = BrokerMode.PAPER

    def __init__(
        self,
        settings: WorldSettings,
        instrument_of: Callable[[str], Instrument],
        bars: Sequence[Bar],
        at_ms: int,
        model: FillModel = _PLAIN_MODEL,
        session_of: Callable[[int], Session] = utc_day,
        position_of: Callable[[Order], Decimal] | None = None,
    ) -> None:
        self._fees = PercentFee(settings.fee_rate)
        self._slippage = ConstantSlippage(settings.slippage_rate)
        self._currency, self._instrument_of = settings.currency, instrument_of
        self._bars, self._at_ms = bars, at_ms
        self._places: dict[str, list[int]] | None = None  # of the bars, by symbol
        self._model, self._session_of, self._position_of = model, session_of, position_of

    def place(self, order: Order) -> Sequence[OrderAccepted]:
        return self.accepted(order)

    @staticmethod
    def accepted(order: Order) -> Sequence[OrderAccepted]:
        """What it says of any order, whatever the bucket."""
        return (OrderAccepted(order.world_id, order.order_id, "", order.created_at_ms),)

    def cancel(self, order: Order) -> Sequence[OrderEnded]:
        return (OrderEnded(order.world_id, order.order_id, OrderStatus.CANCELED, "", "", self._at_ms),)

    def look(self, order: Order) -> Sequence[PaperAnswer]:
        """What the bucket makes of an order, in the order in which it happened.

        All that is left of a plain market order is filled in the first bar of the bucket that it can meet. Any other order meets
        all bars of its symbol one after another until it ends, and ends at the bucket where its time is over.

        Raises:
            InexactMoney: at that bar's price money can't be kept exact.
        """
        if not is_plain(order):
            return self._matched(order)
        at = self.meets(order)
        if at is None:
            return ()
        tick = self._instrument_of(order.symbol).tick
        return (market_fill(order, self._bars[at], self._fees, self._slippage, tick, self._currency),)

    def meets(self, order: Order) -> int | None:
        """Which of the bars fills an order: the first of its symbol that opened when it was there, or later."""
        if self._places is None:
            self._places = {}
            for at, bar in enumerate(self._bars):
                self._places.setdefault(bar.symbol, []).append(at)
        for at in self._places.get(order.symbol, ()):
            if self._bars[at].open_time_ms >= order.created_at_ms:
                return at
        return None

    def _matched(self, order: Order) -> Sequence[PaperAnswer]:
        limits = self._instrument_of(order.symbol)
        position = None if self._position_of is None else self._position_of(order)
        out: list[PaperAnswer] = []
        for bar in self._bars:
            if bar.symbol != order.symbol or bar.open_time_ms < order.created_at_ms:
                continue
            session = self._session(order, bar.open_time_ms)
            rules = Rules(self._model, limits.tick, limits.lot, self._slippage, session)
            try:
                found = match(order, bar, rules, bar.open_time_ms > order.created_at_ms, position)
            except InvalidValue as error:
                out.append(self._ended(order, OrderStatus.REJECTED, error.code, error.what, bar.open_time_ms))
                return out
            for one in found.executions:
                fill = self._fill(order, one)
                out.append(fill)
                order = replace(
                    order,
                    cum_quantity=plus(order.cum_quantity, one.quantity),
                    last_seq=fill.seq,
                    updated_at_ms=one.at_ms,
                )
                if position is not None:
                    signed = one.quantity if order.side is Side.BUY else negated(one.quantity)
                    position = total((position, signed))
            if found.end is not None:
                status, at_ms = found.end, bar.open_time_ms + 1000 * bar.interval
                if status is OrderStatus.REJECTED and order.cum_quantity:
                    status = OrderStatus.CANCELED  # FIX knows no rejection of what was partly filled
                out.append(self._ended(order, status, "", found.reason, at_ms))
                return out
            if order.cum_quantity == order.quantity:
                return out
            if found.terms is not None and found.terms != order.terms:
                order = replace(order, terms=found.terms)
                at_ms = bar.open_time_ms + 1000 * bar.interval
                out.append(OrderMoved(order.world_id, order.order_id, found.terms, at_ms))
        if (
            over := ended(order, self._at_ms, self._session(order, self._at_ms))
        ) is not None and over.end is not None:
            out.append(self._ended(order, over.end, "", over.reason, self._at_ms))
        return out

    def _session(self, order: Order, at_ms: int) -> Session:
        """The session that an order is for: of a day, an opening or a close its own, of any other the one at hand."""
        if order.time_in_force is not TimeInForce.DAY and order.order_type not in AUCTIONED:
            return self._session_of(at_ms)
        own = self._session_of(order.created_at_ms)
        if order.order_type in AT_OPEN and order.created_at_ms >= own.open_ms:
            return self._session_of(own.close_ms)
        return own

    def _fill(self, order: Order, one: Executed) -> Fill:
        return Fill(
            world_id=order.world_id,
            strategy_id=order.strategy_id,
            order_id=order.order_id,
            seq=order.last_seq + 1,
            symbol=order.symbol,
            side=order.side,
            quantity=one.quantity,
            price=one.price,
            fee=self._fees.fee(order.side, one.quantity, one.price),
            fee_currency=self._currency,
            slippage=one.slippage,
            fill_time_ms=one.at_ms,
        )

    def _ended(self, order: Order, status: OrderStatus, code: str, detail: str, at_ms: int) -> OrderEnded:
        return OrderEnded(order.world_id, order.order_id, status, code, detail, at_ms)
