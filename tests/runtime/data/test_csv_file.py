"""Files from elsewhere: columns and times are taken as said, and what is wrong is told with its line."""

from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qmtl.foundation.common.errors import (
    ConflictingBars,
    InvalidBar,
    InvalidBarsFile,
    InvalidValue,
    QmtlError,
)
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.data.bars import read_bars
from qmtl.runtime.data.csv_file import FileForm, Times, read_csv
from qmtl.runtime.data.provider import read_file

HEAD = "open_time_ms,open,high,low,close,volume"
GOOD = "60000,2,4,1,3,0.50"
NEXT = "120000,3,4.25,1,3,5"


def written(path: Path, *lines: str, head: str = HEAD, end: str = "\n") -> Path:
    path.write_bytes(
        "".join(line + "\n" for line in (head, *lines)).removesuffix("\n").encode() + end.encode()
    )
    return path


def bars(path: Path, form: FileForm | None = None, rows: int = 65_536) -> list[Bar]:
    return [bar for chunk in read_csv(path, "X", 60, form or FileForm(), rows=rows) for bar in chunk.bars()]


def test_plain_and_odd_numbers_are_read_as_the_reader_of_records_reads_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", GOOD, NEXT, "180000,+3,4e0,1.0E-2,3.000,1e-8", "300000,3,4,1,3,0")
    assert [bars(path, rows=rows) for rows in (1, 3, 9)] == [list(read_bars(path, "X", 60))] * 3
    packed = tmp_path / "b"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert bars(packed) == bars(path)


@pytest.mark.parametrize(
    "times, texts",
    [
        (Times.MS, ("60000", "120000")),
        (Times.S, ("60", "120")),
        (Times.ISO, ("1970-01-01T00:01:00Z", "1970-01-01T00:02:00+00:00")),
        (Times.ISO, ("1970-01-01 09:01:00+09:00", "1970-01-01T09:02:00.000+09:00")),
    ],
)
def test_times_and_names_are_taken_as_said(tmp_path: Path, times: Times, texts: tuple[str, str]) -> None:
    lines = [f"9,{text},2,4,1,3,0.5,x" for text in texts]
    path = written(tmp_path / "a.csv", *lines, head="id,timestamp,open,high,low,last,vol,more")
    form = FileForm({"open_time_ms": "timestamp", "close": "last", "volume": "vol"}, times)
    assert [bar.open_time_ms for bar in bars(path, form)] == [60_000, 120_000]
    assert bars(path, form)[0].close == Decimal(3)


ISO = FileForm(times=Times.ISO)
BAD: dict[str, tuple[tuple[str, ...], str, FileForm, type[QmtlError], tuple[str, ...]]] = {
    "a missing column": (
        (GOOD,),
        HEAD.replace(",close", ""),
        FileForm(),
        InvalidBarsFile,
        ("line 1", "close"),
    ),
    "an unknown column": ((GOOD + ",1",), HEAD + ",vwap", FileForm(), InvalidBarsFile, ("line 1", "vwap")),
    "a column twice": (
        (GOOD + ",1",),
        HEAD + ",open",
        FileForm(),
        InvalidBarsFile,
        ("line 1", "twice", "open"),
    ),
    "other names unsaid": (
        (GOOD,),
        HEAD.replace("open_time_ms", "time"),
        FileForm(),
        InvalidBarsFile,
        ("open_time_ms", "time"),
    ),
    "no bar": ((), HEAD, FileForm(), InvalidBarsFile, ("no bar",)),
    "too few fields": ((GOOD, "120000,3,4"), HEAD, FileForm(), InvalidBarsFile, ("line 3", "3 fields")),
    "half a field": ((GOOD, "120000,3,4,1,3,"), HEAD, FileForm(), InvalidBar, ("line 3", "volume", "''")),
    "an empty line": ((GOOD, "", NEXT), HEAD, FileForm(), InvalidBarsFile, ("line 3", "1 fields")),
    "descending": ((NEXT, GOOD), HEAD, FileForm(), InvalidBar, ("line 3", "60000", "Sort")),
    "a time twice": ((GOOD, NEXT, NEXT + "1"), HEAD, FileForm(), ConflictingBars, ("line 4", "120000")),
    "off the grid": ((GOOD, "120001,3,4,1,3,5"), HEAD, FileForm(), InvalidBar, ("line 3", "120001")),
    "no number": ((GOOD, "120000,3,4,1,nan,5"), HEAD, FileForm(), InvalidBar, ("line 3", "close", "nan")),
    "too many digits": (
        (GOOD, f"120000,3,4,1,3,1.{'1' * 18}"),
        HEAD,
        FileForm(),
        InvalidBar,
        ("line 3", "volume"),
    ),
    "high below low": ((GOOD, "120000,3,2,4,3,5"), HEAD, FileForm(), InvalidBar, ("line 3",)),
    "seconds as milliseconds": (("60,2,4,1,3,1",), HEAD, FileForm(), InvalidBar, ("line 2", "60")),
    "a text as milliseconds": (
        (GOOD.replace("60000", "1970-01-01"),),
        HEAD,
        FileForm(),
        InvalidBar,
        ("line 2", "iso", "qmtl data import --times"),
    ),
    "a naive time": (
        (GOOD.replace("60000", "1970-01-01T00:01:00"),),
        HEAD,
        ISO,
        InvalidBar,
        ("line 2", "offset"),
    ),
    "mixed zones": (
        (GOOD.replace("60000", "1970-01-01T00:01:00Z"), NEXT.replace("120000", "1970-01-01T01:02:00+01:00")),
        HEAD,
        ISO,
        InvalidBar,
        ("line 3", "offset", "+01:00", "the rows before, UTC."),
    ),
    "no time": ((GOOD.replace("60000", "noon"),), HEAD, ISO, InvalidBar, ("line 2", "noon")),
    "a part of a millisecond": (
        (GOOD.replace("60000", "1970-01-01T00:01:00.0001Z"),),
        HEAD,
        ISO,
        InvalidBar,
        ("line 2",),
    ),
}


