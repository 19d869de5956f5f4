"""Holds one broker process and takes it down when the program that wanted it is gone, however it went.

Run as a script with one argument, a JSON object:

- `command`: the broker's command line;
- `log`: the file its output goes to;
- `parent`: the process id of the program that wanted it;
- `remove`: directories that nobody needs once that program is dead;
- `afterwards`: command lines to run in that same case.

The first line on standard output is the broker's process id. Standard input is the lifeline: its end, or another
parent than the one named, means that the program died. A separate process is needed because neither `atexit` nor a
fixture's end runs after SIGKILL, and because the kernel's own death signal follows the thread that forked, not the
process: a broker started from a short-lived thread would die with that thread.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 10.0
PR_SET_PDEATHSIG = 1


def die_with_this_process() -> Callable[[], None] | None:
    """What the child runs before it becomes the broker, so that SIGKILL of the guard itself leaves nothing either."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def wait_for_death_of(parent: int) -> None:
    """Returns once the lifeline ends or the parent is another one; a forked copy of the parent may hold the pipe."""
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], LOOK_SECONDS)
        if readable and not os.read(0, 1):
            return


def stop(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, patience, SIGKILL."""
    child.terminate()
    try:
        child.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main() -> None:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    with open(spec["log"], "ab") as log:
        child = subprocess.Popen(
            spec["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=die_with_this_process(),
        )
    os.write(1, b"%d\n" % child.pid)

    def watch() -> None:
        wait_for_death_of(spec["parent"])
        stop(child)
        for command in spec["afterwards"]:
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        for directory in spec["remove"]:
            shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)

    watcher = threading.Thread(target=watch, name="watcher", daemon=True)
    watcher.start()
    code = child.wait()
    if os.getppid() != spec["parent"]:
        watcher.join()
    sys.exit(0 if code == 0 else 1)


if __name__ == "__main__":
    main()
