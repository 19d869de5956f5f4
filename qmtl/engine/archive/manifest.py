"""What an archive says of itself: written last, so that one that is there is whole; its name tells whether it was altered."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final

from qmtl.engine.archive.container import digest_of_bytes
from qmtl.engine.archive.port import AGAIN
from qmtl.foundation.common.errors import ArchiveAltered, ArchiveError

FORMAT: Final = 1
NAME_DIGITS: Final = 32
_SEGMENT: Final = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
# The client gives Kafka's ids in base64, where every second one has a '/' or a '+'; Kafka's own tools show '_' and '-' for them.
_AS_KAFKA_SHOWS: Final = str.maketrans("+/", "-_")
_NAME: Final = re.compile(
    rf"(?P<directory>[A-Za-z0-9._-]+/[A-Za-z0-9._-]+)/manifest-(?P<digest>[0-9a-f]{{{NAME_DIGITS}}})\.json"
)


@dataclass(frozen=True, slots=True)
class ArchivedObject:
    """One object: consecutive records of one partition, at least one.

    Attributes:
        first, last: offsets of its first and its last record.
        size_bytes, digest: of the object as it is stored.
        records_digest: of the records in it (`container.digest_of_records`).
    """

    partition: int
    first: int
    last: int
    records: int
    size_bytes: int
    digest: str
    records_digest: str


@dataclass(frozen=True, slots=True)
class ArchivedPartition:
    """How far a partition went: from its first offset to the one before which it ended."""

    partition: int
    begin: int
    end: int
    records: int


@dataclass(frozen=True, slots=True)
class ArchiveManifest:
    """A topic in one of its lives, whole.

    Attributes:
        topic_id: which life (`Incarnation.id`).
        config: what the log said of the topic's configuration.
        partitions: all of them, by number.
        objects: by partition and first offset.
    """

    log_id: str
    topic: str
    topic_id: str
    config: Mapping[str, str]
    partitions: tuple[ArchivedPartition, ...]
    objects: tuple[ArchivedObject, ...]

    @property
    def records(self) -> int:
        return sum(one.records for one in self.partitions)

    @property
    def size_bytes(self) -> int:
        """Of all objects, without the manifest."""
        return sum(one.size_bytes for one in self.objects)

    @property
    def digest(self) -> str:
        """BLAKE3 of the manifest, as 64 hex characters: over the digests of all objects too, so over every record."""
        return digest_of_bytes(self.encoded())

    @property
    def name(self) -> str:
        """Of the manifest in its store."""
        return f"{directory(self.topic, self.topic_id)}/manifest-{self.digest[:NAME_DIGITS]}.json"

    def name_of(self, one: ArchivedObject) -> str:
        """Of one of its objects."""
        return object_name(directory(self.topic, self.topic_id), one)

    def encoded(self) -> bytes:
        """JSON text; the same manifest gives the same bytes."""
        told = {
            "format": FORMAT,
            "log_id": self.log_id,
            "topic": self.topic,
            "topic_id": self.topic_id,
            "config": dict(self.config),
            "records": self.records,
            "size_bytes": self.size_bytes,
            "partitions": [
                {"partition": one.partition, "begin": one.begin, "end": one.end, "records": one.records}
                for one in self.partitions
            ],
            "objects": [
                {
                    "name": self.name_of(one),
                    "partition": one.partition,
                    "first": one.first,
                    "last": one.last,
                    "records": one.records,
                    "size_bytes": one.size_bytes,
                    "digest": one.digest,
                    "records_digest": one.records_digest,
                }
                for one in self.objects
            ],
        }
        return (json.dumps(told, indent=1, sort_keys=True) + "\n").encode()


def directory(topic: str, topic_id: str) -> str:
    """Under which the objects of one life of a topic lie.

    Raises:
        ArchiveError: a name that a store could take for something else.
    """
    named = topic_id.translate(_AS_KAFKA_SHOWS)
    for field, text in (("the topic's name", topic), ("the topic's id", named)):
        if _SEGMENT.fullmatch(text) is None:
            raise ArchiveError(
                f"{field} was {text[:80]!r}; an archive takes letters, digits, '.', '_' and '-', 249 at most.",
                "Only a topic with such a name, as Kafka demands it too, can be archived.",
            )
    return f"{topic}/{named}"


def object_name(place: str, one: ArchivedObject) -> str:
    """A function of where the records lay and of the bytes.

    So a repetition writes the same objects over themselves, and what a topic has become since (compacted, or longer) lies
    beside what it was: no object that a manifest names is ever written over with other bytes.
    """
    return f"{place}/{one.partition:05d}/{one.first:020d}-{one.digest[:NAME_DIGITS]}.avro"


def is_manifest(name: str) -> bool:
    """Whether an object has the name of a manifest."""
    return _NAME.fullmatch(name) is not None


def decoded(data: bytes, name: str) -> ArchiveManifest:
    """A manifest as it was written.

    Args:
        name: under which it was found.

    Raises:
        ArchiveAltered: not the bytes that were written under this name, or none that this version writes.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ArchiveAltered(
            f"{name!r} is no name of a manifest; one is TOPIC/ID/manifest-DIGEST.json.",
            "Give the name that `qmtl topic archive` printed.",
        )
    if digest_of_bytes(data)[:NAME_DIGITS] != found["digest"]:
        raise ArchiveAltered(
            f"the manifest {name} is not the one that was written: its digest differs.", AGAIN
        )
    try:
        told = json.loads(data)
        form = told["format"]
        manifest = _manifest(told) if form == FORMAT else None
        again = (manifest.encoded(), manifest.name) if manifest is not None else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, ArchiveError):
        raise ArchiveAltered(f"the manifest {name} does not have the form of one.", AGAIN) from None
    if manifest is None:
        raise ArchiveAltered(
            f"the manifest {name} has format {str(form)[:20]!r}; this version reads {FORMAT}.",
            "Read it with the version that wrote it.",
        )
    if again != (data, name):
        raise ArchiveAltered(f"the manifest {name} contradicts itself.", AGAIN)
    require_consistent(manifest)
    return manifest


