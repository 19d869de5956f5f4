"""The states of an order: which of several is told, and which may follow which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from qmtl.foundation.contracts.trade import OrderRequest, OrderStatus, RequestKind

PENDING_NEW, NEW, PARTIALLY_FILLED, FILLED = (
    OrderStatus.PENDING_NEW,
    OrderStatus.NEW,
    OrderStatus.PARTIALLY_FILLED,
    OrderStatus.FILLED,
)
PENDING_CANCEL, PENDING_REPLACE = OrderStatus.PENDING_CANCEL, OrderStatus.PENDING_REPLACE
BIDDING = OrderStatus.ACCEPTED_FOR_BIDDING

PRECEDENCE: Final[Mapping[OrderStatus, int]] = {
    PENDING_CANCEL: 11,
    PENDING_REPLACE: 10,
    OrderStatus.DONE_FOR_DAY: 9,
    OrderStatus.CALCULATED: 8,
    FILLED: 7,
    OrderStatus.STOPPED: 6,
    OrderStatus.SUSPENDED: 5,
    OrderStatus.CANCELED: 4,
    OrderStatus.EXPIRED: 4,
    PARTIALLY_FILLED: 3,
    NEW: 2,
    OrderStatus.REJECTED: 2,
    PENDING_NEW: 2,
    BIDDING: 1,
}
"""An order is in several states at once; the one with the greatest number is told: FIX 5.0 SP2 Volume 4, Execution Report."""

UNFILLED_ENDS: Final = frozenset({OrderStatus.CANCELED, OrderStatus.REJECTED, OrderStatus.EXPIRED})
"""Ends that a report says."""

ENDS: Final = UNFILLED_ENDS | {FILLED}
"""Nothing more is awaited of the order; a late fill, a bust or a greater quantity may still come."""

UNACCEPTED: Final = frozenset({PENDING_NEW, BIDDING})
"""The venue has not said that it works the order."""

HELD: Final = frozenset(
    {
        OrderStatus.DONE_FOR_DAY,
        OrderStatus.CALCULATED,
        OrderStatus.STOPPED,
        OrderStatus.SUSPENDED,
    }
)
"""States beside filling, which begin and end by a report of their own."""

SAID: Final = UNFILLED_ENDS | UNACCEPTED | HELD
"""States that are facts of their own; the others follow from requests and quantities."""

_ASKED: Final = frozenset({PENDING_CANCEL, PENDING_REPLACE})
_WORKED: Final = frozenset({NEW, PARTIALLY_FILLED})
_BESIDE: Final = ENDS | _ASKED | HELD | UNACCEPTED | _WORKED

NEXT: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    PENDING_NEW: _BESIDE - {PENDING_NEW},
    BIDDING: ENDS | _ASKED | HELD | _WORKED,
    NEW: (ENDS | _ASKED | HELD) | {PARTIALLY_FILLED},
    PARTIALLY_FILLED: (ENDS | _ASKED | HELD | _WORKED) - {OrderStatus.REJECTED},
    PENDING_CANCEL: _BESIDE,
    PENDING_REPLACE: _BESIDE,
    OrderStatus.STOPPED: _BESIDE,
    OrderStatus.SUSPENDED: _BESIDE,
    OrderStatus.DONE_FOR_DAY: _BESIDE,
    OrderStatus.CALCULATED: _BESIDE,
    FILLED: UNFILLED_ENDS | _WORKED | {PENDING_REPLACE, OrderStatus.CALCULATED},
    OrderStatus.CANCELED: frozenset({FILLED}),
    OrderStatus.REJECTED: frozenset({FILLED}),
    OrderStatus.EXPIRED: frozenset({FILLED}),
}
"""Which state may be told after which: FIX 5.0 SP2 Volume 4, order state change matrices, and what follows from precedence.

A fill may overtake the acknowledgement, hence the row of `PENDING_NEW`. A partly filled order is not rejected any more. What was
filled is open again when a fill is busted or a greater quantity is accepted; an order that had ended before its late fill was busted has that end again.
"""


def told_of(
    quantity: Decimal, cum_quantity: Decimal, said: Iterable[OrderStatus], requests: Sequence[OrderRequest]
) -> OrderStatus:
    """The state that is told of an order.

    Args:
        quantity, cum_quantity: what was ordered, and what is filled of it.
        said: of `SAID`, those that it is in.
        requests: those without an answer; one counts once it was acknowledged.
    """
    states = list(said)
    if cum_quantity and cum_quantity == quantity:
        states.append(FILLED)
    elif cum_quantity and UNFILLED_ENDS.isdisjoint(states):
        states.append(PARTIALLY_FILLED)
    kinds = [one.kind for one in requests if one.acknowledged]
    if RequestKind.CANCEL in kinds:
        states.append(PENDING_CANCEL)
    elif kinds:
        states.append(PENDING_REPLACE)
    return max(states, key=PRECEDENCE.__getitem__, default=NEW)
