"""Hands orders to whoever sends them. In a simulation it does nothing, and what is no order never gets this far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import BrokerMode, Order

MODES: Final = ("simulate", "paper", "live")

PublishHook: TypeAlias = Callable[[Order], None]
"""Takes an order over: it writes it to `trade.orders`, or sends it to an endpoint. What it raises is raised."""


@dataclass(frozen=True, slots=True)
class OrderPublishNode:
    """Publishes the orders of a mode.

    Attributes:
        mode: `simulate` publishes nothing, whatever the hook; `paper` publishes to its hook where there is one; `live` needs one.

    Raises:
        InvalidValue: another mode, or `live` without a hook.
    """

    mode: str
    hook: PublishHook | None = None

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidValue(
                f"mode was {self.mode!r}; it is one of {', '.join(MODES)}.", "Choose one of them."
            )
        if self.mode == "live" and self.hook is None:
            raise InvalidValue(
                "hook of a live publisher was missing; orders would go nowhere.", "Give it one."
            )

    def publish(self, order: Order) -> bool:
        """Whether the order was handed over.

        Raises:
            InvalidValue: no order, or one of the other broker.
        """
        if not isinstance(order, Order):
            raise InvalidValue(
                f"a {type(order).__name__} was to be published; only orders are.", "Keep it back."
            )
        wanted = BrokerMode.LIVE if self.mode == "live" else BrokerMode.PAPER
        if order.mode is not wanted:
            raise InvalidValue(
                f"order {order.order_id} is of the {order.mode.value} broker and the publisher's mode is {self.mode}.",
                "Let each mode publish its own.",
            )
        if self.mode == "simulate" or self.hook is None:
            return False
        self.hook(order)
        return True


def idempotency_key(order: Order) -> tuple[str, ...]:
    """By what an order that comes again is known: its client order id is a part of it, so two orders alike in all else are two."""
    return (
        order.world_id,
        order.strategy_id,
        order.symbol,
        order.side.value,
        str(order.created_at_ms),
        order.order_id,
    )
