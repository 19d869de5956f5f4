"""A record of the log as people and programs are shown it; what can't be decoded is shown as it is, with the reason's code."""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from qmtl.engine.log.port import Positions, Record
from qmtl.foundation.common.commit_log import parse_commit_key
from qmtl.foundation.common.errors import MalformedKey, QmtlError
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.json_view import to_json
from qmtl.foundation.wire.keys import decode_key, is_marker, is_reserved, is_stamp, is_text_key
from qmtl.interfaces.cli import render

RESERVED_BYTES: Final = 2
"""What stands before the parts of a reserved key."""


def record_json(record: Record, codec: Codec) -> dict[str, Any]:
    """One record.

    Returns:
        topic, partition, offset, timestamp_ms; kind (record, marker, stamp); key, the list of its parts, or its text where it is a node's; type, the name of the
        message; value, its JSON. A tombstone has neither type nor value. Bytes that don't decode are base64 text: of the key
        as `{"base64": …}`, of the value as the value, beside `error`, the code of the reason.
    """
    out: dict[str, Any] = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "kind": kind_of(record.key),
        "key": key_json(record.key),
    }
    out.update(value_json(record.value, codec))
    return out


def kind_of(key: bytes) -> str:
    """Whether a record is data, a close marker, or a position stamp."""
    return "marker" if is_marker(key) else "stamp" if is_stamp(key) else "record"


def key_json(key: bytes) -> Any:
    """The parts of a key, those of a reserved key too; of a node's value, its text."""
    try:
        if is_text_key(key):
            parse_commit_key(key)  # another text is somebody else's, and may hold anything
            return key.decode()
        return list(decode_key(key[RESERVED_BYTES:] if is_reserved(key) else key))
    except MalformedKey:
        return {"base64": base64.b64encode(key).decode()}


def value_json(value: bytes | None, codec: Codec) -> dict[str, Any]:
    """Type and value of a value, and the error's code where it doesn't decode."""
    if value is None:
        return {"type": None, "value": None}
    try:
        message = codec.decode(value)
        return {"type": type(message).__name__, "value": to_json(message)}
    except QmtlError as problem:
        return {"type": None, "value": base64.b64encode(value).decode(), "error": problem.code}


def key_text(key: Any) -> str:
    """The parts of a key in one cell; quoted where nobody could see where a part begins and ends."""
    if isinstance(key, str):
        return key
    return " ".join(_part(part) for part in key) if isinstance(key, list) else render.json_text(key)


def _part(part: str | int) -> str:
    text = str(part)
    return json.dumps(text, ensure_ascii=False) if not text or " " in text or '"' in text else text


def type_text(shown: dict[str, Any]) -> str:
    """The message's name, `tombstone`, or the code of the reason why there is no name."""
    return str(shown["type"] or shown.get("error") or "tombstone")


def value_text(shown: dict[str, Any]) -> str:
    """The value in one cell."""
    value = shown["value"]
    return "" if value is None else value if isinstance(value, str) else render.json_text(value)


def position_text(positions: Positions) -> str:
    """`topic[partition]@offset` of every partition, in order."""
    return " ".join(
        f"{where.topic}[{where.partition}]@{offset}" for where, offset in sorted(positions.items())
    )
