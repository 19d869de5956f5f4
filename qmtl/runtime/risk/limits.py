"""What a world may risk: a tuple of small rules, each with one number and what it is counted over."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import TypeAlias

from qmtl.foundation.common.errors import InvalidValue


class RiskScope(Enum):
    """Over what a limit counts.

    WORLD counts gross over all strategies of the world: a long of one does not make room for another, for either may leave at any time.
    """

    STRATEGY = "strategy"
    WORLD = "world"


@dataclass(frozen=True, slots=True)
class PositionLimit:
    """At most this quantity of one symbol, long or short.

    Attributes:
        quantity: base currency, above 0.
        symbol: the one that it is for; empty for each.

    Raises:
        InvalidValue: a quantity that is not above 0 and finite.
    """

    quantity: Decimal
    scope: RiskScope = RiskScope.STRATEGY
    symbol: str = ""

    def __post_init__(self) -> None:
        _require_positive("quantity", self.quantity)


@dataclass(frozen=True, slots=True)
class NotionalLimit:
    """At most this value of one symbol, long or short.

    Attributes:
        amount: quote currency, above 0.
        symbol: the one that it is for; empty for each.

    Raises:
        InvalidValue: an amount that is not above 0 and finite.
    """

    amount: Decimal
    scope: RiskScope = RiskScope.STRATEGY
    symbol: str = ""

    def __post_init__(self) -> None:
        _require_positive("amount", self.amount)


@dataclass(frozen=True, slots=True)
class LeverageLimit:
    """`sum(|quantity * price|)` over all symbols is at most `ratio * equity`.

    Attributes:
        ratio: above 0; 1 is a book without borrowed money.

    Raises:
        InvalidValue: a ratio that is not above 0 and finite.
    """

    ratio: Decimal
    scope: RiskScope = RiskScope.STRATEGY

    def __post_init__(self) -> None:
        _require_positive("ratio", self.ratio)


@dataclass(frozen=True, slots=True)
class ConcentrationLimit:
    """`|quantity * price|` of each symbol is at most `share * equity`.

    Attributes:
        share: above 0.

    Raises:
        InvalidValue: a share that is not above 0 and finite.
    """

    share: Decimal
    scope: RiskScope = RiskScope.STRATEGY

    def __post_init__(self) -> None:
        _require_positive("share", self.share)


@dataclass(frozen=True, slots=True)
class DailyLossLimit:
    """The loss since the day began (UTC) is below `share` of the equity that it began with.

    Attributes:
        share: above 0, at most 1.

    Raises:
        InvalidValue: a share that is not above 0, or is above 1.
    """

    share: Decimal
    scope: RiskScope = RiskScope.STRATEGY

    def __post_init__(self) -> None:
        _require_share("share", self.share)


@dataclass(frozen=True, slots=True)
class DrawdownLimit:
    """The loss since the greatest equity is below `share` of that equity.

    Attributes:
        share: above 0, at most 1.

    Raises:
        InvalidValue: a share that is not above 0, or is above 1.
    """

    share: Decimal
    scope: RiskScope = RiskScope.STRATEGY

    def __post_init__(self) -> None:
        _require_share("share", self.share)


@dataclass(frozen=True, slots=True)
class OrderRateLimit:
    """At most `count` orders in a window of event time that ends with the newest of them.

    Attributes:
        count: at least 1.
        window_s: seconds, at least 1. An order at `t` counts what lies after `t - window_s`, up to `t` itself.

    Raises:
        InvalidValue: a count or a window below 1.
    """

    count: int
    window_s: int
    scope: RiskScope = RiskScope.STRATEGY

    def __post_init__(self) -> None:
        for field, value in (("count", self.count), ("window_s", self.window_s)):
            if value < 1:
                raise InvalidValue(f"{field} was {value}; it must be at least 1.", "Send a whole number.")


@dataclass(frozen=True, slots=True)
class PriceCollar:
    """The price of an order lies at most `share` of the mark away from it.

    It is the limit price of an order that has one. Of another it is the reference price, and only where the order raises exposure: who
    leaves at the market leaves at any price.

    Attributes:
        share: above 0, at most 1.

    Raises:
        InvalidValue: a share that is not above 0, or is above 1.
    """

    share: Decimal

    def __post_init__(self) -> None:
        _require_share("share", self.share)


LossLimit: TypeAlias = DailyLossLimit | DrawdownLimit
"""Those that are told by equity alone: they stop what raises exposure, and can trip the guard."""

ExposureLimit: TypeAlias = PositionLimit | NotionalLimit | LeverageLimit | ConcentrationLimit
"""Those that are told by positions and open orders."""

RiskLimit: TypeAlias = ExposureLimit | LossLimit | OrderRateLimit | PriceCollar


def _require_positive(field: str, value: Decimal) -> None:
    if not value.is_finite() or value <= 0:
        raise InvalidValue(
            f"{field} was {value}; it must be finite and above 0.",
            "Leave the limit out where there is none.",
        )


def _require_share(field: str, value: Decimal) -> None:
    _require_positive(field, value)
    if value > 1:
        raise InvalidValue(f"{field} was {value}; it must be at most 1.", "Send 0.05 for five percent.")
