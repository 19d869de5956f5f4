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


RSI_TABLES = {
    "StockCharts": (
        14,
        (
            "44.3389 44.0902 44.1497 43.6124 44.3278 44.8264 45.0955 45.4245 45.8433 46.0826 45.8931 46.0328 45.6140 46.2820 46.2820"
            " 46.0028 46.0328 46.4116 46.2222 45.6439 46.2122 46.2521 45.7137 46.4515 45.7835 45.3548 44.0288 44.1783 44.2181 44.5672"
            " 43.4205 42.6628 43.1314"
        ),
        (
            "70.5328 66.3186 66.5498 69.4063 66.3552 57.9749 62.9296 63.2571 56.0593 62.3771 54.7076 50.4228 39.9898 41.4605 41.8689"
            " 45.4632 37.3040 33.0795 37.7730"
        ),
    ),
    "Achelis": (
        5,
        (
            "37.875 39.5 38.75 39.8125 40 39.875 40.1875 41.25 41.125 41.625 41.25 40.1875 39.9375 39.9375 40.5 41.9375 42.25 42.25"
            " 41.875 41.875"
        ),
        "76.6667 78.8679 84.9158 81.4863 84.5968 73.0851 49.3173 45.0119 45.0119 57.9252 75.9596 78.4676 78.4676 65.6299 65.6299",
    ),
}
"""Published tables of Wilder's index: its period, the closes, and its values from the first on.

StockCharts: ChartSchool, Relative Strength Index, the sheet cs-rsi.xls: QQQQ from 14 December 2009 to 1 February 2010. The closes are those of
test/data/cs-rsi.csv of ta 0.11.0, which has the dates; that file's index is another one, as ta begins its averages in its own way. The sheet's
index is read as tests/test_indicators_worked_examples.py of stephus182/ibkr_core_mcp (e737253) has it.
Achelis: Technical Analysis from A to Z, page 299, as tests/atoz.txt of Tulip Indicators 0.9.1 has it.
TA-Lib 0.8.2 gives all values of both for these closes, to each place that stands here.
"""


@pytest.mark.parametrize("source", RSI_TABLES)
def test_rsi_is_that_of_a_published_table(source: str) -> None:
    period, prices, published = RSI_TABLES[source]
    closes = [*map(float, prices.split())]
    bar = Bar(SYMBOL, 0, 60, *[Decimal(1)] * 5)
    found, _ = stepped(Case("rsi"), period, [(close,) for close in closes], [bar] * len(closes))
    told = [f"{value:.4f}" for value in found if isinstance(value, float)]
    assert found[:period] == [None] * period
    assert told == published.split()
