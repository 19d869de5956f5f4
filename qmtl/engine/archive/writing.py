"""Writes a topic into an object store, reads it back, and only then writes the manifest that says so."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from qmtl.engine.archive.container import (
    RECORD_BYTES,
    Limits,
    chunks,
    digest_of_bytes,
    digest_of_records,
    encode,
)
from qmtl.engine.archive.manifest import (
    ArchivedObject,
    ArchivedPartition,
    ArchiveManifest,
    directory,
    object_name,
)
from qmtl.engine.archive.port import ObjectStore, Progress, silent
from qmtl.engine.archive.reading import load, verify
from qmtl.engine.log.port import Incarnation, Log, Positions, Record, TopicPartition, partitions_of
from qmtl.foundation.common.errors import LogUnreachable, OffsetGone, TopicChanged, UnknownTopic

FIRST_POLL: Final = 8
"""Few, as each record may have more than a megabyte; then as many as are `POLL_BYTES` if they are like the last ones."""
POLL_BYTES: Final = 1 << 20
MOST_RECORDS: Final = 1000
POLL_S: Final = 0.1
SILENCE_S: Final = 60.0
"""How long the log may give nothing of what it has before it counts as unreachable."""
USUAL: Final = Limits()


@dataclass(frozen=True, slots=True)
class _Standing:
    """A topic that nobody writes, as it was found: whose life it is, and what there is to read."""

    life: Incarnation
    config: Mapping[str, str]
    begins: Positions
    ends: Positions


@dataclass(frozen=True, slots=True)
class ArchiveReport:
    """What an archive that is whole came to.

    Attributes:
        manifest: as it is stored; what `require_unchanged` asks for right before anybody deletes.
        verified: how many records were read back from the store and are those that came from the log: all of them.
    """

    manifest: ArchiveManifest
    verified: int

    @property
    def objects(self) -> int:
        """How many, without the manifest."""
        return len(self.manifest.objects)

    @property
    def records(self) -> int:
        """How many came from the log."""
        return self.manifest.records

    @property
    def size_bytes(self) -> int:
        """Of all objects as they are stored, without the manifest."""
        return self.manifest.size_bytes

    @property
    def digest(self) -> str:
        """Of the manifest, and so of every record (`ArchiveManifest.digest`): a repetition gives the same."""
        return self.manifest.digest


def archive_topic(
    log: Log,
    topic: str,
    store: ObjectStore,
    *,
    topic_id: str = "",
    limits: Limits = USUAL,
    progress: Progress = silent,
) -> ArchiveReport:
    """Store all committed records of a topic that nobody writes, and make sure that they are there.

    A repetition, after a death or over an archive that is whole, writes the same bytes under the same names, so a step that may be
    taken twice may take it. A manifest is in the store only once everything that it names was read back. Whoever deletes the
    topic asks `require_unchanged` right before; nothing is deleted here. Memory is for one object. Headers are not kept: the log's
    port has none; nor is it kept whether a key was absent or empty, which the port reads alike.

    Args:
        topic_id: the life of the topic that is meant (`Incarnation.id`): whoever decides from facts says of which; empty takes the
            one that is there.
        progress: told of `reading`, out of the offsets that there are, then of `reading back`.

    Raises:
        UnknownTopic: the log has no such topic.
        TopicChanged: it is another life than the one that is meant, a transaction is open, or the topic grew, lost records or was
            made anew meanwhile.
        ArchiveAltered: the store does not hold what was written.
        StoreUnreachable, StoreRefused, StoreMissing: as the store says.
        LogError: the log failed.
    """
    found = _standing(log, topic, topic_id)
    place = directory(topic, found.life.id)
    about = sum(found.ends[where] - found.begins[where] for where in found.ends)
    counts = dict.fromkeys(range(found.life.partitions), 0)
    objects = []
    with closing(_records(log, found)) as records:
        for chunk in chunks(records, limits):
            made, data = _object(chunk, found.life.id)
            store.put(object_name(place, made), data)
            objects.append(made)
            counts[made.partition] += made.records
            progress("reading", sum(counts.values()), about)
    partitions = tuple(
        ArchivedPartition(where.partition, found.begins[where], end, counts[where.partition])
        for where, end in sorted(found.ends.items())
    )
    manifest = ArchiveManifest(log.log_id, topic, found.life.id, found.config, partitions, tuple(objects))
    verified = verify(store, manifest, progress)
    require_unchanged(log, manifest)
    store.put(manifest.name, manifest.encoded())
    load(store, manifest.name)
    return ArchiveReport(manifest, verified)


def require_unchanged(log: Log, manifest: ArchiveManifest) -> None:
    """Make sure that a topic is the one that was archived, and has nothing that the archive lacks.

    Records that retention has taken since are in the archive, and so are none of its business.

    Raises:
        TopicChanged: it is gone, was made anew, or has been written, if only by a transaction that is open or was aborted.
        LogError: the log failed.
    """
    topic = manifest.topic
    life = Incarnation(manifest.topic_id, len(manifest.partitions))
    _require_life(log, topic, life)
    try:
        ends = log.end_offsets(partitions_of(topic, life.partitions))
    except UnknownTopic:
        raise _gone(topic) from None
    for one in manifest.partitions:
        end = ends[TopicPartition(topic, one.partition)]
        if end != one.end:
            raise _changed(
                f"{topic}[{one.partition}] was archived up to offset {one.end}; it ends at {end} now"
            )


def _require_life(log: Log, topic: str, life: Incarnation) -> None:
    try:
        now = log.incarnations([topic])[topic]
    except UnknownTopic:
        raise _gone(topic) from None
    if now != life:
        raise _changed(
            f"{topic} was {life.id} with {life.partitions} partitions when its archive was begun; it is {now.id} with"
            f" {now.partitions} now"
        )


def _standing(log: Log, topic: str, topic_id: str) -> _Standing:
    described = log.describe(topic)
    if described is None:
        raise UnknownTopic(f"the log has no topic {topic!r}.", "`qmtl topic list` shows what there is.")
    try:
        life = log.incarnations([topic])[topic]
        if topic_id and life.id != topic_id:
            raise _changed(f"{topic} is {life.id}, and {topic_id} was meant")
        wheres = partitions_of(topic, life.partitions)
        begins, stable = log.begin_offsets(wheres), log.stable_offsets(wheres)
        ends = log.end_offsets(wheres)
    except UnknownTopic:
        raise _gone(topic) from None
    for where in wheres:
        if stable[where] != ends[where]:
            raise _changed(
                f"{topic}[{where.partition}] can be read up to offset {stable[where]} and ends at {ends[where]}:"
                " a transaction is open, or somebody writes"
            )
    # Kafka gives no value for some settings, such as those that are secret.
    config: Mapping[str, str | None] = described.config
    known = {name: value for name, value in sorted(config.items()) if value is not None}
    return _Standing(life, known, begins, ends)


def _records(log: Log, found: _Standing) -> Generator[Record, None, None]:
    """Partition by partition in offset order."""
    reader = log.reader()
    try:
        for where, end in sorted(found.ends.items()):
            if (at := found.begins[where]) == end:
                continue
            reader.assign({where: at})
            heard, portion = time.monotonic(), FIRST_POLL
            while at < end:
                records = reader.poll(portion, POLL_S)
                portion = _portion(records, portion)
                yield from (one for one in records if one.offset < end)
                before, at = at, reader.positions()[where]
                if at != before:
                    heard = time.monotonic()
                    continue
                # A topic that was made anew may never come to where the one that was found did.
                _require_life(log, where.topic, found.life)
                if time.monotonic() - heard > SILENCE_S:
                    raise LogUnreachable(
                        f"the log gave nothing of {where.topic}[{where.partition}] from offset {at} on for {SILENCE_S:.0f} s;"
                        f" it ends at {end}.",
                        "Nothing was deleted. Try again when the log answers.",
                    )
    except (OffsetGone, UnknownTopic) as error:
        raise _changed(f"the topic lost records while they were read ({error.what.rstrip('.')})") from None
    finally:
        reader.close()


def _portion(records: Sequence[Record], before: int) -> int:
    if not records:
        return before
    size = sum(RECORD_BYTES + len(one.key) + len(one.value or b"") for one in records) // len(records)
    return min(max(POLL_BYTES // size, 1), MOST_RECORDS)


def _object(records: list[Record], topic_id: str) -> tuple[ArchivedObject, bytes]:
    digest = digest_of_records(records)
    data = encode(records, topic_id, digest)
    first, last = records[0], records[-1]
    made = ArchivedObject(
        first.partition, first.offset, last.offset, len(records), len(data), digest_of_bytes(data), digest
    )
    return made, data


def _gone(topic: str) -> TopicChanged:
    return _changed(f"{topic} is not on the log any more")


def _changed(what: str) -> TopicChanged:
    return TopicChanged(
        f"{what}.",
        "See that nobody writes the topic any more, and archive it again: what is stored stays of use.",
    )
