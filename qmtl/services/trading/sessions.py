"""Which of its two brokers a strategy trades with, and the order session that begins when that changes.

A strategy has a book of what it trades on paper and one of what it trades at a venue; neither ever has rows of the other. It is at the venue as soon as one of its
sides is live, else on paper as soon as one is on paper. Going live takes nothing along: the live book begins with the world's initial cash, or goes on where it
was left, and a dry run always begins anew. What was open in the session that ends is cancelled, but for live orders that only reduce.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from qmtl.engine.processor import Step
from qmtl.foundation.contracts.trade import Account, BrokerMode, Order, Position
from qmtl.foundation.contracts.world import Activation, PositionSide, World
from qmtl.runtime.execution import portfolio
from qmtl.runtime.execution.gate import mode_of
from qmtl.services.trading.settlement import withdraw

Whose = tuple[str, str]
"""World id, strategy id."""


def gates_of(step: Step, whose: Whose) -> tuple[Activation | None, Activation | None]:
    """The gates of the long and the short side."""
    gates = step.table("trade.gates")
    return gates.get(*whose, PositionSide.LONG.value), gates.get(*whose, PositionSide.SHORT.value)


@dataclass(frozen=True, slots=True)
class Book:
    """What a strategy has with one broker, as a decision sees it.

    Attributes:
        carried: whether the positions of the cut belong to it.
    """

    account: Account
    carried: bool


def book_at(step: Step, world: World, strategy_id: str, mode: BrokerMode, cut_ms: int) -> Book:
    """The book as the cut of a bucket has it, in the session of now: a dry run that has just begun has none of the one before."""
    scope = portfolio.scope_of_strategy(strategy_id, mode)
    key = portfolio.portfolio_key(world.world_id, scope)
    rows = step.table("trade.portfolio")
    now: Account | None = rows.get(*key)
    session = 1 if now is None else now.session
    then: Account | None = rows.at(cut_ms, *key)
    if then is not None and then.session == session:
        return Book(then, True)
    if then is not None and mode is BrokerMode.LIVE:
        return Book(replace(then, session=session), True)
    return Book(portfolio.open_account(world.world_id, scope, world.settings, cut_ms, session), False)


def was_live(step: Step, whose: Whose, cut_ms: int) -> bool:
    """Whether a strategy has a live book, as the cut of a bucket has it."""
    scope = portfolio.scope_of_strategy(whose[1], BrokerMode.LIVE)
    key = portfolio.portfolio_key(whose[0], scope)
    return step.table("trade.portfolio").at(cut_ms, *key) is not None


def open_missing_account(step: Step, whose: Whose, bucket_ms: int) -> None:
    """Give a strategy its first account when its gate is first spoken of."""
    world_id, strategy_id = whose
    world: World | None = step.table("trade.worlds").get(world_id)
    if world is None or current(step, whose) is not None:
        return
    scope = portfolio.scope_of_strategy(strategy_id, mode_of(*gates_of(step, whose)) or BrokerMode.PAPER)
    step.table("trade.portfolio").put(portfolio.open_account(world_id, scope, world.settings, bucket_ms))


def current(step: Step, whose: Whose) -> tuple[BrokerMode, int] | None:
    """The mode and the number of the session that a strategy is in; None before its first."""
    world_id, strategy_id = whose
    rows = step.table("trade.portfolio")
    found = [
        (account.session, mode)
        for mode in BrokerMode
        if (
            account := rows.get(
                *portfolio.portfolio_key(world_id, portfolio.scope_of_strategy(strategy_id, mode))
            )
        )
        is not None
    ]
    if not found:
        return None
    number, mode = max(found, key=lambda one: one[0])
    return mode, number


def change_sessions(step: Step, spoken_of: Iterable[Whose], bucket_ms: int) -> None:
    """Begin a session for each strategy whose gates ask for the other broker than the one it is with.

    It comes after the fills and marks of the bucket, which are those of the session that ends.
    """
    for whose in sorted(set(spoken_of)):
        world: World | None = step.table("trade.worlds").get(whose[0])
        wanted, now = mode_of(*gates_of(step, whose)), current(step, whose)
        if world is None or wanted is None or now is None or now[0] is wanted:
            continue
        _end(step, world, whose, now[0], bucket_ms)
        _begin(step, world, whose[1], wanted, now[1] + 1, bucket_ms)


def _end(step: Step, world: World, whose: Whose, mode: BrokerMode, bucket_ms: int) -> None:
    for order in _open_orders(step, whose):
        if order.mode is mode and not (mode is BrokerMode.LIVE and order.reduce_only):
            withdraw(step, world, order, bucket_ms)


def _begin(
    step: Step, world: World, strategy_id: str, mode: BrokerMode, session: int, bucket_ms: int
) -> None:
    scope = portfolio.scope_of_strategy(strategy_id, mode)
    rows = step.table("trade.portfolio")
    known: Account | None = rows.get(*portfolio.portfolio_key(world.world_id, scope))
    if known is not None and mode is BrokerMode.LIVE:
        rows.put(replace(known, session=session))
        return
    account = portfolio.open_account(world.world_id, scope, world.settings, bucket_ms, session)
    rows.put(account)
    held: list[Account | Position] = list(rows.items(world.world_id, scope))
    for row in held:
        if isinstance(row, Position):
            rows.put(portfolio.flat(account, row.symbol))


def _open_orders(step: Step, whose: Whose) -> list[Order]:
    rows: list[Order] = list(step.table("trade.open_orders").items(whose[0]))
    return [one for one in rows if one.strategy_id == whose[1]]
