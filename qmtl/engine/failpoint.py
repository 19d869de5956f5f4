"""Named instants at which a test may end the process, as a power cut would.

`QMTL_FAILPOINT=name:n` kills the process with SIGKILL at the n-th passage of `name`. Without the variable a passage
costs one call.
"""

from __future__ import annotations

import os
import signal
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


def passing(name: str) -> None:
    """Say that the process passes the point `name`."""
    global _left
    if name == _armed_name:
        _left -= 1
        if _left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
