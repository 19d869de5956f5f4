"""Keys of portfolios, and how much to order."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import PortfolioRow, Side
from qmtl.runtime.execution.sizing import OnTarget, Sized, Unsized
from qmtl.runtime.sdk.portfolio import (
    Portfolio,
    order_percent,
    order_target_percent,
    order_value,
    portfolio_key,
    portfolio_of,
)
from tests.services.trading.samples import a_position, an_account

D = Decimal
texts = st.text(min_size=1, max_size=6)
scopes = st.sampled_from(["strategy", "world"])
parts = st.tuples(scopes, texts, texts, st.text(max_size=6))
PORTFOLIO = Portfolio("strategy", "w", "s", D(1_000), D(1_000), {"X": D(3)})
NAN = D("NaN")
LOT = D("0.01")
prices = st.integers(1, 10**6).map(lambda ticks: D(ticks).scaleb(-2))
shares = st.integers(-3_000, 3_000).map(lambda parts: D(parts).scaleb(-3))


@given(parts, parts)
def test_keys_are_equal_where_what_they_name_is_one(
    one: tuple[str, str, str, str], other: tuple[str, str, str, str]
) -> None:
    def named(scope: str, world: str, strategy: str, symbol: str) -> tuple[str, ...]:
        return (scope, world, symbol, strategy if scope == "strategy" else "")

    assert (portfolio_key(*one) == portfolio_key(*other)) == (named(*one) == named(*other))
    assert portfolio_key(*one) == portfolio_key(*one)


@pytest.mark.parametrize(
    "parts", [("desk", "w", "s", "X"), ("strategy", "w", "", "X"), ("world", "", "s", "X")]
)
def test_a_key_without_an_owner_is_refused(parts: tuple[str, str, str, str]) -> None:
    with pytest.raises(InvalidValue):
        portfolio_key(*parts)


@given(shares, prices)
def test_a_target_is_met_to_less_than_a_lot_and_never_passed(share: Decimal, price: Decimal) -> None:
    flat = replace(PORTFOLIO, quantities={})
    sized = order_target_percent(flat, "X", share, price, LOT)
    wanted = Fraction(share) * 1000 / Fraction(price)
    match sized:
        case Sized(side, quantity, reduces):
            assert not reduces
            assert (side is Side.BUY) == (share > 0)
            assert 0 <= abs(wanted) - Fraction(quantity) < Fraction(LOT)
            held = quantity if side is Side.BUY else -quantity
            assert isinstance(
                order_target_percent(replace(flat, quantities={"X": held}), "X", share, price, LOT), OnTarget
            )
            assert isinstance(order_target_percent(flat, "X", share, price, LOT, pending=held), OnTarget)
        case Unsized(reason):
            assert reason is RejectionReason.BELOW_MINIMUM_SIZE or not share
            assert abs(wanted) < Fraction(LOT)
        case OnTarget():
            assert abs(wanted) < Fraction(LOT)
    assert order_percent(flat, "X", share, price, LOT) == order_value(flat, "X", share * 1000, price, LOT)


@pytest.mark.parametrize(
    ("sized", "reason"),
    [
        (order_value(PORTFOLIO, "X", NAN, D(1), LOT), RejectionReason.INVALID_INTENT),
        (order_value(PORTFOLIO, "X", D("Infinity"), D(1), LOT), RejectionReason.INVALID_INTENT),
        (order_value(PORTFOLIO, "X", D(1), D(1), D(0)), RejectionReason.INVALID_INTENT),
        (order_value(PORTFOLIO, "X", D(1), D(0), LOT), RejectionReason.NO_REFERENCE_PRICE),
        (order_value(PORTFOLIO, "X", D(1), NAN, LOT), RejectionReason.NO_REFERENCE_PRICE),
        (order_value(PORTFOLIO, "X", D(1), D(1_000), LOT), RejectionReason.BELOW_MINIMUM_SIZE),
        (order_value(PORTFOLIO, "X", D(10), D(1), LOT, D(11)), RejectionReason.BELOW_MINIMUM_SIZE),
        (
            order_value(replace(PORTFOLIO, equity=D(-1)), "X", D(10), D(1), LOT),
            RejectionReason.INSUFFICIENT_EQUITY,
        ),
        (order_percent(PORTFOLIO, "X", NAN, D(1), LOT), RejectionReason.INVALID_INTENT),
        (
            order_percent(replace(PORTFOLIO, equity=D(0)), "X", D(1), D(1), LOT),
            RejectionReason.INSUFFICIENT_EQUITY,
        ),
        (order_target_percent(PORTFOLIO, "X", NAN, D(1), LOT), RejectionReason.INVALID_INTENT),
        (order_target_percent(PORTFOLIO, "X", D(1), D(0), LOT), RejectionReason.NO_REFERENCE_PRICE),
        (
            order_target_percent(replace(PORTFOLIO, equity=D(-1)), "X", D(1), D(1), LOT),
            RejectionReason.INSUFFICIENT_EQUITY,
        ),
    ],
)
def test_what_cannot_be_ordered_is_a_value_with_its_reason(sized: object, reason: RejectionReason) -> None:
    assert isinstance(sized, Unsized)
    assert sized.reason is reason
    assert sized.detail


def test_an_exit_needs_neither_equity_nor_price() -> None:
    poor = replace(PORTFOLIO, equity=D(-5))
    assert order_target_percent(poor, "X", D(0), NAN, LOT) == Sized(Side.SELL, D(3), True)
    assert order_value(poor, "X", D(-20), D(10), LOT) == Sized(Side.SELL, D(2), True)


def test_a_world_is_the_sum_of_its_strategies_and_paper_is_not_live() -> None:
    account = an_account(D(100))
    position = a_position(D(2), D(50))
    other = account.scope + "2"
    rows: list[PortfolioRow] = [
        account,
        position,
        replace(account, scope=other),
        replace(position, scope=other),
        replace(account, scope="live:x"),
        replace(account, world_id="elsewhere"),
    ]
    world = portfolio_of(rows, "world", account.world_id)
    assert world is not None
    assert world.equity == 2 * account.equity
    assert world.quantity(position.symbol) == 2 * position.quantity
    own = portfolio_of(rows, "strategy", account.world_id, account.scope.removeprefix("strategy:"))
    assert own is not None
    assert own.cash == account.cash
    assert own.key(position.symbol) == (account.world_id, own.strategy_id, position.symbol)
    assert portfolio_of(rows, "strategy", account.world_id, "nobody") is None
