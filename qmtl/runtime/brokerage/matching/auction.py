"""Orders for the open and for the close of a session."""

from __future__ import annotations

from decimal import Decimal

from qmtl.foundation.contracts.trade import Order, OrderType
from qmtl.runtime.brokerage.matching.model import DAY_S, FillModel, Session
from qmtl.runtime.brokerage.matching.rules import Hit
from qmtl.runtime.brokerage.matching.view import View

AT_OPEN = frozenset({OrderType.MARKET_ON_OPEN, OrderType.LIMIT_ON_OPEN})
AT_CLOSE = frozenset({OrderType.MARKET_ON_CLOSE, OrderType.LIMIT_ON_CLOSE})
AUCTIONED = AT_OPEN | AT_CLOSE


def auction_price(order: Order, view: View, model: FillModel, session: Session) -> Hit | None:
    """The price of the auction that an order is for, as a buyer sees it; None where the data is not of it.

    At the open: the open of the first trade bar of the session, or of its daily bar; where no bar says it, what is traded or
    quoted `opening_wait_ms` after the open. An order that comes when the session has begun is for the next one; on daily bars,
    whose open is the session's, one that comes exactly then is in time. At the close: the close of the data that ends with the
    session or holds its end, or the first after it.
    Source: Lean's `MarketOnOpenFill` and `MarketOnCloseFill` of `EquityFillModel` at commit 24863901.
    """
    if order.order_type in AT_OPEN:
        return _opening(order, view, model, session)
    if order.created_at_ms >= session.close_ms or view.end_ms < session.close_ms:
        return None
    return Hit(view.close, False, False)


def _opening(order: Order, view: View, model: FillModel, session: Session) -> Hit | None:
    is_daily = view.interval >= DAY_S
    late = order.created_at_ms - session.open_ms
    if late > 0 or (late == 0 and not is_daily):
        return None
    if view.interval == 0:
        is_open = view.start_ms >= session.open_ms + model.opening_wait_ms
    elif is_daily:
        is_open = view.end_ms > session.open_ms
    else:
        is_open = view.start_ms >= session.open_ms
    if not is_open or (view.interval and not view.is_trade):
        return None
    return Hit(view.open, False, True)


def is_within(hit: Hit, limit: Decimal | None) -> bool:
    """Whether the auction's price is no worse than the limit."""
    return limit is None or hit.price <= limit
