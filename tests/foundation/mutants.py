"""Damaged records: what a bad disk, a bad network and a bad neighbour make of good bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from qmtl.foundation.common.errors import InvalidValue, MalformedValue, TooLarge, UnknownSchema
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.shape import shape_of
from tests.foundation.instances import sample

HEADER = 10
# Counts and lengths that no record of this size has: large, negative, longer than 64 bits, with needless zeros.
BOMBS = [
    b"\xff\xff\xff\xff\x0f",
    b"\xff" * 9 + b"\x01",
    b"\xfe" + b"\xff" * 8 + b"\x01",
    b"\xff" * 12,
    b"\x80\x00",
    b"\x01",
]


def corpus(codec: Codec, messages: Sequence[type], each: int, chance: random.Random) -> list[bytes]:
    """Valid records of every message."""
    return [codec.encode(sample(shape_of(message), chance)) for message in messages for _ in range(each)]


def mutant(good: Sequence[bytes], chance: random.Random) -> bytes:
    """A record, damaged in one of the ways of `WAYS`."""
    return chance.choice(WAYS)(bytearray(chance.choice(good)), good, chance)


def accepted(codec: Codec, data: bytes) -> bool:
    """Whether the codec takes the bytes; whatever it takes it must write in the same way, and all else it must refuse."""
    try:
        message = codec.decode(data)
    except (MalformedValue, UnknownSchema, TooLarge):
        return False
    try:
        again = codec.encode(message)
    except InvalidValue as error:
        raise AssertionError(f"decoded from {data.hex()} and refused: {error}") from error
    assert again == data, data.hex()
    return True


def _flips(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    for _ in range(chance.randint(1, 4)):
        data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return bytes(data)


def _byte(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    data[_place(data, chance)] = chance.randrange(256)
    return bytes(data)


def _cut(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    return bytes(data[: chance.randrange(len(data))])


def _tail(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    return bytes(data) + chance.randbytes(chance.randint(1, 4))


def _noise(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    return bytes(data[:HEADER]) + chance.randbytes(chance.randrange(64))


def _bomb(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    at = _place(data, chance)
    return bytes(data[:at]) + chance.choice(BOMBS) + bytes(data[at + chance.randrange(2) :])


def _splice(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(good)
    return bytes(data[: _place(data, chance)]) + other[chance.randrange(len(other)) :]


def _wrong_schema(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    return chance.choice(good)[:HEADER] + bytes(data[HEADER:])


def _repeat(data: bytearray, good: Sequence[bytes], chance: random.Random) -> bytes:
    start = _place(data, chance)
    end = chance.randrange(start, len(data)) + 1
    return bytes(data[:end]) + bytes(data[start:])


def _place(data: bytearray, chance: random.Random) -> int:
    """Mostly in the body: a damaged header is refused before anything is read."""
    low = HEADER if len(data) > HEADER and chance.random() < 0.97 else 0
    return chance.randrange(low, len(data))


WAYS: list[Callable[[bytearray, Sequence[bytes], random.Random], bytes]] = [
    _flips, _byte, _cut, _tail, _noise, _bomb, _splice, _wrong_schema, _repeat,
]  # fmt: skip
