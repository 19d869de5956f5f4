"""What margin a position asks for: by leverage, per contract and date, or by whether the market is open."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Protocol

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.money import magnitude, product, quotient
from qmtl.runtime.brokerage.parameters import AMOUNT_PLACES, ONE, not_negative, positive


@dataclass(frozen=True, slots=True)
class When:
    """The instant for which a requirement is asked.

    Attributes:
        at_ms: UTC epoch ms.
        closes_in_ms: until the market closes; None while it is closed.
    """

    at_ms: int = 0
    closes_in_ms: int | None = None


class Requirement(Protocol):
    """What margin a quantity asks for, in the currency of `unit_value`; never negative."""

    def initial(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        """To open it.

        Args:
            quantity: signed or not; its sign makes no difference.
            unit_value: what one unit is worth: price * contract size * conversion.
        """

    def maintenance(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        """To keep it; as `initial`."""


@dataclass(frozen=True, slots=True)
class LeverageRequirement:
    """`|quantity| * unit_value * rate / leverage`.

    With rates of 1 it is Lean's `SecurityMarginModel`; with the rates of an instrument and leverage 1 Nautilus' `StandardMarginModel`, with its leverage
    the `LeveragedMarginModel`. Rounded half-even to 18 digits after the point.

    Attributes:
        leverage: at least 1.
        initial_rate, maintenance_rate: of the value, not below 0.

    Raises:
        InvalidValue: a parameter that breaks its rule.
    """

    leverage: Decimal = ONE
    initial_rate: Decimal = ONE
    maintenance_rate: Decimal = ONE

    def __post_init__(self) -> None:
        _leverage("leverage", self.leverage)
        not_negative("initial_rate", self.initial_rate)
        not_negative("maintenance_rate", self.maintenance_rate)

    def initial(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        return _share(quantity, unit_value, self.initial_rate, self.leverage)

    def maintenance(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        return _share(quantity, unit_value, self.maintenance_rate, self.leverage)


@dataclass(frozen=True, slots=True)
class DayTradingRequirement:
    """More leverage while the market is open than over night: Lean's `PatternDayTradingMarginModel`, after FINRA's rule 4210(f)(8)(B).

    Attributes:
        open_leverage: until `closing_ms` before the close.
        closed_leverage: from then on, over night, on weekends and holidays.

    Raises:
        InvalidValue: a parameter that breaks its rule.
    """

    open_leverage: Decimal = Decimal(4)
    closed_leverage: Decimal = Decimal(2)
    closing_ms: int = 600_000

    def __post_init__(self) -> None:
        _leverage("open_leverage", self.open_leverage)
        _leverage("closed_leverage", self.closed_leverage)
        if self.closing_ms < 0:
            raise InvalidValue(
                f"closing_ms was {self.closing_ms}; it must not be below 0.", "Send 0 for none."
            )

    def leverage(self, when: When) -> Decimal:
        is_open = when.closes_in_ms is not None and when.closes_in_ms > self.closing_ms
        return self.open_leverage if is_open else self.closed_leverage

    def initial(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        return _share(quantity, unit_value, ONE, self.leverage(when))

    def maintenance(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        return _share(quantity, unit_value, ONE, self.leverage(when))


@dataclass(frozen=True, slots=True)
class ContractMargin:
    """What one contract asks for from an instant on, as its exchange publishes it.

    Attributes:
        from_ms: UTC epoch ms.
        initial, maintenance: over night, in the currency of the margin.
        intraday_initial, intraday_maintenance: while the market is open; None where they are the same.

    Raises:
        InvalidValue: a negative amount.
    """

    from_ms: int
    initial: Decimal
    maintenance: Decimal
    intraday_initial: Decimal | None = None
    intraday_maintenance: Decimal | None = None

    def __post_init__(self) -> None:
        not_negative("initial", self.initial)
        not_negative("maintenance", self.maintenance)
        for field, value in (
            ("intraday_initial", self.intraday_initial),
            ("intraday_maintenance", self.intraday_maintenance),
        ):
            if value is not None:
                not_negative(field, value)


@dataclass(frozen=True, slots=True)
class ContractRequirement:
    """So much per contract, whatever its price: Lean's `FutureMarginModel`.

    Attributes:
        margins: each from its instant on; before the first, the first holds.
        closing_ms: so long before the close the intraday amounts end.

    Raises:
        InvalidValue: no margins, or not in the order of their instants.
    """

    margins: tuple[ContractMargin, ...]
    closing_ms: int = 900_000

    def __post_init__(self) -> None:
        if not self.margins:
            raise InvalidValue(
                "margins was empty; one is needed at least.", "Send what one contract asks for."
            )
        for before, after in pairwise(self.margins):
            if not before.from_ms < after.from_ms:
                raise InvalidValue(
                    f"margins had from_ms {after.from_ms} after {before.from_ms}; each must be later than the one before it.",
                    "Sort them, and send each once.",
                )

    def margin(self, when: When) -> ContractMargin:
        at = bisect_right(self.margins, when.at_ms, key=lambda one: one.from_ms)
        return self.margins[max(at - 1, 0)]

    def initial(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        found = self.margin(when)
        intraday = found.intraday_initial if self._is_intraday(when) else None
        return product(magnitude(quantity), found.initial if intraday is None else intraday)

    def maintenance(self, quantity: Decimal, unit_value: Decimal, when: When) -> Decimal:
        found = self.margin(when)
        intraday = found.intraday_maintenance if self._is_intraday(when) else None
        return product(magnitude(quantity), found.maintenance if intraday is None else intraday)

    def _is_intraday(self, when: When) -> bool:
        return when.closes_in_ms is not None and when.closes_in_ms > self.closing_ms


def _share(quantity: Decimal, unit_value: Decimal, rate: Decimal, leverage: Decimal) -> Decimal:
    positive("unit_value", unit_value)
    value = product(product(magnitude(quantity), unit_value), rate)
    return value if leverage == ONE else quotient(value, leverage, AMOUNT_PLACES)


def _leverage(field: str, value: Decimal) -> None:
    if not value.is_finite() or value < 1:
        raise InvalidValue(f"{field} was {value}; it must be finite and at least 1.", "Send 1 for none.")
