"""The bars of a run: out of files, one per symbol, or out of a catalogue as of one of its commits; cut to a range, and told what they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from qmtl.foundation.common.errors import InvalidBarsFile, NotInCatalogue, UsageError
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.bars import source_of
from qmtl.runtime.data.catalogue import Catalogue
from qmtl.runtime.data.conformance import Conformance
from qmtl.runtime.data.csv_file import FileForm
from qmtl.runtime.data.fingerprint import fingerprint_of
from qmtl.runtime.data.journal import Commit
from qmtl.runtime.data.merging import cut, joined
from qmtl.runtime.data.provider import read_file


@dataclass(frozen=True, slots=True, eq=False)
class BarsRead:
    """The bars of a run.

    Attributes:
        bars: by symbol, sorted; none is empty.
        interval: seconds.
        fingerprint: of these very bars, as `qmtl.runtime.data.bars.dataset_fingerprint` has it.
        as_of: digest of the catalogue's commit; empty for files.
        duplicates: how many bars a file says a second time in the same words, by symbol; only those that do.
        commit: that of `as_of`; None for files.
    """

    bars: Mapping[str, BarColumns]
    interval: int
    fingerprint: str
    as_of: str = ""
    duplicates: Mapping[str, int] = field(default_factory=dict)
    commit: Commit | None = None

    def is_as_of(self, text: str) -> bool:
        """Whether a text may name this state of the data. Files have no commits: whoever named them is taken at their word."""
        return self.commit is None or text == self.fingerprint or self.commit.is_called(text)


def load_bars(
    data: Sequence[str],
    start_ms: int | None = None,
    end_ms: int | None = None,
    as_of: int | str | None = None,
    *,
    symbols: Collection[str] | None = None,
    interval: int | None = None,
    sparse: bool = False,
) -> BarsRead:
    """Read bars; those that open from `start_ms` on and before `end_ms`.

    Args:
        data: `SYMBOL=FILE` for each symbol, CSV (also gzip) or Parquet, in any order; or the directory of a catalogue alone.
        as_of: a commit of the catalogue by number or digest; None for the newest.
        symbols: only these, and all of these; None for all that there are.
        interval: seconds, which the bars have to have; None for what the files or the catalogue have.
        sparse: the bars of files are of `interval`, however far apart they lie.

    Raises:
        UsageError: a text of another form, a symbol twice, a catalogue beside anything else, `as_of` without one, a range without an instant.
        InvalidBarsFile, InvalidBar, ConflictingBars: with file and line.
        NotInCatalogue: a symbol without data, or none in that range.
    """
    if start_ms is not None and end_ms is not None and start_ms >= end_ms:
        raise UsageError(
            f"the range begins at {start_ms} and ends at {end_ms}; it has no bar.",
            "Give a beginning before the end.",
        )
    files, directory = _sources(data)
    if directory is not None:
        return _from_catalogue(Catalogue(directory), start_ms, end_ms, as_of, symbols, interval)
    if as_of is not None:
        raise UsageError(
            "as_of was said, and the data are files; they have no commits.",
            "Leave it out, or import them into a catalogue with `qmtl data import`.",
        )
    return _from_files(files, start_ms, end_ms, symbols, interval, sparse=sparse)


def _sources(data: Sequence[str]) -> tuple[dict[str, Path], Path | None]:
    """The files by symbol, sorted; or the directory."""
    if len(data) == 1 and Path(data[0]).is_dir():
        return {}, Path(data[0])
    files: dict[str, Path] = {}
    for text in data:
        if Path(text).is_dir():
            raise UsageError(
                f"the data had the catalogue {text} beside others; a run reads files, or one catalogue.",
                "Import the files into it with `qmtl data import`.",
            )
        source = source_of(text)
        if source.symbol in files:
            raise UsageError(
                f"the data had {source.symbol!r} twice; each symbol has one file.", "Join the files."
            )
        files[source.symbol] = source.path
    if not files:
        raise UsageError("no data was given.", "Give SYMBOL=FILE, or the directory of a catalogue.")
    return dict(sorted(files.items())), None


def _from_files(
    files: Mapping[str, Path],
    start_ms: int | None,
    end_ms: int | None,
    symbols: Collection[str] | None,
    interval: int | None,
    *,
    sparse: bool,
) -> BarsRead:
    for symbol in sorted(symbols or ()):
        if symbol not in files:
            raise NotInCatalogue(
                f"there is no data of {symbol}; there are files of {', '.join(files)}.",
                f"Give --data {symbol}=FILE.",
            )
    chosen = {symbol: path for symbol, path in files.items() if symbols is None or symbol in symbols}
    form = FileForm()
    held = {symbol: Conformance(symbol, interval or 1) for symbol in chosen}
    whole = {
        symbol: joined(list(read_file(path, symbol, interval or 1, form, held[symbol])))
        for symbol, path in chosen.items()
    }
    twice = {symbol: one.findings().duplicates for symbol, one in held.items()}
    names = ", ".join(path.name for path in chosen.values())
    found = _distance_s(names, whole.values())
    if interval is not None and found is not None and found > interval and not sparse:
        raise InvalidBarsFile(
            f"the bars of {names} lie {found} s apart, and bars of {interval} s were wanted.",
            f"Read them at {found} s; or say --interval {interval}s, if they are bars of {interval} s with most of them absent.",
        )
    if interval is None and found is None:
        raise InvalidBarsFile(
            f"{names} had fewer than two different open times; an interval is the distance of two.",
            "Say the interval, or give a file with two bars.",
        )
    length = interval or found
    assert length is not None
    bars = {}
    for symbol, one in whole.items():
        bars[symbol] = cut(_of_length(one, length), start_ms, end_ms)
        if not len(bars[symbol]):
            raise NotInCatalogue(
                f"{chosen[symbol].name} has no bar of {symbol} from {_told(start_ms)} to {_told(end_ms)}; its bars open from"
                f" {int(one.open_time_ms[0])} to {int(one.open_time_ms[-1])}.",
                "Give another range, or another file.",
            )
    return _read(bars, length, duplicates={symbol: count for symbol, count in twice.items() if count})


def _from_catalogue(
    catalogue: Catalogue,
    start_ms: int | None,
    end_ms: int | None,
    as_of: int | str | None,
    symbols: Collection[str] | None,
    interval: int | None,
) -> BarsRead:
    commit = catalogue.commit(as_of)
    there = catalogue.series(commit.number)
    if interval is None:
        lengths = sorted({one.interval for one in there if symbols is None or one.symbol in symbols})
        if len(lengths) > 1:
            raise UsageError(
                f"{catalogue.directory} has bars of {' and '.join(map(str, lengths))} s; a run has one interval.",
                "Say which with --interval.",
            )
        interval = lengths[0] if lengths else 1
    chosen = sorted({one.symbol for one in there if one.interval == interval} if symbols is None else symbols)
    bars = {symbol: catalogue.columns(symbol, interval, start_ms, end_ms, commit.number) for symbol in chosen}
    if not bars:
        raise NotInCatalogue(
            f"{catalogue.directory} has no bars of {interval} s.", "Look with `qmtl data list`."
        )
    return _read(bars, interval, commit)


def _read(
    bars: Mapping[str, BarColumns],
    interval: int,
    commit: Commit | None = None,
    duplicates: Mapping[str, int] | None = None,
) -> BarsRead:
    fingerprint = fingerprint_of((symbol, (one,)) for symbol, one in bars.items())
    as_of = "" if commit is None else commit.digest
    return BarsRead(bars, interval, fingerprint, as_of, duplicates or {}, commit)


def _distance_s(names: str, bars: Collection[BarColumns]) -> int | None:
    """The greatest number of seconds that divides every distance between open times; None where there is one time alone."""
    times = np.concatenate([one.open_time_ms for one in bars])
    divisor = int(np.gcd.reduce(times - times[0]))
    if divisor % 1000:
        raise InvalidBarsFile(
            f"{names} had open times {divisor} ms apart; an interval is a whole number of seconds.",
            "Give open_time_ms in milliseconds, each at the start of a bar.",
        )
    return divisor // 1000 or None


def _of_length(bars: BarColumns, interval: int) -> BarColumns:
    """The same bars, known to be of another length.

    Raises:
        InvalidBar: a time off the grid of that length.
    """
    if bars.interval == interval:
        return bars
    made = BarColumns(
        bars.symbol, interval, bars.open_time_ms, bars.open, bars.high, bars.low, bars.close, bars.volume
    )
    made.require_sound()
    return made


def _told(at_ms: int | None) -> str:
    return "any time" if at_ms is None else str(at_ms)
