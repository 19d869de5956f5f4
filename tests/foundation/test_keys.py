"""Record keys: injective, in the order of their tuples, and nothing else is a key."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import InvalidValue, MalformedKey
from qmtl.foundation.wire.keys import (
    MAX_INTEGER,
    MAX_KEY_BYTES,
    Key,
    decode_key,
    encode_key,
    is_marker,
    is_reserved,
    is_stamp,
    key_prefix,
    marker_key,
    partition_for,
    stamp_key,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6) | st.text("\0\x01\xffa|:", max_size=5)
INTEGERS = st.integers(-MAX_INTEGER, MAX_INTEGER) | st.integers(-300, 300)
KEYS: st.SearchStrategy[Key] = st.lists(TEXTS | INTEGERS, max_size=4).map(tuple)


def rank(key: Key) -> list[tuple[int, Any]]:
    """The order that keys must have: part by part, text before integers, text by code points."""
    return [(0, [*map(ord, part)]) if isinstance(part, str) else (1, part) for part in key]


@given(KEYS)
def test_a_key_decodes_to_its_parts(key: Key) -> None:
    assert decode_key(encode_key(key)) == key


@given(KEYS, KEYS)
@example(("a",), ("a\0",))
@example(("a", "b"), ("a\0", "b"))
@example(("a\0\xff",), ("a", "\xff"))
@example((-1,), (-256,))
def test_keys_sort_as_their_tuples_do_and_no_two_share_bytes(left: Key, right: Key) -> None:
    assert (encode_key(left) < encode_key(right)) == (rank(left) < rank(right))
    assert (encode_key(left) == encode_key(right)) == (left == right)


@given(KEYS, KEYS)
@example(("a",), ("a\0b",))
@example(("a",), ("ab",))
@example((1,), (256,))
def test_a_prefix_is_shared_by_exactly_the_keys_that_begin_with_its_parts(parts: Key, key: Key) -> None:
    assert encode_key(key).startswith(key_prefix(parts)) == (key[: len(parts)] == parts)
    assert encode_key(parts + key).startswith(key_prefix(parts))


@given(
    st.binary(max_size=24)
    | st.lists(st.sampled_from(b"\0\x01\x02\x0c\x13\x14\x15\x1c\xffa"), max_size=12).map(bytes)
)
def test_bytes_are_a_key_only_if_they_are_written_so(data: bytes) -> None:
    try:
        parts = decode_key(data)
    except MalformedKey:
        return
    assert encode_key(parts) == data


@given(KEYS, st.data())
def test_a_damaged_key_is_refused_or_is_another_key(key: Key, data: st.DataObject) -> None:
    whole = bytearray(encode_key(("damaged", *key)))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        parts = decode_key(bytes(whole))
    except MalformedKey:
        return
    assert encode_key(parts) == whole
    assert parts != ("damaged", *key)


@pytest.mark.parametrize(
    "data",
    [
        b"\x02a",  # no end
        b"\x02a\x00",
        b"\x02a\x00\x02",
        b"\x02\xc3\x00\x01",  # half a character
        b"\x02\xed\xa0\x80\x00\x01",  # a surrogate
        b"\x02\xc1\xa1\x00\x01",  # an overlong "a"
        b"\x15\x00",  # a zero written as a number of one byte
        b"\x16\x00\x01",
        b"\x13\xff",
        b"\x16\x01",  # too short
        b"\x1d\x01\x01",
        b"\x00",
        b"\x00m",
        b"\xff",
        b"\x14" * (MAX_KEY_BYTES + 1),
    ],
)
def test_what_no_tuple_gives_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedKey):
        decode_key(data)


@pytest.mark.parametrize(
    "parts",
    [
        (True,),
        (1.0,),
        (None,),
        (b"a",),
        ("\ud800",),
        (MAX_INTEGER + 1,),
        (-MAX_INTEGER - 1,),
        ("a" * MAX_KEY_BYTES,),
    ],
)
def test_what_has_no_place_in_a_key_is_refused(parts: Any) -> None:
    with pytest.raises(InvalidValue):
        encode_key(parts)


def test_parts_follow_the_foundationdb_tuple_layer() -> None:
    """The test cases of apple/foundationdb, design/tuple.md; text has the end 00 01 in place of 00."""
    assert encode_key((-5551212,)) == b"\x11\xabK\x93"
    assert encode_key((-1,)) == b"\x13\xfe"
    assert encode_key((0,)) == b"\x14"
    assert encode_key(("F\u00d4O\u0000bar",)) == b"\x02F\xc3\x94O\x00\xffbar\x00" + b"\x01"


@given(KEYS, st.text("ab\0", max_size=4), st.integers(0, 9), st.integers(0, 2**41))
def test_reserved_keys_are_told_apart_from_every_other_key(
    key: Key, name: str, number: int, bucket_ms: int
) -> None:
    marker, stamp = marker_key(name, number, bucket_ms), stamp_key(name, number)
    assert [is_reserved(marker), is_marker(marker), is_stamp(marker)] == [True, True, False]
    assert [is_reserved(stamp), is_marker(stamp), is_stamp(stamp)] == [True, False, True]
    assert not is_reserved(encode_key(key))


def test_different_markers_have_different_keys() -> None:
    keys = [
        marker_key(name, task, ms)
        for name in ("a", "ab", "")
        for task in (0, 1, 11)
        for ms in (0, 1, 3_600_000)
    ]
    assert len({*keys, *(stamp_key(name, task) for name in ("a", "ab", "") for task in (0, 1, 11))}) == 36


def test_the_partition_is_that_of_librdkafka_s_consistent_partitioner() -> None:
    """CRC-32's check value, 0xCBF43926 for "123456789" (Williams, "A Painless Guide to CRC Error Detection Algorithms")."""
    assert partition_for(b"123456789", 1) == 0
    assert partition_for(b"123456789", 2**32) == 0xCBF43926
    assert partition_for(b"123456789", 12) == 0xCBF43926 % 12
