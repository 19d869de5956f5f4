"""Tells a task whose transactions can't succeed from one that had bad luck: the first fails again and again at the same place.

A transaction that fails is run again. One whose output is refused for ever (a topic is gone, or takes less than it should) would be
run again at full speed, and nobody would hear of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from qmtl.engine.task import Task
from qmtl.foundation.common.errors import LogError, TransactionAborted

FAILURES_AT_ONE_PLACE: Final = 5
"""So many may come of a broker or a member that comes or goes; from the last of them on, the task waits between its attempts."""
FORGOTTEN_S: Final = 300.0
"""What failed so long ago has nothing to do with what fails now; attempts are never so far apart."""
_DOUBLINGS: Final = 10
"""More of them are longer than anybody waits."""


class Repeat(NamedTuple):
    """A task that fails again and again.

    Attributes:
        error: says so, with the last cause and what to do.
        since: when it failed first, by the worker's clock.
        waited_s: how long it has waited before this attempt; 0 where it has not.
    """

    error: TransactionAborted
    since: float
    waited_s: float


@dataclass(slots=True)
class _Row:
    since: float
    last: float
    times: int = 0
    place: object = None


class Repeats:
    """The failures of the tasks of one worker. Whatever the causes are: one and the same shows differently, as the timing has it."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}

    def stands(self, number: int, task: Task) -> None:
        """A task was opened, or a step of it has not failed: once it is at another place, what failed before is over."""
        row = self._rows.get(number)
        if row is None:
            return
        place = (task.positions, task.buckets)
        if row.place is None:
            row.place = place
        elif row.place != place:
            del self._rows[number]

    def forget(self, number: int) -> None:
        """The task is another worker's."""
        self._rows.pop(number, None)

    def failed(self, number: int, error: LogError, now: float) -> Repeat | None:
        """A transaction of a task has failed, which is to be opened anew; None while that may still be bad luck."""
        row = self._rows.get(number)
        if row is None or now - row.last > FORGOTTEN_S:
            row = self._rows[number] = _Row(now, now)
        row.times += 1
        row.last = now
        more = row.times - FAILURES_AT_ONE_PLACE
        if more < 0:
            return None
        told = TransactionAborted(
            f"its last {row.times} attempts have failed at the same records, the last one so: [{error.code}] {error.what.rstrip('.')}.",
            f"{error.remedy} Compare the topics that it writes with the catalogue (`qmtl topic list`), and look into the broker's"
            " log; it goes on by itself once they take its records.".lstrip(),
        )
        return Repeat(told, row.since, 2.0 ** min(more - 1, _DOUBLINGS) if more else 0.0)
