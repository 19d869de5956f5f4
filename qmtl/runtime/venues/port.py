"""What a venue is to the broker that trades there: a handful of questions, and two ways to fail that must never be taken for each other."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from qmtl.foundation.contracts.trade import Order, OrderStatus


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution, as the venue tells it.

    Attributes:
        trade_id: the venue's; unique within the order.
        quantity: unsigned, base currency.
        price: quote currency.
        fee: in `fee_currency`; negative is a rebate.
        at_ms: the venue's time of it.
    """

    trade_id: str
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_currency: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class VenueOrder:
    """An order as the venue has it now.

    Attributes:
        status: `NEW` or `PARTIALLY_FILLED` while it is open there; else `FILLED`, `CANCELED`, `REJECTED` or `EXPIRED`.
        filled: base currency, as the order itself says; the executions may lag behind it.
        executions: all of them that the venue tells of, in the order in which they happened: a later answer has the same ones first.
        at_ms: when it came into this state.
    """

    venue_order_id: str
    status: OrderStatus
    filled: Decimal
    executions: tuple[Execution, ...]
    at_ms: int


class Venue(Protocol):
    """One account at one venue, with its own keys. Symbols are the project's, `BTC-USD`; the id of an order there is `Order.order_id`.

    Every call may raise `VenueUnanswered`: no answer, or one that does not say whether the request was done (a time-out, a connection that
    broke, any 5xx). `VenueRefused` says that it was not done.
    """

    @property
    def name(self) -> str:
        """For people: which venue, never with a key in it."""

    def connect(self) -> None:
        """Make sure that it answers, that the keys are good for trading, and learn its markets. May be repeated.

        Raises:
            VenueRefused, VenueUnanswered
        """

    def close(self) -> None:
        """Give connections back. May be repeated; `connect` opens it anew."""

    def submit(self, order: Order) -> VenueOrder:
        """Send a new order. It does not repeat itself, whatever happens.

        Raises:
            VenueRefused: it was not taken, and is not there.
            VenueUnanswered: it may be there or not.
        """

    def cancel(self, order: Order) -> None:
        """Ask for an order to be cancelled; that it is there no more is no error.

        Raises:
            VenueRefused, VenueUnanswered
        """

    def find(self, order: Order) -> VenueOrder | None:
        """What has become of an order; None where the venue has none of this id.

        Raises:
            VenueRefused, VenueUnanswered
        """
