"""What stands between an order and its fills: one interface for the broker that simulates and the one that trades at a venue.

A strategy knows neither. What becomes of its order is said in the same reports by both, and booked by the same rule; which of them has an order is a field
of the order (`Order.mode`), set from the strategy's activation when the order is placed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from qmtl.foundation.contracts.broker import OrderAccepted, OrderEnded, VenueAnswer
from qmtl.foundation.contracts.trade import BrokerMode, Fill, Order, OrderTerms


@dataclass(frozen=True, slots=True)
class OrderMoved:
    """The terms of an order that is still open changed by the market: it was triggered, or its trailing stop followed a price.

    It is never on the log: the paper broker says it, and a venue keeps the moving terms of its orders to itself.

    Attributes:
        terms: as they are now.
    """

    world_id: str
    order_id: str
    terms: OrderTerms
    at_ms: int


PaperAnswer: TypeAlias = OrderAccepted | Fill | OrderEnded | OrderMoved
"""What the paper broker says."""


class Broker(Protocol):
    """Places, cancels and watches orders. Each answer is a sequence of reports in the order in which things happened.

    The fills of an order are numbered from 1 without gaps; a fill that was said before is said again under the same number.
    """

    @property
    def mode(self) -> BrokerMode:
        """Whose orders it takes."""

    def place(self, order: Order) -> Sequence[VenueAnswer]:
        """Take an order, under its own id (`order_id`). To be called once per order."""

    def cancel(self, order: Order) -> Sequence[VenueAnswer]:
        """Take back what is left of an order; it may be filled before."""

    def look(self, order: Order) -> Sequence[VenueAnswer | OrderMoved]:
        """What has become of an order, as far as it is not known from `order` itself."""
