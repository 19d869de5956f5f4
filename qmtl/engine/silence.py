"""Which sources a task waits for: one of which the log has nothing more to say is not waited for, until it has."""

from __future__ import annotations

from collections.abc import Callable, Collection

from qmtl.engine.log.port import Log, Positions, TopicPartition
from qmtl.engine.watermark import Merge


class Silence:
    """Asks the log, never what a poll has brought: a transaction over several topics may show in one before the other."""

    def __init__(self, log: Log, merge: Merge) -> None:
        self._log, self._merge = log, merge
        self._slept: dict[TopicPartition, int] = {}

    def follow(self, wheres: Collection[TopicPartition]) -> None:
        """These partitions are read from now on; of others nothing is kept."""
        self._slept = {where: end for where, end in self._slept.items() if where in wheres}

    def wake(self, read: Positions) -> None:
        """Let sources join again whose high watermark has moved past what was read of them."""
        asleep = self._merge.asleep()
        if asleep:
            ends = self._log.end_offsets(asleep)
            self._merge.join(
                {where.topic for where in asleep if ends[where] > max(read[where], self._slept.get(where, 0))}
            )

    def let_go(self, read: Callable[[], Positions]) -> None:
        """Let sources leave that nobody feeds any more.

        Asked also after a poll that brought nothing: only then a reader may know that it has come to the end.
        """
        silent = self._merge.silent()
        if silent:
            ends, at = self._log.end_offsets(silent), read()
            pending = {where.topic for where in silent if ends[where] > at.get(where, 0)}
            self._merge.fall_asleep({where.topic for where in silent} - pending)
            self._slept.update({where: ends[where] for where in silent if where.topic not in pending})