def _manifest(told: Any) -> ArchiveManifest:
    return ArchiveManifest(
        str(told["log_id"]),
        str(told["topic"]),
        str(told["topic_id"]),
        {str(key): str(value) for key, value in told["config"].items()},
        tuple(
            ArchivedPartition(int(one["partition"]), int(one["begin"]), int(one["end"]), int(one["records"]))
            for one in told["partitions"]
        ),
        tuple(
            ArchivedObject(
                int(one["partition"]),
                int(one["first"]),
                int(one["last"]),
                int(one["records"]),
                int(one["size_bytes"]),
                str(one["digest"]),
                str(one["records_digest"]),
            )
            for one in told["objects"]
        ),
    )


def name_in(url: str) -> str:
    """The name of the manifest at the end of its URL; it is found under it in any store that has a copy.

    Raises:
        ArchiveAltered: no manifest is named there.
    """
    found = _NAME.search(url.partition("?")[0])
    if found is None or found.end() != len(url.partition("?")[0]):
        raise ArchiveAltered(f"{url[:200]!r} is no URL of a manifest.", AGAIN)
    return found[0]


def require_consistent(manifest: ArchiveManifest) -> None:
    """Hold the objects to the partitions: in order, apart from each other, inside of what was there, and all of it.

    Raises:
        ArchiveAltered: naming the first that is not.
    """
    if [one.partition for one in manifest.partitions] != list(range(len(manifest.partitions))):
        raise _broken(manifest, "its partitions are not numbered from 0 on")
    grouped = {
        number: list(some) for number, some in groupby(manifest.objects, key=lambda one: one.partition)
    }
    listed = [one for number in sorted(grouped) for one in grouped[number]]
    if listed != list(manifest.objects) or not set(grouped) <= set(range(len(manifest.partitions))):
        raise _broken(manifest, "its objects are not listed by partition")
    for one in manifest.partitions:
        _require_partition(manifest, one, grouped.get(one.partition, []))


def _require_partition(
    manifest: ArchiveManifest, one: ArchivedPartition, objects: Sequence[ArchivedObject]
) -> None:
    at = one.begin
    for each in objects:
        if not at <= each.first <= each.last < one.end or not 1 <= each.records <= each.last - each.first + 1:
            raise _broken(
                manifest, f"the object at offset {each.first} of partition {one.partition} is out of place"
            )
        at = each.last + 1
    if not 0 <= one.begin <= one.end or sum(each.records for each in objects) != one.records:
        raise _broken(manifest, f"the objects of partition {one.partition} are not all of it")


def _broken(manifest: ArchiveManifest, why: str) -> ArchiveAltered:
    return ArchiveAltered(f"the manifest of {manifest.topic} contradicts itself: {why}.", AGAIN)
