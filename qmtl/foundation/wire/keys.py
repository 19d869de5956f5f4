"""Record keys: tuples of text and integers as bytes that sort as the tuples do and that no two tuples share.

The form follows the FoundationDB tuple layer (apple/foundationdb, design/tuple.md): text is 02 and UTF-8, an integer is a code
that tells its sign and length, then its big-endian magnitude, complemented where negative. One thing differs: text ends in 00 01
and not in 00 (a NUL inside is 00 FF in both), as in CockroachDB's key encoding. No part is then a prefix of another part, which
makes `key_prefix` exact: under a plain 00, `("a",)` would also be a prefix of `("a\\0b",)`.
Text sorts before integers, text by code points.

A key may also be a plain text (`TextKey`), where its form is somebody else's rule: then its bytes are its UTF-8. It begins with a
character from the space on, which no tuple does, so the two can be told apart.

Keys that begin with 00 are reserved for the engine: close markers and position stamps. Neither a tuple nor a text begins so.
"""

from __future__ import annotations

import zlib
from typing import TypeAlias

from qmtl.foundation.common.commit_log import TextKey
from qmtl.foundation.common.errors import InvalidValue, MalformedKey

MAX_KEY_BYTES = 4096
MAX_INTEGER = 2**64 - 1
"""The largest magnitude of an integer part."""

Key: TypeAlias = tuple[str | int, ...]
RecordKey: TypeAlias = Key | TextKey
"""Of the records of any topic; those of a table are tuples."""

_TEXT = 0x02
_ZERO = 0x14
_END = b"\x00\x01"
_NUL = b"\x00\xff"
_MARKER = b"\x00m"
_STAMP = b"\x00s"


def encode_key(parts: RecordKey) -> bytes:
    """The bytes of a key: parts are text or integers of at most `MAX_INTEGER`; no parts give no bytes. Of a text, its UTF-8.

    Raises:
        InvalidValue: another type (a truth value too), a lone surrogate, too large a number, too long a key; a text key that is
            empty or begins with a control character.
    """
    if isinstance(parts, TextKey):
        out = _whole(parts)
    else:
        out = b"".join([_text(part) if type(part) is str else _integer(part) for part in parts])
    if len(out) > MAX_KEY_BYTES:
        raise InvalidValue(
            f"a key had {len(out)} bytes; at most {MAX_KEY_BYTES} are allowed.", "Shorten its parts."
        )
    return out


class Keys(dict[RecordKey, bytes]):
    """`keys[parts]` is `encode_key(parts)`, of which some are remembered: the keys of a table come again and again. Text keys do not.

    Raises:
        InvalidValue: as `encode_key`.
    """

    LIMIT = 1 << 15

    def __missing__(self, parts: RecordKey) -> bytes:
        if isinstance(parts, TextKey):
            return encode_key(parts)
        if len(self) >= self.LIMIT:
            self.clear()
        made = self[parts] = encode_key(parts)
        return made


def key_prefix(parts: Key) -> bytes:
    """The bytes with which exactly the keys begin whose first parts are these; no parts, every key.

    Raises:
        InvalidValue: as `encode_key`.
    """
    return encode_key(parts)


def decode_key(key: bytes) -> Key:
    """The parts of a tuple key.

    Raises:
        MalformedKey: bytes that `encode_key` does not write for a tuple, reserved keys among them.
    """
    if len(key) > MAX_KEY_BYTES:
        raise MalformedKey(f"a key had {len(key)} bytes; at most {MAX_KEY_BYTES} are allowed.")
    parts: list[str | int] = []
    at = 0
    while at < len(key):
        if key[at] == _TEXT:
            part, at = _read_text(key, at + 1)
            parts.append(part)
        elif 0x0C <= key[at] <= 0x1C:
            size = abs(key[at] - _ZERO)
            number = int.from_bytes(key[at + 1 : at + 1 + size], "big")
            parts.append(number if key[at] >= _ZERO else number - (1 << 8 * size) + 1)
            at += 1 + size
        else:
            raise MalformedKey(f"a key had the byte {key[at]:#04x} at {at}, which begins no part.")
    out = tuple(parts)
    if encode_key(out) != key:
        raise MalformedKey("a key did not encode back to itself.")
    return out


