"""Archives topics once nobody writes them, and says when they are to go whether the archives are there, for who may be asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from qmtl.engine.archive.manifest import ArchiveManifest, directory, name_in
from qmtl.engine.archive.port import Archived, ObjectStore
from qmtl.engine.archive.reading import load, manifests, verify
from qmtl.engine.archive.writing import archive_topic, require_unchanged
from qmtl.engine.log.port import Log
from qmtl.foundation.common.errors import ArchiveAltered, TopicChanged, UnknownTopic

FRESH_S: Final = 3600.0
"""What was read back so lately is not read again: whoever asks a second time had a transaction that took too long."""


class Archives:
    """Stores topics of a log in an object store.

    Whoever asks may have to ask again, perhaps because storing took longer than a transaction: what this process has stored and read back
    is held to the topic then, and not read again. Another process finds what was stored before, reads it back, and stores anew only
    where the topic has something that is not in it: what retention has taken since is, and so stays archived.

    Args:
        clock: seconds that only go forward.
    """

    def __init__(self, log: Log, store: ObjectStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._store, self._clock = log, store, clock
        self._done: dict[str, ArchiveManifest] = {}
        self._checked: dict[str, tuple[str, float]] = {}

    def __call__(self, topic: str) -> Archived:
        """Store all that is in a topic, and read it back.

        Raises:
            UnknownTopic: no such topic, and this process has stored nothing of it.
            TopicChanged: somebody writes it.
            Others as `archive_topic`.
        """
        known = self._done.get(topic)
        if known is None or not self._still_holds(known):
            found = self._found(topic)
            known = archive_topic(self._log, topic, self._store).manifest if found is None else found
            self._done[topic] = known
            require_unchanged(self._log, known)
        return Archived(self._store.url(known.name), known.records, known.digest)

    def check(self, topic: str, where: str) -> None:
        """Make sure that the archive of a topic is there, reading all of it, and that the topic has nothing that it lacks.

        Args:
            where: its manifest was stored, as `Archived` says; found by its name, also in another store to which it was copied.

        Raises:
            UnknownTopic: the topic is gone.
            TopicChanged: it was written since, or is another one.
            ArchiveAltered: an object is missing, or not as it was written.
            Others as `ObjectStore`.
        """
        if self._log.describe(topic) is None:
            raise UnknownTopic(f"the log has no topic {topic!r}.", "Nothing is left to be removed.")
        manifest = load(self._store, name_in(where))
        if manifest.topic != topic:
            raise ArchiveAltered(
                f"the archive {where[:200]!r} is of {manifest.topic!r}, and not of {topic!r}.",
                "Bring back the one that the admin log names.",
            )
        require_unchanged(self._log, manifest)
        name, at_s = self._checked.get(topic, ("", 0.0))
        if name != manifest.name or self._clock() - at_s > FRESH_S:
            verify(self._store, manifest)
            self._checked[topic] = manifest.name, self._clock()
            require_unchanged(self._log, manifest)

    def _found(self, topic: str) -> ArchiveManifest | None:
        """The archive of an earlier process that has all that is in a topic, and most of what there was; None where there is none."""
        if self._log.describe(topic) is None:
            return None
        place = directory(topic, self._log.incarnations([topic])[topic].id)
        there = sorted(self._those_that_hold(place), key=lambda one: (-one.records, one.name))
        for one in there:
            try:
                verify(self._store, one)
            except ArchiveAltered:
                continue  # what is still in the topic is stored again
            return one
        return None

    def _those_that_hold(self, place: str) -> Iterator[ArchiveManifest]:
        for name in manifests(self._store, place):
            try:
                one = load(self._store, name)
            except ArchiveAltered:
                continue
            if one.log_id == self._log.log_id and self._still_holds(one):
                yield one

    def _still_holds(self, known: ArchiveManifest) -> bool:
        """Whether an archive has all that is in its topic, if there is one yet."""
        if self._log.describe(known.topic) is None:
            return True
        try:
            require_unchanged(self._log, known)
        except TopicChanged:
            return False
        return True
