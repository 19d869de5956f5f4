"""Named instants at which a test may end the process, as a power cut would, or pause it, as an overloaded machine would.

`QMTL_FAILPOINT=name:n` kills the process with SIGKILL at the n-th passage of `name`; `name:n:stop` pauses it there with
SIGSTOP until somebody sends SIGCONT. Without the variable a passage costs one call. The simulator watches the passages of the
processes that it runs.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

POINTS: Final = (
    "after_poll",
    "after_decode",
    "after_apply",
    "after_produce",
    "before_commit",
    "after_flush",
    "inside_commit",
    "commit_sent",
    "after_commit",
    "before_store_write",
    "inside_store_write",
    "after_store_write",
    "inside_restore",
    "after_restore",
)
"""Every point, in the order in which one cycle passes them, then those of recovery.

At `after_flush` the log has every record of the transaction, at `inside_commit` its positions too; `commit_sent` lies inside
the call that commits, `inside_store_write` inside the one that writes the store.
"""

_armed_name, _, _rest = os.environ.get("QMTL_FAILPOINT", "").partition(":")
_count, _, _how = _rest.partition(":")
_left = int(_count) if _count.isdecimal() else 1
_signal = signal.SIGSTOP if _how == "stop" else signal.SIGKILL
_watcher: Callable[[str], None] | None = None


def passing(name: str) -> None:
    """Say that the process passes the point `name`."""
    global _left
    if _watcher is not None:
        _watcher(name)
    if name == _armed_name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), _signal)


def due(name: str) -> bool:
    """Whether the next passage of `name` is the one; for what has to be done so that the point is what its name says."""
    return name == _armed_name and _left == 1


def entering(name: str, after_s: float = 0.0) -> None:
    """Say that the next call has the point `name` inside it, about `after_s` seconds from its beginning."""
    global _left
    if _watcher is not None:
        _watcher(name)
    if name == _armed_name:
        _left -= 1
        if _left == 0:
            threading.Thread(target=_later, args=(after_s,), daemon=True).start()


def _later(after_s: float) -> None:
    time.sleep(after_s)
    os.kill(os.getpid(), _signal)


@contextmanager
def watched(watcher: Callable[[str], None]) -> Iterator[None]:
    """Tell a function of each passage meanwhile; what it raises ends the step that passed."""
    global _watcher
    before, _watcher = _watcher, watcher
    try:
        yield
    finally:
        _watcher = before
