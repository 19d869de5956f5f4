"""One strategy's book as a value: what its stages hand to each other, and read one bucket late."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from qmtl.foundation.common.money import ZERO, total
from qmtl.foundation.contracts.trade import Account, Order, Position
from qmtl.runtime.orders.aggregate import is_open, pending


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A book of a strategy, and the newest bucket that is closed in it.

    Attributes:
        as_of_ms: that bucket; at genesis the one before the first, so that the first may be decided.
        positions: by symbol.
        orders: by id, those that have ended among them: a fill that comes twice is known by its order.
        is_genesis: nothing was closed yet.
    """

    as_of_ms: int
    account: Account
    positions: Mapping[str, Position] = field(default_factory=dict)
    orders: Mapping[str, Order] = field(default_factory=dict)
    is_genesis: bool = False

    @property
    def cut_ms(self) -> int:
        """The cut that an order names as the one that its size was computed on; 0 is genesis."""
        return 0 if self.is_genesis else self.as_of_ms

    @property
    def open_orders(self) -> tuple[Order, ...]:
        """In the order of their ids, as the table has them."""
        return tuple([order for _, order in sorted(self.orders.items()) if is_open(order)])

    def held(self, symbol: str) -> Decimal:
        """The position in a symbol: signed, base currency."""
        position = self.positions.get(symbol)
        return ZERO if position is None else position.quantity

    def waiting(self, symbol: str) -> Decimal:
        """What open orders can still add to a position: signed, base currency."""
        return total([pending(order) for order in self.open_orders if order.symbol == symbol])
