"""What a backtest leaves, in memory: told step by step, made into messages when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Protocol

from qmtl.backtest.ledger import Booked, Holding, Ledger, Placed
from qmtl.backtest.signals import Want
from qmtl.foundation.common.money import ZERO
from qmtl.foundation.contracts.trade import (
    Account,
    Fill,
    Order,
    OrderIntent,
    OrderRejection,
    OrderStatus,
    OrderType,
    Position,
    TimeInForce,
)


class Outcome(Protocol):
    """The orders of a backtest and what became of them, each in the order of its strategy's steps."""

    @property
    def intents(self) -> tuple[OrderIntent, ...]: ...

    @property
    def orders(self) -> dict[str, Order]:
        """By id, each in its last state."""
        ...

    @property
    def fills(self) -> list[Fill]: ...

    @property
    def rejections(self) -> list[OrderRejection]: ...

    def rows(self) -> Iterator[Position | Account]:
        """The portfolio at the end."""
        ...


class Kept:
    """The steps of one strategy. It is a `Sink`, and an `Outcome`."""

    def __init__(self, world_id: str, strategy_id: str, currency: str) -> None:
        self._world_id, self._strategy_id, self._currency = world_id, strategy_id, currency
        self._wants: list[Want] = []
        self._placed: list[Placed] = []
        self._booked: list[Booked] = []
        self._ledger: Ledger | None = None
        self.rejections: list[OrderRejection] = []

    def intent(self, want: Want) -> None:
        self._wants.append(want)

    def placed(self, order: Placed) -> None:
        self._placed.append(order)

    def booked(self, fill: Booked) -> None:
        self._booked.append(fill)

    def valued(self, traded: Iterable[Holding], ledger: Ledger) -> None:
        """Only the end is kept."""

    def rejected(self, row: OrderRejection) -> None:
        self.rejections.append(row)

    def ended(self, ledger: Ledger) -> None:
        self._ledger = ledger

    @cached_property
    def intents(self) -> tuple[OrderIntent, ...]:
        return tuple([want.to_intent(self._world_id, self._strategy_id) for want in self._wants])

    @cached_property
    def orders(self) -> dict[str, Order]:
        ends = {fill.placed.order_id: fill for fill in self._booked}
        return {one.order_id: self._order(one, ends.get(one.order_id)) for one in self._placed}

    @cached_property
    def fills(self) -> list[Fill]:
        return [self._fill(one) for one in self._booked]

    def rows(self) -> Iterator[Position | Account]:
        ledger = self._ledger
        if ledger is not None and ledger.is_open:
            yield ledger.to_row()
            yield from ledger.positions()

    def _order(self, one: Placed, fill: Booked | None) -> Order:
        want = one.want
        return Order(
            self._world_id,
            self._strategy_id,
            one.order_id,
            want.symbol,
            one.side,
            OrderType.MARKET,
            TimeInForce.GTC,
            one.quantity,
            OrderStatus.NEW if fill is None else OrderStatus.FILLED,
            ZERO if fill is None else one.quantity,
            ZERO if fill is None else fill.price,
            0 if fill is None else 1,
            one.reduce_only,
            want.price,
            want.bucket_ms,
            want.bucket_ms if fill is None else fill.time_ms,
            one.cut_ms,
        )

    def _fill(self, one: Booked) -> Fill:
        order = one.placed
        return Fill(
            self._world_id,
            self._strategy_id,
            order.order_id,
            1,
            order.want.symbol,
            order.side,
            order.quantity,
            one.price,
            one.fee,
            self._currency,
            one.slippage,
            one.time_ms,
        )
