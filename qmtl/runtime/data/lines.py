"""Reads text files line by line, plain or gzip, and says where one is damaged."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

from qmtl.foundation.common.errors import InvalidBarsFile

MAX_LINE_BYTES: Final = 4096

_GZIP_MAGIC: Final = b"\x1f\x8b"


def read_lines(path: Path, *, whole: bool = False) -> Iterator[str]:
    """The lines of a file without their ends, one at a time, so that a file of any length can be read.

    Args:
        whole: the last line has to have an end, too: one without may have been cut off, and what is left of a number is a number.

    Raises:
        InvalidBarsFile: can't be opened, no UTF-8, damaged or truncated gzip, a line over `MAX_LINE_BYTES`, one without its end.
    """
    try:
        with _opened(path) as file:
            yield from _lines(path, file, whole)
    except OSError as error:
        # gzip.BadGzipFile is one too: a damaged checksum or a member that is no gzip.
        why = error.strerror or str(error)
        raise InvalidBarsFile(
            f"{path} could not be read: {why}.", "Check its name, its rights, and copy it again."
        ) from error
    except (EOFError, zlib.error) as error:
        raise InvalidBarsFile(f"{path} was a damaged gzip file: {error}.", "Copy the file again.") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as plain:
        packed = plain.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        plain.seek(0)
        if not packed:
            yield plain
            return
        with gzip.GzipFile(fileobj=plain) as unpacked:
            yield cast(IO[bytes], unpacked)


def _lines(path: Path, file: IO[bytes], whole: bool) -> Iterator[str]:
    number = 0
    while raw := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) > MAX_LINE_BYTES:
            raise InvalidBarsFile(
                f"{path.name} line {number} was longer than {MAX_LINE_BYTES} bytes; a bar is shorter.",
                "Check its line ends.",
            )
        if whole and not raw.endswith(b"\n"):
            raise InvalidBarsFile(
                f"{path.name} line {number}, its last, had no line end; it may be half a line.",
                "Copy the file again, or end the line if it is whole.",
            )
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidBarsFile(
                f"{path.name} line {number} was not UTF-8: byte {raw[error.start]:#04x} at place {error.start + 1}.",
                "Save the file as UTF-8 text.",
            ) from None
        yield text.removesuffix("\n").removesuffix("\r")
