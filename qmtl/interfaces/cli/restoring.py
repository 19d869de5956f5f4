"""Tells how far the restore of a task is: on a terminal one line that changes, otherwise a line every ten seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from qmtl.interfaces.cli import render

EVERY_S: Final = 10.0
SHOWN_EVERY_S: Final = 0.2
SILENT_S: Final = 1.0
"""A restore that is over within this time is not spoken of on a terminal."""


@dataclass(slots=True)
class Restoring:
    """Called with the task, the offsets restored so far, and how many there are.

    Args:
        clock: seconds, of any beginning.
        terminal: whether the line is written over.
        say: writes a text as it is; a line ends with a line end.
    """

    clock: Callable[[], float]
    terminal: bool
    say: Callable[[str], None]
    _began: dict[str, tuple[float, int]] = field(default_factory=dict)
    _told: float = 0.0
    _width: int = 0

    def __call__(self, task: str, done: int, total: int) -> None:
        now = self.clock()
        if task not in self._began or done < self._began[task][1]:
            self._began[task] = (now, done)
            self._told = now - SHOWN_EVERY_S if self.terminal else now
        since, first = self._began[task]
        if self.terminal and now - since < SILENT_S:
            return
        if done >= total:
            del self._began[task]
            if self._width:
                self.say(f"\r{'':{self._width}}\r")
                self._width = 0
            return
        if now - self._told < (SHOWN_EVERY_S if self.terminal else EVERY_S):
            return
        self._told = now
        line = (
            f"restoring {task}: {done:,} of {total:,} offsets{_left(now - since, done - first, total - done)}"
        )
        if self.terminal:
            self.say(f"\r{line:{self._width}}")
            self._width = len(line)
        else:
            self.say(f"{line}\n")


def _left(seconds: float, done: int, to_do: int) -> str:
    if seconds <= 0 or done <= 0:
        return ""
    left = seconds * to_do / done
    if left < 90:
        return f", {max(1, round(left))} s left"
    return f", {round(left / 60)} min left" if left < 5400 else f", {left / 3600:.1f} h left"


def on_stderr() -> Restoring:
    """For the stderr of this process, by its clock."""
    from time import monotonic

    return Restoring(monotonic, sys.stderr.isatty(), render.remark)
