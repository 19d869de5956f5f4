"""One hash per topic over what it says, and nothing over where in a log it says it: equal runs have equal digests.

A table's digest is over its newest values, a stream's over each key's values in their order; of a node's topic, whose keys never
come again, over each partition's records in theirs. Offsets, partitions, timestamps, the split into transactions, position stamps
and every field that holds places in a log (`COORDINATE`) stay out, so a replay on another log, on other machines and with other
batches gives the same text, and any other value gives another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from functools import cache
from typing import Any, Final

from blake3 import blake3

from qmtl.engine.log.port import Log, Record
from qmtl.engine.view import all_partitions
from qmtl.foundation.common.errors import InvalidValue, UnknownTopic, WireError
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_stamp, is_text_key
from qmtl.foundation.wire.shape import Record as RecordShape
from qmtl.foundation.wire.shape import parts_of, shape_of
from qmtl.foundation.wire.topics import topic
from qmtl.replay.span import known_topics, read_spans, spans_of

DIGEST_BYTES: Final = 16
_TABLE: Final = b"qmtl digest 1 table\x00"
_STREAM: Final = b"qmtl digest 1 stream\x00"
_NOTHING: Final = bytes(32)
"""What a key's chain starts from."""

_HEADER_BYTES: Final = 10
"""Avro's single-object header, which names the schema."""

_WITH_COORDINATES: dict[type, bool] = {}


def digests(log: Log, codec: Codec, topics: Sequence[str] | None = None) -> dict[str, str]:
    """The digest of each topic, names sorted, as `blake3:` and 32 hex characters.

    What is committed at the call is read, the same cut for all topics. Memory is 32 bytes and the key per key of one topic, but of
    text keys, of which there are as many as records.

    Args:
        topics: None for all of the catalogue's topics and all topics of nodes that the log has.

    Raises:
        UnknownTopic: the log has no such topic.
    """
    names = sorted(known_topics(log, codec)) if topics is None else sorted(set(topics))
    places = {name: all_partitions(log, name) for name in names}
    cut = spans_of(log, [where for wheres in places.values() for where in wheres])
    values = _Values(codec)
    out = {}
    for name in names:
        records = read_spans(log, {where: cut[where] for where in places[name]})
        out[name] = _table(records, values) if _compacted(log, name) else _stream(records, values)
    return out


def _compacted(log: Log, name: str) -> bool:
    try:
        return topic(name).compacted
    except UnknownTopic:
        found = log.describe(name)
        return found is not None and "compact" in found.config.get("cleanup.policy", "")


def _table(records: Iterable[Record], values: _Values) -> str:
    """Over the newest value of each key; a key whose newest is a tombstone is not there."""
    newest: dict[tuple[bytes, int], bytes] = {}
    for record in records:
        if is_stamp(record.key):
            continue
        if record.value is None:
            newest.pop((record.key, record.partition), None)
        else:
            newest[record.key, record.partition] = blake3(values.of(record.value)).digest()
    return _sealed(_TABLE, newest)


def _stream(records: Iterable[Record], values: _Values) -> str:
    """Over the sequence of values of each key.

    A chain of hashes stands for the sequence: every link has the fixed-size link before it in front of it, a tombstone is one
    byte where a value is one byte and itself, so that no two sequences have the same bytes under any link. Text keys name a record
    each and never come again: a partition's have one chain, in which they stand before their values.
    """
    chains: dict[tuple[bytes, int], bytes] = {}
    for record in records:
        if is_stamp(record.key):
            continue
        body = b"\x00" if record.value is None else b"\x01" + values.of(record.value)
        key = record.key
        if is_text_key(key):
            key, body = b"", len(key).to_bytes(8, "big") + key + body
        before = chains.get((key, record.partition), _NOTHING)
        chains[key, record.partition] = blake3(before + body).digest()
    return _sealed(_STREAM, chains)


def _sealed(kind: bytes, found: dict[tuple[bytes, int], bytes]) -> str:
    """The digest over keys and their hashes.

    A key may lie in several partitions (a task marks all of a topic's partitions with one key). Their hashes follow in their own
    order then, for the number of the partition is a coordinate.
    """
    whole = blake3(kind)
    for key, value in sorted((key, value) for (key, _), value in found.items()):
        whole.update(len(key).to_bytes(8, "big") + key + value)
    return "blake3:" + whole.hexdigest(DIGEST_BYTES)


class _Values:
    """The bytes of values without coordinates; only values of types that have any are decoded for it."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._as_written: dict[bytes, bool] = {}

    def of(self, value: bytes) -> bytes:
        header = value[:_HEADER_BYTES]
        if self._as_written.get(header):
            return value
        try:
            message = self._codec.decode(value)
        except WireError:
            return value  # nobody can say what it means, so it is what it is
        self._as_written[header] = not _has_coordinates(type(message))
        return value if self._as_written[header] else self._codec.encode(blanked(message))


def blanked(message: Any) -> Any:
    """The message with every field that holds places in a log at its default, at any depth.

    Raises:
        InvalidValue: such a field has no default.
    """
    if isinstance(message, tuple):
        return tuple(blanked(item) for item in message)
    if isinstance(message, dict):
        return {key: blanked(item) for key, item in message.items()}
    if not is_dataclass(message) or isinstance(message, type) or not _has_coordinates(type(message)):
        return message
    defaults, deep = _plan(type(message))
    return replace(message, **defaults, **{name: blanked(getattr(message, name)) for name in deep})


@cache
def _plan(message: type) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields that hold places, with their defaults, and those that have such fields inside."""
    shape = shape_of(message)
    assert isinstance(shape, RecordShape)
    inside = {
        one.name
        for one in shape.fields
        if any(
            isinstance(part, RecordShape) and _has_coordinates(part.message) for part in parts_of(one.shape)
        )
    }
    here = [one for one in fields(message) if one.metadata.get("coordinate")]
    names = {one.name for one in here}
    return {one.name: _default(one) for one in here}, tuple(sorted(inside - names))


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    if field.default is MISSING:
        raise InvalidValue(
            f"{field.name} holds places in a log but has no default.", "Give it one in the contracts."
        )
    return field.default


def _has_coordinates(message: type) -> bool:
    """Whether a message, or anything inside it, has a field that holds places in a log."""
    known = _WITH_COORDINATES.get(message)
    if known is None:
        records = (part.message for part in parts_of(shape_of(message)) if isinstance(part, RecordShape))
        known = any(one.metadata.get("coordinate") for record in records for one in fields(record))
        _WITH_COORDINATES[message] = known
    return known
