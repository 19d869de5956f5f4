"""Marks on disk that tell the next process at what the last one died, so that a record that kills its reader is found.

Before a batch is handled a mark is written, after its commit it is cleared: a mark that a new process finds is its predecessor's
death. It then goes through that stretch record by record, each with a mark of its own, and whatever the mark stands on when it
dies again is counted. A death elsewhere counts against nothing, and a record that was handled is forgiven: a process that is
killed at random does not die at one and the same record time after time.

The marks belong to one state directory. Without it, or on another machine, counting begins again.

A mark is one small write into the page cache, which outlives the process; after the death of the machine it may be stale or
gone, and a count then begins late, or a stretch is gone through with care for nothing.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from qmtl.engine.log.port import Positions, Record, TopicPartition
from qmtl.engine.processor import Arrival

_HEAD: Final = struct.Struct(">II")  # length, CRC-32
_IDLE: Final = _HEAD.pack(0, 0)
_MAX_BYTES: Final = 1 << 20


class Place(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


class CrashMarks:
    """The marks of one task. What its predecessor died at is counted when this is made.

    Args:
        stem: the files are `STEM.mark` and `STEM.deaths`; they lie beside the store, which may be thrown away by itself.
        log_id: places of another log mean nothing here.

    A mark that can't be written is left out: nothing is lost by it but the knowledge of who killed a process.

    Attributes:
        careful: a predecessor died in the stretch that is read now, or something that it died at lies ahead, in partitions that
            are read.
    """

    def __init__(self, stem: Path, log_id: str) -> None:
        self._log_id = log_id
        self._deaths_file = stem.with_name(stem.name + ".deaths")
        self._records: dict[Place, int] = {}
        self._buckets: dict[int, int] = {}
        self._stretch: dict[TopicPartition, int] = {}
        self._ends = "[]"
        self._reached: dict[TopicPartition, int] = {}
        self._read: frozenset[TopicPartition] | None = None  # until it is told, anything may be read
        self._file = -1
        with suppress(OSError):
            stem.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(stem.with_name(stem.name + ".mark"), os.O_RDWR | os.O_CREAT, 0o600)
        self._load()
        self._count(self._found())
        self.careful = False
        self._reckon()
        self.idle()

    # ---- what the predecessors left --------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            raw = json.loads(self._deaths_file.read_bytes())
            if raw["log_id"] == self._log_id:
                self._records = {Place(*place): deaths for *place, deaths in raw["records"]}
                self._buckets = dict(raw["buckets"])
        except (OSError, ValueError, TypeError, KeyError):
            self._records, self._buckets = {}, {}

    def _found(self) -> Mapping[str, Any]:
        """The mark of a process that died; empty where none did. A torn mark was being written: nothing was being handled."""
        try:
            data = os.pread(self._file, _MAX_BYTES, 0)
            length, check = _HEAD.unpack_from(data)
            body = data[_HEAD.size : _HEAD.size + length]
            raw: dict[str, Any] = json.loads(body) if length and zlib.crc32(body) == check else {}
        except (OSError, ValueError, struct.error):
            return {}
        return raw if raw.get("log_id") == self._log_id else {}

    def _count(self, died: Mapping[str, Any]) -> None:
        if not died:
            return
        self._stretch = {TopicPartition(topic, number): end for topic, number, end in died["ends"]}
        if died["record"] is not None:
            place = Place(*died["record"])
            self._records[place] = self._records.get(place, 0) + 1
            self._save()
        elif died["bucket"] is not None:
            self._buckets[died["bucket"]] = self._buckets.get(died["bucket"], 0) + 1
            self._save()

    def _reckon(self) -> None:
        places = {*self._stretch, *(TopicPartition(one.topic, one.partition) for one in self._records)}
        ahead = places if self._read is None else places & self._read
        self.careful = bool(ahead or self._buckets)

    def _save(self) -> None:
        self._reckon()
        raw = {
            "log_id": self._log_id,
            "records": [[*place, deaths] for place, deaths in sorted(self._records.items())],
            "buckets": [[bucket_ms, deaths] for bucket_ms, deaths in sorted(self._buckets.items())],
        }
        fresh = self._deaths_file.with_name(self._deaths_file.name + ".new")
        with suppress(OSError):
            fresh.write_text(json.dumps(raw))
            fresh.replace(self._deaths_file)

    def reading(self, wheres: Iterable[TopicPartition]) -> None:
        """These partitions are read from now on, and no others.

        What a predecessor died at elsewhere asks for no care, as nothing will ever pass it; it stays counted, for that input may
        come back.
        """
        self._read = frozenset(wheres)
        self._reckon()

    # ---- what is known ----------------------------------------------------------------------------------------------

    def deaths_at(self, record: Record | Arrival) -> int:
        """How often in a row a process died at a record."""
        if not self._records:
            return 0
        return self._records.get(Place(record.topic, record.partition, record.offset), 0)

    def deaths_in(self, bucket_ms: int) -> int:
        """How often in a row a process died in a bucket, at none of its records in particular."""
        return self._buckets.get(bucket_ms, 0)

    @property
    def file(self) -> Path:
        """Where the deaths are counted; without this file counting begins again."""
        return self._deaths_file

    # ---- marking ----------------------------------------------------------------------------------------------------

    def batch(self, batch: Iterable[Record]) -> None:
        """What was just polled is going to be handled, with what was before it since the last commit."""
        ends = self._reached
        if not ends:
            ends.update(self._stretch)
        for (topic, partition), offset in {(one[0], one[1]): one[2] for one in batch}.items():
            where = TopicPartition(topic, partition)
            ends[where] = max(ends.get(where, 0), offset + 1)
        self._ends = json.dumps([[*where, end] for where, end in ends.items()])
        self.no_record()

    def record(self, record: Record | Arrival) -> None:
        """This record is going to be decoded or handled."""
        self._write(json.dumps([record.topic, record.partition, record.offset]), "null")

    def bucket(self, bucket_ms: int) -> None:
        """This bucket is going to be computed."""
        self._write("null", str(bucket_ms))

    def no_record(self) -> None:
        """From here on a death says nothing of any one record or bucket."""
        self._write("null", "null")

    def idle(self) -> None:
        """Nothing is in work."""
        self._reached.clear()
        self._put(_IDLE)

    def _write(self, record: str, bucket: str) -> None:
        log_id = json.dumps(self._log_id)
        text = f'{{"log_id":{log_id},"record":{record},"bucket":{bucket},"ends":{self._ends}}}'
        body = text.encode()
        self._put(_HEAD.pack(len(body), zlib.crc32(body)) + body)

    def _put(self, data: bytes) -> None:
        if self._file >= 0:
            with suppress(OSError):
                os.pwrite(self._file, data, 0)

    # ---- forgiving ---------------------------------------------------------------------------------------------------

    def survived(self, record: Record | Arrival) -> None:
        """A record was handled to its end."""
        if self.deaths_at(record):
            del self._records[Place(record.topic, record.partition, record.offset)]
            self._save()

    def committed(self, positions: Positions, buckets: Iterable[int]) -> None:
        """Everything before these positions is done, and these buckets are closed: none before the last of them closes any more."""
        if self._stretch:
            self._stretch = {
                where: end for where, end in self._stretch.items() if positions.get(where, end) < end
            }
        if self._records or self._buckets:
            gone = [
                place
                for place in self._records
                if place.offset < positions.get(TopicPartition(place.topic, place.partition), 0)
            ]
            last_ms = max(buckets, default=-1)
            closed = [bucket_ms for bucket_ms in self._buckets if bucket_ms <= last_ms]
            for place in gone:
                del self._records[place]
            for bucket_ms in closed:
                del self._buckets[bucket_ms]
            if gone or closed:
                self._save()
        self._reckon()
        self.idle()

    def close(self) -> None:
        """The task ends by its own will."""
        self.idle()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
