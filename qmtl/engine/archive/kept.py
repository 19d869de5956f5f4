"""Archives topics before they are removed, for who may be asked again."""

from __future__ import annotations

from qmtl.engine.archive.manifest import ArchiveManifest
from qmtl.engine.archive.port import Archived, ObjectStore
from qmtl.engine.archive.writing import archive_topic, require_unchanged
from qmtl.engine.log.port import Log
from qmtl.foundation.common.errors import TopicChanged


class Archives:
    """Stores topics of a log in an object store.

    Whoever asks may have to ask again, perhaps because storing took longer than a transaction: what this process has stored and read back
    is held to the topic then, and not read again. Another process stores it once more, with the same bytes under the same names.
    """

    def __init__(self, log: Log, store: ObjectStore) -> None:
        self._log, self._store = log, store
        self._done: dict[str, ArchiveManifest] = {}

    def __call__(self, topic: str) -> Archived:
        """Store all that is in a topic, and read it back.

        Raises:
            UnknownTopic: no such topic, and this process has stored nothing of it.
            TopicChanged: somebody writes it.
            Others as `archive_topic`.
        """
        known = self._done.get(topic)
        if known is None or not self._still_holds(known):
            known = self._done[topic] = archive_topic(self._log, topic, self._store).manifest
            require_unchanged(self._log, known)
        return Archived(self._store.url(known.name), known.records, known.digest)

    def _still_holds(self, known: ArchiveManifest) -> bool:
        """Whether an archive has all that is in its topic, if there is one yet."""
        if self._log.describe(known.topic) is None:
            return True
        try:
            require_unchanged(self._log, known)
        except TopicChanged:
            return False
        return True
