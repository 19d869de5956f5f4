"""A container holds what a log can hold, and the digest of records tells any two of them apart."""

from __future__ import annotations

import io
import struct
from itertools import pairwise
from typing import Any, Final

from avro.datafile import DataFileReader
from avro.io import DatumReader
from blake3 import blake3
from hypothesis import assume, given
from hypothesis import strategies as st

from qmtl.engine.archive.container import Limits, chunks, decode, digest_of_records, encode
from qmtl.engine.log.port import Record

TOPIC: Final = "toys.archived"
_LONG: Final = 2**63 - 1
_BEGINS: Final = b"qmtl archive 1 records\x00"
_HEAD: Final = struct.Struct(">IQqI?I")

RECORDS: Final = st.builds(
    Record,
    st.just(TOPIC),
    st.integers(0, 2),
    st.integers(0, _LONG),
    st.binary(max_size=6),
    st.none() | st.binary(max_size=6),
    st.integers(-_LONG - 1, _LONG),
)
LISTS: Final = st.lists(RECORDS, max_size=5)


@given(LISTS, LISTS)
def test_other_records_have_another_digest(some: list[Record], others: list[Record]) -> None:
    assert (digest_of_records(some) == digest_of_records(others)) == (some == others)


@given(LISTS, RECORDS, RECORDS, st.integers(1, 5), LISTS)
def test_a_digest_is_over_every_field_of_every_record(
    before: list[Record], one: Record, other: Record, field: int, after: list[Record]
) -> None:
    name = Record._fields[field]
    changed = one._replace(**{name: getattr(other, name)})
    assume(changed != one)
    assert digest_of_records([*before, one, *after]) != digest_of_records([*before, changed, *after])


@given(LISTS, RECORDS, LISTS)
def test_a_tombstone_is_not_an_empty_value_and_a_key_does_not_run_into_its_value(
    before: list[Record], one: Record, after: list[Record]
) -> None:
    values: list[tuple[bytes, bytes | None]] = [(b"ab", None), (b"ab", b""), (b"a", b"b"), (b"", b"ab")]
    found = {
        digest_of_records([*before, one._replace(key=key, value=value), *after]) for key, value in values
    }
    assert len(found) == len(values)


def told_apart(records: list[Record]) -> bytes:
    """Records in bytes, of which nobody can make others."""
    out = _BEGINS
    for _, partition, offset, key, value, timestamp_ms in records:
        size = len(value or b"")
        out += _HEAD.pack(partition, offset, timestamp_ms, len(key), value is not None, size)
        out += key + (value or b"")
    return out


def made_again(data: bytes) -> list[Record]:
    out, rest = [], data.removeprefix(_BEGINS)
    while rest:
        partition, offset, timestamp_ms, key, has_value, value = _HEAD.unpack(rest[: _HEAD.size])
        text, rest = rest[_HEAD.size :][: key + value], rest[_HEAD.size + key + value :]
        out.append(
            Record(TOPIC, partition, offset, text[:key], text[key:] if has_value else None, timestamp_ms)
        )
    return out


@given(LISTS)
def test_a_digest_is_over_bytes_that_give_the_records_again_in_every_version(records: list[Record]) -> None:
    assert made_again(told_apart(records)) == records
    assert digest_of_records(records) == blake3(told_apart(records)).hexdigest()


@given(st.lists(RECORDS, min_size=1, max_size=5))
def test_a_container_gives_back_what_was_put_in_and_so_it_does_to_apaches_reader(
    records: list[Record],
) -> None:
    data = encode(records, "an-id", digest_of_records(records))
    assert decode(data, TOPIC) == records
    with DataFileReader(io.BytesIO(data), DatumReader()) as found:
        rows: Any = found
        assert [
            Record(TOPIC, row["partition"], row["offset"], row["key"], row["value"], row["timestamp_ms"])
            for row in rows
        ] == records
    assert data == encode(records, "an-id", digest_of_records(records))


@given(LISTS, st.integers(1, 4), st.sampled_from([1, 100, 1 << 20]))
def test_chunks_are_the_records_cut_where_they_must_be_and_nowhere_else(
    records: list[Record], most: int, size_bytes: int
) -> None:
    cut = list(chunks(iter(records), Limits(size_bytes, most)))
    assert [one for chunk in cut for one in chunk] == records
    assert all(1 <= len(chunk) <= most for chunk in cut)
    assert all(len({one.partition for one in chunk}) == 1 for chunk in cut)
    if size_bytes == 1 << 20:
        for chunk, following in pairwise(cut):
            assert len(chunk) == most or chunk[0].partition != following[0].partition
    if size_bytes == 1:
        assert all(len(chunk) == 1 for chunk in cut)