def decode_text_key(key: bytes) -> TextKey:
    """The text of a text key.

    Raises:
        MalformedKey: bytes that `encode_key` does not write for a text.
    """
    try:
        if is_text_key(key) and len(key) <= MAX_KEY_BYTES:
            return TextKey(key.decode())
    except UnicodeDecodeError:
        pass
    raise MalformedKey(f"a key of {len(key)} bytes was no text.")


def marker_key(processor: str, task: int, bucket_ms: int) -> bytes:
    """The reserved key of the marker with which a task closes a bucket."""
    return _MARKER + encode_key((processor, task, bucket_ms))


def decode_marker_bucket(key: bytes) -> int:
    """The bucket of a marker's key.

    Raises:
        MalformedKey: not a marker's key.
    """
    parts = decode_key(key[len(_MARKER) :]) if is_marker(key) else ()
    if len(parts) != 3 or type(parts[2]) is not int:
        raise MalformedKey("a key of a close marker was expected.")
    return parts[2]


def stamp_key(processor: str, task: int) -> bytes:
    """The reserved key of the input positions that a task's rows contain."""
    return _STAMP + encode_key((processor, task))


def is_reserved(key: bytes) -> bool:
    """Whether the engine, not a processor, writes the key."""
    return key[:1] == b"\x00"


def is_text_key(key: bytes) -> bool:
    """Whether a key is a text and not a tuple, by its first byte."""
    return key[:1] >= b"\x20"


def is_marker(key: bytes) -> bool:
    return key[:2] == _MARKER


def is_stamp(key: bytes) -> bool:
    return key[:2] == _STAMP


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key: CRC-32 modulo the count, which is librdkafka's `consistent` partitioner (rdkafka_msg.c)."""
    return 0 if partitions == 1 else zlib.crc32(key) % partitions


def _whole(text: TextKey) -> bytes:
    raw = _utf8(text)
    if not is_text_key(raw):
        raise InvalidValue(
            f"a text key was {text!a:.80}; it has to begin with a character from the space on.",
            "Make it of parts, as a tuple.",
        )
    return raw


def _utf8(part: str) -> bytes:
    try:
        return part.encode()
    except UnicodeEncodeError:
        raise InvalidValue(
            "a key part was a text with a lone surrogate; only Unicode text is allowed."
        ) from None


def _text(part: str) -> bytes:
    raw = _utf8(part)
    if b"\x00" in raw:
        raw = raw.replace(b"\x00", _NUL)
    return b"\x02" + raw + _END


def _integer(part: str | int) -> bytes:
    if type(part) is not int:
        raise InvalidValue(
            f"a key part was of type {type(part).__name__}; only text and integers are allowed."
        )
    if part == 0:
        return b"\x14"
    if abs(part) > MAX_INTEGER:
        raise InvalidValue(f"a key part was {part}; its magnitude must be below 2**64.")
    size = (part.bit_length() + 7) // 8
    if part > 0:
        return bytes((_ZERO + size,)) + part.to_bytes(size, "big")
    return bytes((_ZERO - size,)) + (part + (1 << 8 * size) - 1).to_bytes(size, "big")


def _read_text(key: bytes, start: int) -> tuple[str, int]:
    end = key.find(b"\x00", start)
    while end >= 0 and key[end + 1 : end + 2] == b"\xff":
        end = key.find(b"\x00", end + 2)
    if end < 0 or key[end : end + 2] != _END:
        raise MalformedKey(f"a key had a text at {start} that does not end.")
    try:
        return key[start:end].replace(_NUL, b"\x00").decode(), end + 2
    except UnicodeDecodeError:
        raise MalformedKey(f"a key had a text at {start} that is not UTF-8.") from None
