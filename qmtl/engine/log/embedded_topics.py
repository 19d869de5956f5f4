"""The topics of the embedded log as rows of its database: how one is listed, what it is known by, and what goes with it."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from blake3 import blake3
from rocksdict import WriteBatch

from qmtl.engine.log.port import TopicDescription, TopicPartition

NUMBERS: Final = b"mnumbers"
"""Under which the highest number is kept that a topic had which was deleted: no later one gets it, so each is another incarnation."""

_NUMBER: Final = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class EmbeddedTopic:
    """A topic of one log.

    Attributes:
        number: what its records lie under.
        id: of this incarnation.
    """

    name: str
    number: int
    partitions: int
    config: dict[str, str]
    id: str

    def describe(self) -> TopicDescription:
        """What the log says of it: there is one replica, the log itself."""
        return TopicDescription(self.name, self.partitions, 1, dict(self.config))


def make(log_id: str, number: int, wanted: TopicDescription) -> EmbeddedTopic:
    """A topic with a number that no other one of this log has had."""
    ident = _identity_of(log_id, wanted.name, number)
    return EmbeddedTopic(wanted.name, number, wanted.partitions, dict(wanted.config), ident)


def read(log_id: str, key: bytes, value: bytes) -> EmbeddedTopic:
    """A topic as it is listed."""
    row, name = json.loads(value), key[1:].decode()
    ident = row.get("id") or _identity_of(log_id, name, row["number"])
    return EmbeddedTopic(name, row["number"], row["partitions"], row["config"], ident)


def enter(batch: WriteBatch, topic: EmbeddedTopic) -> None:
    """List a topic."""
    row = {
        "number": topic.number,
        "partitions": topic.partitions,
        "config": topic.config,
        "id": topic.id,
    }
    batch.put(b"t" + topic.name.encode(), json.dumps(row, sort_keys=True).encode())


def strike(batch: WriteBatch, topic: EmbeddedTopic, positions: Iterable[bytes]) -> None:
    """Take a topic off the list, with its records and offsets.

    Args:
        positions: the keys of all that groups have committed, of whatever topic.
    """
    batch.delete(b"t" + topic.name.encode())
    for kind in (b"b", b"e", b"r"):
        batch.delete_range(kind + _NUMBER.pack(topic.number), kind + _NUMBER.pack(topic.number + 1))
    for key in positions:
        if key.rsplit(b"\0", 2)[-2] == topic.name.encode():
            batch.delete(key)


def position_key(group: str, where: TopicPartition) -> bytes:
    """Under which a committed position lies."""
    return b"g" + b"\0".join((group.encode(), where.topic.encode(), str(where.partition).encode()))


def _identity_of(log_id: str, name: str, number: int) -> str:
    """No two topics share it, in whatever logs they are."""
    return blake3(f"{log_id}\0{name}\0{number}".encode()).hexdigest(16)
