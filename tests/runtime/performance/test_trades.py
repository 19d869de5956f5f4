"""Trades: nothing of the fills is lost or doubled, whatever the matching, and the books of the portfolio say the same."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.trade import Fill, Position, Side
from qmtl.foundation.contracts.world import WorldSettings
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.execution import portfolio
from qmtl.runtime.performance.trades import Direction, Matching, Trades, traded_value, trades_of

SYMBOLS = ("AAA", "BBB")


def fill(
    at_ms: int,
    side: str,
    quantity: str,
    price: str,
    fee: str = "0",
    order_id: str = "",
    seq: int = 1,
    symbol: str = "AAA",
) -> Fill:
    return Fill(
        "w", "s", order_id or f"o{at_ms}", seq, symbol, Side(side), Decimal(quantity), Decimal(price), Decimal(fee), "USD", Decimal("0.5"), at_ms
    )  # fmt: skip


def decimals(low: int, high: int, places: int) -> st.SearchStrategy[Decimal]:
    return st.integers(low, high).map(lambda units: Decimal(units).scaleb(-places))


@st.composite
def histories(draw: st.DrawFn) -> list[Fill]:
    """Fills of two symbols, several of one order and of one instant among them, negative fees too."""
    made: list[Fill] = []
    seqs: dict[str, int] = {}
    at_ms = 0
    for _ in range(draw(st.integers(0, 10))):
        at_ms += draw(st.sampled_from((0, 0, 60_000)))
        symbol, side = draw(st.sampled_from(SYMBOLS)), draw(st.sampled_from(Side))
        order_id = f"{symbol}-{side.value}-{draw(st.integers(0, 2))}"
        seqs[order_id] = seqs.get(order_id, 0) + 1
        quantity, price, fee = (
            draw(decimals(1, 700, 2)),
            draw(decimals(1, 90_000, 3)),
            draw(decimals(-50, 500, 4)),
        )
        made.append(
            Fill(
                "w",
                "s",
                order_id,
                seqs[order_id],
                symbol,
                side,
                quantity,
                price,
                fee,
                "USD",
                Decimal(0),
                at_ms,
            )
        )
    return made


def equity_change(fills: list[Fill], marks: dict[str, Decimal]) -> Decimal:
    """Counted anew: money out and in, fees, and what is held at its mark."""
    change = Decimal(0)
    for one in fills:
        sign = 1 if one.side is Side.BUY else -1
        change += sign * one.quantity * (marks[one.symbol] - one.price) - one.fee
    return change


def net(trades: Trades, marks: dict[str, Decimal]) -> Decimal:
    return sum((one.net for one in trades.closed), Decimal(0)) + sum(
        (one.net(marks[one.symbol]) for one in trades.open), Decimal(0)
    )


@settings(max_examples=30)
@given(histories(), st.sampled_from(Matching), decimals(1, 9000, 2), decimals(1, 9000, 2))
def test_closed_and_open_profits_are_the_change_of_equity(
    fills: list[Fill], matching: Matching, one: Decimal, other: Decimal
) -> None:
    marks = dict(zip(SYMBOLS, (one, other), strict=True))
    assert net(trades_of(fills, matching), marks) == equity_change(fills, marks)


@settings(max_examples=30)
@given(histories(), st.sampled_from(Matching))
def test_trades_and_what_is_open_part_the_fills(fills: list[Fill], matching: Matching) -> None:
    trades = trades_of(fills, matching)
    for symbol in SYMBOLS:
        own = [one for one in fills if one.symbol == symbol]
        opened = [one for one in trades.open if one.symbol == symbol]
        closed = [one for one in trades.closed if one.symbol == symbol]
        assert sum(one.quantity for one in own) == 2 * sum(one.quantity for one in closed) + sum(
            abs(one.quantity) for one in opened
        )
        assert sum(one.fee for one in own) == sum(one.fees for one in closed) + sum(
            one.fees for one in opened
        )
        assert sum(one.quantity * one.price for one in own) == sum(
            one.entry_value + one.exit_value for one in closed
        ) + sum(abs(one.cost) for one in opened)
    for trade in trades.closed:
        assert trade.quantity > 0
        assert trade.entry_ms <= trade.exit_ms


@settings(max_examples=30)
@given(histories(), st.randoms(use_true_random=False))
def test_the_order_in_which_fills_are_handed_over_makes_no_difference(
    fills: list[Fill], chance: Random
) -> None:
    shuffled = list(fills)
    chance.shuffle(shuffled)
    for matching in Matching:
        assert trades_of(shuffled, matching) == trades_of(fills, matching)


@settings(max_examples=30)
@given(histories())
def test_average_costs_realise_what_the_portfolio_realises(fills: list[Fill]) -> None:
    settings = WorldSettings("USD", Decimal(1000), Decimal(0), Decimal(0), ())
    account = portfolio.open_account("w", "strategy:s", settings, 0)
    positions: dict[str, Position] = {}
    ordered = sorted(fills, key=lambda one: (one.fill_time_ms, one.symbol, one.order_id, one.seq))
    for one in ordered:
        positions[one.symbol], account = portfolio.apply_fill(
            positions.get(one.symbol), account, one, "strategy:s"
        )
    trades = trades_of(fills, Matching.AVERAGE)
    assert sum((one.gross for one in trades.closed), Decimal(0)) == account.realised
    held = {name: (one.quantity, one.cost) for name, one in positions.items() if one.quantity}
    assert {one.symbol: (one.quantity, one.cost) for one in trades.open} == held


@settings(max_examples=30)
@given(histories(), st.integers(1, 9))
def test_ten_times_the_quantity_makes_ten_times_the_profit(fills: list[Fill], times: int) -> None:
    larger = [replace(one, quantity=one.quantity * times, fee=one.fee * times) for one in fills]
    before, after = trades_of(fills).closed, trades_of(larger).closed
    for one, other in zip(before, after, strict=True):
        assert abs(other.net - one.net * times) <= Decimal("1e-14")
        assert (other.entry_ms, other.exit_ms, other.direction) == (one.entry_ms, one.exit_ms, one.direction)


def test_first_in_first_out_and_average_on_one_example() -> None:
    """Bought 10 at 100 and 10 at 110, sold 15 at 120: first in first out has cost 1000 + 550, the average 15 * 105."""
    fills = [
        fill(0, "BUY", "10", "100", "1"),
        fill(60_000, "BUY", "10", "110", "2"),
        fill(120_000, "SELL", "15", "120", "3"),
    ]
    (first,), (rest,) = trades_of(fills).closed, trades_of(fills).open
    assert (first.gross, first.fees, first.net) == (Decimal(250), Decimal(5), Decimal(245))
    assert (first.entry_ms, first.exit_ms, first.direction) == (0, 120_000, Direction.LONG)
    assert (rest.quantity, rest.cost, rest.fees, rest.opened_ms) == (
        Decimal(5),
        Decimal(550),
        Decimal(1),
        60_000,
    )
    (average,) = trades_of(fills, Matching.AVERAGE).closed
    assert (average.gross, average.fees) == (Decimal(225), Decimal("5.25"))
    assert average.entry_price == Decimal(105)


def test_a_flip_closes_all_and_opens_the_rest_with_its_share_of_the_fee() -> None:
    trades = trades_of([fill(0, "BUY", "4", "10", "1"), fill(60_000, "SELL", "10", "12", "5")])
    (closed,), (rest,) = trades.closed, trades.open
    assert (closed.quantity, closed.gross, closed.fees) == (Decimal(4), Decimal(8), Decimal(3))
    assert (rest.quantity, rest.cost, rest.fees) == (Decimal(-6), Decimal(-72), Decimal(3))
    assert rest.net(Decimal(11)) == Decimal(3)


def test_the_fills_of_one_order_that_close_a_position_are_one_trade() -> None:
    parts = [fill(60_000 * at, "SELL", "1", str(10 + at), order_id="out", seq=at) for at in (1, 2, 3)]
    (closed,) = trades_of([fill(0, "BUY", "3", "10"), *parts]).closed
    assert (closed.quantity, closed.exit_price, closed.exit_ms) == (Decimal(3), Decimal(12), 180_000)


def bars(*ranges: tuple[str, str]) -> BarColumns:
    rows = [
        Bar("AAA", at * 60_000, 60, Decimal(low), Decimal(high), Decimal(low), Decimal(high), Decimal(1))
        for at, (low, high) in enumerate(ranges)
    ]
    return BarColumns.of("AAA", 60, rows)


@pytest.mark.parametrize(
    ("side", "out", "mae", "mfe"),
    [("BUY", "SELL", "-20", "60"), ("SELL", "BUY", "-60", "20")],
    ids=["long", "short"],
)
def test_excursions_are_those_of_the_bars_between_entry_and_exit(
    side: str, out: str, mae: str, mfe: str
) -> None:
    """The first bar and the last, with their extremes, lie outside."""
    columns = bars(("1", "999"), ("95", "110"), ("90", "130"), ("1", "999"))
    fills = [fill(60_000, side, "2", "100"), fill(180_000, out, "2", "105")]
    (trade,) = trades_of(fills, bars=[columns]).closed
    assert (trade.mae, trade.mfe) == (Decimal(mae), Decimal(mfe))


def test_what_can_not_be_matched_is_refused() -> None:
    one = fill(0, "BUY", "1", "10")
    for wrong in (
        [one, one],
        [one, replace(one, seq=2, fee_currency="EUR")],
        [replace(one, quantity=Decimal(0))],
    ):
        with pytest.raises(InvalidValue):
            trades_of(wrong)


def test_no_fills_no_trades() -> None:
    assert trades_of([]) == Trades(Matching.FIFO, (), ())
    assert traded_value([]) == 0
    assert np.array_equal(bars(("1", "2")).bucket_ms, [60_000])
