"""What a report that is no fill makes of an order."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.common.money import ZERO, product, quotient, text
from qmtl.foundation.contracts.broker import (
    OrderAccepted,
    OrderEnded,
    OrderMarked,
    OrderReplaced,
    OrderRestated,
    OrderTriggered,
    RequestPending,
    RequestRejected,
    StateReport,
)
from qmtl.foundation.contracts.trade import Order, OrderRequest, OrderStatus, OrderTerms, RequestKind
from qmtl.runtime.orders.aggregate import changed, is_whole, moved, requests_of, said_of
from qmtl.runtime.orders.fills import PRICE_PLACES
from qmtl.runtime.orders.states import BIDDING, ENDS, HELD, NEXT, UNACCEPTED, UNFILLED_ENDS

_BY_DAY = frozenset({OrderStatus.DONE_FOR_DAY, OrderStatus.CALCULATED})


def told(order: Order, report: StateReport) -> Order:
    """The order after a report that is no fill; one that says nothing new, or comes to an order that has ended, changes nothing.

    Raises:
        InvariantBroken: it says what can't be, as an end that the state does not allow.
    """
    match report:
        case OrderAccepted():
            return _accepted(order, report.at_ms)
        case OrderEnded():
            return _ended(order, report)
        case RequestPending():
            return _pending(order, report)
        case RequestRejected():
            found = _request(order, report.client_order_id)
            if found is None:
                return order  # answered before, or another's: as a new order under a known id
            left = tuple(one for one in requests_of(order) if one is not found)
            return changed(order, report.at_ms, requests=left)
        case OrderReplaced():
            return _replaced(order, report)
        case OrderRestated():
            return _restated(order, report)
        case OrderMarked():
            return _marked(order, report)
        case OrderTriggered():
            terms = order.terms or OrderTerms()
            if terms.is_triggered or order.status in ENDS:
                return order
            return changed(order, report.at_ms, terms=replace(terms, is_triggered=True))
        case _:
            assert_never(report)


def _accepted(order: Order, at_ms: int) -> Order:
    if order.life is None:
        if order.status is OrderStatus.PENDING_NEW:
            return moved(
                order, OrderStatus.NEW, at_ms, order.cum_quantity, order.average_price, order.last_seq
            )
        if order.status is OrderStatus.NEW or order.status is OrderStatus.PARTIALLY_FILLED:
            return order
    said = said_of(order)
    # An answer ends what was unknown, too.
    left = tuple(one for one in said if one not in UNACCEPTED and one is not OrderStatus.SUSPENDED)
    return order if left == said or order.status in ENDS else changed(order, at_ms, said=left)


def _ended(order: Order, report: OrderEnded) -> Order:
    if order.status in ENDS or is_whole(order):
        return order
    if report.status not in UNFILLED_ENDS:
        raise InvariantBroken(
            f"order {order.order_id} was said to have ended as {report.status.value}; only its fills can say that."
        )
    is_refused = report.status is OrderStatus.REJECTED and order.cum_quantity
    if is_refused or report.status not in NEXT[order.status]:
        filled = f", {text(order.cum_quantity)} filled," if order.cum_quantity else ""
        raise InvariantBroken(
            f"order {order.order_id} was {order.status.value}{filled} and can't become {report.status.value}."
        )
    return changed(order, report.at_ms, said=(report.status,))


def _pending(order: Order, report: RequestPending) -> Order:
    found = _request(order, report.client_order_id)
    if found is None or found.acknowledged:
        return order
    taken = tuple(replace(one, acknowledged=True) if one is found else one for one in requests_of(order))
    return changed(order, report.at_ms, requests=taken)


def _replaced(order: Order, report: OrderReplaced) -> Order:
    found = _request(order, report.client_order_id)
    if found is None:
        return order
    if found.kind is not RequestKind.REPLACE:
        raise InvariantBroken(
            f"request {found.client_order_id} of order {order.order_id} was to cancel, and was answered by a replacement."
        )
    asked = found.quantity if report.quantity is None else report.quantity
    # What was filled meanwhile can't be taken back: the order becomes as small as it can be.
    size = max(order.quantity if asked is None else asked, order.cum_quantity)
    return changed(
        order,
        report.at_ms,
        requests=tuple(one for one in requests_of(order) if one is not found),
        client_order_id=found.client_order_id,
        quantity=size,
        terms=found.terms,
    )


def _restated(order: Order, report: OrderRestated) -> Order:
    if not UNFILLED_ENDS.isdisjoint(said_of(order)):
        return order
    filled = order.cum_quantity if report.cum_quantity is None else report.cum_quantity
    if (
        report.quantity <= 0
        or filled < 0
        or filled > report.quantity
        or bool(filled) != bool(order.cum_quantity)
    ):
        raise InvariantBroken(
            f"order {order.order_id} was restated to {text(filled)} filled of {text(report.quantity)};"
            f" it was {text(order.cum_quantity)} of {text(order.quantity)}."
        )
    price = order.average_price
    if filled != order.cum_quantity:
        price = quotient(product(price, order.cum_quantity), filled, PRICE_PLACES) if filled else ZERO
    said = tuple(one for one in said_of(order) if one not in _BY_DAY)
    after = changed(
        order, report.at_ms, said=said, quantity=report.quantity, cum_quantity=filled, average_price=price
    )
    return order if replace(after, updated_at_ms=order.updated_at_ms) == order else after


def _marked(order: Order, report: OrderMarked) -> Order:
    if report.status not in HELD and report.status is not BIDDING:
        raise InvariantBroken(
            f"order {order.order_id} was marked as {report.status.value}; that follows from its requests and fills."
        )
    said = said_of(order)
    if (report.status in said) is report.is_on or not UNFILLED_ENDS.isdisjoint(said):
        return order
    if not report.is_on:
        return changed(order, report.at_ms, said=tuple(one for one in said if one is not report.status))
    if is_whole(order) and report.status is not OrderStatus.CALCULATED:
        return order
    if report.status is BIDDING:
        if OrderStatus.PENDING_NEW not in said:
            return order
        return changed(order, report.at_ms, said=(*(one for one in said if one not in UNACCEPTED), BIDDING))
    return changed(order, report.at_ms, said=(*said, report.status))


def _request(order: Order, client_order_id: str) -> OrderRequest | None:
    return next((one for one in requests_of(order) if one.client_order_id == client_order_id), None)
