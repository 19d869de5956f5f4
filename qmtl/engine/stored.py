"""What a store says of itself: which log and state it holds, what was known of the topics, how far a restore is; and its JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from qmtl.engine.log.port import TopicPartition
from qmtl.foundation.contracts.control import InputTopic

FORMAT: Final = 3
OTHER_FORMAT: Final = "another format"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a store contains.

    Attributes:
        log_id: the log that it was built from.
        tables: per table partition, the offset up to which its records are inside.
        positions: the input positions that belong to exactly that state.
        buckets: the last closed buckets of the task, oldest first.
        written_at_ms: when, by the log's clock; a store older than the tombstones' horizon is thrown away.
        topics: what the last transaction said of the topics of the positions.
        stamps: by table, the digest of the stamp with which it ends.
    """

    log_id: str
    tables: Mapping[TopicPartition, int] = field(default_factory=dict)
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    buckets: tuple[int, ...] = ()
    written_at_ms: int = 0
    topics: tuple[InputTopic, ...] = ()
    stamps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """What a task knew of a topic when it last opened it.

    Attributes:
        id: of the topic's incarnation.
        key: attribute paths of the record key; only of the task's own tables, and only once a restore has held them to it.
    """

    id: str
    partitions: int
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """An operator's decision to go on from what the log is now; true until the next transaction.

    Attributes:
        positions: where to go on reading, instead of where the tables say.
        committed: the positions of the group that were met and are overruled; -1 where there was none.
    """

    by: str
    reason: str
    positions: Mapping[TopicPartition, int]
    committed: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """How far a restore that has not ended yet has come in one table.

    Attributes:
        buckets: the last closed buckets met so far.
        stamp: the last position stamp met so far, as it lay in the log.
    """

    offset: int
    buckets: tuple[int, ...] = ()
    stamp: bytes | None = None


def _listed(offsets: Mapping[TopicPartition, int]) -> list[list[Any]]:
    return [[*where, offset] for where, offset in sorted(offsets.items())]


def _offsets(raw: Iterable[Any]) -> dict[TopicPartition, int]:
    return {TopicPartition(topic, partition): offset for topic, partition, offset in raw}


def unparse_checkpoint(checkpoint: Checkpoint) -> bytes:
    return json.dumps(
        {
            "format": FORMAT,
            "log_id": checkpoint.log_id,
            "tables": _listed(checkpoint.tables),
            "positions": _listed(checkpoint.positions),
            "buckets": list(checkpoint.buckets),
            "written_at_ms": checkpoint.written_at_ms,
            "topics": [
                [one.topic, one.id, one.read, one.every_ms, list(one.slept), list(one.cut_off)]
                for one in checkpoint.topics
            ],
            "stamps": dict(sorted(checkpoint.stamps.items())),
        }
    ).encode()


def parse_checkpoint(data: bytes) -> Checkpoint:
    """What a store of this format says that it contains; of another format, only that it is one.

    Raises:
        ValueError, KeyError, TypeError: it is damaged.
    """
    raw = json.loads(data)
    if raw["format"] != FORMAT:
        return Checkpoint(log_id=OTHER_FORMAT)
    return Checkpoint(
        raw["log_id"],
        _offsets(raw["tables"]),
        _offsets(raw["positions"]),
        tuple(raw["buckets"]),
        raw["written_at_ms"],
        tuple(_input_topic(*row) for row in raw["topics"]),
        dict(raw["stamps"]),
    )


def _input_topic(
    topic: str,
    ident: str,
    read: bool,
    every_ms: int = 0,
    slept: Iterable[int] = (),
    cut_off: Iterable[int] = (),
) -> InputTopic:
    return InputTopic(topic, ident, read, every_ms, tuple(slept), tuple(cut_off))


def unparse_topics(topics: Mapping[str, TopicFacts]) -> bytes:
    return json.dumps(
        [[name, one.id, one.partitions, one.key] for name, one in sorted(topics.items())]
    ).encode()


def parse_topics(data: bytes | None) -> dict[str, TopicFacts]:
    rows = [] if data is None else json.loads(data)
    return {name: TopicFacts(ident, partitions, tuple(key)) for name, ident, partitions, key in rows}


def unparse_accepted(one: Accepted) -> bytes:
    return json.dumps([one.by, one.reason, _listed(one.positions), _listed(one.committed)]).encode()


def parse_accepted(data: bytes | None) -> Accepted | None:
    if data is None:
        return None
    by, reason, positions, committed = json.loads(data)
    return Accepted(by, reason, _offsets(positions), _offsets(committed))


def unparse_reading(reading: Mapping[TopicPartition, Reading]) -> bytes:
    return json.dumps(
        [
            [*where, one.offset, one.buckets, None if one.stamp is None else one.stamp.hex()]
            for where, one in sorted(reading.items())
        ]
    ).encode()


def parse_reading(data: bytes | None) -> dict[TopicPartition, Reading]:
    rows = [] if data is None else json.loads(data)
    return {
        TopicPartition(topic, partition): Reading(
            offset, tuple(buckets), None if stamp is None else bytes.fromhex(stamp)
        )
        for topic, partition, offset, buckets, stamp in rows
    }
