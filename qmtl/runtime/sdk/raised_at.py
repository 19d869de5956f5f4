"""Which line of an author's code raised: counted within its function for what a log is told, by its file for people."""

from __future__ import annotations

import linecache
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from types import FrameType
from typing import Any, Final

_OWN: Final = __name__.partition(".")[0]
_NAME_SHOWN: Final = 80
_TEXT_SHOWN: Final = 120


@dataclass(frozen=True, slots=True)
class RaisedAt:
    """The innermost line of an author's on the way to an exception.

    Attributes:
        line: counted from the first line of the function, which is 1: that of `def`, or of the first decorator above it.
        function: its name, without module and class.
        file: the name of its file, without directories.
        file_line: the line in that file, from 1.
        text: of that line; empty where the source is not there.
    """

    line: int
    function: str
    file: str
    file_line: int
    text: str

    @property
    def in_function(self) -> str:
        """For a log: no place of any machine is in it, and nothing of the source's other lines."""
        return f"line {self.line} of {self.function}()"

    @property
    def in_file(self) -> str:
        """For people who have the file."""
        return f"{self.file} line {self.file_line}" + (f": {self.text}" if self.text else "")


def raised_at(error: BaseException, function: Callable[..., Any]) -> RaisedAt | None:
    """Where in its author's code a function raised.

    An author's code is what lies in the function's own package, however that is installed; so the answer is the same on every machine that
    has the same code. What a library raises is told at the line that called it.

    Args:
        error: what came out of a call of the function.

    Returns: None where the function itself was never entered.
    """
    own = str(getattr(function, "__module__", ""))
    theirs = [(frame, line) for frame, line in _frames(error) if _is_of(frame, own)]
    if not theirs:
        return None
    frame, line = theirs[-1]
    code = frame.f_code
    outer = code.co_qualname.partition(".<locals>")[0]  # of a comprehension, the function around it
    homes = (one.f_code for one, _ in reversed(theirs) if one.f_code.co_qualname == outer)
    home = next((one for one in homes if one.co_filename == code.co_filename), code)
    linecache.checkcache(
        code.co_filename
    )  # who runs a file again in one process may have mended it meanwhile
    text = linecache.getline(code.co_filename, line, frame.f_globals)
    return RaisedAt(
        line - home.co_firstlineno + 1,
        home.co_name[:_NAME_SHOWN],
        _plain(PurePath(code.co_filename).name, _NAME_SHOWN),
        line,
        _plain(text, _TEXT_SHOWN),
    )


def _frames(error: BaseException) -> Iterator[tuple[FrameType, int]]:
    """Outermost first; of instructions without a line, none."""
    step = error.__traceback__
    while step is not None:
        line: int | None = step.tb_lineno
        if line is not None:
            yield step.tb_frame, line
        step = step.tb_next


def _is_of(frame: FrameType, own: str) -> bool:
    """Whether a frame runs code of the package of a module; of qmtl's own package each module counts for itself."""
    name = str(frame.f_globals.get("__name__", ""))
    package = own.partition(".")[0]
    return name == own or (package != _OWN and name.partition(".")[0] == package)


def _plain(text: str, shown: int) -> str:
    line = "".join(letter if letter.isprintable() else " " for letter in text.strip())
    return line if len(line) <= shown else f"{line[:shown]}…"
