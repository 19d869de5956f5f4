"""Feeds bars into a raw topic, bucket by bucket: recorded ones with the clock, live ones beside it.

Each transaction carries the bars of some buckets, a close marker per bucket in every partition of the raw topic, and the tick
of the clock, unless another feed has brought the clock so far. Minutes without a bar close empty. A feed that was killed goes on
after the last marker that it committed. One of finite bars says with its last bucket that the input has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final

from qmtl.engine.cut import CutDigest
from qmtl.engine.log.port import Log, TopicPartition, Writer, partitions_of
from qmtl.foundation.common.errors import ClockTaken, InvalidBarsFile
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.contracts.market import Bar, EndOfInput
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import decode_marker_bucket, encode_key, is_marker, marker_key, partition_for
from qmtl.foundation.wire.topics import TopicSpec
from qmtl.replay.span import last_marker
from qmtl.services.clock.edge import last_tick

NAME: Final = "feed"
LARGEST_GAP: Final = 1_000_000
"""Empty buckets in a row that are believed."""

CLOCK: Final = TopicPartition("clock", 0)


class Feed:
    """Writes bars, which come in the order of their open times, to one raw topic.

    Args:
        interval: of the bars, seconds.
        start_ms: open time of the first bucket.
        end_ms: close time of the last; every bucket in between is closed, with or without bars.
        ticks: whether the clock is ticked, too: time is then that of the bars.
        ends: say with the last bucket that the input has ended, in its transaction.

    Raises:
        ClockTaken: the clock of a deployed system ticks this log, and recorded bars would all be late; or the other way round.
    """

    def __init__(
        self,
        log: Log,
        codec: Codec,
        topic: TopicSpec,
        interval: int,
        bars: Iterable[Bar],
        start_ms: int,
        end_ms: int,
        *,
        ticks: bool = True,
        ends: bool = False,
    ) -> None:
        self._codec = codec
        self._ticks = ticks
        self._ends = EndOfInput(interval, end_ms) if ends else None
        self._topic = topic
        self._step_ms = interval * 1000
        self._end_ms = end_ms
        self._writer: Writer = log.writer(f"qmtl.{NAME}.{topic.name}")  # ends what a killed feed left open
        partitions = partitions_of(topic.name, topic.partitions)
        self.closed_ms = max(start_ms, min(last_closed(log, where) for where in partitions))
        self._log = log
        self._clock_ms, self._clock_end = -1, -1
        self._look_at_clock()
        fed_ms = self.closed_ms
        fresh = (bar for bar in bars if bar.open_time_ms + self._step_ms > fed_ms)
        self._buckets: Iterator[tuple[int, list[Bar]]] = self._every_bucket(fresh)

    def _every_bucket(self, bars: Iterable[Bar]) -> Iterator[tuple[int, list[Bar]]]:
        next_ms = self.closed_ms + self._step_ms
        for close_ms, group in groupby(bars, key=lambda bar: bar.open_time_ms + self._step_ms):
            if close_ms - next_ms > LARGEST_GAP * self._step_ms:
                raise InvalidBarsFile(
                    f"no bar between {next_ms} and {close_ms}: more than {LARGEST_GAP} buckets in a row are empty.",
                    "Feed the parts one by one, or with a longer interval.",
                )
            yield from ((empty_ms, []) for empty_ms in range(next_ms, close_ms, self._step_ms))
            yield close_ms, list(group)
            next_ms = close_ms + self._step_ms
        yield from ((empty_ms, []) for empty_ms in range(next_ms, self._end_ms + 1, self._step_ms))

    @property
    def done(self) -> bool:
        return self.closed_ms >= self._end_ms

    def push(self, buckets: int) -> None:
        """Write up to so many buckets in one transaction.

        Raises:
            ClockTaken: the clock of a deployed system has begun to tick this log.
        """
        if self.done:
            return
        self._look_at_clock()
        self._writer.begin()
        for _ in range(buckets):
            found = next(self._buckets, None)
            if found is None:
                break
            self._write(*found)
        self._writer.commit({}, f"qmtl.{NAME}", None)
        self._clock_end = self._log.end_offsets([CLOCK])[CLOCK]

    def _look_at_clock(self) -> None:
        """Learn how far the clock is, if anybody but this feed has moved it.

        Two feeds that look at the same time may both write a tick: readers pass over one that says nothing new.
        """
        end = self._log.end_offsets([CLOCK])[CLOCK]
        if end != self._clock_end:
            last = last_tick(self._log, CLOCK, self._codec)
            if last is not None and last.processor == NAME and not self._ticks:
                raise ClockTaken(
                    f"the clock of this log is ticked by feeds of recorded bars, last at {last.bucket_ms}; live bars have the clock of now.",
                    "Write them to a log of their own, where `qmtl worker run clock` runs.",
                )
            if last is not None and last.processor != NAME and self._ticks:
                raise ClockTaken(
                    f"the clock of this log is ticked by {last.processor!r}, last at {last.bucket_ms}; recorded bars would all be late.",
                    "Feed them into a log of their own.",
                )
            self._clock_ms, self._clock_end = max(self._clock_ms, -1 if last is None else last.bucket_ms), end

    def _write(self, bucket_ms: int, bars: Sequence[Bar]) -> None:
        cuts = [CutDigest() for _ in range(self._topic.partitions)]
        said: list[Bar | EndOfInput] = [*bars]
        if self._ends is not None and bucket_ms == self._end_ms:
            said.append(self._ends)
        for one in said:
            partition = partition_for(encode_key(self._topic.task_key_of(one)), self._topic.partitions)
            key, value = encode_key(self._topic.key_of(one)), self._codec.encode(one)
            self._writer.append(self._topic.name, partition, key, value)
            cuts[partition].add(key, value)
        empty = self._codec.encode(CloseMarker(NAME, 0, 1, bucket_ms, 0, "", 1))
        key = marker_key(NAME, 0, bucket_ms)
        for partition, cut in enumerate(cuts):
            value = empty
            if cut.count:
                value = self._codec.encode(CloseMarker(NAME, 0, 1, bucket_ms, cut.count, cut.hexdigest(), 1))
            self._writer.append(self._topic.name, partition, key, value)
        if self._ticks and bucket_ms > self._clock_ms:
            self._writer.append(CLOCK.topic, CLOCK.partition, key, empty)
            self._clock_ms = bucket_ms
        self.closed_ms = bucket_ms

    def close(self) -> None:
        self._writer.close()


def last_closed(log: Log, where: TopicPartition) -> int:
    """The newest bucket that a partition has closed; -1 before the first."""
    span = (log.begin_offsets([where])[where], log.stable_offsets([where])[where])
    found = last_marker(log, where, span)
    return -1 if found is None else found.bucket_ms


class MarkerFollower:
    """Follows the close markers of one partition while it grows."""

    def __init__(self, log: Log, where: TopicPartition) -> None:
        self._log = log
        self._where = where
        self._reader = log.reader()
        self._reader.assign(log.begin_offsets([where]))
        self.closed_ms = -1

    def poll(self, timeout_s: float = 0.0) -> int:
        """The newest closed bucket that is visible now."""
        while batch := self._reader.poll(5000, timeout_s):
            for record in batch:
                if is_marker(record.key) and record.value is not None:
                    self.closed_ms = max(self.closed_ms, decode_marker_bucket(record.key))
            timeout_s = 0.0
        return self.closed_ms

    def close(self) -> None:
        self._reader.close()
