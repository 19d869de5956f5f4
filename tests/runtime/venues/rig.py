"""What the tests of the venue share: orders, and the exchange in its quiet state."""

from __future__ import annotations

from decimal import Decimal
from itertools import count

from qmtl.foundation.contracts.trade import BrokerMode, Order, OrderStatus, OrderType, Side, TimeInForce
from qmtl.testing.exchange import RunningExchange

SYMBOL = "BTC-USDT"
MARKET_ORDER = "POST /api/v3/order"
ONE_ORDER = "GET /api/v3/order"
CANCEL = "DELETE /api/v3/order"
TRADES = "GET /api/v3/myTrades"

_ids = count(1)


def an_order(
    quantity: str | Decimal = "0.5", side: Side = Side.BUY, *, order_id: str = "", reduce_only: bool = False
) -> Order:
    """A new order with an id that no other has."""
    return Order(
        world_id="world",
        strategy_id="strategy",
        order_id=order_id or f"{next(_ids):032x}",
        symbol=SYMBOL,
        side=side,
        order_type=OrderType.MARKET,
        time_in_force=TimeInForce.GTC,
        quantity=Decimal(quantity),
        status=OrderStatus.PENDING_NEW,
        cum_quantity=Decimal(0),
        average_price=Decimal(0),
        last_seq=0,
        reduce_only=reduce_only,
        reference_price=Decimal(100),
        created_at_ms=0,
        updated_at_ms=0,
        portfolio_bucket_ms=0,
        mode=BrokerMode.LIVE,
    )


def quiet(exchange: RunningExchange) -> None:
    """As it is when it was started, but for its orders."""
    exchange.no_more_faults()
    exchange.fill_at_once()
    exchange.commission(Decimal("0.001"))
    exchange.clock(0)
    exchange.let_trade(True)
    exchange.market(SYMBOL, Decimal(100), Decimal("1e-8"), Decimal("9e9"), Decimal("1e-8"))


def sent(exchange: RunningExchange, endpoint: str = MARKET_ORDER) -> int:
    """How many requests of an endpoint have reached it."""
    return exchange.counts().requests.get(endpoint, 0)


def has(exchange: RunningExchange, order: Order) -> bool:
    return any(one.client_order_id == order.order_id for one in exchange.orders())
