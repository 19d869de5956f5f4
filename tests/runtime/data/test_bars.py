"""Bars files: what is read is what was written, and every broken file says where it is broken."""

from __future__ import annotations

import csv
import gzip
import itertools
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidBar, InvalidBarsFile, InvalidValue, QmtlError
from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.world import Instrument
from qmtl.runtime.data.bars import (
    COLUMNS,
    MAX_LINE_BYTES,
    BarSource,
    dataset_fingerprint,
    default_sources,
    infer_interval,
    read_bars,
)
from qmtl.runtime.data.instruments import FINEST, default_instruments, instrument_for

HEADER = ",".join(COLUMNS)
GOOD = "60000,2,4,1,3,0.5"


def written(path: Path, *lines: str, end: str = "\n", header: str = HEADER) -> Path:
    path.write_bytes("".join(line + end for line in (header, *lines)).encode())
    return path


def read(path: Path, interval: int = 60) -> list[Bar]:
    return list(read_bars(path, "X", interval))


positive = st.integers(1, 10**12).map(lambda units: Decimal(units).scaleb(-8))


@st.composite
def bars(draw: st.DrawFn) -> list[Bar]:
    interval = draw(st.sampled_from([1, 60, 3600]))
    slots = sorted(draw(st.sets(st.integers(0, 10**6), min_size=1, max_size=12)))
    out = []
    for slot in slots:
        low, *between, high = sorted(draw(st.tuples(*[positive] * 4)))
        opened, closed = draw(st.permutations(between))
        volume = draw(positive | st.just(Decimal(0)))
        out.append(Bar("X", slot * interval * 1000, interval, opened, high, low, closed, volume))
    return out


def line(bar: Bar) -> str:
    return ",".join(
        (str(bar.open_time_ms), *(text(one) for one in (bar.open, bar.high, bar.low, bar.close, bar.volume)))
    )


# ---- laws -------------------------------------------------------------------------------------------------


