"""A catalogue of bars in a directory: immutable Parquet files named by their content, and a journal of commits.

What was read as of a commit is read again as of it for ever. A writer that is killed, or whose disk is full, leaves the commits as they
were; the next writer sweeps away what it has left. Layout:

    qmtl-catalogue.json                                      the form of the directory
    journal/000000001.json                                   one commit each
    journal/commits.jsonl                                    all of them once more, for a quick opening; may be deleted
    bars/symbol=BTC%2FUSDT/interval=60/<blake3>.parquet      parts
    staging/                                                 files that are being written
    lock                                                     held by the one writer
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np
from blake3 import blake3

from qmtl.foundation.common.errors import (
    CatalogueDamaged,
    CatalogueLocked,
    CatalogueUnwritable,
    ConflictingBars,
    InvalidBarsFile,
    InvalidValue,
    NotInCatalogue,
)
from qmtl.runtime.columns import BarColumns, Integers
from qmtl.runtime.data.durable import make_directory, write_whole
from qmtl.runtime.data.fingerprint import fingerprint_of
from qmtl.runtime.data.journal import Asked, Commit, Journal
from qmtl.runtime.data.merging import cut, differing, joined, pick
from qmtl.runtime.data.parquet import decode, encode
from qmtl.runtime.data.shelf import Part, Shelf

PART_BARS: Final = 1_000_000
"""A part has at most so many bars."""

_MARK: Final = "qmtl-catalogue.json"
_FORM: Final = b'{"form": 1}\n'
_MAX_NAME: Final = 200


@dataclass(frozen=True, slots=True)
class Series:
    """The bars of a symbol and interval as of a commit.

    Attributes:
        from_ms, to_ms: open times of the first and the last bar.
    """

    symbol: str
    interval: int
    bars: int
    from_ms: int
    to_ms: int
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Added:
    """What an import has changed.

    Attributes:
        commit: the one that was made; where nothing was new, the newest, if there is one.
        bars: that are new.
        known: that the catalogue had already, word for word.
    """

    commit: Commit | None
    bars: int
    known: int


class Catalogue:
    """Reads a catalogue, also while another process writes it."""

    def __init__(self, directory: Path) -> None:
        """Open one.

        Raises:
            NotInCatalogue: there is none in this directory, or one of another form.
        """
        self.directory = Path(directory)
        self._journal = Journal(self.directory / "journal")
        mark = self.directory / _MARK
        try:
            form = mark.read_bytes()
        except OSError as error:
            raise NotInCatalogue(
                f"{self.directory} holds no catalogue of bars: {error.strerror}.",
                "Give its directory, or begin one with `qmtl data import`.",
            ) from error
        if form != _FORM:
            raise NotInCatalogue(
                f"{mark} says another form of catalogue than this program knows.",
                "Use the version of QMTL that wrote it.",
            )

    def commits(self) -> tuple[Commit, ...]:
        """All of them in order.

        Raises:
            CatalogueDamaged: a file of the journal is missing, or not as it was written.
        """
        return self._journal.commits()

    def commit(self, as_of: int | str | None = None) -> Commit:
        """A commit by number or digest; the newest for None.

        Raises:
            NotInCatalogue: there is none.
        """
        found = self._journal.find(as_of)
        if found is None:
            raise NotInCatalogue(
                f"{self.directory} holds no bars yet.", "Import some with `qmtl data import`."
            )
        return found

    def series(self, as_of: int | str | None = None) -> tuple[Series, ...]:
        """What is in it, sorted by symbol and interval."""
        newest = self._journal.find(as_of)
        if newest is None:
            return ()
        found = [
            _series(symbol, interval, parts)
            for (symbol, interval), shelf in sorted(self._journal.shelves().items())
            if (parts := tuple(shelf.meeting(number=newest.number)))
        ]
        return tuple(found)

    def find(self, symbol: str, interval: int, as_of: int | str | None = None) -> Series:
        """The bars of one symbol and interval.

        Raises:
            NotInCatalogue: there are none as of that commit.
        """
        if parts := tuple(self._meeting(symbol, interval, None, None, as_of)):
            return _series(symbol, interval, parts)
        there = self.series(as_of)
        names = ", ".join(f"{one.symbol} {one.interval} s" for one in there[:10]) or "nothing"
        raise NotInCatalogue(
            f"{self.directory} has no bars of {symbol} and {interval} s; it has {names}.",
            "Import or fetch them, or look with `qmtl data list`.",
        )

    def read(
        self,
        symbol: str,
        interval: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        as_of: int | str | None = None,
    ) -> Iterator[BarColumns]:
        """The bars that open from `start_ms` on and before `end_ms`, ascending, in chunks of a part or some.

        Raises:
            NotInCatalogue: no such commit, or nothing of that symbol and interval as of it.
            CatalogueDamaged: a file is missing, or not as it was written.
        """
        parts = list(self._meeting(symbol, interval, start_ms, end_ms, as_of))
        if not parts:
            self.find(symbol, interval, as_of)
        for cluster in _clusters(parts):
            found = cut(joined([self.load(part) for part in cluster]), start_ms, end_ms)
            if len(found):
                yield found

    def columns(
        self,
        symbol: str,
        interval: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        as_of: int | str | None = None,
    ) -> BarColumns:
        """As `read`, all in one.

        Raises:
            NotInCatalogue: also where no bar is in that range.
        """
        found = list(self.read(symbol, interval, start_ms, end_ms, as_of))
        if not found:
            raise NotInCatalogue(
                f"{self.directory} has no bar of {symbol} and {interval} s from {start_ms} to {end_ms}.",
                "Give another range, or fetch it.",
            )
        return joined(found)

    def fingerprint(
        self,
        symbols: Iterable[str],
        interval: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        as_of: int | str | None = None,
    ) -> str:
        """Of the bars of these symbols, as `qmtl.runtime.data.bars.dataset_fingerprint` has it for files with the same bars."""
        at = self.commit(as_of).number
        return fingerprint_of(
            (symbol, self.read(symbol, interval, start_ms, end_ms, at)) for symbol in sorted(set(symbols))
        )

    def times(
        self,
        symbol: str,
        interval: int,
        start_ms: int | None = None,
        end_ms: int | None = None,
        as_of: int | str | None = None,
    ) -> Iterator[Integers]:
        """Open times, as `read` gives the bars."""
        return (chunk.open_time_ms for chunk in self.read(symbol, interval, start_ms, end_ms, as_of))

    def audit(self) -> None:
        """Read every commit's own file.

        Raises:
            CatalogueDamaged: as `commits`, also for a commit that is only read from the pack otherwise.
        """
        self._journal.audit()

    def shelf(self, symbol: str, interval: int) -> Shelf:
        """The parts of a series as of the newest commit; none where it has none."""
        self.commits()
        return self._journal.shelves().get((symbol, interval)) or Shelf()

    def load(self, part: Part) -> BarColumns:
        """The bars of a part.

        Raises:
            CatalogueDamaged: its file is missing, or not as it was written.
        """
        path = _path(self.directory, part.symbol, part.interval, part.digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _damaged(path, part, error.strerror or str(error)) from error
        if (found := blake3(data).hexdigest()) != part.digest:
            raise _damaged(path, part, f"its digest is {found[:16]}…")
        try:
            return decode(str(path), data, part.symbol, part.interval)
        except InvalidBarsFile as error:
            raise _damaged(path, part, error.what) from error

    def _meeting(
        self,
        symbol: str,
        interval: int,
        start_ms: int | None,
        end_ms: int | None,
        as_of: int | str | None,
    ) -> Iterator[Part]:
        commit = self._journal.find(as_of)
        shelf = self._journal.shelves().get((symbol, interval))
        if commit is not None and shelf is not None:
            yield from shelf.meeting(start_ms, end_ms, commit.number)


class Writer:
    """The one process that adds to a catalogue; `writing` gives it."""

    def __init__(self, catalogue: Catalogue, importer: str) -> None:
        self.catalogue = catalogue
        self._importer = importer
        self._recent: dict[str, BarColumns] = {}
        self._durable: set[Path] = set()

    def add(
        self,
        symbol: str,
        interval: int,
        chunks: Iterable[BarColumns],
        source: Mapping[str, str],
        asked: Asked | None = None,
    ) -> Added:
        """Everything in the chunks that is new, in one commit; bars that are there already are left out.

        Args:
            chunks: conform, ascending.
            asked: said in the commit, which is then made even where nothing is new.

        Raises:
            ConflictingBars: a bar is there already with other numbers.
            CatalogueUnwritable: no room, no right.
            Whatever the chunks raise. In each case the catalogue is as it was.
        """
        _name(symbol, interval)
        newest = self.catalogue._journal.find(None)
        staged: list[Part] = []
        fresh: list[BarColumns] = []
        known = 0
        shelf = self.catalogue.shelf(symbol, interval)
        try:
            for chunk in chunks:
                unknown = self._unknown(shelf, chunk)
                known += len(chunk) - len(unknown)
                if len(unknown):
                    fresh.append(unknown)
                while sum(map(len, fresh)) >= PART_BARS:
                    whole = joined(fresh)
                    staged.append(self._stage(whole.chunk(0, PART_BARS)))
                    fresh = [rest] if len(rest := whole.chunk(PART_BARS, len(whole))) else []
            if fresh:
                staged.append(self._stage(joined(fresh)))
            bars = sum(part.bars for part in staged)
            if not staged and asked is None:
                return Added(newest, 0, known)
            commit = Commit.after(newest, source, self._importer, tuple(staged), asked)
            path = self.catalogue._journal.path(commit.number)
            with _writable(path):
                write_whole(path, commit.text().encode(), self.catalogue.directory / "staging")
            self.catalogue._journal.pack()
            return Added(commit, bars, known)
        except BaseException:
            self.sweep()
            raise

    def sweep(self) -> None:
        """Remove what no commit names; where that fails, too, the next writer does it."""
        directory = self.catalogue.directory
        named = {part.digest for commit in self.catalogue.commits() for part in commit.parts}
        left = [*directory.glob("staging/*"), *directory.glob("journal/*.tmp")]
        left += [path for path in directory.glob("bars/*/*/*.parquet") if path.stem not in named]
        for path in left:
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue

    def _unknown(self, shelf: Shelf, chunk: BarColumns) -> BarColumns:
        if not len(chunk):
            return chunk
        first, last = int(chunk.open_time_ms[0]), int(chunk.open_time_ms[-1])
        parts = list(shelf.meeting(first, last + 1))
        for part in parts:
            there = self._part(part, {one.digest for one in parts})
            at = np.searchsorted(there.open_time_ms, chunk.open_time_ms).clip(max=len(there) - 1)
            same = there.open_time_ms[at] == chunk.open_time_ms
            if not bool(same.any()):
                continue
            mine, theirs = pick(chunk, same), pick(there, at[same])
            for row in np.flatnonzero(differing(mine, theirs)).tolist():
                new, old = mine.bar(row), theirs.bar(row)
                raise ConflictingBars(
                    f"the bar of {chunk.symbol} at {new.open_time_ms} is in {self.catalogue.directory} with other numbers"
                    f" ({old.open}, {old.high}, {old.low}, {old.close}, {old.volume}; now {new.open}, {new.high}, {new.low},"
                    f" {new.close}, {new.volume}).",
                    "Find out which is right; import the other source into a catalogue of its own.",
                )
            chunk = pick(chunk, ~same)
            if not len(chunk):
                break
        return chunk

    def _part(self, part: Part, needed: set[str]) -> BarColumns:
        """Its bars; those of the parts that the chunk at hand meets are kept for the next chunk."""
        self._recent = {digest: bars for digest, bars in self._recent.items() if digest in needed}
        if part.digest not in self._recent:
            self._recent[part.digest] = self.catalogue.load(part)
        return self._recent[part.digest]

    def _stage(self, bars: BarColumns) -> Part:
        data = encode(bars)
        digest = blake3(data).hexdigest()
        path = _path(self.catalogue.directory, bars.symbol, bars.interval, digest)
        with _writable(path):
            if path.parent not in self._durable:
                make_directory(path.parent, self.catalogue.directory)
                self._durable.add(path.parent)
            write_whole(path, data, self.catalogue.directory / "staging")
        first, last = int(bars.open_time_ms[0]), int(bars.open_time_ms[-1])
        return Part(bars.symbol, bars.interval, digest, len(bars), len(data), first, last)


@contextmanager
def writing(directory: Path) -> Iterator[Writer]:
    """The one writer of a catalogue, which is begun where there is none.

    Raises:
        CatalogueLocked: another process writes it.
        CatalogueUnwritable: no room, no right, or the directory holds something else.
        NotInCatalogue: a catalogue of another form.
    """
    directory = Path(directory)
    with _writable(directory):
        if directory.exists() and not (directory / _MARK).exists():
            others = [
                one.name for one in directory.iterdir() if one.name not in ("lock", "staging", "journal")
            ]
            if others:
                raise CatalogueUnwritable(
                    f"{directory} is no catalogue of bars, and is not empty: it has {sorted(others)[0]!r}.",
                    "Give a directory of its own.",
                )
        # Who has put the mark there has made everything above it durable.
        above = directory if (directory / _MARK).exists() else _nearest(directory)
        make_directory(directory.absolute() / "journal", above.absolute())
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CatalogueLocked(
                f"{directory} is written by another process.", "Wait until it has ended, and say it again."
            ) from error
        if not (directory / _MARK).exists():
            with _writable(directory / _MARK):
                write_whole(directory / _MARK, _FORM, directory / "staging")
        writer = Writer(Catalogue(directory), f"qmtl {_version()}")
        writer.sweep()
        writer.catalogue._journal.pack()
        yield writer
    finally:
        os.close(lock)


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CatalogueUnwritable(
            f"{path} could not be written: {error.strerror or error}.",
            "Make room or give the right, and say it again: what was committed is whole, the rest is removed.",
        ) from error


def _nearest(directory: Path) -> Path:
    """The nearest directory above this one that is there."""
    return next(one for one in directory.absolute().parents if one.is_dir())


def _clusters(parts: Iterable[Part]) -> list[list[Part]]:
    """Parts whose ranges meet, together; the parts ascend by their first bar, the groups ascend and do not meet."""
    groups: list[list[Part]] = []
    end = -1
    for part in parts:
        if part.from_ms > end:
            groups.append([])
        groups[-1].append(part)
        end = max(end, part.to_ms)
    return groups


def _series(symbol: str, interval: int, parts: tuple[Part, ...]) -> Series:
    return Series(
        symbol,
        interval,
        sum(part.bars for part in parts),
        parts[0].from_ms,
        max(part.to_ms for part in parts),
        parts,
    )


def _path(directory: Path, symbol: str, interval: int, digest: str) -> Path:
    return (
        directory
        / "bars"
        / f"symbol={_name(symbol, interval)}"
        / f"interval={interval}"
        / f"{digest}.parquet"
    )


def _name(symbol: str, interval: int) -> str:
    name = quote(symbol, safe="")
    if not symbol or len(name) > _MAX_NAME:
        raise InvalidValue(
            f"symbol was {symbol[:40]!r}; its name as a directory has 1 to {_MAX_NAME} characters.",
            "Give a shorter symbol.",
        )
    if type(interval) is not int or interval <= 0:
        raise InvalidValue(
            f"interval was {interval!r}; a positive number of seconds is required.", "Send seconds."
        )
    return name


def _damaged(path: Path, part: Part, why: str) -> CatalogueDamaged:
    return CatalogueDamaged(
        f"{path}, the bars of {part.symbol} from {part.from_ms} to {part.to_ms}, can't be trusted: {why}.",
        "Restore that file from a copy; parts are never changed, so a copy of any time will do.",
    )


def _version() -> str:
    try:
        return version("qmtl")
    except PackageNotFoundError:
        return "0+unpackaged"


Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""
