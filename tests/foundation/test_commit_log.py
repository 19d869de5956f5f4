"""The keys of node records: one text per node, bucket and window, whose prefix alone chooses the partition."""

from __future__ import annotations

import zlib
from dataclasses import replace
from decimal import Decimal

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.commit_log import (
    CommitKey,
    TextKey,
    commit_key,
    input_window_hash,
    parse_commit_key,
    partition_key,
)
from qmtl.foundation.common.errors import InvalidValue, MalformedKey
from qmtl.foundation.contracts.dag import TopicClass
from qmtl.foundation.contracts.node import NodeValue, PositionTarget
from qmtl.foundation.wire.keys import (
    Keys,
    decode_key,
    decode_text_key,
    encode_key,
    is_reserved,
    is_text_key,
    partition_for,
)
from qmtl.foundation.wire.topics import node_topic

NODE = "blake3:" + "0123456789abcdef" * 4
WINDOW = "00112233445566778899aabbccddeeff"
BUCKET_MS = 1_700_000_040_000

node_ids = (
    st.sampled_from([32, 64])
    .flatmap(lambda size: st.binary(min_size=size, max_size=size))
    .map(lambda digest: "blake3:" + digest.hex())
)
intervals = st.integers(1, 10**7)
seconds = st.integers(1, 10**11)
windows = st.binary(min_size=16, max_size=16).map(bytes.hex)
numbers = st.none() | st.floats(allow_nan=False)
contents = st.tuples(st.text(max_size=6), st.lists(numbers, max_size=3).map(tuple), st.binary(max_size=20))


def test_a_key_is_node_interval_bucket_and_window_in_seconds_as_text() -> None:
    value = NodeValue(NODE, "BTC-USD", BUCKET_MS, 1.5, 60, WINDOW)
    target = PositionTarget(NODE, "BTC-USD", BUCKET_MS, Decimal(1), Decimal(2), 60, WINDOW)
    spec = node_topic("t", TopicClass.INDICATOR)
    for message in (value, target):
        assert encode_key(spec.key_of(message)) == f"{NODE}:60:1700000040:{WINDOW}".encode()
        assert encode_key(spec.task_key_of(message)) == f"{NODE}:60:1700000040".encode()


@given(node_ids, intervals, seconds, windows)
def test_a_key_gives_its_parts_back_and_begins_with_what_chooses_the_partition(
    node_id: str, interval: int, bucket_ts: int, window: str
) -> None:
    key = commit_key(node_id, interval, bucket_ts * 1000, window)
    raw = encode_key(key)
    assert raw == key.encode() == Keys()[key]
    assert parse_commit_key(raw) == CommitKey(node_id, interval, bucket_ts, window)
    assert key == f"{partition_key(node_id, interval, bucket_ts * 1000)}:{window}"


@given(node_ids, intervals, seconds, windows, windows, st.text(max_size=5), st.integers(1, 50))
def test_the_partition_follows_from_node_interval_and_bucket_alone(
    node_id: str, interval: int, bucket_ts: int, one: str, other: str, symbol: str, partitions: int
) -> None:
    """Whoever has CRC-32 finds it, as librdkafka's `consistent` partitioner does with the prefix for a key."""
    spec = node_topic("t", TopicClass.INDICATOR, partitions)
    first = NodeValue(node_id, "BTC-USD", bucket_ts * 1000, 1.0, interval, one)
    again = replace(first, symbol=symbol, value=2.0, input_window_hash=other)
    prefix = f"{node_id}:{interval}:{bucket_ts}".encode()
    assert spec.partition_of(first) == spec.partition_of(again) == zlib.crc32(prefix) % partitions
    chosen = encode_key(spec.task_key_of(again))  # as a transaction chooses it
    assert partition_for(chosen, partitions) == spec.partition_of(first)


@pytest.mark.parametrize(
    "node_id, interval, bucket_ms, window",
    [
        (NODE[:-1], 60, BUCKET_MS, WINDOW),
        (NODE.upper(), 60, BUCKET_MS, WINDOW),
        (f"{NODE}:60", 60, BUCKET_MS, WINDOW),
        (f"{NODE}\n", 60, BUCKET_MS, WINDOW),
        ("n", 60, BUCKET_MS, WINDOW),
        ("", 60, BUCKET_MS, WINDOW),
        (NODE, 0, BUCKET_MS, WINDOW),
        (NODE, -60, BUCKET_MS, WINDOW),
        (NODE, 60, 0, WINDOW),
        (NODE, 60, BUCKET_MS + 1, WINDOW),
        (NODE, 60, -BUCKET_MS, WINDOW),
        (NODE, 60, BUCKET_MS, ""),
        (NODE, 60, BUCKET_MS, WINDOW[:-1]),
        (NODE, 60, BUCKET_MS, WINDOW.upper()),
        (NODE, 60, BUCKET_MS, f"{WINDOW}:{WINDOW}"),
    ],
)
def test_nothing_else_gets_a_key(node_id: str, interval: int, bucket_ms: int, window: str) -> None:
    with pytest.raises(InvalidValue, match="QMTL-101"):
        _ = NodeValue(node_id, "X", bucket_ms, 1.0, interval, window).commit_key


