"""What the fills make of cash and positions: exact average-cost accounting of one scope."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from decimal import Decimal
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar, assert_never

from qmtl.foundation.common.errors import InexactMoney, InvariantBroken
from qmtl.foundation.common.evolving import changing
from qmtl.foundation.common.money import (
    ZERO,
    is_value,
    magnitude,
    minus,
    negated,
    plus,
    product,
    quotient,
    text,
    total,
)
from qmtl.foundation.contracts.trade import Account, BrokerMode, Fill, Position, Side
from qmtl.foundation.contracts.world import WorldSettings

PortfolioKey: TypeAlias = tuple[str, str, str]

WORLD_SCOPE = "world"

ACCOUNT_SYMBOL = ""
"""The place of the symbol in the key of the account's row, which no instrument has."""

COST_PLACES = 18
"""Digits after the point to which the cost of a part of a position is rounded, half-even."""

AVERAGE_PLACES = 12

_Row = TypeVar("_Row", Position, Account)
_MONEY: Final = {
    kind: tuple(field.name for field in fields(kind) if field.type == "Decimal")
    for kind in (Position, Account)
}
_AMOUNTS: Final = {kind: attrgetter(*names) for kind, names in _MONEY.items()}

_traded: Final = changing(
    Position, "quantity", "cost", "average_cost", "realised", "fees", "mark", "unrealised", "fills"
)
_marked: Final = changing(Position, "mark", "unrealised", "as_of_ms")
_paid: Final = changing(Account, "cash", "equity", "exposure", "realised", "unrealised", "fees")
_valued: Final = changing(Account, "equity", "exposure", "unrealised", "as_of_ms")


def scope_of_strategy(strategy_id: str, mode: BrokerMode = BrokerMode.PAPER) -> str:
    """The scope in which a strategy has its own cash and positions: one of what it trades on paper, and one of what it trades live."""
    match mode:
        case BrokerMode.PAPER:
            return f"strategy:{strategy_id}"
        case BrokerMode.LIVE:
            return f"live:{strategy_id}"
        case _:
            assert_never(mode)


def portfolio_key(world_id: str, scope: str, symbol: str = ACCOUNT_SYMBOL) -> PortfolioKey:
    """The key of a row of `trade.portfolio`: a position's with a symbol, the account's without."""
    return (world_id, scope, symbol)


def key_of(row: Position | Account) -> PortfolioKey:
    """The key under which a row is kept."""
    return portfolio_key(row.world_id, row.scope, row.symbol if isinstance(row, Position) else ACCOUNT_SYMBOL)


def open_account(
    world_id: str, scope: str, settings: WorldSettings, as_of_ms: int, session: int = 1
) -> Account:
    """An account that holds its initial cash and nothing else."""
    return Account(
        world_id=world_id,
        scope=scope,
        currency=settings.currency,
        initial_cash=settings.initial_cash,
        cash=settings.initial_cash,
        equity=settings.initial_cash,
        exposure=ZERO,
        realised=ZERO,
        unrealised=ZERO,
        fees=ZERO,
        as_of_ms=as_of_ms,
        session=session,
    )


def signed(side: Side, quantity: Decimal) -> Decimal:
    """An unsigned quantity with the sign of its side: what is bought is positive."""
    return quantity if side is Side.BUY else negated(quantity)


def apply_fill(
    position: Position | None, account: Account, fill: Fill, scope: str
) -> tuple[Position, Account]:
    """The position and the account after one fill.

    The caller applies each fill once, in the order of its sequence numbers (`orders.apply_fill`). Three laws hold after any
    fills, without tolerance:

    - cash = initial cash - sum(signed quantity * price) - sum(fees);
    - quantity = sum(signed quantity);
    - equity = initial cash + realised + unrealised - fees.

    An increase adds its cost. A reduction takes out `cost * closed / quantity`: all of the cost where all is closed, else the
    quotient rounded half-even to `COST_PLACES` digits. What is realised is computed from the same rounded cost, so that a
    rounding moves a fraction between realised and unrealised and never out of their sum. A flip closes the whole position and
    opens the rest at the fill's price. Fees count beside `realised`, not in it.

    The account's totals move by the difference that this fill makes. A position that has seen no close yet is marked at the
    fill's price. `as_of_ms` stays: a fill closes no bucket.

    Raises:
        InvariantBroken: a fill of another world, symbol or currency, or one without a positive quantity and price.
        InexactMoney: numbers too long for exact arithmetic.
    """
    before = position if position is not None else flat(account, fill.symbol)
    _require_same(before, account, fill, scope)
    moved = signed(fill.side, fill.quantity)
    quantity = plus(before.quantity, moved)
    cost, realised = _booked(before.quantity, before.cost, moved, fill.price)
    price = before.mark or fill.price
    value = product(quantity, price)
    unrealised = minus(value, cost)
    after = _traded(
        before,
        quantity,
        cost,
        quotient(cost, quantity, AVERAGE_PLACES) if quantity else ZERO,
        plus(before.realised, realised),
        plus(before.fees, fill.fee),
        price,
        unrealised,
        before.fills + 1,
    )
    was_worth = _value(before)
    cash = total((account.cash, negated(product(moved, fill.price)), negated(fill.fee)))
    return _kept(after), _kept(
        _paid(
            account,
            cash,
            total((account.equity, cash, negated(account.cash), value, negated(was_worth))),
            total((account.exposure, magnitude(value), negated(magnitude(was_worth)))),
            plus(account.realised, realised),
            total((account.unrealised, unrealised, negated(before.unrealised))),
            plus(account.fees, fill.fee),
        )
    )


