"""Measures in a thread of its own when somebody asks, so that who asks waits a bounded time whatever the log does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from qmtl.foundation.common.errors import QmtlError

_logger: Final = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sample(Generic[T]):
    """The last result.

    Attributes:
        age_s: seconds since it was measured; None where nothing could be measured yet.
        errors: how many measurements have failed.
    """

    value: T
    age_s: float | None
    errors: int


class Sampled(Generic[T]):
    """One measurement, at most one at a time.

    Args:
        measure: called in the thread; an error of it counts as a failed measurement, and the result before stays. What is no
            `QmtlError` is logged, too.
        initial: the value until the first result.
        every_s: a result that is younger is given again.
        wait_s: how long `get` waits for a new result.
        ended: called in the thread at its end.
    """

    def __init__(
        self,
        name: str,
        measure: Callable[[], T],
        initial: T,
        *,
        every_s: float,
        wait_s: float,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._measure = measure
        self._every_s = every_s
        self._wait_s = wait_s
        self._ended = ended
        self._state = threading.Condition()
        self._value = initial
        self._at: float | None = None
        self._rounds = 0
        self._errors = 0
        self._wanted = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def get(self) -> Sample[T]:
        """The newest result; waits at most `wait_s` for one."""
        with self._state:
            if self._at is None or time.monotonic() - self._at >= self._every_s:
                before = self._rounds
                self._wanted = True
                self._state.notify_all()
                self._state.wait_for(lambda: self._rounds > before or self._stopping, self._wait_s)
            age = None if self._at is None else time.monotonic() - self._at
            return Sample(self._value, age, self._errors)

    def _run(self) -> None:
        try:
            while True:
                with self._state:
                    self._state.wait_for(lambda: self._wanted or self._stopping)
                    if self._stopping:
                        return
                    self._wanted = False
                began = time.monotonic()
                try:
                    value, failed = self._measure(), False
                except QmtlError:
                    value, failed = self._value, True
                except Exception:  # of the system, or of ours: who asks next is to see that it fails, and never to wait in vain
                    _logger.exception("%s could not be measured", self._thread.name)
                    value, failed = self._value, True
                with self._state:
                    self._value = value
                    self._errors += failed
                    self._at = self._at if failed else began
                    self._rounds += 1
                    self._state.notify_all()
        finally:
            self._ended()

    def stop(self, wait_s: float = 2.0) -> None:
        """End the thread; one that waits for a log that does not answer ends with the process."""
        with self._state:
            self._stopping = True
            self._state.notify_all()
        self._thread.join(wait_s)
