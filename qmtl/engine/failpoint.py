"""Named instants at which a test may end the process, as a power cut would.

`QMTL_FAILPOINT=name:n` kills the process with SIGKILL at the n-th passage of `name`. Without the variable a passage
costs one call. The simulator watches the passages of the processes that it runs.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

POINTS: Final = (
    "after_poll",
    "after_decode",
    "after_apply",
    "after_produce",
    "before_commit",
    "inside_commit",
    "after_commit",
    "before_store_write",
    "after_store_write",
    "inside_restore",
    "after_restore",
)
"""Every point, in the order in which one cycle passes them, then those of recovery."""

_armed_name, _, _count = os.environ.get("QMTL_FAILPOINT", "").partition(":")
_left = int(_count) if _count.isdecimal() else 1
_watcher: Callable[[str], None] | None = None


def passing(name: str) -> None:
    """Say that the process passes the point `name`."""
    global _left
    if _watcher is not None:
        _watcher(name)
    if name == _armed_name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def watched(watcher: Callable[[str], None]) -> Iterator[None]:
    """Tell a function of each passage meanwhile; what it raises ends the step that passed."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before
