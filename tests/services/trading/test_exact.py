"""Money keeps all its digits on its way through trading, however many they are and whatever context is ambient."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InexactMoney
from qmtl.foundation.common.money import total
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Fill, Position, Side
from qmtl.foundation.contracts.world import Activation, EffectiveMode, Instrument, PositionSide
from qmtl.runtime.brokerage.fees import PercentFee
from qmtl.runtime.brokerage.fills import market_fill
from qmtl.runtime.brokerage.slippage import ConstantSlippage
from qmtl.runtime.execution import portfolio
from qmtl.runtime.execution.gate import Refused, admit
from qmtl.runtime.execution.sizing import OnTarget, Sized, size
from qmtl.runtime.orders.aggregate import pending, remaining
from qmtl.runtime.orders.fills import Applied, apply_fill
from tests.foundation.instances import UNUSABLE
from tests.services.trading.samples import (
    SCOPE,
    STRATEGY,
    SYMBOL,
    T0,
    WORLD,
    a_fill,
    an_account,
    an_intent,
    an_order,
    of,
)

LOT = Decimal("1e-14")
sides = st.sampled_from(Side)
quantities = st.integers(10**28, 10**29 - 1).map(lambda lots: Decimal(lots).scaleb(-14))  # 29 digits
holdings = st.integers(-(10**29), 10**29).map(lambda lots: Decimal(lots).scaleb(-14))
prices = st.integers(10**28, 10**29 - 1).map(lambda ticks: Decimal(ticks).scaleb(-19))  # 29 digits
LONG = Decimal("123456789012345.12345678901231")
"""29 digits: one more than the default context keeps."""


def signed(side: Side, quantity: Decimal) -> Fraction:
    return Fraction(quantity) * (1 if side is Side.BUY else -1)


@given(st.lists(st.tuples(sides, quantities, prices), min_size=1, max_size=5), prices)
@example([(Side.SELL, LONG, Decimal("1234567890.1234567890123456789"))], Decimal(1))
def test_cash_quantity_and_equity_are_exact(
    trades: list[tuple[Side, Decimal, Decimal]], mark: Decimal
) -> None:
    position: Position | None = None
    account = an_account()
    fills: list[Fill] = [a_fill(1, quantity, price, side) for side, quantity, price in trades]
    with localcontext(UNUSABLE):
        for fill in fills:
            try:
                position, account = portfolio.apply_fill(position, account, fill, SCOPE)
            except InexactMoney:
                assume(False)
        assert position is not None
        position = portfolio.mark(position, mark, T0)
        account = portfolio.revalue(account, [position], T0)
    moved = [signed(fill.side, fill.quantity) for fill in fills]
    initial = Fraction(an_account().cash)
    cash = initial - sum(q * Fraction(f.price) for q, f in zip(moved, fills, strict=True))
    value = sum(moved) * Fraction(mark)
    assert (Fraction(position.quantity), Fraction(account.cash)) == (sum(moved), cash)
    assert (Fraction(account.equity), Fraction(account.exposure)) == (cash + value, abs(value))
    assert Fraction(account.equity) == initial + Fraction(account.realised) + Fraction(account.unrealised)


@given(holdings, holdings)
@example(LONG, Decimal(0))
@example(LONG.copy_negate(), LOT)
def test_an_exit_orders_the_whole_holding(held: Decimal, waiting: Decimal) -> None:
    instrument = Instrument(SYMBOL, LOT, LOT, LOT)
    with localcontext(UNUSABLE):
        answer = size(an_intent("0"), Decimal(0), Decimal(1), Decimal(0), held, waiting, instrument)
    if isinstance(answer, OnTarget):
        assert Fraction(held) + Fraction(waiting) == 0
    else:
        assert isinstance(answer, Sized)
        assert signed(answer.side, answer.quantity) == -(Fraction(held) + Fraction(waiting))
        assert answer.reduce_only


@given(sides, quantities, quantities, prices)
@example(Side.SELL, LONG, LOT, Decimal(1))
def test_what_is_left_of_an_order_is_exact(
    side: Side, filled: Decimal, rest: Decimal, price: Decimal
) -> None:
    order = an_order(side, total((filled, rest)))
    with localcontext(UNUSABLE):
        applied = apply_fill(order, of(order, a_fill(1, filled, price, side)))
        assert isinstance(applied, Applied)
        after = applied.order
        assert Fraction(remaining(after)) == Fraction(rest)
        assert Fraction(pending(after)) == signed(side, rest)


@given(sides, quantities, prices)
@example(Side.SELL, LONG, LONG)
@example(Side.BUY, Decimal(1), Decimal("12345678901234567890.12345678901"))
def test_a_fill_lies_on_the_tick_against_the_taker_and_less_than_one_away(
    side: Side, quantity: Decimal, price: Decimal
) -> None:
    tick, slip, rate = Decimal("1e-10"), Decimal("0.0005"), Decimal("0.00001")
    bar = Bar(SYMBOL, T0, 60, price, price, price, price, Decimal(1))
    order = an_order(side, quantity)
    with localcontext(UNUSABLE):
        fill = market_fill(order, bar, PercentFee(rate), ConstantSlippage(slip), tick, "USD")
    missed = Fraction(fill.price) - Fraction(price) * (1 + signed(side, slip))
    assert 0 <= signed(side, Decimal(1)) * missed < Fraction(tick)
    assert (Fraction(fill.price) / Fraction(tick)).denominator == 1
    assert Fraction(fill.slippage) == abs(Fraction(fill.price) - Fraction(price))
    fee = Fraction(fill.quantity) * Fraction(fill.price) * Fraction(rate)
    assert abs(Fraction(fill.fee) - fee) <= Fraction(1, 2 * 10**18)


@pytest.mark.parametrize("target", ["1." + "0" * 30 + "1", "-1." + "0" * 30 + "1"])
def test_a_target_a_little_above_the_whole_is_refused(target: str) -> None:
    side = Activation(
        WORLD, STRATEGY, PositionSide.LONG, True, Decimal(1), False, False, EffectiveMode.PAPER, 1, "act", T0
    )
    short = Activation(
        WORLD, STRATEGY, PositionSide.SHORT, True, Decimal(1), False, False, EffectiveMode.PAPER, 1, "act", T0
    )
    verdict = admit(
        an_intent(target),
        side,
        short,
        Decimal(0),
        Decimal(1),
        cut_ready=True,
        closed_bucket_ms=T0,
        needed_bucket_ms=T0,
    )
    assert isinstance(verdict, Refused)
