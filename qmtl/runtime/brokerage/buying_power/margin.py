"""An account on margin: what orders and positions ask for is held against the equity."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import ZERO, magnitude, minus, negated, plus, product, total
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.buying_power.requirement import LeverageRequirement, Requirement, When
from qmtl.runtime.brokerage.buying_power.standing import (
    FeeOf,
    Shortage,
    Standing,
    Wanted,
    most_lots,
    no_fee,
)
from qmtl.runtime.brokerage.parameters import ONE, finite, positive

UNLEVERED: Final = LeverageRequirement()


@dataclass(frozen=True, slots=True)
class MarginPower:
    """Lean's `BuyingPowerModel` over a requirement.

    Attributes:
        requirement: of the symbol.
        free_share: of the equity that stays unused (`requiredFreeBuyingPowerPercent`), from 0 to below 1.

    Raises:
        InvalidValue: a parameter that breaks its rule.
    """

    requirement: Requirement = UNLEVERED
    free_share: Decimal = ZERO

    def __post_init__(self) -> None:
        finite("free_share", self.free_share)
        if not 0 <= self.free_share < 1:
            raise InvalidValue(
                f"free_share was {self.free_share}; it must be from 0 to below 1.", "Send 0.05 for 5 %."
            )

    def remaining(self, standing: Standing) -> Decimal:
        """Equity less the share that stays free, the margin of positions and that of open orders; negative where they use more.

        Lean counts no open orders here; two orders could then spend the same margin.
        """
        kept_free = product(max(standing.equity, ZERO), self.free_share)
        ordered = (self._needed(order, standing.when) for order in standing.open_orders if not order.reduces)
        return minus(standing.equity, total((standing.margin_used, kept_free, *ordered)))

    def free(self, side: Side, unit_value: Decimal, standing: Standing) -> Decimal:
        """What an order on that side may use, not below 0.

        Against a position that is what remains, what the position gives back, and what as much on the other side asks for: a whole reversal costs
        what it frees (`GetMarginRemaining` of Lean).
        """
        out = self.remaining(standing)
        held, when = standing.held, standing.when
        if held and (held > 0) != (side is Side.BUY):
            out = total(
                (
                    out,
                    self.requirement.maintenance(held, unit_value, when),
                    self.requirement.initial(held, unit_value, when),
                )
            )
        return max(out, ZERO)

    def shortage(self, order: Wanted, standing: Standing) -> Shortage | None:
        """Closing is always allowed, even where the margin is used up; crossing flat by one unit is not."""
        if order.reduces or standing.closes(order):
            return None
        needed = self._needed(order, standing.when)
        available = self.free(order.side, order.unit_value, standing)
        return Shortage("", needed, available) if needed > available else None

    def largest(
        self,
        target_share: Decimal,
        standing: Standing,
        unit_value: Decimal,
        lot: Decimal,
        fee: FeeOf = no_fee,
        buffer: Decimal = ZERO,
    ) -> Decimal:
        """The largest order towards a position whose initial margin is a share of the equity.

        The margin wanted is `target_share * equity * (1 - free_share) * (1 - buffer)`; see `towards`. Lean's `SetHoldings` has a `buffer` of 0.0025
        (`FreePortfolioValuePercentage`).

        Args:
            target_share: signed, -1 to 1 (of all that may be used; with leverage 2 the position of 1 is worth twice the equity). More is
                computed as well; whether it can be afforded is `shortage`'s question.
            unit_value: of one unit, account currency.
            fee: account currency.

        Raises:
            InvalidValue: a number that is not finite, a unit value or lot that is not above 0.
        """
        finite("target_share", target_share)
        usable = product(product(max(standing.equity, ZERO), minus(ONE, self.free_share)), minus(ONE, buffer))
        return self.towards(product(target_share, usable), standing, unit_value, lot, fee)

    def towards(
        self,
        target_margin: Decimal,
        standing: Standing,
        unit_value: Decimal,
        lot: Decimal,
        fee: FeeOf = no_fee,
    ) -> Decimal:
        """The order that brings a position as near as it goes to one whose initial margin and the order's fee are together no more than wanted.

        Lean's `GetMaximumOrderQuantityForTargetBuyingPower`: it is the position that is floored towards 0, not the order.

        Args:
            target_margin: signed as the position, account currency. 0 gives all that is held, whatever the fee.

        Returns:
            Signed; a multiple of the lot where what is held is one.
        """
        finite("target_margin", target_margin)
        positive("unit_value", unit_value)
        positive("lot", lot)
        held, when = standing.held, standing.when
        if not target_margin:
            return negated(held)
        budget = magnitude(target_margin)

        def position(lots: int) -> Decimal:
            quantity = product(Decimal(lots), lot)
            return quantity if target_margin > 0 else negated(quantity)

        def fits(lots: int) -> bool:
            wanted = position(lots)
            cost = fee(magnitude(minus(wanted, held)))
            return plus(self.requirement.initial(wanted, unit_value, when), cost) <= budget

        at_most = 1
        while fits(at_most) and at_most < _MOST_LOTS:
            at_most *= 2
        return minus(position(most_lots(fits, at_most)), held)

    def delta(
        self,
        delta_margin: Decimal,
        standing: Standing,
        unit_value: Decimal,
        lot: Decimal,
        fee: FeeOf = no_fee,
    ) -> Decimal:
        """The order that uses so much more margin on that side (`GetMaximumOrderQuantityForDeltaBuyingPower`); signed."""
        used = (
            self.requirement.maintenance(standing.held, unit_value, standing.when) if standing.held else ZERO
        )
        signed = used if standing.held > 0 else negated(used)
        return self.towards(plus(signed, delta_margin), standing, unit_value, lot, fee)

    def _needed(self, order: Wanted, when: When) -> Decimal:
        margin = self.requirement.initial(order.quantity, order.unit_value, when)
        return plus(margin, product(order.fee, order.conversion))


_MOST_LOTS = 1 << 100
"""A requirement of 0 is fit by any position; the search for it ends."""
