"""What the fake exchange trades and keeps: markets, orders, executions, and the lines of its ledger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Final

from qmtl.foundation.common.errors import UsageError
from qmtl.foundation.common.money import parse_decimal, text

OPEN: Final = ("NEW", "PARTIALLY_FILLED")


@dataclass(frozen=True, slots=True)
class Listing:
    """A market.

    Attributes:
        symbol: the project's, `BTC-USDT`.
        least, most, step: of a quantity, base currency.
    """

    symbol: str
    price: Decimal
    least: Decimal = Decimal("0.00000001")
    most: Decimal = Decimal("9000000000")
    step: Decimal = Decimal("0.00000001")

    @property
    def base(self) -> str:
        return self.symbol.partition("-")[0]

    @property
    def quote(self) -> str:
        return self.symbol.partition("-")[2]

    @property
    def id(self) -> str:
        """As the exchange writes it, `BTCUSDT`."""
        return self.base + self.quote


@dataclass(frozen=True, slots=True)
class TakenOrder:
    """An order that the exchange has taken.

    Attributes:
        order_id: the exchange's, from 1.
        client_order_id: the client's; after an order has ended another may have it.
        status: `NEW`, `PARTIALLY_FILLED`, `FILLED` or `CANCELED`.
        spent: sum of quantity times price of its executions.
        at_ms, changed_ms: when it was taken, and when it came into its state; the exchange's clock.
    """

    order_id: int
    client_order_id: str
    symbol: str
    side: str
    quantity: Decimal
    filled: Decimal
    spent: Decimal
    status: str
    at_ms: int
    changed_ms: int

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


@dataclass(frozen=True, slots=True)
class GivenFill:
    """An execution.

    Attributes:
        trade_id: from 1, over all markets.
    """

    trade_id: int
    order_id: int
    client_order_id: str
    symbol: str
    side: str
    quantity: Decimal
    price: Decimal
    commission: Decimal
    commission_asset: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How orders are executed from now on.

    Attributes:
        at_once: an order is filled when it is taken; else it works until it is told to be filled.
        pieces: executions that an order is filled in at once, at most: none is less than a step.
        commission: share of what is paid.
        commission_in: `quote`, `base`, or the name of an asset.
        skew_ms: what the exchange's clock is ahead of this machine's.
        may_trade: whether the account may.
    """

    at_once: bool = True
    pieces: int = 1
    commission: Decimal = Decimal("0.001")
    commission_in: str = "quote"
    skew_ms: int = 0
    may_trade: bool = True


def listed(words: str) -> Listing:
    """A market out of `BTC-USDT=100`, or `BTC-USDT=100,0.001,9000,0.001` with the least, the most and the step of quantities.

    Raises:
        UsageError: another form.
        InvalidValue: no number.
    """
    symbol, _, numbers = words.partition("=")
    base, _, quote = symbol.partition("-")
    given = numbers.split(",")
    if not (base.isalnum() and quote.isalnum() and symbol.isascii()) or len(given) not in (1, 4):
        raise UsageError(
            f"a price was {words[:60]!r}.", "Write it as BTC-USDT=100, or BTC-USDT=100,LEAST,MOST,STEP."
        )
    found = Listing(symbol, *(parse_decimal(one, "price") for one in given))
    if min(found.price, found.least, found.most, found.step) <= 0:
        raise UsageError(f"a price was {words[:60]!r}; all of its numbers are above 0.")
    return found


def with_price(listing: Listing, price: Decimal) -> Listing:
    return replace(listing, price=price)


def order_json(order: TakenOrder) -> dict[str, Any]:
    return {
        "order_id": order.order_id,
        "client_order_id": order.client_order_id,
        "symbol": order.symbol,
        "side": order.side,
        "quantity": text(order.quantity),
        "filled": text(order.filled),
        "spent": text(order.spent),
        "status": order.status,
        "at_ms": order.at_ms,
        "changed_ms": order.changed_ms,
    }


def order_of(row: Mapping[str, Any]) -> TakenOrder:
    return TakenOrder(
        row["order_id"],
        row["client_order_id"],
        row["symbol"],
        row["side"],
        Decimal(row["quantity"]),
        Decimal(row["filled"]),
        Decimal(row["spent"]),
        row["status"],
        row["at_ms"],
        row["changed_ms"],
    )


def fill_json(fill: GivenFill) -> dict[str, Any]:
    return {
        "trade_id": fill.trade_id,
        "order_id": fill.order_id,
        "client_order_id": fill.client_order_id,
        "symbol": fill.symbol,
        "side": fill.side,
        "quantity": text(fill.quantity),
        "price": text(fill.price),
        "commission": text(fill.commission),
        "commission_asset": fill.commission_asset,
        "at_ms": fill.at_ms,
    }


def fill_of(row: Mapping[str, Any]) -> GivenFill:
    return GivenFill(
        row["trade_id"],
        row["order_id"],
        row["client_order_id"],
        row["symbol"],
        row["side"],
        Decimal(row["quantity"]),
        Decimal(row["price"]),
        Decimal(row["commission"]),
        row["commission_asset"],
        row["at_ms"],
    )
