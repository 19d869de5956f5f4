"""What came out of a run, said so that two runs can be compared: values without places, per key or partition in their order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Any, TypeAlias

from blake3 import blake3

from qmtl.engine.log.port import Record, TopicPartition
from qmtl.engine.simulate.cluster import Cluster
from qmtl.foundation.common.errors import WireError
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import Key, decode_key, decode_marker_bucket, is_marker, is_stamp

Normal: TypeAlias = Callable[[bytes], bytes]
"""A value without what differs between two runs that are the same: the places in a log that it names."""

Place: TypeAlias = tuple[str, int, bytes]


def without_places(codec: Codec) -> Normal:
    """Blanks the fields of a message that hold places in a log (`coordinate` in their metadata), at its top level."""
    known: dict[bytes, bytes] = {}

    def normal(value: bytes) -> bytes:
        found = known.get(value)
        if found is None:
            try:
                found = codec.encode(_blank(codec.decode(value)))
            except WireError:
                found = value  # nobody can say what it means, so it is what it is
            known[value] = found
        return found

    return normal


def _blank(message: Any) -> Any:
    if not is_dataclass(message) or isinstance(message, type):
        return message
    changes = {one.name: _default(one) for one in fields(message) if one.metadata.get("coordinate")}
    return replace(message, **changes) if changes else message


def _default(one: Field[Any]) -> Any:
    if one.default_factory is not MISSING:
        return one.default_factory()
    return one.default


class Trace:
    """Follows the committed records of a cluster, and holds them against what is expected.

    Streams are compared by key, or by partition where everything in it has one order; unordered streams as bags; compacted
    topics by the newest value of each key, and at each marker where their cuts are defined.

    Args:
        skips: topics that people write.
        whole: topics whose partitions have one order.
        unordered: topics that several tasks write in any order.
        cuts: compacted topics that are compared at each of their markers.
        expected: the trace of a run without faults.
    """

    def __init__(
        self,
        normal: Normal,
        *,
        skips: frozenset[str],
        whole: frozenset[str] = frozenset(),
        unordered: frozenset[str] = frozenset(),
        cuts: frozenset[str] = frozenset(),
        expected: Trace | None = None,
    ) -> None:
        self.streams: dict[Place, list[bytes | None]] = {}
        self.bags: dict[str, Counter[bytes]] = {}
        self.tables: dict[TopicPartition, dict[bytes, bytes]] = {}
        self.cuts: dict[TopicPartition, list[tuple[int, str]]] = {}
        self._closed: dict[tuple[TopicPartition, Key], int] = {}
        self._normal = normal
        self._skips = skips
        self._whole = whole
        self._unordered = unordered
        self._cut_topics = cuts
        self.expected = expected
        self._read: dict[TopicPartition, int] = {}

    def follow(self, cluster: Cluster) -> Iterator[str]:
        """Take in what has become visible; says what contradicts the expectation."""
        for partition in cluster.partitions():
            where = partition.where
            if where.topic in self._skips:
                continue
            partition.settle()
            start = self._read.get(where, 0)
            if start == len(partition.history):
                continue
            self._read[where] = len(partition.history)
            compacted = cluster.topics[where.topic].compacted
            for record in partition.history[start:]:
                if is_stamp(record.key):
                    continue
                yield from self._marker(where, record)
                if compacted:
                    self._row(where, record)
                else:
                    yield from self._event(where, record)

    def _marker(self, where: TopicPartition, record: Record) -> Iterator[str]:
        if not is_marker(record.key) or record.value is None:
            return
        bucket_ms = decode_marker_bucket(record.key)
        writer = where, decode_key(record.key[2:])[:2]
        if bucket_ms <= self._closed.get(writer, -1):
            yield f"{where} closes bucket {bucket_ms} after {self._closed[writer]}"
        self._closed[writer] = bucket_ms

    def _row(self, where: TopicPartition, record: Record) -> None:
        rows = self.tables.setdefault(where, {})
        if record.value is None:
            rows.pop(record.key, None)
        else:
            rows[record.key] = self._normal(record.value)
            if is_marker(record.key) and where.topic in self._cut_topics:
                self.cuts.setdefault(where, []).append((decode_marker_bucket(record.key), _digest(rows)))

    def _event(self, where: TopicPartition, record: Record) -> Iterator[str]:
        value = None if record.value is None else self._normal(record.value)
        if where.topic in self._unordered:
            bag = self.bags.setdefault(where.topic, Counter())
            said = _said(record.key, value)
            bag[said] += 1
            if self.expected is not None and bag[said] > self.expected.bags.get(where.topic, Counter())[said]:
                yield f"{where}@{record.offset} is once too often there: {value!r}"
            return
        whole = where.topic in self._whole
        place = (*where, b"" if whole else record.key)
        found = self.streams.setdefault(place, [])
        found.append(_said(record.key, value) if whole else value)
        if self.expected is None:
            return
        wanted = self.expected.streams.get(place, [])
        index = len(found) - 1
        if index >= len(wanted):
            yield f"{where}@{record.offset} is one too many for key {record.key!r}: {value!r}"
        elif found[index] != wanted[index]:
            yield f"{where}@{record.offset} under key {record.key!r} has {found[index]!r}, expected {wanted[index]!r}"

    def differences(self, other: Trace) -> Iterator[str]:
        """What another trace has that this one has not, or the other way round."""
        yield from _different("stream", self.streams, other.streams)
        yield from _different("stream", self.bags, other.bags)
        yield from _different("table", self.tables, other.tables)
        yield from _different("cuts of", self.cuts, other.cuts)


def _said(key: bytes, value: bytes | None) -> bytes:
    return len(key).to_bytes(4, "big") + key + (b"\x00" if value is None else b"\x01" + value)


def _digest(rows: dict[bytes, bytes]) -> str:
    whole = blake3()
    for key, value in sorted(rows.items()):
        if not is_marker(key):
            whole.update(_said(key, value))
    return whole.hexdigest(16)


def _different(kind: str, mine: dict[Any, Any], theirs: dict[Any, Any]) -> Iterator[str]:
    for place in sorted({*mine, *theirs}):
        one, other = mine.get(place), theirs.get(place)
        if (one or None) != (other or None):
            yield f"{kind} {place}: {_brief(one)} instead of {_brief(other)}"


def _brief(found: object) -> str:
    text = repr(found)
    return text if len(text) <= 300 else f"{text[:140]} … {text[-140:]}"
