"""Columns of built-in nodes give what the steps give, bit for bit, from any window and over any chunks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from random import Random
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.columns import BarColumns, Column
from qmtl.runtime.data.bars import default_sources, read_bars
from qmtl.runtime.indicators import exact
from qmtl.runtime.indicators.builtin import Inputs
from qmtl.runtime.indicators.columnar import Targets
from qmtl.runtime.indicators.registry import BUILTINS, COLUMNAR, TAG_QUERY
from tests.runtime.indicators.cases import (
    CASES,
    MINUTE_MS,
    SYMBOL,
    Case,
    bars,
    bits,
    columned,
    kept,
    runs,
    stepped,
)


def test_every_built_in_node_is_tried_and_computes_in_columns() -> None:
    assert {case.node_type for case in CASES} == set(COLUMNAR) == set(BUILTINS) - {TAG_QUERY}


@pytest.mark.parametrize("case", CASES, ids=str)
@given(st.data())
@settings(max_examples=15)
def test_columns_are_the_steps_bit_for_bit_from_anywhere_on(case: Case, data: st.DataObject) -> None:
    """Steps up to somewhere, columns in chunks from there on, and steps again at the end; with windows that were written down and read again."""
    period, rows, market = data.draw(runs(case))
    expected, last = stepped(case, period, rows, market)
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=4))
    block = data.draw(st.sampled_from([1, 3, exact.BLOCK]))
    found: list[Any] = []
    window: NodeWindow | None = None
    is_stepped = data.draw(st.booleans())
    for begin, end in itertools.pairwise(sorted([0, *cuts, len(rows)])):
        run = stepped if is_stepped else columned
        with patch.object(exact, "BLOCK", block):
            told, after = run(case, period, rows[begin:end], market[begin:end], window)
        found += told
        window = kept(after) if data.draw(st.booleans()) else after
        is_stepped = data.draw(st.booleans())
    assert bits(found) == bits(expected)
    if window is not None:
        assert kept(window) == kept(last)
    assert all(math.isfinite(value) for value in found if isinstance(value, float))


SUMMED = {"sma", "wma", "std", "zscore", "bollinger", "correlation"}
"""Nodes whose columns add up whole numbers."""

REAL = [
    replace(bar, symbol=SYMBOL, open_time_ms=at * MINUTE_MS)
    for at, bar in enumerate(itertools.islice(read_bars(default_sources()[0].path, SYMBOL, 60), 500))
]


def in_chunks(
    case: Case, period: int, rows: Sequence[Inputs], cuts: tuple[int, ...]
) -> tuple[list[Any], NodeWindow | None]:
    """What columns of real bars give, each going on from the window that the one before has left."""
    found: list[Any] = []
    window: NodeWindow | None = None
    for begin, end in itertools.pairwise(cuts):
        told, window = columned(case, period, rows[begin:end], REAL[begin:end], window)
        found += told
    return found, window


@pytest.mark.parametrize("case", CASES, ids=str)
def test_columns_of_real_prices_are_the_steps(case: Case) -> None:
    """Of prices, whose sums fit into 64 bits, and of their exponential average, whose digits don't."""
    closes = [float(bar.close) for bar in REAL]
    average, _ = stepped(Case("ema"), 1, [(close,) for close in closes], REAL)
    smooth = [value * 0.7 if isinstance(value, float) else None for value in average]
    for ports in ((closes, smooth), (smooth, closes)):
        rows = [*zip(*ports[: case.ports], strict=True)] if case.ports else [()] * len(REAL)
        for period in (case.least, 300):
            if period >= case.least:
                expected, last = stepped(case, period, rows, REAL)
                for cuts in (
                    (0, 500),
                    (0, 40, 41, 350, 410, 411, 500),
                ):  # some with a full window behind them
                    found, window = in_chunks(case, period, rows, cuts)
                    assert bits(found) == bits(expected)
                    assert window == last
            if not case.least:
                break


