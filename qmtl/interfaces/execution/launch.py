"""The first moments of a run's process: it ties its life to its manager's, then becomes the run.

Started by its path, without site packages, as it needs the standard library alone: `python -I -S launch.py MANAGER COMMAND...`. A function of the manager's
between fork and exec would do the same, and may hang where the manager has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Of `prctl(2)`: the signal that the kernel sends to this process when its parent dies, however that dies. It outlasts exec."""


def tie(manager: int) -> None:
    """Dies with the manager; elsewhere than on Linux a run that is left alone goes on.

    Args:
        manager: its process id. Where it died before it could be tied to, this process ends at once.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != manager:
        os._exit(1)


if __name__ == "__main__":
    tie(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])
