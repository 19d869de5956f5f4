"""Cash that may be spent, and cash that is on its way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from qmtl.foundation.common.money import ZERO, plus, total
from qmtl.runtime.brokerage.parameters import finite, named
from qmtl.runtime.brokerage.settlement.model import SettlementModel


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Proceeds on their way.

    Attributes:
        amount: above 0.
        due_ms: from this instant on they may be spent, UTC epoch ms.
    """

    currency: str
    amount: Decimal
    due_ms: int


@dataclass(frozen=True, slots=True)
class Funds:
    """The cash of an account.

    Attributes:
        cash: that may be spent, by currency.
        unsettled: by due instant; of one instant in the order in which they were booked.
    """

    cash: Mapping[str, Decimal] = field(default_factory=dict)
    unsettled: tuple[Unsettled, ...] = ()

    def waiting(self, currency: str) -> Decimal:
        """What is on its way in a currency."""
        return total(one.amount for one in self.unsettled if one.currency == currency)


def booked(funds: Funds, currency: str, amount: Decimal, at_ms: int, model: SettlementModel) -> Funds:
    """An amount that came or went. What goes (a purchase, a fee) goes at once; what comes waits as the model says.

    Raises:
        InvalidValue: an amount that is not finite, a currency without a name.
    """
    finite("amount", amount)
    named("currency", currency)
    due_ms = model.settles_at_ms(at_ms) if amount > 0 else at_ms
    if due_ms <= at_ms:
        return Funds(_with(funds.cash, currency, amount), funds.unsettled)
    waiting = (*funds.unsettled, Unsettled(currency, amount, due_ms))
    return Funds(funds.cash, tuple(sorted(waiting, key=lambda one: one.due_ms)))


def scanned(funds: Funds, at_ms: int) -> Funds:
    """What is due by an instant is cash; twice is as once."""
    cash = funds.cash
    for one in funds.unsettled:
        if one.due_ms <= at_ms:
            cash = _with(cash, one.currency, one.amount)
    return Funds(cash, tuple(one for one in funds.unsettled if one.due_ms > at_ms))


def _with(cash: Mapping[str, Decimal], currency: str, amount: Decimal) -> dict[str, Decimal]:
    return {**cash, currency: plus(cash.get(currency, ZERO), amount)}
