"""What an order of each type has to say."""

from __future__ import annotations

from decimal import Decimal

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import Order, OrderTerms, OrderType, TimeInForce

LIMITED = frozenset(
    {
        OrderType.LIMIT,
        OrderType.STOP_LIMIT,
        OrderType.LIMIT_IF_TOUCHED,
        OrderType.LIMIT_ON_OPEN,
        OrderType.LIMIT_ON_CLOSE,
    }
)
TRAILING = frozenset({OrderType.TRAILING_STOP, OrderType.TRAILING_STOP_LIMIT})
_STOPPED = frozenset(
    {OrderType.STOP, OrderType.STOP_LIMIT, OrderType.MARKET_IF_TOUCHED, OrderType.LIMIT_IF_TOUCHED}
)
_POST_ONLY = frozenset({OrderType.LIMIT})


def checked_terms(order: Order) -> OrderTerms:
    """The terms of an order, empty ones where it has none.

    Raises:
        InvalidValue: what its type or its time in force needs is not there, or a price, a distance is not positive and finite,
            or the rate of a trailing stop is not below 1, or post-only of another type than limit.
    """
    terms = order.terms or OrderTerms()
    kind = order.order_type
    if kind in LIMITED:
        _needed(order, "limit_price", terms.limit_price)
    if kind in _STOPPED:
        _needed(order, "stop_price", terms.stop_price)
    if kind in TRAILING:
        if (terms.trail_amount is None) == (terms.trail_rate is None):
            raise InvalidValue(
                f"order {order.order_id} had trail_amount {terms.trail_amount} and trail_rate {terms.trail_rate}; a trailing stop"
                " has one of them.",
                "Send one of them.",
            )
        if kind is OrderType.TRAILING_STOP_LIMIT and not terms.is_triggered and terms.limit_offset is None:
            _needed(order, "limit_offset", None)
    for name in ("limit_price", "stop_price", "trail_amount", "trail_rate"):
        value: Decimal | None = getattr(terms, name)
        if value is not None:
            _positive(order, name, value)
    if terms.trail_rate is not None and terms.trail_rate >= 1:
        raise InvalidValue(f"trail_rate was {terms.trail_rate}; it must be below 1.", "Send 0.05 for 5 %.")
    if terms.limit_offset is not None and not (terms.limit_offset.is_finite() and terms.limit_offset >= 0):
        raise InvalidValue(
            f"limit_offset was {terms.limit_offset}; it must not be negative.", "Send 0 or more."
        )
    if order.time_in_force is TimeInForce.GTD and terms.expire_at_ms is None:
        raise InvalidValue(f"order {order.order_id} was GTD without expire_at_ms.", "Say when it ends.")
    if terms.post_only and kind not in _POST_ONLY:
        raise InvalidValue(
            f"order {order.order_id} was post-only and of type {kind.value}; only a limit order rests.",
            "Send a limit order, or leave post_only out.",
        )
    return terms


def _needed(order: Order, name: str, value: Decimal | None) -> None:
    if value is None:
        raise InvalidValue(
            f"order {order.order_id} of type {order.order_type.value} had no {name}; it needs one.",
            f"Send {name}.",
        )


def _positive(order: Order, name: str, value: Decimal) -> None:
    if not value.is_finite() or value <= 0:
        raise InvalidValue(
            f"{name} of order {order.order_id} was {value}; it must be finite and above 0.",
            "Send a positive one.",
        )
