"""Where a task enters a topic that it begins to read while it runs: behind what belongs to buckets that it has closed already.

Such records were there before anybody asked for them. They are not late, and a long history of them would hold the task up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from qmtl.engine.log.port import Log, Positions, Record, TopicPartition
from qmtl.foundation.common.errors import WireError
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_marker

SPAN: Final = 1000
"""So many offsets are read at each place that is tried: first the last ones, where a task that is up to date finds its bucket."""
BUDGET_S: Final = 5.0
"""No longer than this is looked; then the task enters where it is known to be right, and reads more than it needs."""
POLL_S: Final = 0.05
FIRST_EPOCH: Final = 1


Find = Callable[[Sequence[TopicPartition], int], Positions]
"""Where to enter partitions behind a bucket; what it does not name, or not beyond where the task was, is read from there."""


def finder(log: Log, codec: Codec, clock: Callable[[], float], *, recorded: bool) -> Find:
    """How a task finds where it enters a topic.

    Args:
        recorded: the log ends at the cut of the step in which it was entered, so it is entered at its end. Nothing is looked for: how
            long that may take, a clock decides, and not the log.
    """
    if recorded:
        return lambda wheres, bucket_ms: log.end_offsets(wheres)
    return lambda wheres, bucket_ms: entries(log, wheres, bucket_ms, codec, clock)


def entries(
    log: Log,
    wheres: Iterable[TopicPartition],
    bucket_ms: int,
    codec: Codec,
    clock: Callable[[], float],
) -> Positions:
    """Per partition the offset behind the newest marker that proves that all before it belongs to buckets up to this one.

    A marker proves it that closes records and belongs to the first configuration of its writers: buckets only grow up to there. One
    without records may be said again by another feed, and an heir closes again what its predecessor has closed. So a wrong guess
    where to look costs reading, and never a record.

    Returns: nothing for a partition where no marker proves anything.
    """
    if not (wheres := list(wheres)):
        return {}
    begins, ends = log.begin_offsets(wheres), log.stable_offsets(wheres)
    searches = {
        where: _Search(bucket_ms, codec, begins[where], ends[where])
        for where in wheres
        if begins[where] < ends[where]
    }
    until = clock() + BUDGET_S
    reader = log.reader()
    try:
        while looking := {where: one for where, one in searches.items() if not one.done}:
            reader.assign({where: one.at for where, one in looking.items()})
            while looking and clock() < until:
                for record in reader.poll(SPAN, POLL_S):
                    if (one := looking.get(TopicPartition(record.topic, record.partition))) is not None:
                        one.take(record)
                read = reader.positions()
                for where, one in looking.items():
                    one.reached(read.get(where, 0))
                if ended := [where for where, one in looking.items() if one.tried]:
                    reader.pause(ended)
                    looking = {where: one for where, one in looking.items() if where not in ended}
            if looking:
                break
            for one in searches.values():
                one.go_on()
    finally:
        reader.close()
    return {where: one.entry for where, one in searches.items() if one.entry > begins[where]}


@dataclass(slots=True)
class _Search:
    """A bisection of one partition.

    Attributes:
        entry: all before it is proved to belong to closed buckets.
        end: from here on nothing is that would move it on.
        at: where this try began.
        tried: it has told all that it can tell.
    """

    bucket_ms: int
    codec: Codec
    entry: int
    end: int
    at: int = -1
    tried: bool = False
    done: bool = False
    _proved: bool = False

    def __post_init__(self) -> None:
        self.at = max(self.entry, self.end - SPAN)

    def take(self, record: Record) -> None:
        if self.tried or record.offset >= self.end:
            return
        bucket_ms = self._closes(record)
        if bucket_ms is None:
            return
        if bucket_ms <= self.bucket_ms:
            self.entry, self._proved = record.offset + 1, True
        else:
            self._ends_here()

    def reached(self, offset: int) -> None:
        if self.tried:
            return
        if offset >= self.end:
            self._ends_here()
        elif self._proved and offset >= self.at + SPAN:
            self.tried = True

    def _ends_here(self) -> None:
        """Nothing from where this try began proves more than what was found."""
        self.tried = True
        self.end = self.entry if self._proved else self.at

    def go_on(self) -> None:
        """Try the next place, unless there is none."""
        if self.entry >= self.end:
            self.done = True
        elif not self.done:
            wide = self.end - self.entry > 2 * SPAN
            self.at = self.entry + (self.end - self.entry) // 2 if wide else self.entry
            self.tried = self._proved = False

    def _closes(self, record: Record) -> int | None:
        """The bucket of a marker that proves what is before it."""
        if not is_marker(record.key) or record.value is None:
            return None
        try:
            marker = self.codec.decode(record.value)
        except WireError:
            return None  # whoever reads it for a bucket says what is wrong with it
        if isinstance(marker, CloseMarker) and marker.count and marker.config_epoch <= FIRST_EPOCH:
            return marker.bucket_ms
        return None
