"""Built-in nodes against other libraries, and against published tables. What made the tables stands in them; `oracles/generate.py` is the program."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.indicators.builtin import Inputs
from tests.runtime.indicators.cases import MINUTE_MS, SYMBOL, Case, bits, columned, stepped

FILES = sorted((Path(__file__).parent / "oracles").glob("*.json"))
TABLES = [
    pytest.param(file["bars"], table, id=f"{file['library']}: {table['call']}")
    for file in (json.loads(path.read_text()) for path in FILES)
    for table in file["tables"]
]

EXACT = {"EMA(close, 10)", "MIN(close, 10)", "MAX(close, 10)"}
"""Of TA-Lib: the same operations in the same order. Others take Wilder's average in another order of operations, or add up floats as they come and
go, where a node here rounds an exact sum once."""

LOOSE = {"STDDEV(close, 10)": 1e-6, "BBANDS(close, 20, 2, 2)[0]": 1e-9, "BBANDS(close, 20, 2, 2)[2]": 1e-9}
"""A running sum of squares loses half of the digits in the difference that is a variance."""


def market(bars: dict[str, list[str]]) -> list[Bar]:
    rows = zip(*(bars[name] for name in ("open", "high", "low", "close", "volume")), strict=True)
    return [Bar(SYMBOL, at * MINUTE_MS, 60, *(Decimal(text) for text in row)) for at, row in enumerate(rows)]


def inputs(case: Case, bars: Sequence[Bar]) -> list[Inputs]:
    """The closes, and the volumes at a second port."""
    return [(float(bar.close), float(bar.volume))[: case.ports] for bar in bars]


@pytest.mark.parametrize("bars, table", TABLES)
def test_a_node_gives_what_another_library_gives(bars: dict[str, list[str]], table: dict[str, Any]) -> None:
    case = Case(table["node_type"], table["params"])
    rows = market(bars)
    found, _ = stepped(case, table["period"], inputs(case, rows), rows)
    in_columns, _ = columned(case, table["period"], inputs(case, rows), rows)
    assert bits(in_columns) == bits(found)
    expected = table["values"]
    assert [value is None for value in found] == [value is None for value in expected]
    if table["call"] in EXACT:
        assert found == expected
    else:
        rel = LOOSE.get(table["call"], 1e-10)
        assert found == [
            None if value is None else pytest.approx(value, rel=rel, abs=1e-9) for value in expected
        ]


def test_every_table_says_where_it_comes_from() -> None:
    for path in FILES:
        told = json.loads(path.read_text())
        assert all(told[name] for name in ("library", "version", "licence", "command"))


WILDER = (
    "44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328 45.6140 46.2820 46.2820"
    " 46.0028 46.0328 46.4116 46.2222 45.6439 46.2122 46.2521 45.7137 46.4515 45.7835 45.3548 44.0288 44.1783 44.2181 44.5672"
    " 43.4205 42.6628 43.1314"
)
"""StockCharts' ChartSchool, Relative Strength Index: the closes and the RSI(14) of its spreadsheet."""
WILDER_RSI = "70.53 66.32 66.55 69.41 66.36 57.97 62.93 63.26 56.06 62.38 54.71 50.42 39.99 41.46 41.87 45.46 37.30 33.08 37.77"


def test_rsi_is_that_of_the_published_table() -> None:
    closes = [*map(float, WILDER.split())]
    bar = Bar(SYMBOL, 0, 60, *[Decimal(1)] * 5)
    found, _ = stepped(Case("rsi"), 14, [(close,) for close in closes], [bar] * len(closes))
    told = [value for value in found if isinstance(value, float)]
    assert found[:14] == [None] * 14
    assert told == pytest.approx([*map(float, WILDER_RSI.split())], abs=0.005)