@pytest.mark.parametrize("lines, head, form, error, words", BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_with_its_line(
    tmp_path: Path,
    lines: tuple[str, ...],
    head: str,
    form: FileForm,
    error: type[QmtlError],
    words: tuple[str, ...],
) -> None:
    path = written(tmp_path / "bars.csv", *lines, head=head)
    for rows in (1, 65_536):
        with pytest.raises(error) as caught:
            bars(path, form, rows)
        for word in ("bars.csv", *words):
            assert word in str(caught.value)
        assert caught.value.remedy


def test_half_a_line_at_the_end_is_refused_even_where_it_could_be_a_whole_one(tmp_path: Path) -> None:
    whole = written(tmp_path / "bars.csv", GOOD, "120000,3,4,1,3,5.25").read_bytes()
    cut = tmp_path / "cut.csv"
    for size in range(whole.index(b"120000") + 1, len(whole)):
        cut.write_bytes(whole[:size])
        with pytest.raises(InvalidBarsFile, match=r"cut.csv line 3"):
            bars(cut)


def test_an_unknown_column_of_ours_is_refused() -> None:
    with pytest.raises(InvalidValue, match="price"):
        FileForm({"price": "p"})


def parquet(path: Path, **columns: object) -> Path:
    prices = {
        name: pa.array([Decimal(text)] * 2, pa.decimal128(20, 8))
        for name, text in zip(HEAD.split(",")[1:], "24131", strict=True)
    }
    pq.write_table(pa.table({"open_time_ms": [60_000, 120_000], **prices, **columns}), path)
    return path


def test_somebody_elses_parquet_is_read_where_it_is_exact(tmp_path: Path) -> None:
    plain = parquet(tmp_path / "plain")
    zone = pa.timestamp("us", tz="UTC")
    stamped = parquet(tmp_path / "stamped", open_time_ms=pa.array([60_000_000, 120_000_000], zone))
    texts = parquet(tmp_path / "texts", close=["3", "3.0"], low=pa.array([1, 1], pa.int32()))
    doubles = parquet(tmp_path / "doubles", volume=[1.0, 0.1])
    found = [
        [bar for chunk in read_file(path, "X", 60, FileForm(floats=path is doubles)) for bar in chunk.bars()]
        for path in (plain, stamped, texts, doubles)
    ]
    assert found[0] == found[1] == found[2]
    assert [bar.volume for bar in found[3]] == [Decimal(1), Decimal("0.1")]


@pytest.mark.parametrize(
    "columns, error, word",
    [
        ({"open_time_ms": pa.array([60_000, 120_000], pa.timestamp("ms"))}, InvalidBarsFile, "time zone"),
        ({"open_time_ms": ["a", "b"]}, InvalidBarsFile, "open_time_ms"),
        ({"open_time_ms": [120_000, 60_000]}, InvalidBar, "row 1"),
        ({"open_time_ms": [60_000, None]}, InvalidBar, "row 1"),
        ({"close": [3.0, 3.0]}, InvalidBarsFile, "--floats"),
        ({"close": ["3", "three"]}, InvalidBar, "row 1"),
        ({"close": [True, False]}, InvalidBarsFile, "close"),
        ({"vwap": [1, 2]}, InvalidBarsFile, "vwap"),
    ],
)
def test_somebody_elses_parquet_is_refused_where_it_is_not(
    tmp_path: Path, columns: dict[str, object], error: type[QmtlError], word: str
) -> None:
    path = parquet(tmp_path / "bars.parquet", **columns)
    with pytest.raises(error, match=word) as caught:
        list(read_file(path, "X", 60, FileForm()))
    assert "bars.parquet" in str(caught.value)


def test_a_parquet_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "bars.parquet")
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InvalidBarsFile, match=r"bars.parquet"):
        list(read_file(path, "X", 60, FileForm()))
