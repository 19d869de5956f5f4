"""Which sources a task waits for: one of which the log has nothing more to say is not waited for, until it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from qmtl.engine.log.port import Log, Positions, TopicPartition
from qmtl.engine.places import Places
from qmtl.engine.watermark import Merge


class Silence:
    """Asks the log, never what a poll has brought: a transaction over several topics may show in one before the other.

    Who sleeps, and since where, belongs to the places of a task: each of its stamps says it, so that a task that is opened
    waits for those that it waited for before, and for no other.
    """

    def __init__(self, log: Log, merge: Merge, places: Places) -> None:
        self._log, self._merge, self._places = log, merge, places

    def follow(self) -> None:
        """What sleeps of that which is read from now on goes on sleeping."""
        self._merge.fall_asleep(self._places.slept)

    def wake(self, read: Positions) -> None:
        """Let sources join again of which the log has other ends than when they fell asleep, or more than what was read."""
        asleep = self._merge.asleep()
        if asleep:
            ends, slept = self._log.end_offsets(asleep), self._places.slept
            woken = {
                topic
                for topic, wheres in _by_topic(asleep)
                if (
                    _ends_of(wheres, ends) != slept[topic]
                    if topic in slept
                    else any(ends[where] > read[where] for where in wheres)
                )
            }
            self._merge.join(woken)
            self._places.slept = {topic: end for topic, end in slept.items() if topic not in woken}

    def let_go(self, read: Callable[[], Positions]) -> None:
        """Let sources leave that nobody feeds any more.

        Asked also after a poll that brought nothing: only then a reader may know that it has come to the end.
        """
        silent = self._merge.silent()
        if silent:
            ends, at = self._log.end_offsets(silent), read()
            done = {
                topic: _ends_of(wheres, ends)
                for topic, wheres in _by_topic(silent)
                if all(ends[where] <= at.get(where, 0) for where in wheres)
            }
            self._merge.fall_asleep(done)
            self._places.slept = {**self._places.slept, **done}


def _by_topic(wheres: Iterable[TopicPartition]) -> list[tuple[str, list[TopicPartition]]]:
    return [(topic, list(some)) for topic, some in groupby(sorted(wheres), key=lambda where: where.topic)]


def _ends_of(wheres: Iterable[TopicPartition], ends: Positions) -> tuple[int, ...]:
    return tuple(ends[where] for where in wheres)