@given(bars(), st.permutations(range(6)), st.booleans(), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_was_written_is_read_exactly_however_it_is_written(
    tmp_path_factory: pytest.TempPathFactory,
    given_bars: list[Bar],
    order: list[int],
    packed: bool,
    end: str,
    marked: bool,
) -> None:
    lines = [HEADER, *(line(bar) for bar in given_bars)]
    shuffled = [",".join(one.split(",")[at] for at in order) for one in lines]
    data = (("\ufeff" if marked else "") + end.join(shuffled)).encode()
    path = tmp_path_factory.mktemp("bars") / "bars.csv"
    path.write_bytes(gzip.compress(data) if packed else data)
    assert list(read_bars(path, "X", given_bars[0].interval)) == given_bars

    plain = written(path.with_name("plain.csv"), *lines[1:])
    assert dataset_fingerprint([BarSource("X", path)]) == dataset_fingerprint([BarSource("X", plain)])


@given(st.sets(st.integers(0, 200), min_size=2), st.sampled_from([1, 5, 60, 86_400]), st.booleans())
def test_the_interval_divides_every_distance_and_nothing_greater_does(
    tmp_path_factory: pytest.TempPathFactory, slots: set[int], interval: int, split: bool
) -> None:
    times = sorted(slots)
    here = tmp_path_factory.mktemp("bars")
    groups = [times[:1], times[1:]] if split else [times]
    paths = [
        written(here / f"{at}.csv", *(f"{slot * interval * 1000},1,1,1,1,0" for slot in group))
        for at, group in enumerate(groups)
    ]
    found = infer_interval(paths)
    distances = [other - one for one, other in itertools.combinations(times, 2)]
    divisors = [by for by in range(1, 201) if all(distance % by == 0 for distance in distances)]
    assert found == max(divisors) * interval
    assert infer_interval(reversed(paths)) == found


# ---- the fingerprint ----------------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_every_fact_and_with_nothing_else(tmp_path: Path) -> None:
    rows = ("60000,2,4,1,3,0.5", "120000,3,4,1,2,0")
    base = dataset_fingerprint([BarSource("X", written(tmp_path / "a.csv", *rows))])
    assert base.startswith("blake3:")
    assert len(base) == 71
    same = written(tmp_path / "b.csv", "60000,2.0,4,1,3.00,5e-1", "120000,3,4,+1,2,0.0")
    assert dataset_fingerprint([BarSource("X", same)]) == base
    others = [
        dataset_fingerprint([BarSource(symbol, written(tmp_path / "c.csv", *changed))])
        for symbol, changed in (
            ("Y", rows),
            ("X", rows[:1]),
            ("X", ("60001,2,4,1,3,0.5", rows[1])),
            ("X", ("60000,2,4,1,3,0.6", rows[1])),
            ("X", ("60000,3,4,1,2,0.5", rows[1])),
        )
    ]
    assert len({base, *others}) == 6


def test_a_fingerprint_keeps_symbols_apart_and_takes_files_in_any_order(tmp_path: Path) -> None:
    one = written(tmp_path / "one.csv", GOOD)
    two = written(tmp_path / "two.csv", GOOD, "120000,2,4,1,3,0.5")
    sources = [BarSource("A", one), BarSource("B", two)]
    assert dataset_fingerprint(sources) == dataset_fingerprint(sources[::-1])
    assert dataset_fingerprint(sources) != dataset_fingerprint([BarSource("A", two), BarSource("B", one)])
    assert dataset_fingerprint([]) != dataset_fingerprint(sources[:1])
    with pytest.raises(InvalidValue, match="'A' had two files"):
        dataset_fingerprint([BarSource("A", one), BarSource("A", two)])


# ---- broken files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "row, says",
    [
        ("60000,0,4,0,3,1", "line 3: open was '0'; a price is positive"),
        ("60000,2,4,-1,3,1", "line 3: low was '-1'; a price is positive"),
        ("60000,2,1,2,2,1", "line 3: high was '1'; it is not below the low, 2"),
        ("60000,5,4,1,3,1", "line 3: open was '5'; it lies between the low, 1, and the high, 4"),
        ("60000,2,4,1,0.5,1", "line 3: close was '0.5'; it lies between"),
        ("60000,2,4,1,3,-0.1", "line 3: volume was '-0.1'; a volume is not negative"),
        ("0,2,4,1,3,1", "line 3: open_time_ms was '0'; it comes after the row before, 0"),
        ("60001,2,4,1,3,1", "line 3: open_time_ms was '60001'; it is a multiple of the interval, 60000 ms"),
        ("6e4,2,4,1,3,1", "line 3: open_time_ms was '6e4'; it is a whole number of epoch milliseconds"),
        ("-60000,2,4,1,3,1", "line 3: open_time_ms was '-60000'"),
        ("6٠000,2,4,1,3,1", "line 3: open_time_ms was '6٠000'"),
        (",2,4,1,3,1", "line 3: open_time_ms was ''"),
        ("9" * 16 + ",2,4,1,3,1", "line 3: open_time_ms was '9999999999999999'"),
        ("60000,NaN,4,1,3,1", "line 3: open was 'NaN'; it is a finite decimal number"),
        ("60000,2,Infinity,1,3,1", "line 3: high was 'Infinity'; it is a finite decimal number"),
        ("60000,2,4,x,3,1", "line 3: low was 'x'; it is a finite decimal number"),
        ("60000,2,4,1,,1", "line 3: close was ''; it is a finite decimal number"),
        ("60000, 2,4,1,3,1", "line 3: open was ' 2'; it is a finite decimal number"),
        ("60000,2,4,1,3,1_0", "line 3: volume was '1_0'; it is a finite decimal number"),
        ("60000,2,4,1,3,1e400", "line 3: volume was '1e400'"),
        ("60000,2,4,1,3,1e99", "line 3: volume was '1e99'; at most 60 digits"),
        (f"60000,2,4,1,3,0.{'1' * 70}", "line 3: volume was '0.11111"),
    ],
)
def test_a_row_that_is_no_bar_is_named_by_file_line_column_and_value(
    tmp_path: Path, row: str, says: str
) -> None:
    path = written(tmp_path / "broken.csv", "0,2,4,1,3,1", row)
    with pytest.raises(InvalidBar) as refused:
        read(path)
    assert says in str(refused.value)
    assert "[QMTL-701] broken.csv line 3" in str(refused.value)
    assert refused.value.remedy


@pytest.mark.parametrize("row", ["0,2,4,1,3,1", "60000,2,4,1,3,1"])
def test_a_time_that_goes_back_or_stands_still_is_refused(tmp_path: Path, row: str) -> None:
    with pytest.raises(InvalidBar, match="comes after the row before, 60000"):
        read(written(tmp_path / "back.csv", "60000,2,4,1,3,1", row))


