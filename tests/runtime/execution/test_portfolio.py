"""Conservation laws of the portfolio, then the outside examples."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvariantBroken
from qmtl.foundation.contracts.trade import Account, Fill, Position, Side
from qmtl.runtime.brokerage.fees import PercentFee
from qmtl.runtime.execution import portfolio
from tests.services.trading.samples import CURRENCY, SCOPE, SYMBOL, T0, a_fill, a_position, an_account, dec

ORACLE = json.loads((Path(__file__).parent / "oracle_portfolio.json").read_text())["rows"]
INITIAL = Decimal(10_000)

sides = st.sampled_from(Side)
lots = st.integers(1, 3_000).map(lambda count: Decimal(count).scaleb(-3))
prices = st.integers(1, 2_000_000).map(lambda ticks: Decimal(ticks).scaleb(-2))
fees = st.integers(-1_000, 100_000).map(lambda units: Decimal(units).scaleb(-4))
symbols = st.sampled_from(["A", "B"])


@st.composite
def fills(draw: st.DrawFn) -> Fill:
    fill = a_fill(1, draw(lots), draw(prices), draw(sides), draw(fees))
    return replace(fill, symbol=draw(symbols))


Booked = tuple[dict[str, Position], Account]


def booked(sequence: list[Fill], marks: dict[str, Decimal] | None = None) -> Booked:
    positions: dict[str, Position] = {}
    account = an_account(INITIAL)
    for fill in sequence:
        position, account = portfolio.apply_fill(positions.get(fill.symbol), account, fill, SCOPE)
        if marks:
            position = portfolio.mark(position, marks[fill.symbol], T0)
            account = portfolio.revalue(account, [*({**positions, fill.symbol: position}.values())], T0)
        positions[fill.symbol] = position
    return positions, account


def signed(fill: Fill) -> Decimal:
    return fill.quantity if fill.side is Side.BUY else -fill.quantity


# ---- laws ---------------------------------------------------------------------------------------------------


@given(st.lists(fills(), max_size=25))
def test_cash_is_what_was_paid_and_nothing_else(sequence: list[Fill]) -> None:
    _, account = booked(sequence)
    assert account.cash == INITIAL - sum((signed(one) * one.price + one.fee for one in sequence), Decimal(0))


@given(st.lists(fills(), max_size=25))
def test_a_position_is_the_sum_of_its_fills(sequence: list[Fill]) -> None:
    positions, _ = booked(sequence)
    for symbol in ("A", "B"):
        of_symbol = [one for one in sequence if one.symbol == symbol]
        if not of_symbol:
            assert symbol not in positions
            continue
        assert positions[symbol].quantity == sum((signed(one) for one in of_symbol), Decimal(0))
        assert positions[symbol].fees == sum((one.fee for one in of_symbol), Decimal(0))
        assert positions[symbol].fills == len(of_symbol)


@given(st.lists(fills(), max_size=25), prices, prices)
def test_equity_is_initial_cash_with_profits_less_fees_exactly(
    sequence: list[Fill], price_a: Decimal, price_b: Decimal
) -> None:
    for marks in (None, {"A": price_a, "B": price_b}):
        positions, account = booked(sequence, marks)
        held = positions.values()
        value = sum((one.quantity * one.mark for one in held), Decimal(0))
        assert account.equity == account.cash + value
        assert account.equity == INITIAL + account.realised + account.unrealised - account.fees
        assert account.realised == sum((one.realised for one in held), Decimal(0))
        assert account.unrealised == sum((one.unrealised for one in held), Decimal(0))
        assert account.exposure == sum((abs(one.quantity * one.mark) for one in held), Decimal(0))
        for one in held:
            assert one.unrealised == one.quantity * one.mark - one.cost


@given(st.lists(fills(), max_size=25))
def test_totals_moved_fill_by_fill_are_the_totals_computed_anew(sequence: list[Fill]) -> None:
    positions, account = booked(sequence)
    assert portfolio.revalue(account, positions.values(), T0) == account


@given(st.lists(fills(), max_size=25))
def test_a_flat_position_costs_nothing(sequence: list[Fill]) -> None:
    positions, account = booked(sequence)
    for symbol, position in sorted(positions.items()):
        if position.quantity:
            close = a_fill(
                1, abs(position.quantity), Decimal(7), Side.SELL if position.quantity > 0 else Side.BUY
            )
            position, account = portfolio.apply_fill(position, account, replace(close, symbol=symbol), SCOPE)
        for value in (position.quantity, position.cost, position.average_cost, position.unrealised):
            assert value == 0
    assert account.cash == account.equity == INITIAL + account.realised - account.fees
    assert account.exposure == 0


@given(st.lists(fills(), max_size=25))
def test_the_cost_has_the_sign_of_the_quantity_and_no_zero_is_negative(sequence: list[Fill]) -> None:
    positions, account = booked(sequence)
    for position in positions.values():
        assert position.quantity * position.cost >= 0
    for row in (asdict(account), *(asdict(position) for position in positions.values())):
        for name, value in row.items():
            if isinstance(value, Decimal):
                assert value.is_finite()
                assert value or not value.is_signed(), name


@given(st.lists(lots, min_size=1, max_size=6), prices, st.lists(prices, min_size=6, max_size=6), sides)
def test_reductions_leave_the_average_cost_where_it_was(
    parts: list[Decimal], paid: Decimal, sold: list[Decimal], side: Side
) -> None:
    other = Side.SELL if side is Side.BUY else Side.BUY
    position, account = portfolio.apply_fill(
        None, an_account(INITIAL), a_fill(1, sum(parts, Decimal(1)), paid, side), SCOPE
    )
    for part, price in zip(parts, sold, strict=False):
        position, account = portfolio.apply_fill(position, account, a_fill(1, part, price, other), SCOPE)
        assert position.average_cost == paid


@given(lots, lots, prices, prices, prices)
def test_a_flip_is_a_close_and_an_opening_at_the_same_price(
    held: Decimal, beyond: Decimal, paid: Decimal, price: Decimal, close: Decimal
) -> None:
    start = portfolio.apply_fill(None, an_account(INITIAL), a_fill(1, held, paid), SCOPE)
    position, account = portfolio.apply_fill(*start, a_fill(1, held + beyond, price, Side.SELL), SCOPE)
    two = portfolio.apply_fill(*start, a_fill(1, held, price, Side.SELL), SCOPE)
    two = portfolio.apply_fill(*two, a_fill(2, beyond, price, Side.SELL), SCOPE)
    assert (replace(position, fills=3), account) == two
    assert (position.quantity, position.average_cost) == (-beyond, price)
    assert portfolio.mark(position, close, T0).unrealised == beyond * (price - close)


def test_an_average_that_never_ends_still_conserves_everything() -> None:
    thirds = [a_fill(1, dec("1"), dec("1")), a_fill(1, dec("2"), dec("2"))]
    out = [a_fill(1, dec("1"), dec("3"), Side.SELL), a_fill(1, dec("1"), dec("3"), Side.SELL)]
    positions, account = booked([*thirds, *out])
    position = positions[SYMBOL]
    assert position.average_cost == dec("1.666666666667")
    # 5 / 3 leaves 3.333333333333333333, whose half lies between two places: the even one, ...666, goes out.
    assert position.cost == dec("1.666666666666666667")
    assert position.realised == dec("2.666666666666666667")
    assert account.equity == INITIAL + account.realised + account.unrealised
    assert account.cash == INITIAL - 5 + 6


def test_a_position_without_a_close_is_marked_at_the_price_of_its_fill() -> None:
    positions, account = booked([a_fill(1, dec(2), dec(50), fee=dec(1))])
    assert (positions[SYMBOL].mark, positions[SYMBOL].unrealised) == (dec(50), dec(0))
    assert (account.equity, account.exposure) == (INITIAL - 1, dec(100))
    marked = portfolio.mark(positions[SYMBOL], dec(60), T0 + 60_000)
    after, _ = portfolio.apply_fill(marked, account, a_fill(1, dec(1), dec(99)), SCOPE)
    assert (after.mark, after.as_of_ms) == (dec(60), T0 + 60_000)


# ---- keys ---------------------------------------------------------------------------------------------------


def test_each_row_has_one_key_in_either_scope() -> None:
    assert portfolio.scope_of_strategy("s1") == "strategy:s1"
    assert portfolio.portfolio_key("w", "strategy:s1", "BTC-USD") == ("w", "strategy:s1", "BTC-USD")
    assert portfolio.portfolio_key("w", portfolio.WORLD_SCOPE) == ("w", "world", "")
    assert portfolio.scope_of_strategy("world") != portfolio.WORLD_SCOPE
    positions, account = booked([a_fill()])
    assert portfolio.key_of(account) == ("w1", SCOPE, "")
    assert portfolio.key_of(positions[SYMBOL]) == ("w1", SCOPE, SYMBOL)


# ---- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fill, says",
    [
        (a_fill(currency="EUR"), "'EUR'"),
        (replace(a_fill(), world_id="w2"), "w2"),
        (a_fill(quantity=dec(0)), "positive"),
        (a_fill(quantity=dec(-1)), "positive"),
        (a_fill(price=dec(0)), "positive"),
    ],
)
def test_a_fill_that_is_not_of_this_account_is_a_bug(fill: Fill, says: str) -> None:
    with pytest.raises(InvariantBroken, match=says):
        portfolio.apply_fill(None, an_account(), fill, SCOPE)


def test_a_position_of_another_scope_or_symbol_is_a_bug() -> None:
    with pytest.raises(InvariantBroken, match="strategy:s2"):
        portfolio.apply_fill(None, an_account(), a_fill(), "strategy:s2")
    with pytest.raises(InvariantBroken, match="LTC-USD"):
        portfolio.apply_fill(
            replace(a_position(dec(1), dec(1)), symbol="LTC-USD"), an_account(), a_fill(), SCOPE
        )
    with pytest.raises(InvariantBroken, match="strategy:s2"):
        portfolio.revalue(an_account(), [replace(a_position(dec(1), dec(1)), scope="strategy:s2")], T0)


def test_time_does_not_go_back_and_a_price_is_positive() -> None:
    position = a_position(dec(1), dec(1))
    with pytest.raises(InvariantBroken, match="before"):
        portfolio.mark(position, dec(1), T0 - 1)
    with pytest.raises(InvariantBroken, match="before"):
        portfolio.revalue(an_account(), [], T0 - 1)
    with pytest.raises(InvariantBroken, match="positive"):
        portfolio.mark(position, dec(0), T0)


# ---- outside examples -----------------------------------------------------------------------------------------


def rows(*prefixes: str) -> list[Any]:
    found = [pytest.param(row, id=row["id"]) for row in ORACLE if row["source"].startswith(prefixes)]
    assert found
    return found


def fill_of(step: dict[str, Any], rate: Decimal | None, cents: bool) -> Fill:
    told = step["fill"]
    side, quantity, price = Side(told["side"].upper()), dec(told["qty"]), dec(told["price"])
    if rate is None:
        fee = dec(told["fee"])
    else:
        fee = PercentFee(rate).fee(side, quantity, price)
        fee = fee.quantize(dec("0.01"), ROUND_HALF_EVEN) if cents else fee
    return a_fill(1, quantity, price, side, fee)


@pytest.mark.parametrize("row", rows("QuantConnect/Lean"))
def test_lean_sees_the_same_cash_profit_and_value(row: dict[str, Any]) -> None:
    start = row["start"]
    account = an_account(dec(start["cash"]), CURRENCY)
    told = start.get("position")
    position = a_position(dec(told["qty"]), dec(told["avg"])) if told else None
    for step in row["steps"]:
        before = position.realised if position else dec(0)
        position, account = portfolio.apply_fill(position, account, fill_of(step, None, False), SCOPE)
        if "mark" in step:
            position = portfolio.mark(position, dec(step["mark"]), T0)
            account = portfolio.revalue(account, [position], T0)
        seen = {
            "last_trade_profit": position.realised - before,
            "cash": account.cash,
            "qty": position.quantity,
            "total_value": account.equity,
        }
        for name, expected in step["expected"].items():
            assert seen[name] == dec(expected), name


@pytest.mark.parametrize("row", rows("nautechsystems/nautilus_trader"))
def test_nautilus_sees_the_same_profits_net_of_commissions_per_round_trip(row: dict[str, Any]) -> None:
    """Nautilus counts commissions in realised profit and starts anew when a flat position is opened again."""
    rate = row["start"].get("commission_rate")
    position, account = None, an_account()
    opened = (dec(0), dec(0))
    checked = 0
    for step in row["steps"]:
        if "fill" in step:
            if position is not None and not position.quantity:
                opened = (position.realised, position.fees)
            fill = fill_of(step, dec(rate) if rate else None, "rounding" in row["start"])
            position, account = portfolio.apply_fill(position, account, fill, SCOPE)
        assert position is not None
        if "mark" in step:
            position = portfolio.mark(position, dec(step["mark"]), T0)
        commissions = position.fees - opened[1]
        realised = position.realised - opened[0] - commissions
        seen = {
            "qty": position.quantity,
            "realised": realised,
            "unrealised": position.unrealised,
            "total": realised + position.unrealised,
            "commissions": commissions,
            "notional": abs(position.quantity * position.mark),
        }
        for name, expected in step.get("expected", {}).items():
            if name == "avg_open":
                # The source keeps a float, and goes on showing the average when the position is closed.
                assert not position.quantity or float(position.average_cost) == pytest.approx(
                    float(expected), rel=1e-12
                )
            elif name in seen:
                places = Decimal(1).scaleb(-8)
                assert seen[name].quantize(places) == dec(expected).quantize(places), name
                checked += 1
    assert checked
