"""What the fake exchange decides: which orders it takes, how they are filled, and which it cancels. Without clock, without network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.money import ZERO, minus, negated, plus, product, round_places, total, whole_steps
from qmtl.testing.exchange.ledger import Entry
from qmtl.testing.exchange.values import GivenFill, Listing, Rules, TakenOrder


class Refusal(Exception):
    """What the exchange answers where it does not do what was asked."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


COMMISSION_PLACES: Final = 8
NO_BALANCE: Final = (400, -2010, "Account has insufficient balance for requested action.")


@dataclass
class Book:
    """The state, and the decisions: each gives the entry for the ledger, which changes nothing until it is `applied`.

    Attributes:
        deposits: assets of which the account has no more than this and what it trades; of others it has as much as it wants.
    """

    listings: dict[str, Listing]
    deposits: Mapping[str, Decimal] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    orders: dict[int, TakenOrder] = field(default_factory=dict)
    fills: list[GivenFill] = field(default_factory=list)
    changes: dict[str, Decimal] = field(default_factory=dict)
    by_client_id: dict[str, int] = field(default_factory=dict)

    def applied(self, entry: Entry) -> None:
        self.orders[entry.order.order_id] = entry.order
        self.by_client_id[entry.order.client_order_id] = max(
            entry.order.order_id, self.by_client_id.get(entry.order.client_order_id, 0)
        )
        for fill in entry.fills:
            self.fills.append(fill)
            for asset, change in _changes(fill):
                self.changes[asset] = plus(self.changes.get(asset, ZERO), change)

    def listing(self, market: str) -> Listing:
        """Of a symbol as the exchange writes it, `BTCUSDT`.

        Raises:
            Refusal
        """
        for one in self.listings.values():
            if one.id == market:
                return one
        raise Refusal(400, -1121, "Invalid symbol.")

    def found(self, market: str, client_id: str | None, order_id: int | None) -> TakenOrder | None:
        """An order by either of its ids; of several with one client id the latest."""
        number = order_id if order_id is not None else self.by_client_id.get(client_id or "")
        order = self.orders.get(number or 0)
        return order if order is not None and order.symbol == self.listing(market).symbol else None

    def balance(self, asset: str) -> Decimal:
        return plus(self.deposits.get(asset, Decimal(1_000_000_000)), self.changes.get(asset, ZERO))

    # ---- decisions -----------------------------------------------------------------------------------------

    def take(self, listing: Listing, side: str, quantity: Decimal, client_id: str, now_ms: int) -> Entry:
        """A new market order.

        Raises:
            Refusal
        """
        if not self.rules.may_trade:
            raise Refusal(400, -2010, "This account may not place or cancel orders.")
        number = self.by_client_id.get(client_id)
        # Unique among the open ones only, as Binance documents it: what was sent twice is executed twice once the first has ended.
        if number is not None and self.orders[number].is_open:
            raise Refusal(400, -2010, "Duplicate order sent.")
        if (
            not listing.least <= quantity <= listing.most
            or product(whole_steps(quantity, listing.step), listing.step) != quantity
        ):
            raise Refusal(400, -1013, "Filter failure: LOT_SIZE")
        order = TakenOrder(
            len(self.orders) + 1,
            client_id or f"fake{len(self.orders) + 1}",
            listing.symbol,
            side,
            quantity,
            ZERO,
            ZERO,
            "NEW",
            now_ms,
            now_ms,
        )
        pays, needed = (
            (listing.quote, product(quantity, listing.price)) if side == "BUY" else (listing.base, quantity)
        )
        if pays in self.deposits and self.balance(pays) < needed:
            raise Refusal(*NO_BALANCE)
        if not self.rules.at_once:
            return Entry(order, ())
        return self._filled(order, _parts(quantity, listing.step, self.rules.pieces), listing.price, now_ms)

    def fill(self, order: TakenOrder, quantity: Decimal | None, price: Decimal | None, now_ms: int) -> Entry:
        """Fill an order that works, by all that is left or by less.

        Raises:
            Refusal
        """
        left = minus(order.quantity, order.filled)
        amount = left if quantity is None else quantity
        if not order.is_open or not ZERO < amount <= left:
            raise Refusal(400, -1, f"of the order {left} is left, and it is {order.status}")
        return self._filled(
            order, [amount], self.listings[order.symbol].price if price is None else price, now_ms
        )

    def end(self, order: TakenOrder, status: str, now_ms: int) -> Entry:
        """The exchange itself ends an order that works: `EXPIRED`, `CANCELED` or `REJECTED`.

        Raises:
            Refusal
        """
        if not order.is_open or status not in ("EXPIRED", "CANCELED", "REJECTED"):
            raise Refusal(400, -1, f"the order is {order.status}, and {status[:20]} is asked for")
        return Entry(replace(order, status=status, changed_ms=now_ms), ())

    def cancel(self, order: TakenOrder | None, now_ms: int) -> Entry:
        """Raises: Refusal."""
        if order is None or not order.is_open:
            raise Refusal(400, -2011, "Unknown order sent.")
        return Entry(replace(order, status="CANCELED", changed_ms=now_ms), ())

    def _filled(self, order: TakenOrder, parts: Sequence[Decimal], price: Decimal, now_ms: int) -> Entry:
        fills = tuple(
            GivenFill(
                len(self.fills) + at,
                order.order_id,
                order.client_order_id,
                order.symbol,
                order.side,
                part,
                price,
                *self._commission(order.symbol, part, price),
                now_ms,
            )
            for at, part in enumerate(parts, 1)
        )
        filled = total((order.filled, *parts))
        return Entry(
            replace(
                order,
                filled=filled,
                spent=total((order.spent, *(product(one.quantity, one.price) for one in fills))),
                status="FILLED" if filled == order.quantity else "PARTIALLY_FILLED",
                changed_ms=now_ms,
            ),
            fills,
        )

    def _commission(self, symbol: str, quantity: Decimal, price: Decimal) -> tuple[Decimal, str]:
        listing, rules = self.listings[symbol], self.rules
        if rules.commission_in == "base":
            return _share(quantity, rules.commission), listing.base
        asset = listing.quote if rules.commission_in == "quote" else rules.commission_in
        return _share(product(quantity, price), rules.commission), asset


def _parts(quantity: Decimal, step: Decimal, pieces: int) -> list[Decimal]:
    """A quantity in so many parts of whole steps, or in fewer; the last one is the greatest."""
    steps = whole_steps(quantity, step)
    count = int(min(Decimal(max(pieces, 1)), steps))
    part = product(whole_steps(quantity, product(step, Decimal(count))), step)
    return [*[part] * (count - 1), minus(quantity, product(part, Decimal(count - 1)))]


def _share(value: Decimal, rate: Decimal) -> Decimal:
    """A commission, to eight digits after the point as exchanges give it."""
    return round_places(product(round_places(value, 2 * COMMISSION_PLACES), rate), COMMISSION_PLACES)


def _changes(fill: GivenFill) -> Sequence[tuple[str, Decimal]]:
    base, _, quote = fill.symbol.partition("-")
    paid = product(fill.quantity, fill.price)
    is_buy = fill.side == "BUY"
    return (
        (base, fill.quantity if is_buy else negated(fill.quantity)),
        (quote, negated(paid) if is_buy else paid),
        (fill.commission_asset, negated(fill.commission)),
    )
