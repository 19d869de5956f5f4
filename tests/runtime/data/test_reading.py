"""The bars of a run are those of its range, whatever they lie in and in whatever order they are named; anything else is told with its place."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import QmtlError
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.data.bars import dataset_fingerprint, source_of
from qmtl.runtime.data.catalogue import writing
from qmtl.runtime.data.reading import BarsRead, load_bars
from tests.runtime.data.walk import START_MS, as_csv, minute, of

A, B = "BTC/USD", "ETH/USD"
MINUTES = 40
MINUTE_MS = 60_000
HEADER = "open_time_ms,open,high,low,close,volume\n"


def bars(symbol: str, begin: int = 0, end: int = MINUTES) -> list[Bar]:
    """Minutes, of which every tenth is absent; those of B cost one more."""
    found = [minute(at) for at in range(begin, end) if at % 10 != 9]
    if symbol == A:
        return found
    more = Decimal(1)
    return [
        replace(
            one,
            symbol=symbol,
            open=one.open + more,
            high=one.high + more,
            low=one.low + more,
            close=one.close + more,
        )
        for one in found
    ]


def data(directory: Path, begin: int = 0, end: int = MINUTES, symbols: Sequence[str] = (A, B)) -> list[str]:
    directory.mkdir(exist_ok=True)
    return [
        f"{symbol}={as_csv(directory / f'{symbol[:3]}-{begin}-{end}.csv', bars(symbol, begin, end))}"
        for symbol in symbols
    ]


def at(place: int) -> int:
    return START_MS + place * MINUTE_MS


def content(read: BarsRead) -> tuple[object, ...]:
    rows = {symbol: list(one.bars()) for symbol, one in read.bars.items()}
    return read.interval, list(read.bars), rows, read.fingerprint


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reading")


@settings(max_examples=30)
@given(
    bounds=st.tuples(st.integers(0, MINUTES - 12), st.integers(11, MINUTES)).filter(
        lambda one: one[0] < one[1] - 10
    )
)
def test_a_range_of_the_data_is_the_data_cut_to_it(place: Path, bounds: tuple[int, int]) -> None:
    begin, end = bounds
    whole = load_bars(data(place), at(begin), at(end))
    assert content(whole) == content(load_bars(data(place, begin, end)))


@settings(max_examples=15)
@given(begin=st.none() | st.integers(-5, 20), end=st.none() | st.integers(21, 60))
def test_files_packed_files_parquet_and_a_catalogue_give_the_same_bars(
    forms: tuple[list[str], ...], begin: int | None, end: int | None
) -> None:
    start_ms = None if begin is None else at(begin)
    end_ms = None if end is None else at(end)
    plain, *others = (load_bars(one, start_ms, end_ms) for one in forms)
    for other in others:
        assert content(other) == content(plain)
    assert [len(one.as_of) for one in (plain, *others)] == [0, 0, 0, len("blake3:") + 64]


@pytest.fixture(scope="module")
def forms(place: Path) -> tuple[list[str], ...]:
    """The same bars four times; the order of files is turned round."""
    pyarrow = pytest.importorskip("pyarrow.csv")
    plain = data(place)
    packed: list[str] = []
    columnar: list[str] = []
    directory = place / "catalogue"
    for text in plain:
        symbol, _, path = text.partition("=")
        zipped = place / f"{Path(path).stem}.csv.gz"
        zipped.write_bytes(gzip.compress(Path(path).read_bytes()))
        packed.insert(0, f"{symbol}={zipped}")
        table = pyarrow.read_csv(
            path,
            convert_options=pyarrow.ConvertOptions(
                column_types=dict.fromkeys(HEADER.strip().split(",")[1:], "string")
            ),
        )
        packed_path = place / f"{Path(path).stem}.parquet"
        pytest.importorskip("pyarrow.parquet").write_table(table, packed_path)
        columnar.insert(0, f"{symbol}={packed_path}")
        with writing(directory) as writer:
            made = of([replace(one, symbol=A) for one in bars(symbol)])
            writer.add(symbol, 60, iter([replace(made, symbol=symbol)]), {"kind": "test"})
    return plain, packed, columnar, [str(directory)]


def test_the_fingerprint_is_that_of_the_files(place: Path) -> None:
    sources = [source_of(text) for text in data(place)]
    assert load_bars(data(place)).fingerprint == dataset_fingerprint(sources)


def test_a_commit_gives_the_same_bars_for_ever(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    directory = tmp_path / "catalogue"
    for begin in (0, 20):
        with writing(directory) as writer:
            writer.add(A, 60, iter([of(bars(A, begin, begin + 20))]), {"kind": "test"})
    first, newest = load_bars([str(directory)], as_of=1), load_bars([str(directory)])
    assert [len(one.bars[A]) for one in (first, newest)] == [18, 36]
    again = load_bars([str(directory)], as_of=first.as_of)
    assert content(again) == content(first)


def test_only_the_symbols_that_are_wanted_are_read(tmp_path: Path) -> None:
    (tmp_path / "broken.csv").write_text("nothing\n")
    read = load_bars(
        [*data(tmp_path, symbols=[A]), f"{B}={tmp_path / 'broken.csv'}"], symbols=[A], interval=60
    )
    assert list(read.bars) == [A]


def test_a_bar_that_is_said_twice_counts_once_and_is_told(tmp_path: Path) -> None:
    rows = bars(A)
    twice = (
        f"{A}={as_csv(tmp_path / 'twice.csv', sorted([*rows, *rows[3:6]], key=lambda one: one.open_time_ms))}"
    )
    read = load_bars([twice, *data(tmp_path, symbols=[B])])
    assert read.duplicates == {A: 3}
    assert content(read) == content(load_bars(data(tmp_path)))


def test_bars_that_lie_apart_are_of_the_interval_that_is_said(tmp_path: Path) -> None:
    rows = [one for one in bars(A) if one.open_time_ms % (5 * MINUTE_MS) == 0]
    text = f"{A}={as_csv(tmp_path / 'few.csv', rows)}"
    assert load_bars([text]).interval == 300
    assert load_bars([text], interval=60, sparse=True).interval == 60
    with pytest.raises(QmtlError, match="lie 300 s apart, and bars of 60 s were wanted"):
        load_bars([text], interval=60)


ROW = "{at},10,12,9,11,1\n"
BAD = {
    "no such file": (None, "702", "No such file"),
    "empty": ("", "702", "was empty"),
    "no bar": (HEADER, "702", "held no bar"),
    "a column is missing": ("open_time_ms,open,high,low,close\n", "702", "lacked the column volume"),
    "a column too many": (HEADER.replace("\n", ",vwap\n"), "702", "'vwap', which is unknown"),
    "a field is missing": (HEADER + ROW + "{next},10,12,9\n", "702", "line 3 had 4 fields"),
    "no number": (HEADER + "{at},10,12,nine,11,1\n", "701", "line 2: low was 'nine'"),
    "NaN": (HEADER + "{at},10,12,NaN,11,1\n", "701", "line 2: low was 'NaN'"),
    "half a line at the end": (
        HEADER + ROW + "{next},10,12,9,11,0.",
        "702",
        "line 3, its last, had no line end",
    ),
    "a time that descends": (HEADER + "{next},10,12,9,11,1\n" + ROW, "701", "line 3: open_time_ms"),
    "a time twice, with other numbers": (HEADER + ROW + "{at},10,12,9,10,1\n", "703", "line 3"),
    "off the grid": (HEADER + "{off},10,12,9,11,1\n", "701", "line 2: open_time_ms"),
    "a time zone": (
        HEADER + "2018-04-04T00:00:00+01:00,10,12,9,11,1\n",
        "701",
        "line 2: open_time_ms was '2018",
    ),
    "a price below its low": (HEADER + "{at},8,12,9,11,1\n", "701", "line 2"),
    "a price of nothing": (HEADER + "{at},0,12,0,11,1\n", "701", "line 2"),
    "not text": ("\x00\xff".encode("latin-1").decode("latin-1"), "702", "line"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_file_that_is_none_is_told_with_its_line(case: str, tmp_path: Path) -> None:
    text, code, says = BAD[case]
    path = tmp_path / "bars.csv"
    if text is not None:
        filled = text.format(at=START_MS, next=START_MS + MINUTE_MS, off=START_MS + 30_000)
        path.write_text(filled, encoding="latin-1")
    with pytest.raises(QmtlError) as refused:
        load_bars([f"{A}={path}"], interval=60)
    assert refused.value.code == f"QMTL-{code}"
    assert says in refused.value.what
    assert "bars.csv" in refused.value.what
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("column", "made", "says"),
    [
        ("open_time_ms", lambda pa: pa.array([START_MS], pa.timestamp("ms")), "without a time zone"),
        (
            "close",
            lambda pa: pa.array([11.0]),
            "binary floating point numbers (double) in the column of close",
        ),
        ("volume", lambda pa: pa.array([None], pa.int64()), "row 0: volume had no value"),
    ],
)
def test_a_parquet_file_that_is_not_exact_is_told(
    column: str, made: Callable[[Any], Any], says: str, tmp_path: Path
) -> None:
    pa = pytest.importorskip("pyarrow")
    row = dict(zip(HEADER.strip().split(","), (START_MS, 10, 12, 9, 11, 1), strict=True))
    columns = {name: pa.array([value]) for name, value in row.items()} | {column: made(pa)}
    pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), tmp_path / "bars.parquet")
    with pytest.raises(QmtlError) as refused:
        load_bars([f"{A}={tmp_path / 'bars.parquet'}"], interval=60)
    assert says in refused.value.what
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        ({"symbols": ["LTC/USD"]}, "706", "no data of LTC/USD"),
        ({"start_ms": at(MINUTES)}, "706", "has no bar of BTC/USD"),
        ({"end_ms": at(0)}, "706", "has no bar of BTC/USD"),
        ({"start_ms": at(9), "end_ms": at(10)}, "706", "has no bar of BTC/USD"),
        ({"start_ms": at(5), "end_ms": at(5)}, "801", "it has no bar"),
        ({"as_of": 1}, "801", "the data are files"),
        ({"interval": 120}, "701", "multiple of the interval"),
    ],
)
def test_what_the_files_do_not_have_is_told(
    more: dict[str, Any], code: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(QmtlError, match=says) as refused:
        load_bars(data(tmp_path), **more)
    assert refused.value.code == f"QMTL-{code}"


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ([], "no data was given"),
        (["BTC"], "SYMBOL=FILE"),
        (["=x.csv"], "SYMBOL=FILE"),
        (["A=x.csv", "A=y.csv"], "had 'A' twice"),
        ([".", "A=x.csv"], "beside others"),
    ],
)
def test_data_of_another_form_are_refused(texts: list[str], says: str) -> None:
    with pytest.raises(QmtlError, match=says) as refused:
        load_bars(texts)
    assert refused.value.code == "QMTL-801"


def test_what_a_catalogue_does_not_have_is_told(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    with pytest.raises(QmtlError, match="holds no catalogue"):
        load_bars([str(tmp_path)])
    directory = tmp_path / "catalogue"
    with writing(directory) as writer:
        writer.add(A, 60, iter([of(bars(A))]), {"kind": "test"})
    with pytest.raises(QmtlError, match=r"has no bars of ETH/USD and 60 s; it has BTC/USD 60 s"):
        load_bars([str(directory)], symbols=[A, B])
    with pytest.raises(QmtlError, match="has no bar of BTC/USD and 60 s from"):
        load_bars([str(directory)], at(MINUTES))
    with pytest.raises(QmtlError, match="99"):
        load_bars([str(directory)], as_of=99)
