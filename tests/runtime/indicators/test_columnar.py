"""Columns of built-in nodes give what the steps give, bit for bit, from any window and over any chunks."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.contracts.node import NodeWindow
from qmtl.runtime.indicators.registry import BUILTINS, COLUMNAR, TAG_QUERY
from tests.runtime.indicators.cases import CASES, Case, bits, columned, runs, stepped, written


def test_every_built_in_node_is_tried_and_computes_in_columns() -> None:
    assert {case.node_type for case in CASES} == set(COLUMNAR) == set(BUILTINS) - {TAG_QUERY}


@pytest.mark.parametrize("case", CASES, ids=str)
@given(st.data())
@settings(max_examples=40)
def test_columns_are_the_steps_bit_for_bit_from_anywhere_on(case: Case, data: st.DataObject) -> None:
    """Steps up to somewhere, columns in chunks from there on, and steps again at the end; with windows that were written down and read again."""
    period, rows, market = data.draw(runs(case))
    expected, last = stepped(case, period, rows, market)
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=4))
    found: list[Any] = []
    window: NodeWindow | None = None
    is_stepped = data.draw(st.booleans())
    for begin, end in itertools.pairwise(sorted([0, *cuts, len(rows)])):
        run = stepped if is_stepped else columned
        told, after = run(case, period, rows[begin:end], market[begin:end], window)
        found += told
        window = written(after) if data.draw(st.booleans()) else after
        is_stepped = data.draw(st.booleans())
    assert bits(found) == bits(expected)
    if window is not None:
        assert written(window) == written(last)
        assert [*map(str, written(window).values)] == [*map(str, written(last).values)]
    assert all(math.isfinite(value) for value in found if isinstance(value, float))
