"""How many records a task takes into one transaction: few at first, and as many as it handles in good time.

A transaction that takes longer than the broker waits for one is aborted, and the same records come again: a task that always takes
all that is there would begin for ever. It changes nothing that is decided, as no result depends on which records share a transaction.
"""

from __future__ import annotations

from typing import Final

FIRST: Final = 16
"""Records of the first transaction, whatever they cost."""

QUICK_S: Final = 0.5
"""After a transaction that was handled in less, and was full, the next one may be twice as large."""

SLOW_S: Final = 2.0
"""After a transaction that took longer, the next one is half as large."""


class Pace:
    """Finds its way between one record and `most`.

    Attributes:
        room: how many records the next transaction takes in.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.room = min(FIRST, most)

    def handled(self, records: int, seconds: float) -> None:
        """Learn how long a transaction of so many records took."""
        if seconds > SLOW_S:
            self.room = max(1, min(records, self.room) // 2)
        elif seconds < QUICK_S and records >= self.room:
            self.room = min(self._most, 2 * self.room)
