"""What runs say, in a file for each, which begins anew before it grows too long."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.execution.events import OutputLost

FILE_BYTES: Final = 10_000_000
FILES: Final = 5


class OutputFiles:
    """`NAME.log` for each run, and before it `NAME.log.1` (newest) to `NAME.log.N`. What can't be written is lost, and told of: no run waits for a disk.

    Args:
        tell: hears of a run whose lines begin to be lost.
        file_bytes: no file is longer, unless a single line is.
        older: files that are kept of a run beside the one that is written.
    """

    def __init__(
        self,
        directory: Path,
        tell: Callable[[OutputLost], object],
        file_bytes: int = FILE_BYTES,
        older: int = FILES,
    ) -> None:
        """Make the directory.

        Raises:
            UsageError: it can't be made.
        """
        self._directory = directory
        self._file_bytes = file_bytes
        self._older = older
        self._open: dict[str, tuple[FileIO, int]] = {}
        self._tell = tell
        self._losing: set[str] = set()
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--output-dir was {str(directory)!r}, which can't be made: {error.strerror}.",
                "Name another directory.",
            ) from None

    def write(self, run: str, line: bytes) -> None:
        """One line of a run."""
        try:
            self._write(run, line + b"\n")
        except OSError as error:
            self._close(run)
            if run not in self._losing:
                self._losing.add(run)
                self._tell(OutputLost(run, error.strerror or str(error)))
        else:
            self._losing.discard(run)

    def close(self) -> None:
        """Closes all files."""
        for run in list(self._open):
            self._close(run)

    def _write(self, run: str, line: bytes) -> None:
        if run in self._open and 0 < self._open[run][1] > self._file_bytes - len(line):
            self._close(run)
            self._turn(run)
        if run not in self._open:
            opened = FileIO(self._path(run), "ab")
            self._open[run] = (opened, opened.seek(0, 2))
        file, size = self._open[run]
        done = 0
        while done < len(line):
            done += file.write(line[done:]) or 0
        self._open[run] = (file, size + done)

    def _turn(self, run: str) -> None:
        for number in range(self._older, 0, -1):
            newer = self._path(run, number - 1)
            if newer.exists():
                newer.replace(self._path(run, number))
        if self._older == 0:
            self._path(run).unlink(missing_ok=True)

    def _path(self, run: str, number: int = 0) -> Path:
        return self._directory / (f"{run}.log.{number}" if number else f"{run}.log")

    def _close(self, run: str) -> None:
        found = self._open.pop(run, None)
        if found is not None:
            with suppress(OSError):
                found[0].close()
