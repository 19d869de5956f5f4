"""The demo strategy said again as one loop over two files: no engine, no service, nothing of QMTL imported.

Rules: the mean of 30 closes against the mean of 120, a target of 40 % of the equity long or short at each turn of the sign,
sized on the portfolio as the minute before left it, filled at the next open of the symbol with 0.05 % slippage to the next
cent against the taker, 0.1 % fee, average cost.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, localcontext
from pathlib import Path
from statistics import fmean

MINUTE_MS = 60_000
FAST, SLOW = 30, 120
LONG, SHORT = Decimal("0.4"), Decimal("-0.4")
CASH, FEE, SLIPPAGE = Decimal(100_000), Decimal("0.001"), Decimal("0.0005")
CENT, LOT = Decimal("0.01"), Decimal("0.00000001")

Row = dict[str, object]


@dataclass
class Holding:
    quantity: Decimal = Decimal(0)
    cost: Decimal = Decimal(0)
    realised: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    mark: Decimal = Decimal(0)
    fills: int = 0

    def trade(self, moved: Decimal, price: Decimal, fee: Decimal) -> None:
        same_way = self.quantity * moved >= 0
        closed = Decimal(0) if same_way else min(abs(moved), abs(self.quantity))
        if closed:
            freed = self.cost * closed / abs(self.quantity)
            way = 1 if self.quantity > 0 else -1
            self.realised += way * closed * price - freed
            self.cost -= freed
        opened = abs(moved) - closed
        self.cost += opened * price * (1 if moved > 0 else -1)
        self.quantity += moved
        self.fees += fee
        self.fills += 1


@dataclass
class Books:
    """What the loop ends with."""

    orders: list[Row] = field(default_factory=list)
    fills: list[Row] = field(default_factory=list)
    holdings: dict[str, Holding] = field(default_factory=dict)
    cash: Decimal = CASH
    turns: int = 0


def restate(bars: Mapping[str, Path]) -> Books:
    """Run the loop over files of bars by symbol."""
    with localcontext(Context(prec=80)):
        return _loop(bars)


def _loop(bars: Mapping[str, Path]) -> Books:
    data = {symbol: _rows(path) for symbol, path in bars.items()}
    minutes = [at for rows in data.values() for at in rows]
    books = Books()
    closes: dict[str, list[float]] = {symbol: [] for symbol in data}
    sides = dict.fromkeys(data, 0)
    waiting: dict[str, Row] = {}
    for opened in range(min(minutes), max(minutes) + 1, MINUTE_MS):
        now = {symbol: rows[opened] for symbol, rows in data.items() if opened in rows}
        equity_before = books.cash + sum(one.quantity * one.mark for one in books.holdings.values())
        held_before = {symbol: one.quantity for symbol, one in books.holdings.items()}
        waiting_before = dict(waiting)
        for symbol in sorted(now):
            if symbol in waiting:
                _fill(books, waiting.pop(symbol), opened, now[symbol][0])
        for symbol, (_, close) in now.items():
            if symbol in books.holdings:
                books.holdings[symbol].mark = close
        for symbol in sorted(now):
            close = now[symbol][1]
            closes[symbol].append(float(close))
            if len(closes[symbol]) < SLOW:
                continue
            fast, slow = fmean(closes[symbol][-FAST:]), fmean(closes[symbol][-SLOW:])
            side = (fast > slow) - (fast < slow)
            if not side or side == sides[symbol]:
                continue
            sides[symbol] = side
            books.turns += 1
            worth = (LONG if side > 0 else SHORT) * equity_before
            desired = (worth / (close * LOT)).to_integral_value(ROUND_DOWN) * LOT
            held = held_before.get(symbol, Decimal(0))
            if symbol in waiting_before:
                held += _signed(waiting_before[symbol])
            if desired != held:
                waiting[symbol] = _place(books, symbol, desired - held, opened + MINUTE_MS)
    return books


def _rows(path: Path) -> dict[int, tuple[Decimal, Decimal]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    rows = csv.DictReader(io.StringIO(text))
    return {int(row["open_time_ms"]): (Decimal(row["open"]), Decimal(row["close"])) for row in rows}


def _place(books: Books, symbol: str, delta: Decimal, at_ms: int) -> Row:
    order: Row = {
        "created": moment(at_ms),
        "symbol": symbol,
        "side": "BUY" if delta > 0 else "SELL",
        "quantity": abs(delta),
        "status": "new",
        "filled": Decimal(0),
        "average_price": Decimal(0),
    }
    books.orders.append(order)
    return order


def _signed(order: Row) -> Decimal:
    quantity = order["quantity"]
    assert isinstance(quantity, Decimal)
    return quantity if order["side"] == "BUY" else -quantity


def _fill(books: Books, order: Row, at_ms: int, open_price: Decimal) -> None:
    moved = _signed(order)
    buys = moved > 0
    wished = open_price * (1 + SLIPPAGE if buys else 1 - SLIPPAGE)
    price = (wished / CENT).to_integral_value(ROUND_CEILING if buys else ROUND_FLOOR) * CENT
    fee = abs(moved) * price * FEE
    symbol = str(order["symbol"])
    books.holdings.setdefault(symbol, Holding()).trade(moved, price, fee)
    books.cash -= moved * price + fee
    order.update(status="filled", filled=abs(moved), average_price=price)
    books.fills.append(
        {
            "time": moment(at_ms),
            "seq": Decimal(1),
            "symbol": symbol,
            "side": order["side"],
            "quantity": abs(moved),
            "price": price,
            "fee": fee,
            "slippage": abs(price - open_price),
            "order": (order["created"], symbol),
        }
    )


def average_cost(one: Holding) -> Decimal:
    """Cost by quantity as the table shows it, to 12 digits after the point."""
    if not one.quantity:
        return Decimal(0)
    with localcontext(Context(prec=80)):
        return (one.cost / one.quantity).quantize(Decimal("1e-12"), ROUND_HALF_EVEN)


def moment(at_ms: int) -> str:
    """UTC, as the tables show it."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
