"""Where the time of a process goes: a timer looks at the main thread's stack and books the time since its last look to a step.

A look that comes late, because the interpreter was inside one long call, books the whole of that call to where it was made:
so waiting for a commit counts as commit, and the table adds up to wall time.
"""

from __future__ import annotations

import linecache
import re
import signal
import time
from collections import defaultdict
from types import CodeType, FrameType
from typing import Final

EVERY_S: Final = 0.002
_MARK: Final = re.compile(r"# \[([a-z]+)\]$")

STEPS: Final[tuple[tuple[str, str, str], ...]] = (
    # file, beginning of the qualified name, step; the innermost frame that is here decides
    ("wire/codec.py", "Codec.encode", "encode"),
    ("wire/codec.py", "Codec.", "decode"),
    ("log/kafka.py", "KafkaReader.", "poll"),
    ("log/kafka.py", "KafkaWriter.append", "produce"),
    ("log/kafka.py", "KafkaWriter.", "commit"),
    ("log/kafka_membership.py", "KafkaMembership.", "step"),
    ("log/embedded.py", "EmbeddedReader.", "poll"),
    ("log/embedded_writer.py", "EmbeddedWriter.append", "produce"),
    ("log/embedded_writer.py", "EmbeddedWriter.", "commit"),
    ("engine/store.py", "", "store"),
    ("engine/table.py", "Table.changes", "store"),
    ("engine/table.py", "Table.committed", "store"),
    ("engine/table.py", "", "table"),
    ("engine/transaction.py", "Transaction.emit", "emit"),
    ("engine/transaction.py", "Transaction.seal", "table"),
    ("engine/transaction.py", "", "commit"),
    ("engine/task.py", "Task._offer", "take"),
    ("engine/task.py", "Task._sort_in", "take"),
    ("engine/task.py", "Task._take_in", "take"),
    ("engine/task.py", "Task._commit", "commit"),
    ("engine/intake.py", "", "take"),
    ("engine/handling.py", "", "step"),
    ("engine/task.py", "", "step"),
    ("engine/worker.py", "", "step"),
    ("engine/work.py", "", "apply"),
)


WAITING: Final = frozenset({"poll", "step", "loop", "other"})
"""What a process also does while there is nothing to do: it counts only between the first record and the last."""


class Sampler:
    """Books the main thread's time to steps while it runs; only one at a time, and only in the main thread.

    Nothing is booked before the first record is decoded, nor after the last work that a record gave.
    """

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._pending: defaultdict[str, float] = defaultdict(float)
        self._last = 0.0
        self._looking = False
        self._known: dict[CodeType, str | None] = {}

    def start(self) -> None:
        """Begin to look."""
        self._last = time.perf_counter()
        signal.signal(signal.SIGALRM, self._look)
        signal.setitimer(signal.ITIMER_REAL, EVERY_S, EVERY_S)

    def stop(self) -> None:
        """Look no more."""
        signal.setitimer(signal.ITIMER_REAL, 0.0)

    def _look(self, number: int, frame: FrameType | None) -> None:
        if self._looking:
            return  # a look that comes in the middle of one: the next books its time
        self._looking = True
        now, step = time.perf_counter(), self._step(frame)
        if self.seconds or step == "decode":
            self._book(step, now - self._last)
        self._last = now
        self._looking = False

    def _book(self, step: str, seconds: float) -> None:
        self._pending[step] += seconds
        if step not in WAITING:
            for known, spent in self._pending.items():
                self.seconds[known] += spent
            self._pending.clear()

    def _step(self, frame: FrameType | None) -> str:
        while frame is not None:
            found = (
                self._marked(frame) if frame.f_code.co_filename.endswith("hand.py") else self._named(frame)
            )
            if found is not None:
                return found
            frame = frame.f_back
        return "other"

    def _named(self, frame: FrameType) -> str | None:
        code = frame.f_code
        if code not in self._known:
            self._known[code] = next(
                (
                    step
                    for file, name, step in STEPS
                    if code.co_filename.endswith(file) and code.co_qualname.startswith(name)
                ),
                None,
            )
        return self._known[code]

    def _marked(self, frame: FrameType) -> str:
        found = _MARK.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno).rstrip())
        return found[1] if found else "loop"
