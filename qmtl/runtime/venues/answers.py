"""What ccxt has read out of a venue's answers, checked field by field: an order, and its executions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, is_factor, parse_decimal, plus
from qmtl.foundation.contracts.trade import Order, OrderStatus, Side
from qmtl.runtime.venues.port import Execution, VenueOrder

MAX_ID: Final = 64
MAX_MS: Final = 32_503_680_000_000
"""The year 3000: a time past it is none."""

ORDER_FIELDS: Final = ("symbol", "orderId", "clientOrderId", "origQty", "executedQty", "status", "side")
TRADE_FIELDS: Final = (
    "symbol",
    "id",
    "orderId",
    "price",
    "qty",
    "commission",
    "commissionAsset",
    "time",
    "isBuyer",
)
"""What Binance's own answer has to hold: ccxt puts 0 where it finds no executed quantity."""

_STATUS: Final[Mapping[str, OrderStatus]] = {
    "open": OrderStatus.NEW,
    "canceling": OrderStatus.NEW,
    "closed": OrderStatus.FILLED,
    "canceled": OrderStatus.CANCELED,
    "rejected": OrderStatus.REJECTED,
    "expired": OrderStatus.EXPIRED,
}


class WrongField(Exception):
    """A field of an answer that is missing, or says what it can't."""

    def __init__(self, field: str, found: object) -> None:
        # Of lists and objects the kind is enough: they may be deeper than Python can write them.
        told = f"{found!r:.80}" if isinstance(found, str | int | float | None) else type(found).__name__
        super().__init__(f"{field} was {told}")


@dataclass(frozen=True, slots=True)
class Trade:
    """An execution with what it has to be put in order by."""

    number: int
    execution: Execution


def order_of(found: object, order: Order, market_id: str) -> VenueOrder:
    """An order as ccxt gives it, without its executions.

    Args:
        market_id: the market as the exchange writes it. ccxt puts the market that was asked for in the place of one that it does not know.

    Raises:
        WrongField: it is not an answer about this order.
    """
    row = _row(found, ORDER_FIELDS, "order", market_id)
    _require(row, "clientOrderId", order.order_id)
    _require(row, "side", "buy" if order.side is Side.BUY else "sell")
    quantity, filled = _number(row, "amount"), _number(row, "filled")
    if quantity != order.quantity:
        raise WrongField("amount", row.get("amount"))
    if not ZERO <= filled <= quantity:
        raise WrongField("filled", row.get("filled"))
    status = _STATUS.get(str(row.get("status")))
    if status is None:
        raise WrongField("status", row.get("status"))
    if status is OrderStatus.NEW and filled:
        status = OrderStatus.PARTIALLY_FILLED
    if (status is OrderStatus.FILLED and filled != quantity) or (
        status is OrderStatus.REJECTED and filled != ZERO
    ):
        raise WrongField("filled", row.get("filled"))
    at = "lastUpdateTimestamp" if row.get("lastUpdateTimestamp") is not None else "timestamp"
    return VenueOrder(_id(row, "id"), status, filled, (), _ms(row, at))


def trade_of(found: object, order: Order, market_id: str, venue_order_id: str) -> Trade:
    """A trade as ccxt gives it.

    Raises:
        WrongField: it is no execution of this order.
    """
    row = _row(found, TRADE_FIELDS, "trade", market_id)
    _require(row, "order", venue_order_id)
    _require(row, "side", "buy" if order.side is Side.BUY else "sell")
    quantity, price = _number(row, "amount"), _number(row, "price")
    if quantity <= ZERO:
        raise WrongField("amount", row.get("amount"))
    if price <= ZERO:
        raise WrongField("price", row.get("price"))
    fee = row.get("fee")
    if not isinstance(fee, Mapping):
        raise WrongField("fee", fee)
    trade_id = _id(row, "id")
    if not (trade_id.isascii() and trade_id.isdigit()):
        raise WrongField("id", trade_id)
    cost, currency = _number(fee, "cost"), _id(fee, "currency")
    return Trade(int(trade_id), Execution(trade_id, quantity, price, cost, currency, _ms(row, "timestamp")))


def first_that_add_up(trades: Sequence[Trade], filled: Decimal) -> tuple[Execution, ...]:
    """The first executions, by time and then number, that add up to what the order says is filled; none where none do.

    A list of trades may lag behind its order, and nothing says at which place one is still missing: told without it, the later ones would
    change their places once it is there. One that is ahead of its order has executions that came after the order was asked for.

    Raises:
        WrongField: one number stands for two executions.
    """
    by_number: dict[int, Trade] = {}
    for trade in trades:
        if by_number.setdefault(trade.number, trade) != trade:
            raise WrongField("id", trade.execution.trade_id)
    out: list[Execution] = []
    told = ZERO
    for trade in sorted(by_number.values(), key=lambda one: (one.execution.at_ms, one.number)):
        if told >= filled:
            break
        out.append(trade.execution)
        told = plus(told, trade.execution.quantity)
    return tuple(out) if told == filled else ()


def _row(found: object, fields: Sequence[str], what: str, market_id: str) -> Mapping[str, Any]:
    if not isinstance(found, Mapping):
        raise WrongField(what, found)
    raw = found.get("info")
    if not isinstance(raw, Mapping):
        raise WrongField(what, raw)
    for field in fields:
        if raw.get(field) is None:
            raise WrongField(field, None)
    _require(raw, "symbol", market_id)
    return found


def _require(row: Mapping[str, Any], field: str, wanted: str) -> None:
    if row.get(field) != wanted:
        raise WrongField(field, row.get(field))


def _number(row: Mapping[str, Any], field: str) -> Decimal:
    found = row.get(field)
    if not isinstance(found, str):
        raise WrongField(field, found)
    try:
        value = parse_decimal(found, field)
    except InvalidValue:
        raise WrongField(field, found) from None
    if not is_factor(value):
        raise WrongField(field, found)
    return value


def _id(row: Mapping[str, Any], field: str) -> str:
    found = row.get(field)
    if not isinstance(found, str) or not 0 < len(found) <= MAX_ID or not found.isprintable():
        raise WrongField(field, found)
    return found


def _ms(row: Mapping[str, Any], field: str) -> int:
    found = row.get(field)
    if isinstance(found, bool) or not isinstance(found, int) or not 0 < found < MAX_MS:
        raise WrongField(field, found)
    return found
