"""Makes calls of the Kafka client that ignore their time-out, and gives up on them when theirs is over.

`send_offsets_to_transaction` waits for the group's coordinator without an end: a broker that was killed and came back leaves
the call waiting for ever (librdkafka issues 5456 and 5511, seen with 2.16.0). A thread in C code can't be interrupted, only left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

from qmtl.foundation.common.errors import OutcomeUnknown

GRACE_S: Final = 1.0
"""What a call may take longer than the time-out that it was given."""


class Caller:
    """Makes one call after the other in a thread of its own. Not thread-safe.

    A call that does not come back keeps its thread and all that it refers to; who made it throws both away.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        self._ends: SimpleQueue[BaseException | None] = SimpleQueue()
        self._started = False

    def call(self, call: Callable[[], Any], timeout_s: float) -> None:
        """Make a call.

        Raises:
            OutcomeUnknown: it has not come back; this caller is of no more use.
            Whatever the call raises.
        """
        if not self._started:
            self._started = True
            threading.Thread(
                target=_serve, args=(self._calls, self._ends), name="caller", daemon=True
            ).start()
        self._calls.put(call)
        try:
            problem = self._ends.get(timeout=timeout_s + GRACE_S)
        except Empty:
            raise OutcomeUnknown(f"the client has not come back from a call for {timeout_s:g} s.") from None
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Let the thread end, as soon as it comes back."""
        self._calls.put(None)


def _serve(calls: SimpleQueue[Callable[[], Any] | None], ends: SimpleQueue[BaseException | None]) -> None:
    while (call := calls.get()) is not None:
        try:
            call()
        except BaseException as problem:
            ends.put(problem)
        else:
            ends.put(None)
        del call  # it refers to the producer, which must be able to go
