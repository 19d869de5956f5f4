"""The catalogue: the same bars are the same data whatever way they came, and what was committed stays as it was for ever."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow.dataset import dataset

from qmtl.foundation.common.errors import (
    CatalogueDamaged,
    CatalogueLocked,
    CatalogueUnwritable,
    ConflictingBars,
    InvalidBarsFile,
    InvalidValue,
    NotInCatalogue,
)
from qmtl.foundation.common.money import text
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.columns import BarColumns, Scaled
from qmtl.runtime.data import catalogue as catalogue_module
from qmtl.runtime.data.backfill import backfill, repair
from qmtl.runtime.data.bars import BarSource, dataset_fingerprint, default_sources
from qmtl.runtime.data.catalogue import Catalogue, Writer, writing
from qmtl.runtime.data.conformance import gaps_of
from qmtl.runtime.data.csv_file import FileForm, read_csv
from qmtl.runtime.data.parquet import decode, encode
from qmtl.runtime.data.provider import CatalogueProvider, FileProvider
from qmtl.runtime.data.texts import rows_of
from tests.runtime.data.walk import START_MS, SYMBOL, as_csv, minute, of, walk


@contextmanager
def somewhere() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        yield Path(directory)


def add(writer: Writer, columns: BarColumns) -> int:
    return writer.add(SYMBOL, 60, [columns], {"kind": "test"}).bars


def files_in(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@settings(max_examples=20)
@given(st.data())
def test_any_split_and_order_of_the_same_bars_is_the_same_data_and_no_commit_changes(
    data: st.DataObject,
) -> None:
    minutes = sorted(data.draw(st.sets(st.integers(0, 60), min_size=1)))
    groups = data.draw(st.integers(1, 5))
    chosen = {at: data.draw(st.sets(st.integers(0, groups - 1), min_size=1)) for at in minutes}
    imports = [[minute(at) for at in minutes if group in chosen[at]] for group in range(groups)]
    with somewhere() as place:
        expected = dataset_fingerprint(
            [BarSource(SYMBOL, as_csv(place / "whole.csv", [minute(at) for at in minutes]))]
        )
        was: dict[int, tuple[str, list[Bar]]] = {}
        seen: set[int] = set()
        with writing(place / "catalogue") as writer:
            for group in imports:
                if group:
                    add(writer, of(group))
                    commit = writer.catalogue.commit()
                    found = list(writer.catalogue.columns(SYMBOL, 60).bars())
                    seen |= {bar.open_time_ms for bar in group}
                    assert [bar.open_time_ms for bar in found] == sorted(seen)
                    was[commit.number] = (writer.catalogue.fingerprint([SYMBOL], 60), found)
        catalogue = Catalogue(place / "catalogue")
        assert catalogue.fingerprint([SYMBOL], 60) == expected
        for number, (fingerprint, bars) in was.items():
            digest = catalogue.commit(number).digest
            assert catalogue.fingerprint([SYMBOL], 60, as_of=number) == fingerprint
            assert list(catalogue.columns(SYMBOL, 60, as_of=digest).bars()) == bars


@settings(max_examples=25)
@given(st.sets(st.integers(0, 60), min_size=1), st.integers(-3, 64), st.integers(-3, 64))
def test_a_range_is_what_opens_from_its_begin_on_and_before_its_end(
    minutes: set[int], begin: int, end: int
) -> None:
    with somewhere() as place:
        odd = [minute(at) for at in sorted(minutes) if at % 2]
        even = [minute(at) for at in sorted(minutes) if not at % 2]
        with writing(place) as writer:
            for some in (odd, even):
                if some:
                    add(writer, of(some))
        bounds = (START_MS + begin * 60_000, START_MS + end * 60_000)
        found = [bar for chunk in Catalogue(place).read(SYMBOL, 60, *bounds) for bar in chunk.bars()]
    assert found == [minute(at) for at in sorted(minutes) if begin <= at < end]


@given(
    st.lists(st.tuples(*[st.integers(-(10**18) + 1, 10**18 - 1) | st.integers(-99, 99)] * 2), max_size=9),
    st.integers(0, 18),
    st.integers(0, 18),
)
def test_rows_of_bars_have_the_texts_of_their_values(
    units: list[tuple[int, int]], prices: int, volumes: int
) -> None:
    column = Scaled(np.array([one for one, _ in units], dtype=np.int64), prices)
    volume = Scaled(np.array([one for _, one in units], dtype=np.int64), volumes)
    times = np.arange(len(units), dtype=np.int64) * 10**11
    rows = rows_of(BarColumns("X", 60, times, column, column, column, column, volume))
    said = [
        ",".join([str(at * 10**11), *[text(column.at(at))] * 4, text(volume.at(at))]) + "\n"
        for at in range(len(units))
    ]
    assert rows.decode() == "".join(said)


@given(
    st.integers(0, 18),
    st.integers(0, 18),
    st.lists(st.integers(1, 10**18 - 1), min_size=1, max_size=9, unique=True),
)
def test_a_part_gives_back_what_was_put_into_it(prices: int, volumes: int, units: list[int]) -> None:
    many = [Decimal(one).scaleb(-prices) for one in units]
    column, volume = (
        Scaled.of(many, prices),
        Scaled.of([Decimal(one).scaleb(-volumes) for one in units], volumes),
    )
    times = of([minute(at) for at in range(len(units))]).open_time_ms
    made = BarColumns("X", 60, times, column, column, column, column, volume)
    assert list(decode("a file", encode(made), "X", 60).bars()) == list(made.bars())


def test_the_shipped_bars_have_the_fingerprint_of_their_files(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        for source in default_sources():
            chunks = read_csv(source.path, source.symbol, 60, FileForm(), rows=1000)
            assert writer.add(source.symbol, 60, chunks, {}).bars > 1000
        names = [source.symbol for source in default_sources()]
        assert writer.catalogue.fingerprint(names, 60) == dataset_fingerprint(default_sources())


def test_numbers_lie_in_the_file_as_decimals_of_64_bits(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        add(writer, walk(0, 20))
    (path,) = tmp_path.glob("bars/symbol=BTC%2FUSD/interval=60/*.parquet")
    schema = pq.ParquetFile(path).schema
    assert [schema.column(at).physical_type for at in range(6)] == ["INT64"] * 6
    found = pq.read_table(path, partitioning=None).to_pylist()
    assert [row["close"] for row in found] == [bar.close for bar in walk(0, 20).bars()]


def test_parts_of_other_places_are_read_together_in_a_type_that_holds_both(tmp_path: Path) -> None:
    numbers = [Decimal("10.5"), Decimal("10.123456789"), Decimal("123456789012.25")]
    bars = [Bar(SYMBOL, at * 60_000, 60, one, one, one, one, one) for at, one in enumerate(numbers)]
    with writing(tmp_path) as writer:
        for bar in bars:
            add(writer, of([bar]))
    wide = pa.schema([("open_time_ms", pa.int64()), ("close", pa.decimal128(38, 18))])
    found = dataset(sorted(map(str, tmp_path.glob("bars/*/*/*.parquet"))), schema=wide).to_table()
    assert sorted(found.to_pylist(), key=lambda row: row["open_time_ms"]) == [
        {"open_time_ms": bar.open_time_ms, "close": bar.close} for bar in bars
    ]


def test_a_long_import_makes_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "PART_BARS", 10)
    with writing(tmp_path) as writer:
        chunks = [walk(0, 7), walk(7, 30), walk(30, 33)]
        commit = writer.add(SYMBOL, 60, chunks, {}).commit
        assert commit is not None
        assert [part.bars for part in commit.parts] == [10, 10, 10]
        assert list(writer.catalogue.columns(SYMBOL, 60).bars()) == list(walk(0, 33).bars())


def test_what_is_there_already_makes_no_commit(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        assert add(writer, walk(0, 50)) == 45
        again = writer.add(SYMBOL, 60, [walk(10, 30)], {})
        assert (again.bars, again.known) == (0, 18)
        assert again.commit == writer.catalogue.commit()
        assert len(writer.catalogue.commits()) == 1


def test_a_bar_that_is_there_with_other_numbers_refuses_its_import_whole(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        add(writer, walk(0, 50))
        before = files_in(tmp_path)
        other = replace(minute(48), volume=Decimal("9.123456789"))
        with pytest.raises(ConflictingBars, match=str(other.open_time_ms)):
            writer.add(SYMBOL, 60, [walk(60, 80), of([other])], {})
        assert files_in(tmp_path) == before


def test_a_source_that_breaks_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_module, "PART_BARS", 10)
    path = as_csv(tmp_path / "bars.csv", [minute(at) for at in range(30)])
    path.write_bytes(path.read_bytes()[:-5])
    with writing(tmp_path / "c") as writer:
        add(writer, walk(40, 50))
        before = files_in(tmp_path / "c")
        with pytest.raises(InvalidBarsFile, match="line 31"):
            writer.add(SYMBOL, 60, read_csv(path, SYMBOL, 60, FileForm(), rows=7), {})
        assert files_in(tmp_path / "c") == before


def test_there_is_one_writer_and_any_number_of_readers(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        add(writer, walk(0, 10))
        with pytest.raises(CatalogueLocked, match="another process"), writing(tmp_path):
            pass
        reader = Catalogue(tmp_path)
        assert reader.commit().number == 1
        add(writer, walk(10, 20))
        assert reader.commit().number == 2
        assert reader.find(SYMBOL, 60).bars == 18
    with writing(tmp_path):
        pass


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [damage, os.remove], ids=["a bit", "a file"])
def test_a_part_that_is_damaged_is_told_by_its_name(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    with writing(tmp_path) as writer:
        add(writer, walk(0, 10))
        add(writer, walk(20, 30))
        first = writer.catalogue.commit(1).parts[0].digest
    (path,) = tmp_path.glob(f"bars/*/*/{first}.parquet")
    harm(path)
    with pytest.raises(CatalogueDamaged) as caught:
        Catalogue(tmp_path).columns(SYMBOL, 60)
    assert path.name in str(caught.value)


def test_a_commit_is_named_by_number_digest_or_the_begin_of_one(tmp_path: Path) -> None:
    with writing(tmp_path) as writer:
        add(writer, walk(0, 10))
        add(writer, walk(20, 30))
    catalogue = Catalogue(tmp_path)
    first, second = catalogue.commits()
    for name in (1, "1", first.digest, first.digest[:15], first.digest.removeprefix("blake3:")[:8]):
        assert catalogue.commit(name) == first
    assert catalogue.commit() == second
    for name in (0, 3, "3", "blake3:", first.digest[:12], "ffffffffffff", ""):
        with pytest.raises(NotInCatalogue, match="as_of"):
            catalogue.commit(name)
    with pytest.raises(NotInCatalogue, match="ETH"):
        catalogue.find("ETH", 60)


def test_what_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotInCatalogue):
        Catalogue(tmp_path)
    (tmp_path / "letter.txt").write_text("dear all")
    with pytest.raises(CatalogueUnwritable, match=r"letter\.txt"), writing(tmp_path):
        pass
    with pytest.raises(CatalogueUnwritable), writing(tmp_path / "letter.txt"):
        pass
    with writing(tmp_path / "new") as writer, pytest.raises(InvalidValue, match="symbol"):
        writer.add("x" * 300, 60, [walk(0, 3)], {})


@settings(max_examples=20)
@given(st.sets(st.integers(0, 40), min_size=2), st.sets(st.integers(0, 40), min_size=1))
def test_a_repair_fills_gaps_with_real_bars_alone(mine: set[int], theirs: set[int]) -> None:
    with somewhere() as place:
        with writing(place / "theirs") as writer:
            add(writer, of([minute(at) for at in sorted(theirs)]))
            provider = CatalogueProvider(writer.catalogue)
        with writing(place / "mine") as writer:
            add(writer, of([minute(at) for at in sorted(mine)]))
            done = repair(writer, provider, SYMBOL, 60)
            found = writer.catalogue.columns(SYMBOL, 60)
            inside = set(range(min(mine), max(mine)))
            expected = mine | (theirs & inside)
            assert list(found.bars()) == [minute(at) for at in sorted(expected)]
            assert done.bars == len(expected) - len(mine)
            assert list(done.left) == list(gaps_of([found.open_time_ms], 60))


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), min_size=1, max_size=5), st.integers(1, 20)
)
def test_backfills_of_any_ranges_leave_no_hole_and_take_nothing_twice(
    ranges: list[tuple[int, int]], chunk: int
) -> None:
    with somewhere() as place:
        path = as_csv(place / "bars.csv", [minute(at) for at in range(80) if at % 10 != 9])
        provider = FileProvider({SYMBOL: path})
        asked: set[int] = set()
        with writing(place / "c") as writer:
            for begin, width in ranges:
                bounds = (START_MS + begin * 60_000, START_MS + (begin + width) * 60_000)
                done = backfill(writer, provider, SYMBOL, 60, *bounds, chunk_bars=chunk)
                wanted = set(range(begin, begin + width))
                assert (done.known, done.skipped) == (0, len(wanted & asked))
                asked |= wanted
            parts = [part for one in writer.catalogue.series() for part in one.parts]
            found = [bar for part in parts for bar in writer.catalogue.load(part).bars()]
        expected = [minute(at) for at in sorted(asked) if at % 10 != 9 and at < 80]
        assert sorted(found, key=lambda bar: bar.open_time_ms) == expected


def test_a_copy_of_a_catalogue_is_the_same_catalogue(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with writing(tmp_path / name) as writer:
            add(writer, walk(0, 10))
            add(writer, walk(20, 30))
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    digests = {Catalogue(tmp_path / name).commit().digest for name in ("one", "two", "copy")}
    assert len(digests) == 1
