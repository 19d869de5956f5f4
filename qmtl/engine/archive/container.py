"""Records of one partition as an Avro object container file, the same bytes each time; any Avro reader reads it.

The records are as they lie on the log: keys and values are bytes, so that nothing depends on knowing their schemas.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3
from fastavro import parse_schema, reader, writer

from qmtl.engine.log.port import Record

SCHEMA: Final[dict[str, Any]] = {
    "type": "record",
    "name": "ArchivedRecord",
    "namespace": "qmtl",
    "doc": "One record of a topic as it lay on the log; a value of null is a tombstone.",
    "fields": [
        {"name": "partition", "type": "int"},
        {"name": "offset", "type": "long"},
        {"name": "timestamp_ms", "type": "long"},
        {"name": "key", "type": "bytes"},
        {"name": "value", "type": ["null", "bytes"]},
    ],
}
_PARSED: Final = parse_schema(SCHEMA)
_BLOCK_BYTES: Final = 1 << 17
_MARKER_BYTES: Final = 16
_HEAD: Final = struct.Struct(
    ">IQqI?I"
)  # partition, offset, timestamp ms, key length, has a value, value length
_DIGEST_OF_RECORDS: Final = b"qmtl archive 1 records\x00"
RECORD_BYTES: Final = _HEAD.size
"""What a record takes beside its key and its value, about."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much goes into one object; at least one record does.

    Attributes:
        size_bytes: of keys and values before they are compressed, with `RECORD_BYTES` for each record.
    """

    size_bytes: int = 8 << 20
    records: int = 50_000


def chunks(records: Iterable[Record], limits: Limits) -> Iterator[list[Record]]:
    """Records, given partition by partition in offset order, as objects hold them; how they were polled changes nothing."""
    chunk: list[Record] = []
    size = 0
    for record in records:
        weight = RECORD_BYTES + len(record.key) + len(record.value or b"")
        if chunk and (
            len(chunk) >= limits.records
            or size + weight > limits.size_bytes
            or record.partition != chunk[0].partition
        ):
            yield chunk
            chunk, size = [], 0
        chunk.append(record)
        size += weight
    if chunk:
        yield chunk


def digest_of_records(records: Iterable[Record]) -> str:
    """BLAKE3 over the records in their order, as 64 hex characters: over all that the log has of them but the topic's name."""
    digest = blake3(_DIGEST_OF_RECORDS)
    for one in records:
        value = one.value if one.value is not None else b""
        head = _HEAD.pack(
            one.partition, one.offset, one.timestamp_ms, len(one.key), one.value is not None, len(value)
        )
        digest.update(head + one.key + value)
    return digest.hexdigest()


def digest_of_bytes(data: bytes) -> str:
    """BLAKE3 of an object, as 64 hex characters."""
    return blake3(data).hexdigest()


def encode(records: Sequence[Record], topic_id: str, digest: str) -> bytes:
    """A container of records of one partition, at least one.

    Args:
        digest: of the records; the marker between blocks is a part of it, so that no record holds it but by chance.
    """
    out = io.BytesIO()
    first = records[0]
    writer(
        out,
        _PARSED,
        (
            {
                "partition": one.partition,
                "offset": one.offset,
                "timestamp_ms": one.timestamp_ms,
                "key": one.key,
                "value": one.value,
            }
            for one in records
        ),
        codec="deflate",
        sync_interval=_BLOCK_BYTES,
        sync_marker=bytes.fromhex(digest)[:_MARKER_BYTES],
        metadata={"qmtl.topic": first.topic, "qmtl.topic_id": topic_id, "qmtl.records": digest},
    )
    return out.getvalue()


def decode(data: bytes, topic: str) -> list[Record]:
    """The records of a container that is known to be one of `encode`, by its digest."""
    rows: Any = reader(io.BytesIO(data), reader_schema=_PARSED)
    return [
        Record(topic, row["partition"], row["offset"], row["key"], row["value"], row["timestamp_ms"])
        for row in rows
    ]
