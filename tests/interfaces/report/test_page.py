"""The page: one file that opens without a network, tells nothing that was not meant to be markup as markup, and stays small."""

from __future__ import annotations

import csv
import importlib.util
import re
import sys
from collections import Counter
from dataclasses import replace
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qmtl.foundation.common.errors import MissingExtra
from qmtl.foundation.contracts.trade import Side
from qmtl.interfaces.report import export
from qmtl.interfaces.report.page import page
from qmtl.interfaces.report.svg import time_ticks, value_ticks
from qmtl.interfaces.report.thin import thinned
from qmtl.runtime.columns import BarColumns, Scaled
from qmtl.runtime.performance.curve import EquityCurve
from qmtl.runtime.performance.kpi import performance_of
from qmtl.runtime.performance.result import RunResult
from tests.runtime.performance.runs import MINUTE_MS, columns, fill, result

HOSTILE = "</script><img src=http://x onerror=alert(1)>\"'&\u202e\x00"
VOID = {"meta", "link", "img", "br", "path", "circle"}
MILLION = 1_000_000


class Parsed(HTMLParser):
    """What a browser would see: tags, attributes, and text outside of style."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def made(run: RunResult) -> str:
    return page(run, performance_of(run))


def traded(symbol: str = "AAA") -> RunResult:
    bars = [columns(symbol, [100 + (at * 7) % 13 for at in range(50)])]
    fills = [
        fill(symbol, 2, Side.BUY, "2", "105", "0.1"),
        fill(symbol, 9, Side.SELL, "2", "104", "0.1"),
        fill(symbol, 12, Side.SELL, "1", "101", "0.1"),
        fill(symbol, 30, Side.BUY, "3", "99", "0.1"),
    ]
    return result(fills, bars)


EMPTY = {
    "traded": traded(),
    "no trades": result([], [columns("AAA", [100, 101, 102])]),
    "one bar": result([], [columns("AAA", [100])]),
    "losses only": result([fill("AAA", 0, Side.BUY, "1", "200"), fill("AAA", 2, Side.SELL, "1", "100")], [columns("AAA", [200, 150, 100])]),
    "all lost": result([fill("AAA", 0, Side.BUY, "100", "100")], [columns("AAA", [100, 80, 120])]),
    "no bars": replace(
        result([], [columns("AAA", [1])]), bars=(), curve=EquityCurve(0, np.zeros(0, np.int64), np.zeros(0), np.zeros(0), Decimal(1), Decimal(1))
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", EMPTY.values(), ids=EMPTY.keys())
def test_a_page_is_well_formed_and_asks_nothing_of_the_world(run: RunResult) -> None:
    source = made(run)
    found = Parsed(source)
    assert not found.open
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(found.tags)
    for _, name, value in found.attributes:
        assert not name.startswith("on")
        if name in ("href", "src", "xlink:href", "action", "srcset"):
            assert value.startswith("#")
    assert not re.search(r"https?:|url\(|@import|//[a-z]", source)
    ids = [value for _, name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value for tag, name, value in found.attributes if tag == "a" and name == "href"} == {
        f"#{one}" for one in ids
    }
    assert "nan" not in source.lower().replace("finan", "")
    assert not re.search(r"\binf\b", source)


def test_each_chart_says_what_it_shows_and_each_column_what_it_is() -> None:
    found = Parsed(made(traded()))
    labels = [value for tag, name, value in found.attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == found.tags["svg"] == 4
    assert all(len(one) > 20 for one in labels)
    assert found.tags["th"] == sum(1 for tag, name, _ in found.attributes if tag == "th" and name == "scope")
    assert ("html", "lang", "en") in found.attributes


def test_hostile_names_are_text() -> None:
    run = traded(HOSTILE)
    run = replace(run, strategy_id=HOSTILE, world_id=HOSTILE, identity={HOSTILE: HOSTILE})
    found = Parsed(made(run))
    assert "img" not in found.tags
    assert "script" not in found.tags
    shown = "".join(found.text)
    assert "</script><img src=http://x onerror=alert(1)>\"'&\ufffd\ufffd" in shown
    assert "\u202e" not in shown


def test_the_table_has_the_first_trades_and_says_where_the_rest_is() -> None:
    minutes = range(0, 1202, 2)
    fills = [
        one
        for at in minutes
        for one in (fill("AAA", at, Side.BUY, "1", "100"), fill("AAA", at + 1, Side.SELL, "1", "101"))
    ]
    run = result(fills, [columns("AAA", [100] * 1300)])
    source = made(run)
    assert "Trades: 601; the first 500 are shown, all are in the CSV." in source
    assert source.count('<td class="n gain">') == 500


def test_a_million_points_give_a_small_page() -> None:
    chance = np.random.default_rng(7)
    steps = chance.integers(-30, 31, MILLION).cumsum()
    units = steps - steps.min() + 100_000
    price = Scaled(units, 2)
    bars = BarColumns(
        "AAA", 60, np.arange(MILLION, dtype=np.int64) * MINUTE_MS, price, Scaled(units + 9, 2), Scaled(units - 9, 2), price, Scaled(units, 0)
    )  # fmt: skip
    fills = [
        fill("AAA", 1 + at * 300, Side.BUY if at % 2 == 0 else Side.SELL, "1", str(1000 + at % 90), "0.1")
        for at in range(400)
    ]
    run = result(fills, [bars], "100000")
    assert len(run.curve) == MILLION
    assert len(made(run).encode()) < 900_000


def test_a_thinned_line_keeps_its_ends_and_extremes() -> None:
    times = np.arange(100_000, dtype=np.int64) ** 2
    values = np.random.default_rng(3).normal(size=100_000).cumsum()
    kept_times, kept = thinned(times, values)
    assert len(kept) <= 4 * 720
    assert (kept[0], kept[-1], kept.min(), kept.max()) == (values[0], values[-1], values.min(), values.max())
    assert bool(np.all(np.diff(kept_times) > 0))
    assert thinned(times[:10], values[:10])[1] is not kept


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.31, 0.0), (99_999, 100_001), (-1e-7, 3e-7), (0, 7e9)])
def test_ticks_of_values_enclose_them_and_are_even(low: float, high: float) -> None:
    ticks = value_ticks(low, high, 5)
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + (high - low) * 1e-6
    assert ticks[-1] >= high - (high - low) * 1e-6
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


@pytest.mark.parametrize("days", [0.001, 0.04, 1, 3, 30, 90, 400, 3000, 15_000])
def test_ticks_of_times_are_few_and_within(days: float) -> None:
    begin, end = 1_522_800_000_000, 1_522_800_000_000 + int(days * 86_400_000)
    ticks = [at for at, _ in time_ticks(begin, end)]
    assert 1 <= len(ticks) <= 16
    assert begin <= ticks[0] <= ticks[-1] <= end


# ---- tables -----------------------------------------------------------------------------------------------------


def test_tables_as_csv_hold_each_number_whole(tmp_path: Path) -> None:
    run = traded()
    trades = performance_of(run).trades
    for table in export.tables_of(run, trades):
        path = tmp_path / f"{table.name}.csv"
        export.write_csv(table, path)
        with path.open(newline="") as source:
            rows = list(csv.DictReader(source))
        assert len(rows) == len(next(iter(table.columns.values())))
        assert list(rows[0]) == list(table.columns)
        if table.name == "trades":
            assert [Decimal(one["net"]) for one in rows] == [one.net for one in trades.closed]
        elif table.name == "fills":
            assert sum(Decimal(one["fee"]) for one in rows) == sum(one.fee for one in run.fills)
        else:
            assert [float(one["equity"]) for one in rows] == run.curve.equity.tolist()


def test_a_name_that_begins_like_a_formula_is_none_in_the_csv(tmp_path: Path) -> None:
    run = traded("=1+1")
    table = export.tables_of(run, performance_of(run).trades)[0]
    export.write_csv(table, tmp_path / "trades.csv")
    assert "\n'=1+1," in (tmp_path / "trades.csv").read_text()


def test_parquet_holds_the_same_rows_or_says_which_extra_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = traded()
    tables = export.tables_of(run, performance_of(run).trades)
    if importlib.util.find_spec("pyarrow") is not None:
        parquet: Any = importlib.import_module("pyarrow.parquet")
        for table in tables:
            path = tmp_path / f"{table.name}.parquet"
            export.write_parquet(table, path)
            found = parquet.read_table(path).to_pydict()
            for name, values in table.columns.items():
                told = (
                    [int(one.timestamp() * 1000) for one in found[name]]
                    if name.endswith("_ms")
                    else found[name]
                )
                assert told == list(values), name
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"qmtl\[data\]"):
        export.write_parquet(tables[0], tmp_path / "none.parquet")
