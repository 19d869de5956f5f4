"""Reads archives: finds their manifests, checks them against what is stored, and gives the records back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from qmtl.engine.archive.container import decode, digest_of_bytes, digest_of_records
from qmtl.engine.archive.manifest import (
    ArchivedObject,
    ArchiveManifest,
    decoded,
    is_manifest,
    require_consistent,
)
from qmtl.engine.archive.port import AGAIN, ObjectStore, Progress, silent
from qmtl.engine.log.port import Record
from qmtl.foundation.common.errors import ArchiveAltered

MANIFEST_MOST_BYTES: Final = 256 << 20
"""About a million objects, or eight terabytes."""


def manifests(store: ObjectStore, within: str = "") -> list[str]:
    """Names of all manifests of a store, or of those of one life of a topic (`manifest.directory`), sorted."""
    return sorted(name for name in store.names(within) if is_manifest(name))


def load(store: ObjectStore, name: str) -> ArchiveManifest:
    """A manifest by its name.

    Raises:
        ArchiveAltered: it is not there, or not as it was written.
    """
    return decoded(store.get(name, MANIFEST_MOST_BYTES), name)


def verify(store: ObjectStore, manifest: ArchiveManifest, progress: Progress = silent) -> int:
    """Read everything that a manifest names, and hold it to the manifest; memory for one object.

    Returns: How many records were read and are those of the manifest: all of them.

    Raises:
        ArchiveAltered: naming the first object that is missing or not as it was written.
    """
    require_consistent(manifest)
    done = 0
    for one in manifest.objects:
        done += len(_records(store, manifest, one))
        progress("reading back", done, manifest.records)
    return done


def restore(store: ObjectStore, manifest: ArchiveManifest) -> Iterator[Record]:
    """The records as they lay on the log, partition by partition in offset order; memory for one object.

    Raises:
        ArchiveAltered: before the first record of an object that is missing or not as it was written.
    """
    require_consistent(manifest)
    for one in manifest.objects:
        yield from _records(store, manifest, one)


def _records(store: ObjectStore, manifest: ArchiveManifest, one: ArchivedObject) -> list[Record]:
    name = manifest.name_of(one)
    data = store.get(name, one.size_bytes)
    # Only bytes that are ours are decoded: nothing foreign is ever unpacked.
    if len(data) != one.size_bytes or digest_of_bytes(data) != one.digest:
        raise _altered(store, name, "its bytes are not those that were written")
    records = decode(data, manifest.topic)
    if len(records) != one.records:
        raise _altered(store, name, f"it has {len(records)} records, {one.records} were read from the log")
    if {each.partition for each in records} != {one.partition}:
        raise _altered(store, name, f"it has records of other partitions than {one.partition}")
    if (records[0].offset, records[-1].offset) != (one.first, one.last):
        raise _altered(
            store,
            name,
            f"it spans offsets {records[0].offset} to {records[-1].offset}, {one.first} to {one.last} were read from the log",
        )
    if digest_of_records(records) != one.records_digest:
        raise _altered(store, name, "its records are not those that were read from the log")
    return records


def _altered(store: ObjectStore, name: str, why: str) -> ArchiveAltered:
    return ArchiveAltered(
        f"the object {store.url(name)} was altered: {why}.",
        AGAIN,
    )
