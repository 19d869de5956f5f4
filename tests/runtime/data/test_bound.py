"""What binds a run to bars: a choice of them is what files with the same bars are, as of its commit for ever."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue, NotInCatalogue
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import BarSource, dataset_fingerprint
from qmtl.runtime.data.bound import bound_bars
from qmtl.runtime.data.catalogue import Catalogue, writing
from tests.runtime.data.walk import START_MS, as_csv, minute

MINUTE_MS = 60_000
MINUTES = st.sets(st.integers(0, 30), min_size=1)


def named(symbol: str, at: int) -> Bar:
    bar = minute(at)
    return Bar(symbol, bar.open_time_ms, 60, bar.open, bar.high, bar.low, bar.close, bar.volume)


@settings(max_examples=25)
@given(
    st.dictionaries(st.sampled_from("ABC"), MINUTES, min_size=1),
    st.none() | st.integers(0, 10),
    st.none() | st.integers(11, 35),
    st.data(),
)
def test_a_choice_is_what_files_with_its_bars_are_whatever_comes_later(
    minutes: dict[str, set[int]], begin: int | None, end: int | None, data: st.DataObject
) -> None:
    start_ms = None if begin is None else START_MS + begin * MINUTE_MS
    end_ms = None if end is None else START_MS + end * MINUTE_MS
    wanted = {
        symbol: [at for at in sorted(found) if (begin or 0) <= at < (end or 99)]
        for symbol, found in minutes.items()
    }
    with TemporaryDirectory() as directory:
        place = Path(directory)
        with writing(place / "c") as writer:
            for symbol, found in sorted(minutes.items()):
                bars = BarColumns.of(symbol, 60, [named(symbol, at) for at in sorted(found)])
                writer.add(symbol, 60, [bars], {})
            first = writer.catalogue.commit().digest
            for symbol, found in sorted(minutes.items()):
                if later := sorted(set(range(35)) - found):
                    bars = BarColumns.of(symbol, 60, [named(symbol, at) for at in later])
                    writer.add(symbol, 60, [bars], {})
        catalogue = Catalogue(place / "c")
        if not all(wanted.values()):
            with pytest.raises(NotInCatalogue, match="no bar of"):
                bound_bars(catalogue, minutes, 60, start_ms, end_ms, first)
            return
        chosen = bound_bars(catalogue, minutes, 60, start_ms, end_ms, first)
        files = [
            BarSource(symbol, as_csv(place / symbol, [minute(at) for at in found]))
            for symbol, found in wanted.items()
        ]
        assert chosen.fingerprint == dataset_fingerprint(files)
        every = sorted((at, symbol) for symbol, found in wanted.items() for at in found)
        assert list(chosen.read()) == [named(symbol, at) for at, symbol in every]
        one = data.draw(st.sampled_from(sorted(minutes)))
        assert list(chosen.read([one])) == [named(one, at) for at in wanted[one]]
        assert (chosen.bars, chosen.as_of) == (len(every), first)
        assert chosen.start_ms == (START_MS + every[0][0] * MINUTE_MS if start_ms is None else start_ms)
        assert chosen.end_ms == (START_MS + (every[-1][0] + 1) * MINUTE_MS if end_ms is None else end_ms)
        for text in (first, first[7:20], str(chosen.commit.number), chosen.fingerprint):
            assert chosen.is_as_of(text)
        for text in ("", first[7:10], "99", "blake3:", first[:-1] + "x"):
            assert not chosen.is_as_of(text)


@pytest.mark.parametrize("symbols, start_ms", [([], None), (["A"], 1)])
def test_what_is_no_choice_is_refused(tmp_path: Path, symbols: list[str], start_ms: int | None) -> None:
    with writing(tmp_path) as writer:
        writer.add("A", 60, [BarColumns.of("A", 60, [named("A", 0)])], {})
        with pytest.raises(InvalidValue, match="selection"):
            bound_bars(writer.catalogue, symbols, 60, start_ms)