@given(st.text(max_size=8), st.text(max_size=8))
def test_what_stands_around_or_in_a_key_makes_it_none(before: str, behind: str) -> None:
    key = commit_key(NODE, 60, BUCKET_MS, WINDOW)
    for raw in (before + key + behind, before + key[1:] + behind, key[:40] + behind + key[41:]):
        if raw != key and not (raw[40:41] == behind and behind in "0123456789abcdef"):
            with pytest.raises(MalformedKey):
                parse_commit_key(raw.encode())
    for number in ("060", "+60", "６0", "1_0"):
        with pytest.raises(MalformedKey):
            parse_commit_key(key.replace(":60:", f":{number}:").encode())
    with pytest.raises(MalformedKey):
        parse_commit_key(b"\xff" + key.encode())


# ---- texts among the keys of the log ---------------------------------------------------------------------------------


@given(st.text(max_size=8), st.lists(st.text(max_size=4) | st.integers(-(2**64) + 1, 2**64 - 1), max_size=3))
def test_a_text_is_never_the_key_of_a_tuple_nor_a_reserved_one(text: str, parts: list[str | int]) -> None:
    made = encode_key(tuple(parts))
    assert not is_text_key(made)
    try:
        raw = encode_key(TextKey(text))
    except InvalidValue:
        assert text[:1] < " "
        return
    assert is_text_key(raw)
    assert not is_reserved(raw)
    assert decode_text_key(raw) == text
    with pytest.raises(MalformedKey):
        decode_key(raw)
    with pytest.raises(MalformedKey):
        decode_text_key(made)


def test_a_table_of_keys_takes_a_text_for_no_tuple_and_keeps_none() -> None:
    keys = Keys()
    assert keys[("abc",)] == b"\x02abc\x00\x01"
    assert keys[TextKey("abc")] == b"abc"
    assert list(keys) == [("abc",)]


@pytest.mark.parametrize("text", ["", "\x00m", "\x1f", "\ud800", "x" * 4097])
def test_a_text_that_could_be_something_else_is_no_key(text: str) -> None:
    with pytest.raises(InvalidValue):
        encode_key(TextKey(text))


# ---- windows ------------------------------------------------------------------------------------------------------------


def test_the_hash_is_over_lengths_and_contents() -> None:
    """Written out by hand; the hash itself is held to its published vectors in another file."""
    content = (
        b"\x00\x00\x00\x00\x00\x00\x00\x07BTC-USD"
        b"\x00\x00\x00\x00\x00\x00\x00\x02\x01\x3f\xf8\x00\x00\x00\x00\x00\x00\x00"
        b"\x00\x00\x00\x00\x00\x00\x00\x03abc"
    )
    found = input_window_hash("BTC-USD", (1.5, None), b"abc")
    assert found == blake3(content, derive_key_context="qmtl input window v1").hexdigest()[:32]
    assert found == "0b77bfa001d4d301fd3b42c0b1ffcbe7"


@given(contents, contents)
def test_equal_windows_have_one_hash_and_different_ones_two(
    one: tuple[str, tuple[float | None, ...], bytes], other: tuple[str, tuple[float | None, ...], bytes]
) -> None:
    hashes = [input_window_hash(*content) for content in (one, other, one)]
    assert hashes[0] == hashes[2]
    assert (hashes[0] == hashes[1]) is (one == other)


@pytest.mark.parametrize(
    "one, other",
    [
        (("A", (), b""), ("B", (), b"")),
        (("A", (None,), b""), ("A", (), b"")),
        (("A", (None, 1.0), b""), ("A", (1.0, None), b"")),
        (("A", (0.0,), b""), ("A", (None,), b"")),
        (("A", (1.0,), b""), ("A", (1.0000000000000002,), b"")),
        (("A", (), b"B"), ("AB", (), b"")),
        (("A\x00", (), b""), ("A", (), b"\x00")),
        (("A", (), b"12"), ("A", (), b"1")),
    ],
)
def test_windows_that_are_alike_are_told_apart(
    one: tuple[str, tuple[float | None, ...], bytes], other: tuple[str, tuple[float | None, ...], bytes]
) -> None:
    assert input_window_hash(*one) != input_window_hash(*other)


def test_equal_numbers_are_one_whatever_their_sign_of_zero() -> None:
    assert input_window_hash("A", (-0.0,), b"") == input_window_hash("A", (0.0,), b"")
