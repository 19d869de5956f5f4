"""Where bars come from: one protocol, and the providers that read files and catalogues."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

from blake3 import blake3

from qmtl.foundation.common.errors import InvalidBarsFile, NotInCatalogue
from qmtl.runtime.columns import BarColumns
from qmtl.runtime.data.catalogue import Catalogue
from qmtl.runtime.data.conformance import Conformance
from qmtl.runtime.data.csv_file import FileForm, read_csv
from qmtl.runtime.data.merging import cut
from qmtl.runtime.data.parquet import read_parquet

_CHUNK: Final = 1 << 20
_PARQUET_MAGIC: Final = b"PAR1"


class Provider(Protocol):
    """Gives the history of symbols."""

    def source(self) -> Mapping[str, str]:
        """What it is, for the journal of a catalogue; the same for the same provider, as a backfill goes on by it."""
        ...

    def history(self, symbol: str, interval: int, start_ms: int, end_ms: int) -> Iterator[BarColumns]:
        """The bars that open from `start_ms` on and before `end_ms`, in ascending chunks; closed bars only, and none where none was.

        Args:
            interval: seconds.

        Raises:
            QmtlError: it has no such series, does not answer, or what it has is no bar.
        """
        ...

    def closed_ms(self, symbol: str, interval: int) -> int | None:
        """The end of what can be asked for: all bars that open before this instant, and no others, are closed. None for what never grows."""
        ...


class FileProvider:
    """The bars of files, CSV or Parquet, one file per symbol."""

    def __init__(self, files: Mapping[str, Path], form: FileForm | None = None) -> None:
        self._files = dict(files)
        self._form = form or FileForm()

    def source(self) -> Mapping[str, str]:
        return {"kind": "files", "digest": _combined(self._files)}

    def history(self, symbol: str, interval: int, start_ms: int, end_ms: int) -> Iterator[BarColumns]:
        if symbol not in self._files:
            raise NotInCatalogue(
                f"no file holds {symbol}; there are files of {', '.join(sorted(self._files)) or 'nothing'}.",
                "Give a file for it.",
            )
        for chunk in read_file(self._files[symbol], symbol, interval, self._form):
            if len(found := cut(chunk, start_ms, end_ms)):
                yield found

    def closed_ms(self, symbol: str, interval: int) -> int | None:
        return None


class CatalogueProvider:
    """The bars of a catalogue as of one of its commits, by default the newest when this is made."""

    def __init__(self, catalogue: Catalogue, as_of: int | str | None = None) -> None:
        self._catalogue = catalogue
        self._commit = catalogue.commit(as_of)

    def source(self) -> Mapping[str, str]:
        return {"kind": "catalogue", "as_of": self._commit.digest}

    def history(self, symbol: str, interval: int, start_ms: int, end_ms: int) -> Iterator[BarColumns]:
        return self._catalogue.read(symbol, interval, start_ms, end_ms, self._commit.number)

    def closed_ms(self, symbol: str, interval: int) -> int | None:
        return None


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does.

    Raises:
        InvalidBarsFile: it can't be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    except OSError as error:
        raise InvalidBarsFile(
            f"{path} could not be read: {error.strerror}.", "Check its name and its rights."
        ) from error


def read_file(
    path: Path, symbol: str, interval: int, form: FileForm, held: Conformance | None = None
) -> Iterator[BarColumns]:
    """The bars of a CSV or Parquet file, known by its first bytes; conform, in chunks."""
    read = read_parquet if is_parquet(path) else read_csv
    return read(path, symbol, interval, form, held)


def digest_of(path: Path) -> str:
    """BLAKE3 of a file, in 64 hex digits.

    Raises:
        InvalidBarsFile: it can't be read.
    """
    digest = blake3()
    try:
        with path.open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
    except OSError as error:
        raise InvalidBarsFile(
            f"{path} could not be read: {error.strerror}.", "Check its name and its rights."
        ) from error
    return digest.hexdigest()


def _combined(files: Mapping[str, Path]) -> str:
    digest = blake3()
    for symbol, path in sorted(files.items()):
        digest.update(
            len(symbol.encode()).to_bytes(8, "big") + symbol.encode() + bytes.fromhex(digest_of(path))
        )
    return digest.hexdigest()
