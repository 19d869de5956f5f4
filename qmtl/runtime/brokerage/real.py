"""The broker that trades at a venue: it turns what the venue says into reports, and never sends twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal

from qmtl.foundation.common.errors import VenueRefused, VenueUnanswered
from qmtl.foundation.common.money import negated, product, total
from qmtl.foundation.contracts.broker import (
    OrderAbsent,
    OrderAccepted,
    OrderEnded,
    OrderUnknown,
    VenueAnswer,
)
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order, OrderStatus, Side
from qmtl.runtime.venues.port import Execution, Venue, VenueOrder

_OPEN = frozenset({OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED})


class RealBroker:
    """It is a `Broker`. Its answers are facts of the outside world: whoever asks writes them to the log, and only what is there counts.

    Args:
        wall: the time, epoch ms: when it was asked.
    """

    mode = BrokerMode.LIVE

    def __init__(self, venue: Venue, wall: Callable[[], int]) -> None:
        self._venue, self._wall = venue, wall

    def place(self, order: Order) -> Sequence[VenueAnswer]:
        """Send the order, once. Where no answer says whether it is there, it is `OrderUnknown`; `look` asks for it later."""
        try:
            found = self._venue.submit(order)
        except VenueRefused as refused:
            return (self._ended(order, OrderStatus.REJECTED, refused.code, refused.what),)
        except VenueUnanswered as silence:
            return (self._unknown(order, silence),)
        return self._told(order, found)

    def cancel(self, order: Order) -> Sequence[VenueAnswer]:
        """Ask for the cancellation, then for what has become of the order: a fill may have been faster."""
        with suppress(
            VenueRefused, VenueUnanswered
        ):  # what the order is now says more than why that was not done
            self._venue.cancel(order)
        return self.look(order)

    def look(self, order: Order) -> Sequence[VenueAnswer]:
        try:
            found = self._venue.find(order)
        except (VenueRefused, VenueUnanswered) as silence:
            return (self._unknown(order, silence),)
        if found is None:
            return (OrderAbsent(order.world_id, order.order_id, self._wall()),)
        return self._told(order, found)

    def _told(self, order: Order, found: VenueOrder) -> Sequence[VenueAnswer]:
        """Accepted, then all fills, then the end; the end waits until all that was filled is told of."""
        if found.status is OrderStatus.REJECTED and not (found.filled or found.executions):
            detail = f"{self._venue.name} has rejected it"
            return (self._ended(order, OrderStatus.REJECTED, VenueRefused.code, detail, found.at_ms),)
        out: list[VenueAnswer] = [
            OrderAccepted(order.world_id, order.order_id, found.venue_order_id, found.at_ms)
        ]
        out += (self._fill(order, at, one) for at, one in enumerate(found.executions, 1))
        is_told = total(one.quantity for one in found.executions) == found.filled
        if found.status not in _OPEN and found.status is not OrderStatus.FILLED and is_told:
            detail = f"{self._venue.name} says that it is {found.status.value}"
            # What was partly filled can't be rejected any more: FIX knows no such end.
            is_rejected = found.status is OrderStatus.REJECTED
            status = OrderStatus.CANCELED if is_rejected else found.status
            out.append(
                self._ended(order, status, VenueRefused.code if is_rejected else "", detail, found.at_ms)
            )
        return tuple(out)

    def _fill(self, order: Order, seq: int, one: Execution) -> Fill:
        base, _, quote = order.symbol.partition("-")
        fee, currency = one.fee, one.fee_currency
        if currency == base and quote:  # worth what the execution has just paid for it
            fee, currency = product(fee, one.price), quote
        return Fill(
            world_id=order.world_id,
            strategy_id=order.strategy_id,
            order_id=order.order_id,
            seq=seq,
            symbol=order.symbol,
            side=order.side,
            quantity=one.quantity,
            price=one.price,
            fee=fee,
            fee_currency=currency,
            slippage=_against(order, one),
            fill_time_ms=one.at_ms,
        )

    def _ended(
        self, order: Order, status: OrderStatus, code: str, detail: str, at_ms: int | None = None
    ) -> OrderEnded:
        return OrderEnded(
            order.world_id, order.order_id, status, code, detail, self._wall() if at_ms is None else at_ms
        )

    def _unknown(self, order: Order, error: VenueRefused | VenueUnanswered) -> OrderUnknown:
        return OrderUnknown(order.world_id, order.order_id, error.code, error.what, self._wall())


def _against(order: Order, one: Execution) -> Decimal:
    """Price units that the execution is worse than the price that the decision saw; below 0 where it is better."""
    dearer = total((one.price, negated(order.reference_price)))
    return dearer if order.side is Side.BUY else negated(dearer)
