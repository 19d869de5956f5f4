"""One process of a run: started, watched, signalled by its id, and what it says, line by line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from qmtl.interfaces.execution import launch

MAX_LINE: Final = 65_536
"""Bytes of a line; a longer one is told in pieces."""

_AT_ONCE: Final = 65_536
_LAST_WORDS: Final = 64
"""So many times what can be read at once is taken of a process that has ended; another one that has its output may go on writing for ever."""


class Process:
    """A process in a session of its own, so that no Ctrl-C of the manager's terminal reaches it; it dies with its manager (`launch`).

    Signals go out only while it has not been waited for, so its id is never that of another process.
    """

    def __init__(self, command: Sequence[str], directory: Path) -> None:
        """Start it.

        Args:
            command: the program, by its whole path, and what it is given.
            directory: where it runs.

        Raises:
            OSError: it can't be made.
        """
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *command],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        self._out = self._popen.stdout
        os.set_blocking(self._out.fileno(), False)
        self._rest = b""
        self.is_silent = False

    @property
    def pid(self) -> int:
        return self._popen.pid

    def fileno(self) -> int:
        """Of what it says: ready where it has said something."""
        return self._out.fileno()

    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        return self._popen.poll()

    def terminate(self) -> None:
        """Asks it to end."""
        self._popen.terminate()

    def kill(self) -> None:
        """Kills it, and what it has started in its session."""
        if self._popen.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.kill()

    def lines(self) -> Iterator[bytes]:
        """The lines that it has said since the last time, as far as one reading goes; none waits."""
        try:
            more = os.read(self._out.fileno(), _AT_ONCE)
        except BlockingIOError:
            return
        if not more:
            self.is_silent = True
            return
        *whole, self._rest = (self._rest + more).split(b"\n")
        for line in whole:
            yield from _pieces(line)
        while len(self._rest) > MAX_LINE:
            yield self._rest[:MAX_LINE]
            self._rest = self._rest[MAX_LINE:]

    def last_lines(self) -> Iterator[bytes]:
        """What is left of what it said, once it has ended; then its output is closed."""
        for _ in range(_LAST_WORDS):
            before = self._rest
            said = list(self.lines())
            yield from said
            if self.is_silent or (not said and self._rest == before):
                break
        if self._rest:
            yield self._rest
        self._out.close()


def _pieces(line: bytes) -> Iterator[bytes]:
    for begin in range(0, len(line), MAX_LINE) if line else (0,):
        yield line[begin : begin + MAX_LINE]
