"""The ids of orders and of requests about them: functions of what is on the log."""

from __future__ import annotations

from blake3 import blake3

from qmtl.foundation.common.identity import client_order_id
from qmtl.foundation.contracts.trade import Order, OrderIntent, RequestKind, Side


def order_id_of(intent: OrderIntent, side: Side, session: int = 1) -> str:
    """The id of the order that an intent leads to: a function of the intent, the side and the order session alone, 32 hex digits."""
    return client_order_id(
        intent.world_id,
        intent.strategy_id,
        intent.symbol,
        side.value,
        intent.bucket_ms,
        intent.target_percent,
        intent.intent_index,
        session,
    )


def request_id_of(order: Order) -> str:
    """The id of the next request about an order: a function of the order's id and of how many were made before, 32 hex digits."""
    number = 1 if order.life is None else order.life.asked + 1
    return blake3(f"qmtl.order.request\0{order.order_id}\0{number}".encode()).hexdigest(length=16)


def accepted_id(order: Order) -> str:
    """FIX 41 of an answer: the id under which the venue works the order now."""
    return order.order_id if order.life is None else order.life.client_order_id or order.order_id


def origin_of(order: Order) -> str:
    """FIX 41 of a request: the last id of the chain that was not refused; replacements that wait are a part of it."""
    waiting = () if order.life is None else order.life.requests
    for one in reversed(waiting):
        if one.kind is RequestKind.REPLACE:
            return one.client_order_id
    return accepted_id(order)
