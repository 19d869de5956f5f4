"""All commits of a journal in one file, so that opening a catalogue reads one file and not thousands.

It is derived: line by line what the files of the commits say. Whoever reads it checks each line as it would the file, and the last line
against the file of that commit, whose digest stands for all before it. So a pack that is torn, old, of another catalogue or not there at all
makes opening slower, and no answer another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


class Pack:
    """The file; only the one writer of a catalogue adds to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trusted_bytes: int | None = 0

    def lines(self) -> list[bytes]:
        """Those that are there, with their ends; the last one may be half a line. None where the file can't be read."""
        with suppress(OSError):
            return self._path.read_bytes().splitlines(keepends=True)
        return []

    def trust(self, size_bytes: int) -> None:
        """So much from its beginning on is what the journal says; what is behind it goes with the next `add`."""
        self._trusted_bytes = size_bytes

    def add(self, lines: Sequence[bytes]) -> None:
        """Behind what is trusted; what was there goes. Where there is no room, no right, nothing is said: the next writer tries again."""
        if self._trusted_bytes is None or (not lines and self._size() == self._trusted_bytes):
            return
        at, self._trusted_bytes = self._trusted_bytes, None
        with suppress(OSError), self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.truncate(at)
            file.seek(at)
            file.write(b"".join(lines))
            file.flush()
            self._trusted_bytes = file.tell()

    def _size(self) -> int:
        with suppress(OSError):
            return self._path.stat().st_size
        return 0
