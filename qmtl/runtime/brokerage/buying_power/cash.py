"""An account without credit: who buys has the quote currency, who sells has the base currency."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, magnitude, minus, negated, plus, product, total
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.buying_power.standing import (
    FeeOf,
    Shortage,
    Standing,
    Wanted,
    lots_within,
    most_lots,
    no_fee,
)
from qmtl.runtime.brokerage.parameters import finite, positive


@dataclass(frozen=True, slots=True)
class CashPower:
    """Lean's `CashBuyingPowerModel`: leverage 1, per currency.

    A buy needs its value and its fee in quote currency, a sell its quantity in base currency (its fee is taken from what it brings). What open orders may
    spend is reserved. Nothing is ever borrowed, so no position reserves anything.
    """

    def available(self, currency: str, standing: Standing) -> Decimal:
        """Cash in a currency without what open orders may spend of it; negative where they may spend more."""
        reserved = (_spent(order) for order in standing.open_orders)
        spent = total(amount for of, amount in reserved if of == currency)
        return minus(standing.cash.get(currency, ZERO), spent)

    def shortage(self, order: Wanted, standing: Standing) -> Shortage | None:
        currency, needed = _spent(order)
        available = self.available(currency, standing)
        return Shortage(currency, needed, available) if needed > available else None

    def largest(
        self,
        target_value: Decimal,
        held: Decimal,
        price: Decimal,
        lot: Decimal,
        fee: FeeOf = no_fee,
    ) -> Decimal:
        """The largest order towards a holding of so much value, fees included; whether it can be afforded is another question.

        `|quantity| * price + fee(|quantity|) <= |target_value - held * price|`, as Lean's `GetMaximumOrderQuantityForTargetBuyingPower`. A target of 0
        gives all that is held, whatever the fee.

        Args:
            target_value: quote currency, not below 0: nothing is sold short.
            held: base currency, not below 0.
            price: quote currency.
            fee: quote currency.

        Returns:
            Signed, base currency, a multiple of `lot` (of a target of 0: `-held`).

        Raises:
            InvalidValue: a number that is not finite, a negative target, a price or lot that is not above 0.
        """
        finite("target_value", target_value)
        finite("held", held)
        positive("price", price)
        positive("lot", lot)
        if target_value < 0:
            raise InvalidValue(
                f"target_value was {target_value}; a cash account holds nothing below 0.",
                "Send 0 to sell all.",
            )
        if not target_value:
            return negated(held)
        wanted = minus(target_value, product(held, price))
        budget = magnitude(wanted)

        def fits(lots: int) -> bool:
            quantity = product(Decimal(lots), lot)
            return plus(product(quantity, price), fee(quantity)) <= budget

        quantity = product(Decimal(most_lots(fits, lots_within(budget, price, lot))), lot)
        return quantity if wanted > 0 else negated(quantity)


def _spent(order: Wanted) -> tuple[str, Decimal]:
    if order.side is Side.BUY:
        return order.quote, plus(order.value, order.fee)
    return order.base, product(order.quantity, order.multiplier)
