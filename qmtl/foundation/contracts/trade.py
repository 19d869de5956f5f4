"""Intents, orders, fills, rejections and the portfolio."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias

from qmtl.foundation.common.pretrade import RejectionReason


class Side(Enum):
    """FIX tag 54."""

    BUY = "BUY"
    SELL = "SELL"


class OrderType(Enum):
    """FIX tag 40, spelled out."""

    MARKET = "market"
    LIMIT = "limit"
    STOP = "stop"
    STOP_LIMIT = "stop_limit"
    TRAILING_STOP = "trailing_stop"
    TRAILING_STOP_LIMIT = "trailing_stop_limit"
    MARKET_IF_TOUCHED = "market_if_touched"
    LIMIT_IF_TOUCHED = "limit_if_touched"
    MARKET_ON_OPEN = "market_on_open"
    MARKET_ON_CLOSE = "market_on_close"
    LIMIT_ON_OPEN = "limit_on_open"
    LIMIT_ON_CLOSE = "limit_on_close"


class TimeInForce(Enum):
    """FIX tag 59, spelled out."""

    GTC = "GTC"
    DAY = "DAY"
    GTD = "GTD"
    IOC = "IOC"
    FOK = "FOK"


class OrderStatus(Enum):
    """FIX tag 39, spelled out."""

    PENDING_NEW = "pending_new"
    NEW = "new"
    PARTIALLY_FILLED = "partially_filled"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"
    EXPIRED = "expired"
    PENDING_CANCEL = "pending_cancel"
    PENDING_REPLACE = "pending_replace"
    STOPPED = "stopped"
    SUSPENDED = "suspended"
    DONE_FOR_DAY = "done_for_day"
    CALCULATED = "calculated"
    ACCEPTED_FOR_BIDDING = "accepted_for_bidding"


class BrokerMode(Enum):
    """Which of a strategy's two brokers has an order: the one that simulates, or the one that trades at a venue."""

    PAPER = "paper"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class OrderTerms:
    """What an order asks for beyond its side, quantity, type and time in force.

    Attributes:
        limit_price: FIX 44, quote currency: a buyer pays no more, a seller takes no less.
        stop_price: FIX 99, quote currency: where a stop, or an order that is touched, is triggered; of a trailing stop where it stands now.
        trail_amount: how far a trailing stop stays behind the best price, quote currency; or
        trail_rate: the same as a fraction of that price.
        limit_offset: of a trailing stop limit, how far its limit lies beyond the stop when it is triggered, quote currency.
        expire_at_ms: FIX 126, of GTD: from this instant on nothing is filled, UTC epoch ms.
        post_only: FIX 18=6: it only ever rests; where it would trade at once, it is refused.
        is_triggered: the stop was met; from then on it is a market or limit order, whatever the market does.
    """

    limit_price: Decimal | None = None
    stop_price: Decimal | None = None
    trail_amount: Decimal | None = None
    trail_rate: Decimal | None = None
    limit_offset: Decimal | None = None
    expire_at_ms: int | None = None
    post_only: bool = False
    is_triggered: bool = False


@dataclass(frozen=True, slots=True)
class OrderIntent:
    """What a strategy wants of one symbol at the close of one bucket.

    Attributes:
        target_percent: share of the strategy's equity to hold, -1 to 1.
        reference_price: the price that the decision saw.
        intent_index: which signal of its version it comes from, from 0: several may want something of one symbol.
    """

    world_id: str
    strategy_id: str
    symbol: str
    bucket_ms: int
    target_percent: Decimal
    reference_price: Decimal
    node_id: str
    intent_index: int = 0