BROKEN: list[tuple[str, bytes, str]] = [
    ("empty", b"", "was empty"),
    ("packed empty", gzip.compress(b""), "was empty"),
    ("header alone", HEADER.encode(), "held no bar"),
    ("missing column", b"open_time_ms,open,high,low,close\n0,1,1,1,1\n", "line 1 lacked the column volume"),
    ("unknown column", (HEADER + ",vwap\n").encode(), "line 1 had the column 'vwap', which is unknown"),
    ("column twice", (HEADER + ",open\n").encode(), "line 1 had the column 'open', twice"),
    ("no header", b"0,1,1,1,1,1\n", "line 1 lacked the column open_time_ms"),
    ("short row", f"{HEADER}\n0,1,1,1,1\n".encode(), "line 2 had 5 fields; 6 are required"),
    ("long row", f"{HEADER}\n0,1,1,1,1,1,1\n".encode(), "line 2 had 7 fields; 6 are required"),
    ("blank line", f"{HEADER}\n\n{GOOD}\n".encode(), "line 2 had 1 fields; 6 are required"),
    ("not utf-8", HEADER.encode() + b"\n0,1,\xff,1,1,1\n", "line 2 was not UTF-8: byte 0xff at place 5"),
    ("utf-16", HEADER.encode("utf-16"), "line 1 was not UTF-8"),
    ("endless line", b"x" * (MAX_LINE_BYTES + 1), f"line 1 was longer than {MAX_LINE_BYTES} bytes"),
    ("endless packed line", gzip.compress(b"x" * 10**6), f"line 1 was longer than {MAX_LINE_BYTES} bytes"),
    ("truncated", gzip.compress(f"{HEADER}\n{GOOD}\n".encode())[:-9], "was a damaged gzip file"),
    ("not deflated", gzip.compress(b"")[:10] + b"\xff" * 20, "was a damaged gzip file"),
    (
        "wrong checksum",
        gzip.compress(f"{HEADER}\n{GOOD}\n".encode())[:-8] + bytes(8),
        "could not be read: CRC check",
    ),
    ("magic alone", b"\x1f\x8b", "was a damaged gzip file"),
]


@pytest.mark.parametrize("content, says", [pytest.param(*row, id=name) for name, *row in BROKEN])
def test_a_file_that_is_no_bars_file_says_what_it_lacks(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "broken.csv.gz"
    path.write_bytes(content)
    with pytest.raises(InvalidBarsFile) as refused:
        read(path)
    assert says in str(refused.value)
    assert "broken.csv.gz" in str(refused.value)
    assert refused.value.remedy


def test_every_truncation_of_a_packed_file_is_noticed(tmp_path: Path) -> None:
    whole = gzip.compress(f"{HEADER}\n{GOOD}\n".encode())
    path = tmp_path / "cut.csv.gz"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(QmtlError):
            read(path)


def test_a_file_that_can_not_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(InvalidBarsFile, match=str(path)):
            read(path)


def test_a_long_file_is_read_no_further_than_it_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "late.csv", GOOD, "broken")
    assert next(read_bars(path, "X", 60)).open_time_ms == 60_000


@pytest.mark.parametrize("interval", [0, -60, True, 1.5])
def test_an_interval_is_a_positive_number_of_seconds(tmp_path: Path, interval: int) -> None:
    with pytest.raises(InvalidValue, match="interval was"):
        read_bars(written(tmp_path / "a.csv", GOOD), "X", interval)


@pytest.mark.parametrize(
    "rows, says", [([GOOD], "fewer than two"), ([GOOD, "60500,2,4,1,3,1"], "500 ms apart")]
)
def test_an_interval_that_can_not_be_told_is_refused(tmp_path: Path, rows: list[str], says: str) -> None:
    with pytest.raises(InvalidBarsFile, match=says):
        infer_interval([written(tmp_path / "a.csv", *rows)])


def test_no_file_has_no_interval() -> None:
    with pytest.raises(InvalidBarsFile, match="no file"):
        infer_interval([])


# ---- what is shipped ------------------------------------------------------------------------------------------


def test_the_shipped_bars_are_minutes_with_real_gaps() -> None:
    sources = default_sources()
    assert [source.symbol for source in sources] == ["BTC-USD", "ETH-USD"]
    assert infer_interval(source.path for source in sources) == 60
    for source in sources:
        with gzip.open(source.path, "rt", newline="") as file:
            rows = list(csv.DictReader(file))
        found = list(read_bars(source.path, source.symbol, 60))
        assert len(found) == len(rows) > 2_000
        for bar, row in zip(found, rows, strict=True):
            assert bar.open_time_ms == int(row["open_time_ms"])
            for name in COLUMNS[1:]:
                assert getattr(bar, name) == Decimal(row[name])
        minutes = {later.open_time_ms - bar.open_time_ms for bar, later in itertools.pairwise(found)}
        assert minutes > {60_000}
    assert (sources[0].path.parent / "README.md").is_file()


def test_the_shipped_instruments_are_those_of_the_exchange() -> None:
    cent, satoshi = Decimal("0.01"), Decimal("0.00000001")
    symbols = ("BTC-USD", "ETH-USD", "LTC-USD")
    assert default_instruments() == tuple(Instrument(symbol, cent, satoshi, satoshi) for symbol in symbols)
    assert instrument_for("ETH-USD") == default_instruments()[1]
    assert instrument_for("XYZ") == Instrument("XYZ", FINEST, FINEST, FINEST)
