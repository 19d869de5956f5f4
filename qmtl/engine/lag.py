"""How far behind the log a reader is, seen from outside: in offsets, in records, in buckets, and in seconds of event time."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, TypeVar

from qmtl.engine.log.port import Log, Positions, Reader, Record, TopicPartition
from qmtl.foundation.contracts.control import GENESIS_MS
from qmtl.foundation.wire.keys import decode_marker_bucket, is_marker, is_stamp

COUNTED: Final = 1000
"""Up to so many offsets between a position and the last stable offset, the records there are counted by reading them."""

PATIENCE_S: Final = 30.0
_FIRST_LOOK_BACK: Final = 256
_BATCH: Final = 5000

T = TypeVar("T")


class Asked(NamedTuple):
    """One partition of which a reader's lag is wanted.

    Attributes:
        position: the next offset that the reader takes; None where it has never said one, and begins at the first.
        bucketed: the reader takes it bucket by bucket.
        buckets: the last buckets that the reader closed, oldest first, epoch ms.
        every_ms: the length of the partition's own buckets; 0: as far apart as those of the reader.
    """

    where: TopicPartition
    position: int | None
    bucketed: bool = False
    buckets: tuple[int, ...] = ()
    every_ms: int = 0


@dataclass(frozen=True, slots=True)
class InputLag:
    """The lag on one partition.

    Offsets are no records: markers of transactions, aborted records and what compaction took have offsets too, so the
    differences are upper bounds.

    Attributes:
        position: as asked.
        begin, stable, high_watermark: the first offset that is kept, the last stable offset, and one past the last record.
        closed_ms: the newest bucket that the partition has closed, epoch ms; None where it is not read by bucket, or has none.
        own_ms: the newest bucket that the reader has closed.
        buckets: how many buckets the partition has closed that the reader has not: counted where few offsets lie between, else
            reckoned from the length of the partition's own, or the distance of the reader's last ones; None where neither can be done.
        next_ms: the oldest bucket that the partition has closed and the reader has not, known where `buckets` is counted.
        records: how many committed records wait, without stamps and tombstones of markers; None where more than `COUNTED` offsets lie between.
    """

    where: TopicPartition
    position: int | None
    begin: int
    stable: int
    high_watermark: int
    closed_ms: int | None = None
    own_ms: int | None = None
    buckets: int | None = None
    records: int | None = None
    next_ms: int | None = None

    @property
    def lag(self) -> int:
        """Offsets to the high watermark: what lies behind an open transaction waits too."""
        return max(0, self.high_watermark - self._next)

    @property
    def lag_stable(self) -> int:
        """Offsets to the last stable offset: what can be read now."""
        return max(0, self.stable - self._next)

    @property
    def _next(self) -> int:
        return self.begin if self.position is None else max(self.position, self.begin)

    @property
    def seconds(self) -> float | None:
        """Event time between the newest bucket of the partition and that of the reader; None where one of them is not known."""
        if self.closed_ms is None or self.own_ms is None:
            return None
        return max(0, self.closed_ms - self.own_ms) / 1000

    @property
    def unsettled(self) -> int:
        """Offsets without an outcome: they wait for the end of an open transaction, as does everything behind them."""
        return max(0, self.high_watermark - self.stable)


class LagMeter:
    """Measures lags on one log, again and again. Not thread-safe.

    What it has read of a partition it remembers until the partition has grown, so that a log at rest is asked for its offsets
    alone.

    Args:
        counted: as `COUNTED`; 0 counts nothing.
        patience_s: what has not been read after so long stays unknown.
    """

    def __init__(self, log: Log, *, counted: int = COUNTED, patience_s: float = PATIENCE_S) -> None:
        self._log = log
        self._counted = counted
        self._patience_s = patience_s
        self._reader: Reader | None = None
        self._closed: dict[TopicPartition, tuple[int, int | None]] = {}

    def measure(self, asked: Sequence[Asked]) -> list[InputLag]:
        """The lag of each partition that is asked for, in the order of asking, all as of about the same moment.

        Raises:
            LogError: the log did not answer.
        """
        wheres = sorted({one.where for one in asked})
        if not wheres:
            return []
        begin = self._log.begin_offsets(wheres)
        stable = self._log.stable_offsets(wheres)
        high = self._log.end_offsets(wheres)  # after the stable offsets, so that it is never smaller
        until = time.monotonic() + self._patience_s
        closed = self._newest_closed({one.where for one in asked if one.bucketed}, begin, stable, until)
        starts: dict[TopicPartition, int] = {}
        for one in asked:
            start = max(begin[one.where], one.position or 0)
            if 0 < stable[one.where] - start <= self._counted:
                starts[one.where] = min(start, starts.get(one.where, start))
        read = _read(self._its_reader(), starts, stable, until) if starts else {}
        out = []
        for one in asked:
            where, start = one.where, max(begin[one.where], one.position or 0)
            waiting: list[Record] | None = None
            if start >= stable[where]:
                waiting = []
            elif where in read and stable[where] - start <= self._counted:
                waiting = [record for record in read[where] if record.offset >= start]
            found = InputLag(where, one.position, begin[where], stable[where], high[where])
            out.append(_with_buckets(found, one, closed.get(where), waiting))
        return out

    def _newest_closed(
        self, wheres: Collection[TopicPartition], begin: Positions, stable: Positions, until: float
    ) -> dict[TopicPartition, int | None]:
        grown = [where for where in wheres if self._closed.get(where, (None, None))[0] != stable[where]]
        if grown:
            spans = {where: (begin[where], stable[where]) for where in grown}
            found = _newest(self._its_reader(), spans, _bucket, until)
            if time.monotonic() <= until:
                self._closed.update({where: (stable[where], found.get(where)) for where in grown})
            else:
                self._closed.update({where: (stable[where], bucket) for where, bucket in found.items()})
        return {where: self._closed[where][1] for where in wheres if where in self._closed}

    def _its_reader(self) -> Reader:
        if self._reader is None:
            self._reader = self._log.reader()
        return self._reader

    def close(self) -> None:
        """Let go of the reader; the next measurement makes a new one."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        self._closed.clear()


