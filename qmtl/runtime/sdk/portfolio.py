"""What an author asks of a portfolio: the key of its rows, what it holds, and how much to order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, TypeAlias

from qmtl.foundation.common.errors import InexactMoney, InvalidValue
from qmtl.foundation.common.money import (
    ZERO,
    floor_to_step,
    is_factor,
    is_value,
    magnitude,
    minus,
    plus,
    product,
    text,
    total,
    whole_steps,
)
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Account, BrokerMode, PortfolioRow, Position, Side
from qmtl.runtime.execution.sizing import OnTarget, Sized, Sizing, Unsized

STRATEGY: Final = "strategy"
WORLD: Final = "world"

PortfolioKey: TypeAlias = tuple[str, str, str] | tuple[str, str]


def portfolio_key(scope: str, world_id: str, strategy_id: str, symbol: str) -> PortfolioKey:
    """What a snapshot or fill of a portfolio is kept under: `(world_id, strategy_id, symbol)` in the scope `strategy`, `(world_id, symbol)`
    in the scope `world`. Two keys are equal where all their parts are, so no name can be taken for another.

    Args:
        strategy_id: has no meaning in the scope `world`.
        symbol: empty of the row of the cash, which no instrument's is.

    Raises:
        InvalidValue: another scope, or no world or strategy.
    """
    if scope not in (STRATEGY, WORLD):
        raise InvalidValue(f"portfolio_scope was {scope!r}; it is 'strategy' or 'world'.")
    if not world_id or (scope == STRATEGY and not strategy_id):
        raise InvalidValue(
            f"world_id was {world_id!r} and strategy_id {strategy_id!r}; what a scope is named after is said."
        )
    return (world_id, strategy_id, symbol) if scope == STRATEGY else (world_id, symbol)


@dataclass(frozen=True, slots=True)
class Portfolio:
    """One scope at one cut.

    Attributes:
        strategy_id: empty of a world's.
        cash, equity: account currency.
        quantities: by symbol, signed, base currency; what is flat may be missing.
    """

    scope: str
    world_id: str
    strategy_id: str
    cash: Decimal
    equity: Decimal
    quantities: Mapping[str, Decimal]

    def key(self, symbol: str = "") -> PortfolioKey:
        return portfolio_key(self.scope, self.world_id, self.strategy_id, symbol)

    def quantity(self, symbol: str) -> Decimal:
        return self.quantities.get(symbol, ZERO)


def portfolio_of(
    rows: Iterable[PortfolioRow],
    scope: str,
    world_id: str,
    strategy_id: str = "",
    mode: BrokerMode = BrokerMode.PAPER,
) -> Portfolio | None:
    """The portfolio out of rows of `trade.portfolio`; others among them are passed over. A world's is the sum over its strategies.

    Args:
        mode: money on paper and money at a venue are never added.

    Returns:
        None where there is no account: nothing is known of it.
    """
    portfolio_key(scope, world_id, strategy_id, "")
    begins = "strategy:" if mode is BrokerMode.PAPER else "live:"
    cash: list[Decimal] = []
    equity: list[Decimal] = []
    held: dict[str, Decimal] = {}
    for row in rows:
        mine = row.scope == begins + strategy_id if scope == STRATEGY else row.scope.startswith(begins)
        if row.world_id != world_id or not mine:
            continue
        match row:
            case Account():
                cash.append(row.cash)
                equity.append(row.equity)
            case Position():
                held[row.symbol] = plus(held.get(row.symbol, ZERO), row.quantity)
    if not cash:
        return None
    quantities = MappingProxyType({symbol: held[symbol] for symbol in sorted(held)})
    owner = strategy_id if scope == STRATEGY else ""
    return Portfolio(scope, world_id, owner, total(cash), total(equity), quantities)


def order_value(
    portfolio: Portfolio, symbol: str, value: Decimal, price: Decimal, lot: Decimal, minimum: Decimal = ZERO
) -> Sizing:
    """An order worth `value` at most: `value / price`, in lots towards zero.

    Args:
        value: account currency; what is bought is positive.
        price: quote currency per unit.
        lot, minimum: base currency.

    Returns:
        `Sized`; `OnTarget` for a value of 0; `Unsized` with `INVALID_INTENT` (not a number, or too long), `NO_REFERENCE_PRICE`,
        `INSUFFICIENT_EQUITY` (it would open or add something on an equity that is not positive), or `BELOW_MINIMUM_SIZE`.
    """
    refused = _refused(symbol, price, lot, minimum, value)
    if refused is not None:
        return refused
    held = portfolio.quantity(symbol)
    if not value:
        return OnTarget(held)
    try:
        wanted = product(whole_steps(value, product(price, lot)), lot)
        return _sized(portfolio, held, wanted, value, lot, minimum)
    except InexactMoney as error:
        return Unsized(RejectionReason.INVALID_INTENT, error.what)


def order_percent(
    portfolio: Portfolio, symbol: str, percent: Decimal, price: Decimal, lot: Decimal, minimum: Decimal = ZERO
) -> Sizing:
    """An order worth a share of the equity at most: `order_value` of `percent * equity`.

    Args:
        percent: 0.1 is a tenth; what is bought is positive.
    """
    if not is_factor(percent):
        return Unsized(RejectionReason.INVALID_INTENT, f"percent {percent} of {symbol} is not a short number")
    if percent and portfolio.equity <= 0:
        return _poor(portfolio)
    try:
        value = product(percent, portfolio.equity)
    except InexactMoney as error:
        return Unsized(RejectionReason.INVALID_INTENT, error.what)
    return order_value(portfolio, symbol, value, price, lot, minimum)


def order_target_percent(
    portfolio: Portfolio,
    symbol: str,
    percent: Decimal,
    price: Decimal,
    lot: Decimal,
    minimum: Decimal = ZERO,
    pending: Decimal = ZERO,
) -> Sizing:
    """The order after which a share of the equity is held: `percent * equity / price` in lots towards zero, less what is held and pending.

    Args:
        pending: what open orders can still add, signed. To a target of 0 neither equity nor price is needed.
    """
    refused = _refused(symbol, price if percent else lot, lot, minimum, percent, pending)
    if refused is not None:
        return refused
    if percent and portfolio.equity <= 0:
        return _poor(portfolio)
    try:
        held = plus(portfolio.quantity(symbol), pending)
        desired = ZERO
        if percent:
            worth = product(percent, portfolio.equity)
            desired = product(whole_steps(worth, product(price, lot)), lot)
        gap = minus(desired, held)
        if not gap:
            return OnTarget(held)
        return _sized(portfolio, held, floor_to_step(gap, lot), gap, lot, minimum)
    except InexactMoney as error:
        return Unsized(RejectionReason.INVALID_INTENT, error.what)


def _refused(symbol: str, price: Decimal, lot: Decimal, minimum: Decimal, *asked: Decimal) -> Unsized | None:
    for number in asked:
        if not number.is_finite() or not is_value(number):
            return Unsized(RejectionReason.INVALID_INTENT, f"{number} of {symbol} is not a finite number")
    if not is_factor(lot) or lot <= 0 or not is_factor(minimum) or minimum < 0:
        return Unsized(RejectionReason.INVALID_INTENT, f"lot {lot} and minimum {minimum} of {symbol}")
    if not is_factor(price) or price <= 0:
        return Unsized(RejectionReason.NO_REFERENCE_PRICE, f"price {price} of {symbol}; it is positive")
    return None


def _sized(
    portfolio: Portfolio, held: Decimal, wanted: Decimal, asked: Decimal, lot: Decimal, minimum: Decimal
) -> Sizing:
    least, quantity = max(lot, minimum), magnitude(wanted)
    if not is_value(quantity):
        return Unsized(
            RejectionReason.INVALID_INTENT, f"a quantity of {quantity} is outside of what money may be"
        )
    if quantity < least:
        return Unsized(
            RejectionReason.BELOW_MINIMUM_SIZE,
            f"{text(asked)} comes to {text(quantity)}, minimum {text(least)}",
        )
    after = plus(held, wanted)
    reduces = magnitude(after) < magnitude(held) and (not after or (after > 0) == (held > 0))
    if portfolio.equity <= 0 and not reduces:
        return _poor(portfolio)
    return Sized(Side.BUY if wanted > 0 else Side.SELL, quantity, reduces)


def _poor(portfolio: Portfolio) -> Unsized:
    return Unsized(RejectionReason.INSUFFICIENT_EQUITY, f"equity {text(portfolio.equity)}; it is positive")
