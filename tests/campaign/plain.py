"""The wire as a stranger writes it: keys, Avro values and digests out of their description, without a line of QMTL.

Keys: text is 02, UTF-8, 00 01; a number is 14 plus its count of bytes, then the bytes, for numbers from 0 on. A key of the
engine begins with 00 6D (a close marker) or 00 73 (a position stamp). Values: C3 01, CRC-64-AVRO of the schema, the body.
"""

from __future__ import annotations

import io
import json
import zlib
from pathlib import Path
from typing import Any, Final

import blake3
import fastavro

ROOT = Path(__file__).resolve().parents[2]
FOLDERS: Final = (ROOT / "schemas" / "avro", Path(__file__).resolve().parent / "schemas")
NAMES: Final = ("CloseMarker", "PositionStamp", "DeadLetter", "Item", "Row", "Echo", "Seen")


def _load(name: str) -> tuple[bytes, Any]:
    versions = [path for folder in FOLDERS for path in folder.glob(f"{name}.v*.avsc")]
    found = max(versions, key=lambda path: int(path.suffixes[0][2:]))
    schema = json.loads(found.read_text(encoding="utf-8"))
    form = fastavro.schema.to_parsing_canonical_form(schema)
    mark = bytes.fromhex(fastavro.schema.fingerprint(form, "CRC-64-AVRO"))
    return b"\xc3\x01" + mark, fastavro.parse_schema(schema)


SCHEMAS: Final = {name: _load(name) for name in NAMES}
_BY_HEADER: Final = {header: (name, schema) for name, (header, schema) in SCHEMAS.items()}


def encode(kind: str, fields: dict[str, Any]) -> bytes:
    header, schema = SCHEMAS[kind]
    out = io.BytesIO()
    fastavro.schemaless_writer(out, schema, fields)
    return header + out.getvalue()


def decode(data: bytes) -> tuple[str, dict[str, Any]]:
    """The kind of a value, and its fields."""
    kind, schema = _BY_HEADER[data[:10]]
    found: Any = fastavro.schemaless_reader(io.BytesIO(data[10:]), schema, None)
    return kind, found


def key(*parts: str | int) -> bytes:
    out = b""
    for part in parts:
        if isinstance(part, str):
            out += b"\x02" + part.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x01"
        else:
            size = (part.bit_length() + 7) // 8
            out += bytes([0x14 + size]) + part.to_bytes(size, "big")
    return out


def marker_key(processor: str, task: int, bucket_ms: int) -> bytes:
    return b"\x00m" + key(processor, task, bucket_ms)


def is_marker(raw: bytes) -> bool:
    return raw[:2] == b"\x00m"


def is_stamp(raw: bytes) -> bool:
    return raw[:2] == b"\x00s"


def partition_of(name: str, partitions: int) -> int:
    return zlib.crc32(key(name)) % partitions


def digest(records: list[tuple[bytes, bytes]]) -> str:
    """What a marker says of the records before it: BLAKE3, 16 hex digits, over their lengths and bytes."""
    if not records:
        return ""
    state = blake3.blake3()
    for raw, value in records:
        state.update(b"%d:1:%d:" % (len(raw), len(value)) + raw + value)
    return state.hexdigest(8)


def short_digest(value: bytes) -> str:
    """What a stamp says of an earlier one: BLAKE3, 16 hex digits, over its bytes."""
    return blake3.blake3(value).hexdigest(8)


def committed_position(raw: bytes, value: bytes | None) -> tuple[str, str, int, int] | None:
    """Group, topic, partition and position of a record of `__consumer_offsets`; None where it is of another kind.

    Kafka's OffsetCommitKey has the versions 0 and 1: two bytes, group and topic with their lengths before them, four bytes of
    partition. Its value begins with two bytes of version and eight of the position.
    """
    if value is None or int.from_bytes(raw[:2], "big") > 1:
        return None
    at, names = 2, []
    for _ in range(2):
        size = int.from_bytes(raw[at : at + 2], "big")
        names.append(raw[at + 2 : at + 2 + size].decode())
        at += 2 + size
    partition = int.from_bytes(raw[at : at + 4], "big")
    return names[0], names[1], partition, int.from_bytes(value[2:10], "big", signed=True)
