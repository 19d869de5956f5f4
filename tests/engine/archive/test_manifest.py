"""A manifest is read only as it was written, and only if what it says of a topic can be."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.engine.archive.container import digest_of_bytes
from qmtl.engine.archive.manifest import (
    NAME_DIGITS,
    ArchivedObject,
    ArchivedPartition,
    ArchiveManifest,
    decoded,
    directory,
    is_manifest,
    require_consistent,
)
from qmtl.foundation.common.errors import ArchiveAltered, ArchiveError

HEX = "0123456789abcdef" * 4


def made(partition: int, first: int, last: int, records: int) -> ArchivedObject:
    return ArchivedObject(partition, first, last, records, 100, HEX, HEX)


MANIFEST = ArchiveManifest(
    "a-log",
    "toys.archived",
    "id-1",
    {"cleanup.policy": "compact"},
    (ArchivedPartition(0, 5, 30, 9), ArchivedPartition(1, 0, 0, 0), ArchivedPartition(2, 0, 4, 3)),
    (made(0, 5, 10, 6), made(0, 12, 28, 3), made(2, 0, 3, 3)),
)


def named(data: bytes) -> str:
    """The name that a manifest of these bytes would have."""
    return f"toys.archived/id-1/manifest-{digest_of_bytes(data)[:NAME_DIGITS]}.json"


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert decoded(MANIFEST.encoded(), MANIFEST.name) == MANIFEST
    assert MANIFEST.name == named(MANIFEST.encoded())


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told.update(records=13),
        lambda told: told.update(topic="other"),
        lambda told: told.update(more=1),
        lambda told: told.pop("log_id"),
        lambda told: told.update(topic="../up"),
        lambda told: told.update(config=[]),
        lambda told: told["objects"][0].update(name="elsewhere/x.avro"),
        lambda told: told["objects"][0].update(size_bytes="100"),
        lambda told: told["objects"][0].pop("digest"),
        lambda told: told["objects"].reverse(),
        lambda told: told["objects"].pop(),
        lambda told: told["partitions"].pop(),
        lambda told: told["partitions"].reverse(),
        lambda told: told["partitions"][0].update(begin=6),
    ],
)
def test_a_manifest_with_a_right_name_that_none_has_written_is_refused(
    change: Callable[[Any], object],
) -> None:
    told = json.loads(MANIFEST.encoded())
    change(told)
    data = (json.dumps(told, indent=1, sort_keys=True) + "\n").encode()
    with pytest.raises(ArchiveAltered, match=r"contradicts itself|does not have the form"):
        decoded(data, named(data))


@pytest.mark.parametrize("data", [b"", b"null", b"{}", b"[1]", b"\xff", b'{"format": 1}', b"9" * 5000])
def test_what_is_no_manifest_is_refused_as_such(data: bytes) -> None:
    with pytest.raises(ArchiveAltered, match="does not have the form"):
        decoded(data, named(data))


def test_a_manifest_of_a_later_version_says_so() -> None:
    data = b'{"format": 2}'
    with pytest.raises(ArchiveAltered, match="has format '2'; this version reads 1"):
        decoded(data, named(data))


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(ArchiveAltered, match="is no name of a manifest"):
        decoded(MANIFEST.encoded(), "toys.archived/id-1/manifest.json")


@pytest.mark.parametrize(
    "objects",
    [
        (made(0, 4, 10, 6), *MANIFEST.objects[1:]),
        (made(0, 5, 30, 9), MANIFEST.objects[2]),
        (made(0, 5, 12, 6), *MANIFEST.objects[1:]),
        (made(0, 5, 9, 6), *MANIFEST.objects[1:]),
        (made(0, 5, 10, 0), made(0, 12, 28, 9), MANIFEST.objects[2]),
        (made(0, 5, 10, 5), *MANIFEST.objects[1:]),
        (MANIFEST.objects[0], MANIFEST.objects[0], *MANIFEST.objects[1:]),
        (MANIFEST.objects[2], *MANIFEST.objects[:2]),
        (MANIFEST.objects[0], MANIFEST.objects[2], MANIFEST.objects[1]),
        (*MANIFEST.objects, made(3, 0, 0, 1)),
        (),
    ],
)
def test_objects_that_are_not_all_of_their_partitions_in_order_contradict(
    objects: tuple[ArchivedObject, ...],
) -> None:
    require_consistent(MANIFEST)
    with pytest.raises(ArchiveAltered, match="contradicts itself"):
        require_consistent(replace(MANIFEST, objects=objects))


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "a b", "ä", "a\n", "x" * 250])
def test_a_topic_whose_name_a_store_could_misunderstand_is_not_archived(text: str) -> None:
    with pytest.raises(ArchiveError, match="the topic's name was"):
        directory(text, "id")
    if text != "a/b":
        with pytest.raises(ArchiveError, match="the topic's id was"):
            directory("topic", text)


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_every_id_that_kafka_gives_names_a_directory_of_its_own(one: bytes, other: bytes) -> None:
    # As the client gives it and as Kafka's tools show it: base64 without padding, in two alphabets.
    given, shown = (
        code(one).decode().removesuffix("==") for code in (base64.b64encode, base64.urlsafe_b64encode)
    )
    assert directory("topic", given) == f"topic/{shown}"
    manifest = replace(MANIFEST, topic_id=given)
    assert is_manifest(manifest.name)
    assert decoded(manifest.encoded(), manifest.name) == manifest
    if one != other:
        assert directory("topic", base64.b64encode(other).decode().removesuffix("==")) != f"topic/{shown}"
