"""What may be sold short: laws, then every row of the table of outside values."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.trade import Side
from qmtl.runtime.brokerage.shortable import (
    DAY_MS,
    EVERYTHING,
    NOTHING,
    AllShortable,
    BorrowFee,
    Borrowing,
    Lendable,
    LendableDay,
    NoneShortable,
    ShortableTable,
    Unknown,
    borrow,
    give_back,
    short_quantity,
)

from .oracles import Table

TABLE = Table("shortable")
D = Decimal
quantities = st.integers(1, 10**6).map(D)
some = st.integers(0, 10**6).map(D)
holdings = st.integers(-(10**6), 10**6).map(D)


@given(st.sampled_from(Side), quantities, holdings, some)
def test_a_sell_of_a_holding_is_no_short(
    side: Side, quantity: Decimal, holding: Decimal, selling: Decimal
) -> None:
    """What is short afterwards, and was not before, is what the order has sold short; what open sells take is no holding."""
    short = short_quantity(side, quantity, holding, selling)
    if side is Side.BUY:
        assert short == 0
    else:
        after, before = holding - selling - quantity, holding - selling
        assert short == max(-after, D(0)) - max(-before, D(0))
        assert short_quantity(side, quantity, quantity + selling, selling) == 0


@given(st.lists(quantities, max_size=8), some)
def test_never_more_is_borrowed_than_is_lent(asked: list[Decimal], lent: Decimal) -> None:
    """All or nothing; what is left and what is borrowed are what is lent."""
    held = D(0)
    for quantity in asked:
        answer = borrow(Lendable(lent), held, quantity)
        assert answer.granted == (quantity if held + quantity <= lent else 0)
        held += answer.granted
        assert answer.borrowed == held <= lent
        assert answer.left == lent - held
        assert borrow(EVERYTHING, held, quantity) == Borrowing(quantity, held + quantity, None)
    assert held == 0 or give_back(held, held) == 0


def test_what_is_recalled_leaves_nothing() -> None:
    """A broker that lends less than it did: nothing is left, and nothing is granted."""
    assert borrow(Lendable(D(5)), D(8), D(1)) == Borrowing(D(0), D(8), D(0))
    assert borrow(NOTHING, D(0), D(1)) == Borrowing(D(0), D(0), D(0))


def test_the_null_cases() -> None:
    assert AllShortable().lendable("X", 0) == EVERYTHING
    assert NoneShortable().lendable("X", 0) == NOTHING


def test_a_line_holds_on_its_day_and_as_long_as_it_is_carried() -> None:
    line = Lendable(D(7), D("0.01"), D("0.02"))
    days = (
        LendableDay("B", 3 * DAY_MS, line),
        LendableDay("B", 9 * DAY_MS, NOTHING),
        LendableDay("C", DAY_MS, line),
    )
    for carried in (0, 2):
        table = ShortableTable(days, Unknown.EVERYTHING, carried)
        end = (4 + carried) * DAY_MS
        assert [table.lendable("B", at) for at in (3 * DAY_MS, end - 1)] == [line, line]
        assert [table.lendable("B", at) for at in (3 * DAY_MS - 1, end)] == [EVERYTHING, EVERYTHING]
        assert table.lendable("A", 3 * DAY_MS) == EVERYTHING
        assert table.lendable("D", 3 * DAY_MS) == EVERYTHING
    assert ShortableTable(days).lendable("A", 3 * DAY_MS) == NOTHING


def test_what_a_short_position_costs() -> None:
    """1,000 at 50 for 36 of 360 days at 2 % less 0.5 % is 75; with 102 % of collateral it is 76.5; a larger rebate is received."""
    lent = Lendable(D(10**6), D("0.02"), D("0.005"))
    assert BorrowFee().fee(lent, D(1000), D(50), 36) == 75
    assert BorrowFee(D("1.02")).fee(lent, D(1000), D(50), 36) == D("76.5")
    assert BorrowFee().fee(Lendable(None, D(0), D("0.03")), D(1000), D(50), 36) == -150


BAD: list[Callable[[], object]] = [
    lambda: Lendable(D(-1)),
    lambda: Lendable(D("NaN")),
    lambda: Lendable(None, D(1)),
    lambda: Lendable(None, D(0), D("NaN")),
    lambda: LendableDay("", 0, NOTHING),
    lambda: LendableDay("X", 1, NOTHING),
    lambda: ShortableTable((LendableDay("X", 0, NOTHING), LendableDay("X", 0, NOTHING))),
    lambda: ShortableTable((LendableDay("Y", 0, NOTHING), LendableDay("X", 0, NOTHING))),
    lambda: ShortableTable((), carried_days=-1),
    lambda: short_quantity(Side.SELL, D(0), D(0)),
    lambda: short_quantity(Side.SELL, D(1), D("NaN")),
    lambda: short_quantity(Side.SELL, D(1), D(1), D(-1)),
    lambda: borrow(EVERYTHING, D(0), D(0)),
    lambda: borrow(EVERYTHING, D(-1), D(1)),
    lambda: give_back(D(1), D(2)),
    lambda: give_back(D(1), D(0)),
    lambda: BorrowFee(D("0.9")),
    lambda: BorrowFee(day_count=1),
    lambda: BorrowFee().fee(NOTHING, D(-1), D(1), 1),
    lambda: BorrowFee().fee(NOTHING, D(1), D(-1), 1),
    lambda: BorrowFee().fee(NOTHING, D(1), D(1), -1),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_a_bad_parameter_is_refused(at: int) -> None:
    with pytest.raises(InvalidValue) as refused:
        BAD[at]()
    assert refused.value.remedy


# ---- the table ------------------------------------------------------------------------------------------------


def midnight(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)


def provider(name: str) -> ShortableTable:
    """The lines that the rows of one provider state; what no file has is without limit there."""
    lines = [
        LendableDay(
            row["symbol"],
            midnight(row["date"]),
            Lendable(
                D(row["expected_shortable_qty"]), D(row["expected_fee_rate"]), D(row["expected_rebate_rate"])
            ),
        )
        for row in TABLE.rows.values()
        if row["provider"] == name and row["expected_shortable_qty"] is not None
    ]
    return ShortableTable(
        tuple(sorted(lines, key=lambda line: (line.symbol, line.day_ms))), Unknown.EVERYTHING
    )


def test_every_row_is_run_or_listed() -> None:
    TABLE.assert_complete()


@pytest.mark.parametrize("id_", TABLE.run())
def test_shortable(id_: str) -> None:
    row = TABLE.rows[id_]
    found = provider(row["provider"]).lendable(row["symbol"], midnight(row["date"]) + DAY_MS // 2)
    expected = row["expected_shortable_qty"]
    assert found.quantity == (None if expected is None else D(expected))
    assert found.fee_rate == D(row["expected_fee_rate"])
    assert found.rebate_rate == D(row["expected_rebate_rate"])
