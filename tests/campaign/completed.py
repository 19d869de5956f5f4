"""Holds the broker to its own word: a transaction that its coordinator calls complete has a marker in each of its partitions.

Read from the segments on disk, by the format of Kafka's record batches (magic 2) and of `__transaction_state` (TransactionLogKey
and TransactionLogValue, versions 0 and 1), without a client: a client shows committed records only.

Kafka 4.3.1 breaks that word: killed between the markers of a transaction and started again, one node that is broker and
controller may call it complete without the markers that are missing. What was committed is then committed in some partitions and
open in others, where the next transaction of the same producer decides over it. No client can help it; a trial in which it
happened says nothing about the engine.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

_HEAD: Final = struct.Struct(">qi")
_LENGTH: Final = 61
"""Of a batch without its records."""
_TRANSACTIONAL, _CONTROL, _COMPRESSION = 0x10, 0x20, 0x07
_ABORT, _COMMIT = 0, 1
_PREPARED: Final = {2: _COMMIT, 3: _ABORT}
COMPLETED: Final = {4: _COMMIT, 5: _ABORT}
SLACK_MS: Final = 5
POSITIONS: Final = "__consumer_offsets"


class Batch(NamedTuple):
    """One batch of `size` records; `records` is what follows its head."""

    time_ms: int
    attributes: int
    producer_id: int
    size: int
    records: bytes


class Missed(NamedTuple):
    """A marker that a partition owes a transaction.

    Attributes:
        topic: of the partition, with its namespace.
        lanes: the number of the partition; where it is one of committed positions, those of the transaction's other partitions.
    """

    topic: str
    lanes: frozenset[int]
    what: str


class State(NamedTuple):
    """One value of `__transaction_state`, and when it was appended; `version` is that of its form."""

    transactional_id: str
    producer_id: int
    status: int
    partitions: tuple[str, ...]
    time_ms: int
    version: int


@dataclass(slots=True)
class _Bytes:
    data: bytes
    at: int = 0

    def take(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> int:
        out: int = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return out

    def uvarint(self) -> int:
        out = shift = 0
        while True:
            byte = self.take(1)[0]
            out |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return out

    def varint(self) -> int:
        raw = self.uvarint()
        return (raw >> 1) ^ -(raw & 1)

    def record_end(self) -> int:
        """Where the record that begins here ends."""
        length = self.varint()
        return self.at + length

    def key(self) -> bytes:
        """The key of a record behind its length: attributes and two differences stand before it."""
        self.take(1)
        self.varint()
        self.varint()
        return self.take(self.varint())


def batches(directory: Path) -> Iterator[Batch]:
    """The batches of a partition, in the order of its log; a torn one ends it."""
    for segment in sorted(directory.glob("*.log")):
        data = segment.read_bytes()
        at = 0
        while at + _LENGTH <= len(data):
            _, length = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + length
            (attributes,) = struct.unpack_from(">h", data, at + 21)
            (time_ms,) = struct.unpack_from(">q", data, at + 35)
            (producer_id,) = struct.unpack_from(">q", data, at + 43)
            (count,) = struct.unpack_from(">i", data, at + 57)
            yield Batch(time_ms, attributes, producer_id, count, data[at + _LENGTH : end])
            at = end


def states(directory: Path) -> Iterator[State]:
    """What a coordinator has written of transactions."""
    for batch in batches(directory):
        if batch.attributes & (_CONTROL | _COMPRESSION):
            continue
        records = _Bytes(batch.records)
        for _ in range(batch.size):
            end = records.record_end()
            key = records.key()
            size = records.varint()
            if size > 0 and key[:2] == b"\x00\x00":
                yield _state(key[4:].decode(), _Bytes(records.take(size)), batch.time_ms)
            records.at = end


def _state(transactional_id: str, value: _Bytes, time_ms: int) -> State:
    version = value.number(">h")
    flexible = version > 0
    producer_id = value.number(">q")
    value.take(6)  # epoch, time-out
    status = value.number(">b")
    partitions: list[str] = []
    for _ in range(_count(value, flexible)):
        size = value.uvarint() - 1 if flexible else value.number(">h")
        topic = value.take(size).decode()
        partitions += [f"{topic}-{value.number('>i')}" for _ in range(_count(value, flexible))]
        if flexible:
            value.uvarint()  # no tagged fields
    return State(transactional_id, producer_id, status, tuple(partitions), time_ms, version)


def _count(value: _Bytes, flexible: bool) -> int:
    return max(0, value.uvarint() - 1 if flexible else value.number(">i"))


def markers(directory: Path) -> dict[tuple[int, int], list[int]]:
    """When markers were written into a partition, by producer and kind."""
    out: dict[tuple[int, int], list[int]] = defaultdict(list)
    for batch in batches(directory):
        if batch.attributes & _CONTROL and batch.attributes & _TRANSACTIONAL:
            record = _Bytes(batch.records)
            record.record_end()
            key = record.key()
            out[batch.producer_id, struct.unpack(">hh", key[:4])[1]].append(batch.time_ms)
    return out


def unfinished(data: Path, namespace: str) -> list[Missed]:
    """Of transactions under a namespace what the coordinator calls complete, and which partition has no marker of it.

    Args:
        data: the directory of a broker that leads everything.
    """
    out: list[Missed] = []
    prepared: dict[str, State] = {}
    seen: dict[str, dict[tuple[int, int], list[int]]] = {}
    for log in sorted(data.glob("__transaction_state-*")):
        for state in states(log):
            if not state.transactional_id.startswith(namespace):
                continue
            if state.status in _PREPARED:
                prepared[state.transactional_id] = state
                continue
            begun = prepared.pop(state.transactional_id, None)
            if begun is None or COMPLETED.get(state.status) != _PREPARED[begun.status]:
                continue
            for name in filter(
                lambda name: (data / name).is_dir(), begun.partitions
            ):  # a deleted topic has no markers
                if name not in seen:
                    seen[name] = markers(data / name)
                times = seen[name].get((state.producer_id, _PREPARED[begun.status]), [])
                if not any(begun.time_ms - SLACK_MS <= one <= state.time_ms + SLACK_MS for one in times):
                    kind = "commit" if _PREPARED[begun.status] == _COMMIT else "abort"
                    topic = name.rpartition("-")[0]
                    told = f"{name}: no {kind} of {state.transactional_id} between {begun.time_ms} and {state.time_ms}"
                    out.append(
                        Missed(topic, _lanes(begun.partitions if topic == POSITIONS else [name]), told)
                    )
    return out


def _lanes(partitions: Iterable[str]) -> frozenset[int]:
    split = (name.rpartition("-") for name in partitions)
    return frozenset(int(number) for topic, _, number in split if topic != POSITIONS)