def lags(log: Log, asked: Sequence[Asked]) -> list[InputLag]:
    """One measurement with a meter of its own.

    Raises:
        LogError: the log did not answer.
    """
    meter = LagMeter(log)
    try:
        return meter.measure(asked)
    finally:
        meter.close()


def _with_buckets(
    found: InputLag, one: Asked, closed_ms: int | None, waiting: Sequence[Record] | None
) -> InputLag:
    own = [bucket for bucket in one.buckets if bucket > GENESIS_MS]
    own_ms = own[-1] if own else None
    records = None if waiting is None else sum(map(_counts, waiting))
    buckets: int | None = None
    next_ms: int | None = None
    if one.bucketed and waiting is not None:
        new = {ms for record in waiting if (ms := _bucket(record) or GENESIS_MS) > (own_ms or GENESIS_MS)}
        buckets, next_ms = len(new), min(new, default=None)
    elif one.bucketed and closed_ms is not None and own and one.every_ms:
        buckets = max(0, closed_ms // one.every_ms - own[-1] // one.every_ms)
    elif one.bucketed and closed_ms is not None and len(own) > 1:
        spacing = min(later - earlier for earlier, later in pairwise(own))
        buckets = max(0, closed_ms - own[-1]) // spacing
    return InputLag(
        found.where,
        found.position,
        found.begin,
        found.stable,
        found.high_watermark,
        closed_ms,
        own_ms if one.bucketed else None,
        buckets,
        records,
        next_ms,
    )


def _counts(record: Record) -> bool:
    """Whether a reader has anything to do for a record: not for a stamp, nor for the tombstone of a marker."""
    return not is_stamp(record.key) and not (is_marker(record.key) and record.value is None)


def _bucket(record: Record) -> int | None:
    if not is_marker(record.key) or record.value is None:
        return None
    return decode_marker_bucket(record.key)


def newest(
    log: Log,
    wheres: Sequence[TopicPartition],
    pick: Callable[[Record], T | None],
    *,
    patience_s: float = PATIENCE_S,
) -> dict[TopicPartition, T]:
    """Per partition what `pick` gives for the last committed record for which it gives anything; others are left out.

    Looks from the end, in stretches that double, at all partitions at once.
    """
    if not wheres:
        return {}
    begin, stable = log.begin_offsets(wheres), log.stable_offsets(wheres)
    reader = log.reader()
    try:
        spans = {where: (begin[where], stable[where]) for where in wheres}
        return _newest(reader, spans, pick, time.monotonic() + patience_s)
    finally:
        reader.close()


def _newest(
    reader: Reader,
    spans: Mapping[TopicPartition, tuple[int, int]],
    pick: Callable[[Record], T | None],
    until: float,
) -> dict[TopicPartition, T]:
    out: dict[TopicPartition, T] = {}
    ends = {where: end for where, (begin, end) in spans.items() if begin < end}
    size = _FIRST_LOOK_BACK
    while ends:
        starts = {where: max(spans[where][0], end - size) for where, end in ends.items()}
        for where, records in _read(reader, starts, ends, until).items():
            for record in reversed(records):
                if (found := pick(record)) is not None:
                    out[where] = found
                    break
        ends = {
            where: start for where, start in starts.items() if where not in out and start > spans[where][0]
        }
        if time.monotonic() > until:
            break
        size *= 2
    return out


def _read(
    reader: Reader, starts: Positions, ends: Positions, until: float
) -> dict[TopicPartition, list[Record]]:
    """The committed records of each stretch that was read to its end in time; the others are left out."""
    out: dict[TopicPartition, list[Record]] = {where: [] for where in starts}
    if not starts:
        return out
    reader.assign(starts)

    def unread() -> list[TopicPartition]:
        at = reader.positions()
        return [where for where, start in starts.items() if at.get(where, start) < ends[where]]

    while left := unread():
        if time.monotonic() > until:
            return {where: records for where, records in out.items() if where not in left}
        for record in reader.poll(_BATCH, 0.1):
            where = TopicPartition(record.topic, record.partition)
            if record.offset < ends[where]:
                out[where].append(record)
    return out
