"""Laws of sizing, then the table of its answers."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.pretrade import RejectionReason
from qmtl.foundation.contracts.trade import Side
from qmtl.foundation.contracts.world import Instrument
from qmtl.runtime.execution.sizing import OnTarget, Sized, Sizing, Unsized, size
from tests.services.trading.samples import SYMBOL, an_intent, dec

LOT = Decimal("0.001")
INSTRUMENT = Instrument(SYMBOL, Decimal("0.01"), LOT, Decimal("0.002"))

targets = st.integers(-1000, 1000).map(lambda permille: Decimal(permille).scaleb(-3))
weights = st.integers(0, 100).map(lambda percent: Decimal(percent).scaleb(-2))
equities = st.integers(-(10**9), 10**12).map(lambda cents: Decimal(cents).scaleb(-2))
lots = st.integers(-(10**6), 10**6).map(lambda count: count * LOT)
prices = st.integers(1, 10**8).map(lambda ticks: Decimal(ticks).scaleb(-2))


def sized(
    target: Decimal,
    equity: Decimal,
    held: Decimal = Decimal(0),
    pending: Decimal = Decimal(0),
    weight: Decimal = Decimal(1),
    price: Decimal = Decimal(100),
) -> Sizing:
    return size(an_intent(str(target), str(price)), target, weight, equity, held, pending, INSTRUMENT)


def delta(order: Sized) -> Decimal:
    return order.quantity if order.side is Side.BUY else -order.quantity


@given(targets, weights, equities, lots, lots, prices)
def test_a_sized_order_takes_the_holding_to_the_target_but_for_less_than_a_lot(
    target: Decimal, weight: Decimal, equity: Decimal, position: Decimal, pending: Decimal, price: Decimal
) -> None:
    answer = sized(target, equity, position, pending, weight, price)
    held = position + pending
    ideal = target * weight * max(equity, Decimal(0))
    if isinstance(answer, Sized):
        assert answer.quantity >= INSTRUMENT.minimum
        assert answer.quantity % LOT == 0
        after = held + delta(answer)
        assert abs(after) * price <= abs(ideal) < (abs(after) + LOT) * price
        assert after * ideal >= 0
        assert answer.reduce_only == (abs(after) < abs(held) and after * held >= 0)
    elif isinstance(answer, OnTarget):
        assert answer.held == held
        assert abs(held) * price <= abs(ideal) < (abs(held) + LOT) * price
    elif answer.reason is RejectionReason.BELOW_MINIMUM_SIZE:
        assert abs(abs(ideal) - abs(held) * price) < (INSTRUMENT.minimum + LOT) * price
    else:
        assert answer.reason is RejectionReason.INSUFFICIENT_EQUITY
        assert equity <= 0
        assert held == 0


@given(targets, weights, equities, lots, prices)
def test_an_order_once_filled_leaves_nothing_to_do(
    target: Decimal, weight: Decimal, equity: Decimal, held: Decimal, price: Decimal
) -> None:
    answer = sized(target, equity, held, Decimal(0), weight, price)
    if isinstance(answer, Sized):
        for filled in (Decimal(0), delta(answer)):  # waiting, and filled
            again = sized(target, equity, held + filled, delta(answer) - filled, weight, price)
            assert not isinstance(again, Sized)


@given(lots, lots, equities, prices)
def test_an_exit_goes_to_flat_whatever_the_equity(
    position: Decimal, pending: Decimal, equity: Decimal, price: Decimal
) -> None:
    answer = sized(Decimal(0), equity, position, pending, Decimal(1), price)
    held = position + pending
    if isinstance(answer, Sized):
        assert delta(answer) == -held
        assert answer.reduce_only
    else:
        assert abs(held) < INSTRUMENT.minimum


@given(targets, weights, weights, prices)
def test_a_smaller_weight_never_buys_more(
    target: Decimal, one: Decimal, other: Decimal, price: Decimal
) -> None:
    def bought(weight: Decimal) -> Decimal:
        answer = sized(target, Decimal(10_000), weight=weight, price=price)
        return answer.quantity if isinstance(answer, Sized) else Decimal(0)

    assert bought(min(one, other)) <= bought(max(one, other))


@pytest.mark.parametrize(
    "target, weight, equity, position, pending, expected",
    [
        # target, weight, equity, held, waiting        at 100 a piece, lot 0.001, minimum 0.002
        ("0.5", "1", "10000", "0", "0", Sized(Side.BUY, dec("50"), False)),
        ("-0.5", "1", "10000", "0", "0", Sized(Side.SELL, dec("50"), False)),
        ("0.5", "0.5", "10000", "0", "0", Sized(Side.BUY, dec("25"), False)),
        ("0.5", "1", "10000", "20", "0", Sized(Side.BUY, dec("30"), False)),
        ("0.5", "1", "10000", "20", "30", OnTarget(dec("50"))),
        ("0.5", "1", "10000", "80", "0", Sized(Side.SELL, dec("30"), True)),
        ("0", "1", "10000", "80", "-80", OnTarget(dec("0"))),
        ("0", "1", "-1", "80", "0", Sized(Side.SELL, dec("80"), True)),
        ("0", "0", "10000", "-80", "0", Sized(Side.BUY, dec("80"), True)),
        ("-0.5", "1", "10000", "50", "0", Sized(Side.SELL, dec("100"), False)),
        ("0.5", "1", "0.99999", "0", "0", Sized(Side.BUY, dec("0.004"), False)),
        ("0.5", "1", "-5", "80", "0", Sized(Side.SELL, dec("80"), True)),
        ("0.5", "0", "10000", "80", "0", Sized(Side.SELL, dec("80"), True)),
        ("0.5", "0", "10000", "0", "0", OnTarget(dec("0"))),
    ],
)
def test_the_order_is_the_difference_between_target_and_holding(
    target: str, weight: str, equity: str, position: str, pending: str, expected: Sizing
) -> None:
    assert sized(dec(target), dec(equity), dec(position), dec(pending), dec(weight)) == expected


@pytest.mark.parametrize(
    "target, equity, held, price, reason, says",
    [
        ("0.5", "0", "0", "100", RejectionReason.INSUFFICIENT_EQUITY, "equity 0, target 0.5"),
        ("-0.5", "-7", "0", "100", RejectionReason.INSUFFICIENT_EQUITY, "equity -7, target -0.5"),
        ("0.5", "10000", "0", "0", RejectionReason.NO_REFERENCE_PRICE, "reference price 0"),
        ("0.5", "10000", "9", "-3", RejectionReason.NO_REFERENCE_PRICE, "reference price -3"),
        ("0.5", "0.1", "0", "100", RejectionReason.BELOW_MINIMUM_SIZE, "less than one lot of 0.001"),
        (
            "0.5",
            "0.3",
            "0",
            "100",
            RejectionReason.BELOW_MINIMUM_SIZE,
            "0.001 to trade from 0 to 0.001, minimum 0.002",
        ),
        (
            "0",
            "100",
            "0.001",
            "100",
            RejectionReason.BELOW_MINIMUM_SIZE,
            "-0.001 to trade from 0.001 to 0, minimum 0.002",
        ),
        ("0", "100", "0.0005", "100", RejectionReason.BELOW_MINIMUM_SIZE, "minimum 0.002"),
    ],
)
def test_what_can_not_be_sized_says_why_with_the_numbers(
    target: str, equity: str, held: str, price: str, reason: RejectionReason, says: str
) -> None:
    answer = sized(dec(target), dec(equity), dec(held), price=dec(price))
    assert isinstance(answer, Unsized)
    assert answer.reason is reason
    assert says in answer.detail


def test_an_exit_needs_no_price() -> None:
    assert sized(dec(0), dec(0), dec(3), price=dec(0)) == Sized(Side.SELL, dec(3), True)


def test_a_minimum_below_the_lot_is_the_lot() -> None:
    instrument = Instrument(SYMBOL, Decimal("0.01"), Decimal("0.1"), Decimal("0.00001"))
    answer = size(an_intent("0"), dec(0), dec(1), dec(100), dec("0.05"), dec(0), instrument)
    assert isinstance(answer, Unsized)
    assert "minimum 0.1" in answer.detail