class RequestKind(Enum):
    """What is asked of an order that is there: FIX 35=F or 35=G."""

    CANCEL = "cancel"
    REPLACE = "replace"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A request about an order that has no answer yet.

    Attributes:
        client_order_id: FIX 11 of the request.
        origin_id: FIX 41: the order or request that it follows.
        quantity: the new quantity of the whole order, what is filled of it included; None of a cancellation.
        terms: the new terms; None where they stay.
        acknowledged: whoever answers has taken it up (150=6 or 150=E); from then on the order's status says so.
    """

    client_order_id: str
    origin_id: str
    kind: RequestKind
    quantity: Decimal | None
    terms: OrderTerms | None
    acknowledged: bool
    asked_at_ms: int


@dataclass(frozen=True, slots=True)
class OrderLife:
    """What an order has beside its fills.

    Attributes:
        client_order_id: of the last replacement that was accepted; empty before the first, where it is the order id.
        requests: those without an answer, in the order in which they were made.
        asked: how many requests were ever made.
        hidden: states that it is in while its status tells one that goes before them.
    """

    client_order_id: str = ""
    requests: tuple[OrderRequest, ...] = ()
    asked: int = 0
    hidden: tuple[OrderStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """The latest state of an order: a row of `trade.orders`, and of `trade.open_orders` until it ends.

    Attributes:
        order_id: a function of logged facts only; also the client order id of the first request.
        status: of the states that it is in, the one that goes before the others (FIX precedence).
        quantity, cum_quantity: unsigned, base currency; `side` gives the direction.
        average_price: of the fills so far; 0 before the first.
        last_seq: the `seq` of the last fill that was applied; 0 before the first.
        portfolio_bucket_ms: the cut of the portfolio that the size was computed on.
        mode: whose order it is for as long as it lives, whatever the strategy's gate says later.
        session: the strategy's order session, from 1; see `Account`.
        terms: None of a plain market order.
        life: None of an order of which nothing was asked since it was placed, and which is in one state.
    """

    world_id: str
    strategy_id: str
    order_id: str
    symbol: str
    side: Side
    order_type: OrderType
    time_in_force: TimeInForce
    quantity: Decimal
    status: OrderStatus
    cum_quantity: Decimal
    average_price: Decimal
    last_seq: int
    reduce_only: bool
    reference_price: Decimal
    created_at_ms: int
    updated_at_ms: int
    portfolio_bucket_ms: int
    mode: BrokerMode = BrokerMode.PAPER
    session: int = 1
    terms: OrderTerms | None = None
    life: OrderLife | None = None


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution; kept for ever under its own key `(world, order_id, seq)`.

    Attributes:
        seq: counts the fills of one order from 1, without gaps.
        quantity: unsigned, base currency; 0 once it was busted.
        price: quote currency, slippage included.
        fee: in `fee_currency`; negative is a rebate.
        slippage: price units against the taker, already inside `price`.
        late: it came when its order had ended, or a gate of its strategy was frozen or draining; it counts all the same.
        revision: how often it was corrected or busted.
    """

    world_id: str
    strategy_id: str
    order_id: str
    seq: int
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    slippage: Decimal
    fill_time_ms: int
    late: bool = False
    revision: int = 0


@dataclass(frozen=True, slots=True)
class OrderRejection:
    """An intent, or a part of one, that did not become an order.

    Attributes:
        detail: the numbers that broke the rule.
    """

    world_id: str
    strategy_id: str
    symbol: str
    bucket_ms: int
    intent_index: int
    reason: RejectionReason
    detail: str


@dataclass(frozen=True, slots=True)
class Position:
    """One position of one scope: a row of `trade.portfolio` under `(world, scope, symbol)`.

    Attributes:
        scope: `strategy:<id>` of what was traded on paper, `live:<id>` of what was traded at a venue.
        quantity: signed, base currency.
        cost: signed cost of the open quantity, quote currency; average cost is `cost / quantity`, kept as this
            exact sum so that no fill loses digits.
        average_cost: `cost / quantity` rounded to 12 digits after the point, 0 when flat; for people.
        realised: gross of fees, quote currency.
        fees: paid so far in the quote currency.
        mark: the last close seen; the price of the fill before the first close.
        unrealised: `quantity * mark - cost`.
        as_of_ms: the bucket that the row is true for.
    """

    world_id: str
    scope: str
    symbol: str
    quantity: Decimal
    cost: Decimal
    average_cost: Decimal
    realised: Decimal
    fees: Decimal
    mark: Decimal
    unrealised: Decimal
    fills: int
    as_of_ms: int


@dataclass(frozen=True, slots=True)
class Account:
    """Cash and totals of one scope: the row of `trade.portfolio` under `(world, scope, "")`.

    Attributes:
        cash: after fees; may be negative (bought on margin).
        equity: `cash + sum(quantity * mark)`.
        exposure: `sum(|quantity * mark|)`.
        realised: gross of fees.
        session: the newest order session that was traded in it. A strategy has two accounts at most, and trades in the one with the
            greater number; each time it changes from one to the other, a session begins.
    """

    world_id: str
    scope: str
    currency: str
    initial_cash: Decimal
    cash: Decimal
    equity: Decimal
    exposure: Decimal
    realised: Decimal
    unrealised: Decimal
    fees: Decimal
    as_of_ms: int
    session: int = 1

    @property
    def symbol(self) -> str:
        """The place of the symbol in the row's key, which no instrument has."""
        return ""


PortfolioRow: TypeAlias = Position | Account
TradeEvent: TypeAlias = OrderIntent | Order | Fill | OrderRejection | Position | Account