def mark(position: Position, price: Decimal, as_of_ms: int) -> Position:
    """The position valued at `price`, true for the bucket `as_of_ms`.

    Raises:
        InvariantBroken: a price that is not positive, or a bucket before the one that the row is true for.
        InexactMoney: the position has no exact value at that price.
    """
    if price <= 0:
        raise InvariantBroken(f"{position.symbol} was marked at {price}; a price is positive.")
    _require_forward(position.as_of_ms, as_of_ms, position.symbol)
    unrealised = minus(product(position.quantity, price), position.cost)
    for name, value in (("mark", price), ("unrealised", unrealised)):  # the others were kept before
        if not is_value(value):
            raise _outside(name, position)
    return _marked(position, price, unrealised, as_of_ms)


def revalue(account: Account, positions: Iterable[Position], as_of_ms: int) -> Account:
    """The account with its totals computed anew from all positions of its scope, true for the bucket `as_of_ms`.

    Equity is `cash + sum(quantity * mark)`, exposure `sum(|quantity * mark|)`. Flat positions may be left out. The order of the
    positions makes no difference: the sums are exact.

    Raises:
        InvariantBroken: a position of another scope, or a bucket before the one that the row is true for.
        InexactMoney: the positions have no exact value together.
    """
    held = tuple(positions)
    for position in held:
        if (position.world_id, position.scope) != (account.world_id, account.scope):
            raise InvariantBroken(
                f"the account of {(account.world_id, account.scope)} met a position of {(position.world_id, position.scope)}."
            )
    _require_forward(account.as_of_ms, as_of_ms, "the account")
    values = tuple(_value(position) for position in held)
    return _kept(
        _valued(
            account,
            total((account.cash, *values)),
            total(magnitude(value) for value in values),
            total(position.unrealised for position in held),
            as_of_ms,
        )
    )


def flat(account: Account, symbol: str) -> Position:
    return Position(
        world_id=account.world_id,
        scope=account.scope,
        symbol=symbol,
        quantity=ZERO,
        cost=ZERO,
        average_cost=ZERO,
        realised=ZERO,
        fees=ZERO,
        mark=ZERO,
        unrealised=ZERO,
        fills=0,
        as_of_ms=account.as_of_ms,
    )


def _booked(held: Decimal, cost: Decimal, moved: Decimal, price: Decimal) -> tuple[Decimal, Decimal]:
    """The signed cost after `moved` was traded at `price`, and what this realised."""
    if not held or (held > 0) == (moved > 0):
        return plus(cost, product(moved, price)), ZERO
    closed = negated(moved) if magnitude(moved) <= magnitude(held) else held
    removed = cost if closed == held else quotient(product(cost, closed), held, COST_PLACES)
    realised = minus(product(closed, price), removed)
    opens = plus(moved, closed)
    return total((cost, negated(removed), product(opens, price))), realised


def _value(position: Position) -> Decimal:
    return product(position.quantity, position.mark)


def _kept(row: _Row) -> _Row:
    """The row, if it can be written: sums and products may leave the range of money without losing a digit."""
    for name, value in zip(_MONEY[type(row)], _AMOUNTS[type(row)](row), strict=True):
        if not is_value(value):
            raise _outside(name, row)
    return row


def _outside(name: str, row: Position | Account) -> InexactMoney:
    return InexactMoney(
        f"{name} of {key_of(row)} was outside of what money may be.", "Check the unit of the price."
    )


def _require_same(position: Position, account: Account, fill: Fill, scope: str) -> None:
    place = portfolio_key(fill.world_id, scope, fill.symbol)
    if key_of(position) != place or key_of(account) != portfolio_key(fill.world_id, scope):
        raise InvariantBroken(
            f"a fill of {place} met the position {key_of(position)} and the account {key_of(account)}."
        )
    if fill.fee_currency != account.currency:
        raise InvariantBroken(
            f"fill {fill.seq} of order {fill.order_id} had a fee in {fill.fee_currency!r}; "
            f"the account is kept in {account.currency!r}."
        )
    if fill.quantity <= 0 or fill.price <= 0:
        raise InvariantBroken(
            f"fill {fill.seq} of order {fill.order_id} was {text(fill.quantity)} at {text(fill.price)}; both are positive."
        )


def _require_forward(was_ms: int, as_of_ms: int, what: str) -> None:
    if as_of_ms < was_ms:
        raise InvariantBroken(f"{what} is true for the bucket {was_ms} already; {as_of_ms} is before it.")
