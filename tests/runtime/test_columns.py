"""Columns of bars say what the bars say: exact, in order, and nothing that is no bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidBar, InvalidValue
from qmtl.foundation.common.money import MAX_FACTOR_POINT
from qmtl.foundation.contracts.market import Bar, fault_of
from qmtl.runtime.columns import MAX_UNITS, BarColumns, Column, Scaled
from qmtl.runtime.data.bars import default_sources, read_bars

ONE = Decimal(1)
GOOD = Bar("X", 60_000, 60, Decimal(2), Decimal("3.50"), ONE, Decimal("2.25"), Decimal("0.001"))

decimals = st.builds(
    lambda units, places: Decimal(units).scaleb(-places), st.integers(-(10**17), 10**17), st.integers(0, 12)
)


@st.composite
def market(draw: st.DrawFn) -> list[Bar]:
    places = draw(st.integers(0, 6))
    out = []
    time = 0
    for gap, four, volume in draw(
        st.lists(
            st.tuples(st.integers(1, 5), st.tuples(*[st.integers(1, 10**9)] * 4), st.integers(0, 10**12)),
            max_size=12,
        )
    ):
        time += gap * 60_000
        low, one, other, high = (Decimal(units).scaleb(-places) for units in sorted(four))
        out.append(Bar("X", time, 60, other, high, low, one, Decimal(volume).scaleb(-8)))
    return out


# ---- exact decimals -------------------------------------------------------------------------------------------


@given(st.lists(decimals))
def test_decimals_come_back_from_a_column_and_their_floats_are_the_nearest(values: list[Decimal]) -> None:
    try:
        column = Scaled.of(values)
    except InvalidValue:
        places = max(-int(value.as_tuple().exponent) for value in values)
        assert any(abs(int(value * 10**places)) > MAX_UNITS for value in values)
        return
    assert [column.at(index) for index in range(len(column))] == values
    assert column.floats().tolist() == [float(value) for value in values]
    for value, near in zip(values, column.floats().tolist(), strict=True):
        ahead, behind = np.nextafter(near, np.inf), np.nextafter(near, -np.inf)
        off = abs(Fraction(near) - Fraction(value))
        assert off <= min(abs(Fraction(float(one)) - Fraction(value)) for one in (ahead, behind))


@pytest.mark.parametrize(
    "value, text",
    [("1.50", "1.5"), ("-0", "0"), ("0.00", "0"), ("1E+3", "1000"), ("-7.125", "-7.125")],
)
def test_a_decimal_comes_back_in_normal_form(value: str, text: str) -> None:
    found = Scaled.of([Decimal(value)]).at(0)
    assert found == Decimal(text)
    assert format(found, "f") == text


@pytest.mark.parametrize(
    "values, places",
    [
        (["1000000000000000000"], None),
        (["-1000000000000000000"], None),
        (["1", "0." + "0" * MAX_FACTOR_POINT + "1"], None),
        (["99999999999.1234567", "0.12345678"], None),
        (["0.125"], 2),
    ],
)
def test_a_number_that_does_not_fit_is_refused(values: list[str], places: int | None) -> None:
    with pytest.raises(InvalidValue, match="more digits than a column holds"):
        Scaled.of([*map(Decimal, values)], places)


def test_the_largest_number_fits_and_places_may_be_more_than_needed() -> None:
    assert Scaled.of([Decimal(MAX_UNITS)]).at(0) == MAX_UNITS
    column = Scaled.of([Decimal("0.5")], 3)
    assert (column.units.tolist(), column.places) == ([500], 3)
    assert len(Scaled.of([])) == 0
    assert Scaled.of([]).floats().tolist() == []


# ---- bars -----------------------------------------------------------------------------------------------------


@given(market(), st.integers(0, 12), st.integers(0, 12))
def test_bars_come_back_whole_and_in_chunks(rows: list[Bar], begin: int, end: int) -> None:
    columns = BarColumns.of("X", 60, rows)
    assert list(columns.bars()) == rows
    assert columns.bucket_ms.tolist() == [bar.open_time_ms + 60_000 for bar in rows]
    part = columns.chunk(begin, end)
    assert list(part.bars()) == rows[begin:end]
    assert len(part) == len(rows[begin:end])
    assert len(part) == 0 or np.shares_memory(part.close.units, columns.close.units)


def test_real_bars_come_back() -> None:
    source = default_sources()[0]
    rows = list(read_bars(source.path, source.symbol, 60))[:500]
    columns = BarColumns.of(source.symbol, 60, rows)
    assert list(columns.bars()) == rows
    assert columns.close.floats().tolist() == [float(bar.close) for bar in rows]


BREACHES: dict[str, Callable[[Bar], Bar]] = {
    "low of 0": lambda bar: replace(bar, low=Decimal(0)),
    "low below 0": lambda bar: replace(bar, low=Decimal(-1)),
    "high below low": lambda bar: replace(bar, high=Decimal("0.5")),
    "open above high": lambda bar: replace(bar, open=Decimal(4)),
    "open below low": lambda bar: replace(bar, open=Decimal("0.75")),
    "close above high": lambda bar: replace(bar, close=Decimal("3.51")),
    "close below low": lambda bar: replace(bar, close=Decimal("0.999")),
    "volume below 0": lambda bar: replace(bar, volume=Decimal("-0.001")),
}


@pytest.mark.parametrize("name", BREACHES)
@pytest.mark.parametrize("place", [0, 2])
def test_what_is_no_bar_is_refused_with_the_fault_that_the_bar_alone_has(name: str, place: int) -> None:
    rows = [replace(GOOD, open_time_ms=at * 60_000) for at in range(3)]
    rows[place] = BREACHES[name](rows[place])
    fault = fault_of(rows[place])
    assert fault is not None
    with pytest.raises(InvalidBar) as refused:
        BarColumns.of("X", 60, rows)
    assert refused.value.what == f"bar {place} of X at {place * 60_000}: {fault}."


@given(st.tuples(*[st.integers(-1, 3)] * 4), st.integers(-1, 1))
@settings(max_examples=200)
def test_columns_take_exactly_those_bars_that_have_no_fault(four: tuple[int, ...], volume: int) -> None:
    open_, high, low, close = map(Decimal, four)
    bar = Bar("X", 0, 60, open_, high, low, close, Decimal(volume))
    if fault_of(bar) is None:
        assert list(BarColumns.of("X", 60, [bar]).bars()) == [bar]
    else:
        with pytest.raises(InvalidBar):
            BarColumns.of("X", 60, [bar])


@pytest.mark.parametrize(
    "times, says",
    [
        ([60_000, 60_000], "bar 1 .* is not after the one before"),
        ([60_000, 0], "bar 1 .* is not after the one before"),
        ([0, 60_001], "bar 1 .* no multiple of 60 s"),
    ],
)
def test_times_out_of_order_are_refused(times: list[int], says: str) -> None:
    with pytest.raises(InvalidBar, match=says):
        BarColumns.of("X", 60, [replace(GOOD, open_time_ms=time) for time in times])


@pytest.mark.parametrize("other", [replace(GOOD, symbol="Y"), replace(GOOD, interval=120)])
def test_a_bar_of_something_else_is_refused(other: Bar) -> None:
    with pytest.raises(InvalidBar, match="bar 1 was one of"):
        BarColumns.of("X", 60, [replace(GOOD, open_time_ms=0), other])


# ---- values ---------------------------------------------------------------------------------------------------

items = st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False))


@given(items, st.integers(0, 10), st.integers(0, 10))
def test_values_come_back_and_nothing_stays_nothing(rows: list[float | None], begin: int, end: int) -> None:
    column = Column.of(rows)
    assert column.items() == rows == [column.at(index) for index in range(len(column))]
    assert column.chunk(begin, end).items() == rows[begin:end]
    assert np.isfinite(column.values).all()


def test_a_full_column_has_every_value() -> None:
    assert Column.full(np.array([1.0, 0.0])).items() == [1.0, 0.0]