@pytest.mark.parametrize("case", [one for one in CASES if one.node_type in SUMMED], ids=str)
def test_columns_of_numbers_of_any_length_are_the_steps(case: Case) -> None:
    """At some length squares, products and their multiples are too long for 64 bits: nothing may wrap round."""
    for length in (8, 16, *range(20, 33), 40, 49):
        chance = Random(length)
        top = (1 << length) - chance.getrandbits(length - 2)
        rows = [
            tuple(float(chance.choice([0, 0, top, -top, chance.randrange(top)])) for _ in range(case.ports))
            for _ in range(90)
        ]
        for period in (5, 40):
            found, _ = columned(case, period, rows, REAL[:90])
            assert bits(found) == bits(stepped(case, period, rows, REAL[:90])[0])


@pytest.mark.parametrize(
    "case, period",
    [(Case("wma"), 300), (Case("sma"), 10_000), (Case("bollinger", {"band": "middle", "k": 2}), 10_000)],
    ids=str,
)
def test_a_mean_of_the_same_number_is_that_number_however_long_the_sum(case: Case, period: int) -> None:
    """Of numbers of 15 digits, the longest that are added up in 64 bits, the sum of so many is longer."""
    longest = 999_999_999_999_999.0
    market = bars(0, period + 2)
    found, _ = columned(case, period, [(longest,)] * len(market), market)
    assert found == [None] * (period - 1) + [longest] * 3


def test_targets_are_read_as_a_target_node_gives_them_and_in_chunks() -> None:
    rows = [(signal,) for signal in (1.0, 1.0, None, -1.0, 0.0, 5.0)]
    case = Case("position_target", {"long_percent": "0.25", "short_percent": "-0.5"})
    target = COLUMNAR["position_target"]
    market = REAL[: len(rows)]
    told, _ = target.columns(
        target.parse(case.params, 0),
        (Column.of([signal for (signal,) in rows]),),
        BarColumns.of(SYMBOL, 60, market),
        None,
    )
    assert isinstance(told, Targets)
    assert told.percents == (Decimal("0.25"), Decimal("-0.5"), Decimal(0))
    assert told.index.tolist() == [0, 0, -1, 1, 2, 0]
    assert told.there.tolist() == [True, True, False, True, True, True]
    assert told.items() == stepped(case, 0, rows, market)[0]
    assert told.chunk(1, 4).items() == told.items()[1:4]


def test_what_is_remembered_has_the_names_that_it_had() -> None:
    sma = COLUMNAR["sma"]
    none = BarColumns.of(SYMBOL, 60, [])
    _, fresh = sma.columns(sma.parse({}, 3), (Column.of([]),), none, None)
    assert (fresh.node_id, fresh.symbol) == ("", SYMBOL)
    window = NodeWindow("n", SYMBOL, 5, (Decimal(1), Decimal("0.1")))
    assert sma.columns(sma.parse({}, 3), (Column.of([]),), none, window)[1] == window


@pytest.mark.parametrize("lengths", [(1, 2), (2, 1), (0, 0), (3, 3)])
def test_columns_of_another_length_than_the_bars_are_refused(lengths: tuple[int, int]) -> None:
    cross = COLUMNAR["cross"]
    ports = tuple(Column.of([1.0] * length) for length in lengths)
    with pytest.raises(InvalidValue, match=r"input \d had \d buckets; the bars have 2"):
        cross.columns(cross.parse({}, 0), ports, BarColumns.of(SYMBOL, 60, REAL[:2]), None)


@pytest.mark.parametrize(
    "node_type, values", [("sma", [1e-30, 1.2345678901234567e-30]), ("max", [1e50, -1e300])]
)
def test_a_window_that_no_record_of_decimals_holds_is_written_down_nevertheless(
    node_type: str, values: list[float]
) -> None:
    """An average of what has stopped to move dies away, and its decimals have more places than a record."""
    case = Case(node_type)
    rows = [(value,) for value in (*values, 3.0)]
    whole, last = stepped(case, 3, rows, REAL[:3])
    for run in (stepped, columned):
        told, window = run(case, 3, rows[:2], REAL[:2])
        assert told == [None, None]
        assert run(case, 3, rows[2:], REAL[2:3], kept(window)) == (whole[2:], last)
