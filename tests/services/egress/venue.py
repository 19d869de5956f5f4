"""A venue in memory with a ledger of its own, whose faults are written down beforehand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum

from qmtl.foundation.common.errors import VenueRefused, VenueUnanswered
from qmtl.foundation.contracts.trade import Order, OrderStatus
from qmtl.runtime.venues.port import Execution, VenueOrder

WINDOW_MS = 60_000
"""A request that has been on its way for longer is refused by any venue."""


class Fault(Enum):
    """What becomes of a new order."""

    NONE = "it is there, and that is said"
    REFUSED = "it is not there, and that is said"
    REJECTED = "it is there as one that was rejected"
    LOST = "it is not there, and nothing is said"
    UNSAID = "it is there, and nothing is said"
    SLOW = "it is on its way, and nothing is said"
    BROKEN = "it is there, and the adapter does not understand the answer"


@dataclass
class Books:
    """One order as the venue has it."""

    quantity: Decimal
    status: OrderStatus = OrderStatus.NEW
    executions: list[Execution] = field(default_factory=list)
    told: int = 0
    """Executions that are told of by now: they may lag behind the order."""

    @property
    def filled(self) -> Decimal:
        return sum((one.quantity for one in self.executions), Decimal(0))


class MemoryVenue:
    """It is a `Venue`.

    Attributes:
        faults: of the orders that come next; none after the last.
        submitted: how often each order id was sent, whatever became of it.
        calls: every call, with the order id where there is one.
        down: what `connect` raises; None where it answers.
        silent: `find` and `cancel` give no answer.
        on_its_way: sent, and neither there nor lost.
    """

    name = "memory"

    def __init__(self, wall: Callable[[], int] = lambda: 0) -> None:
        self._wall = wall
        self.faults: deque[Fault] = deque()
        self.submitted: dict[str, int] = {}
        self.calls: list[tuple[str, str]] = []
        self.down: Exception | None = None
        self.silent = False
        self.books: dict[str, Books] = {}
        self.on_its_way: dict[str, tuple[int, Order]] = {}

    def connect(self) -> None:
        self.calls.append(("connect", ""))
        if self.down is not None:
            raise self.down

    def close(self) -> None:
        self.calls.append(("close", ""))

    def submit(self, order: Order) -> VenueOrder:
        self.calls.append(("submit", order.order_id))
        self.submitted[order.order_id] = self.submitted.get(order.order_id, 0) + 1
        fault = self.faults.popleft() if self.faults else Fault.NONE
        if fault is Fault.REFUSED:
            raise VenueRefused("it said no.", "")
        if fault is Fault.SLOW:
            self.on_its_way[order.order_id] = (self._wall(), order)
        if fault in (Fault.LOST, Fault.SLOW):
            raise VenueUnanswered("it said nothing.", "")
        self.books[order.order_id] = Books(order.quantity)
        if fault is Fault.UNSAID:
            raise VenueUnanswered("it said nothing.", "")
        if fault is Fault.BROKEN:
            raise KeyError("orderId")
        if fault is Fault.REJECTED:
            self.books[order.order_id].status = OrderStatus.REJECTED
        return self._told(order.order_id)

    def cancel(self, order: Order) -> None:
        self.calls.append(("cancel", order.order_id))
        if self.silent:
            raise VenueUnanswered("it said nothing.", "")
        self.end(order.order_id, OrderStatus.CANCELED)

    def find(self, order: Order) -> VenueOrder | None:
        self.calls.append(("find", order.order_id))
        if self.silent:
            raise VenueUnanswered("it said nothing.", "")
        return self._told(order.order_id) if order.order_id in self.books else None

    # ---- what happens there ----------------------------------------------------------------------------------------

    def is_open(self, order_id: str) -> bool:
        found = self.books.get(order_id)
        return found is not None and found.status in (OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)

    def arrive(self, order_id: str) -> None:
        """What was on its way is there now, or is refused as too old."""
        sent_ms, order = self.on_its_way.pop(order_id)
        if self._wall() - sent_ms <= WINDOW_MS:
            self.books[order_id] = Books(order.quantity)

    def execute(
        self,
        order_id: str,
        quantity: str | Decimal,
        price: str = "100",
        fee: str = "0",
        currency: str = "USD",
    ) -> None:
        found = self.books[order_id]
        number = len(found.executions) + 1
        found.executions.append(
            Execution(f"t{number}", Decimal(quantity), Decimal(price), Decimal(fee), currency, self._wall())
        )
        found.told = number
        whole = found.filled >= found.quantity
        found.status = OrderStatus.FILLED if whole else OrderStatus.PARTIALLY_FILLED

    def end(self, order_id: str, status: OrderStatus) -> None:
        if self.is_open(order_id):
            self.books[order_id].status = status

    def times(self, call: str) -> int:
        return sum(1 for one, _ in self.calls if one == call)

    def _told(self, order_id: str) -> VenueOrder:
        found = self.books[order_id]
        return VenueOrder(
            f"v-{order_id[:6]}",
            found.status,
            found.filled,
            tuple(found.executions[: found.told]),
            self._wall(),
        )
