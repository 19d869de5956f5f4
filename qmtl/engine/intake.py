"""Reads the records that a task polls: decodes them, checks that they may stand where they stand, and makes letters of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from qmtl.engine.crash_marks import CrashMarks
from qmtl.engine.letters import Cause, failed, late_record, letter_of, quarantined, undecodable
from qmtl.engine.log.port import Positions, Record, TopicPartition
from qmtl.engine.processor import Arrival
from qmtl.foundation.common.errors import IncompatibleSchema, PoisonRecord, WireError
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, LateRecord
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_marker, is_stamp

DEATHS: Final = 3
"""So many deaths of a process at one record make it a dead letter."""


class Intake:
    """The reading of one task. It outlives a failure of the task, and knows which records are to be letters when they come again.

    Args:
        deaths: how often a process may die at a record.

    Attributes:
        taken: how many records of the batch may be handled, by topic, of inputs that are not read by bucket.
    """

    def __init__(
        self, processor: str, task: int, codec: Codec, marks: CrashMarks, deaths: int = DEATHS
    ) -> None:
        self._processor = processor
        self._task = task
        self._codec = codec
        self._marks = marks
        self._deaths = deaths
        self._allowed: Mapping[str, tuple[type, ...]] = {}
        self._markers: dict[bytes, CloseMarker] = {}
        self._condemned: dict[tuple[str, int, int], Cause] = {}
        self.taken: Counter[str] = Counter()

    def allow(self, messages: Mapping[str, tuple[type, ...]]) -> None:
        """What each topic that is read now may carry."""
        self._allowed = messages

    def begin(self) -> None:
        """A new batch comes."""
        self._markers.clear()
        self.taken = Counter()

    def read_free(self, run: Sequence[Record], free: list[Arrival], dead: list[DeadLetter]) -> None:
        """Read a run of records of one partition of an input that is not read by bucket; most are data, and sound."""
        before = len(free)
        self._read_run(run, free, dead)
        self.taken[run[0][0]] += len(free) - before

    def _read_run(self, run: Sequence[Record], free: list[Arrival], dead: list[DeadLetter]) -> None:
        if self._condemned or self._marks.careful:
            for record in run:
                self._read_free(record, free, dead)
            return
        allowed, decode, make = self._allowed[run[0][0]], self._codec.decode, tuple.__new__
        for record in run:
            topic, partition, offset, key, value, _ = record
            if value is not None and key[:1] != b"\x00":
                try:
                    message = decode(value)
                except WireError:
                    message = None  # `read` says what is wrong with it
                if type(message) in allowed and type(message) is not CloseMarker:
                    free.append(make(Arrival, (topic, partition, offset, message, key, value)))
                    continue
            self._read_free(record, free, dead)

    def _read_free(self, record: Record, free: list[Arrival], dead: list[DeadLetter]) -> None:
        found = None if is_stamp(record.key) else self.read(record)
        if isinstance(found, DeadLetter):
            dead.append(found)
        elif isinstance(found, Arrival):
            free.append(found)

    def read(self, record: Record) -> Arrival | CloseMarker | DeadLetter | None:
        """What a record says; None is a tombstone."""
        if record.value is None:
            return None
        if self._condemned and (cause := self._condemned.get(record[:3])) is not None:
            return letter_of(self._processor, self._task, record, cause)
        if self._marks.careful:
            if self._marks.deaths_at(record) >= self._deaths:
                return letter_of(self._processor, self._task, record, quarantined(self._deaths))
            self._marks.record(record)
            try:
                return self._read(record, record.value)
            finally:
                self._marks.no_record()
        return self._read(record, record.value)

    def _read(self, record: Record, value: bytes) -> Arrival | CloseMarker | DeadLetter:
        try:
            if is_marker(record.key):
                return self._marker(value)
            message = self._codec.decode(value)
            if isinstance(message, CloseMarker):
                raise WireError("a CloseMarker came under the key of something else.")
            if type(message) not in self._allowed[record.topic]:
                raise WireError(f"{record.topic} carries no {type(message).__name__}.")
        except IncompatibleSchema:
            raise  # newer code can read it: the task waits for that code, and the record is no rubbish
        except WireError as error:
            return letter_of(self._processor, self._task, record, undecodable(error))
        return Arrival(record.topic, record.partition, record.offset, message, record.key, value)

    def _marker(self, value: bytes) -> CloseMarker:
        """The partitions of a topic close a bucket with equal bytes, which are read once."""
        known = self._markers.get(value)
        if known is None:
            message = self._codec.decode(value)
            if not isinstance(message, CloseMarker):
                raise WireError(f"a {type(message).__name__} came under the key of something else.")
            known = self._markers[value] = message
        return known

    def late(self, arrival: Arrival, bucket_ms: int, last_ms: int) -> LateRecord:
        """What is told of a record whose bucket had been closed already."""
        return late_record(self._processor, self._task, arrival, bucket_ms, last_ms)

    def leave_out(self, letter: DeadLetter) -> None:
        """Its record is to be this letter when it comes."""
        cause = Cause(letter.code, letter.cause, letter.error_type, letter.stack_digest, letter.attempts)
        self._condemned[letter.topic, letter.partition, letter.offset] = cause

    def condemn(self, poison: PoisonRecord) -> None:
        """Let a record of a bucket be a letter when it is read again."""
        arrival = poison.arrival
        assert isinstance(arrival, Arrival)
        self._condemned[arrival[:3]] = failed(poison)

    def committed(self, positions: Positions) -> None:
        """Everything before these positions is done."""
        for topic, partition, offset in list(self._condemned):
            if offset < positions.get(TopicPartition(topic, partition), 0):
                del self._condemned[topic, partition, offset]
