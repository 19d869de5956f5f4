"""A broker and an archive beside a DAG Manager: topics with records that retention takes from their heads, and what was stored of them.

The rules. Who archives a topic stores what is in it; where the last archive has all that was written to it, that one counts, whatever
retention has taken since. A topic that is to be archived goes only if the archive that the task names has all that was written. Of a
topic that goes, all that was in it when it became an orphan that nobody computes has to be stored, and all that is in it then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from qmtl.foundation.contracts.dag import (
    CreateTopic,
    Queue,
    QueueRole,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    TopicClass,
    TopicTask,
)
from qmtl.foundation.contracts.retention import ArchiveTopic, ReportTopicArchived

CHANGED = "QMTL-905"


@dataclass(frozen=True)
class Stored:
    """One archive: up to where the topic was written, and the numbers of the records in it."""

    end: int
    records: tuple[int, ...]


@dataclass
class Broker:
    """Attributes:
    topics: that are there, and what they were asked to be of.
    begins, ends: the number of the first record that each still has, and of the next.
    stored: all archives by their URLs.
    owed: which records have to be stored before a topic goes: those it had at the first tick that found it to be nobody's.
    """

    topics: dict[str, str] = field(default_factory=dict)
    begins: dict[str, int] = field(default_factory=dict)
    ends: dict[str, int] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)
    owed: dict[str, frozenset[int]] = field(default_factory=dict)

    def write(self, topic: str, count: int) -> None:
        self.ends[topic] += count

    def retain(self, queues: Iterable[Queue], count: int) -> None:
        """Take so many records from the head of every topic, but where its archive is asked for and not done yet, or failed the last time."""
        for row in queues:
            is_late = row.archiving or (row.archive is None and row.spared > 0)
            if row.topic in self.topics and not is_late:
                self.begins[row.topic] = min(self.begins[row.topic] + count, self.ends[row.topic])

    def tick(
        self, queues: Iterable[Queue], kept: set[str], used: set[str], plans: Iterable[set[str]]
    ) -> None:
        """Find out which topics are nobody's, and of which nothing may be lost: versions can go back to them, or they are of orders.

        Args:
            kept: nodes to which a version can go back.
            used: nodes that a version has, or that are computed.
            plans: the topics that workers have.
        """
        planned = set().union(*plans)
        owed = {}
        for row in queues:
            is_former = row.role is QueueRole.FORMER
            is_needed = row.topic_class is TopicClass.TRADE_EXEC or (row.node_id in kept and not is_former)
            is_used = row.topic in planned or (row.node_id in used and not is_former)
            if row.topic in self.topics and is_needed and not is_used:
                owed[row.topic] = self.owed.get(row.topic, frozenset(self._records(row.topic)))
        self.owed = owed

    def agree(self, queues: Iterable[Queue], tasks: Iterable[TopicTask]) -> None:
        """What is archived is here, and what is asked for is written down."""
        asked = {row.topic: row.number for row in tasks if isinstance(row, ArchiveTopic)}
        for row in queues:
            assert asked.pop(row.topic, None) == (row.archivals if row.archiving else None)
            if row.archive is not None and row.archive.url:
                assert len(self.stored[row.archive.url].records) == row.archive.records
        assert asked == {}

    def create(self, task: CreateTopic, node_id: str, *, ok: bool, code: str) -> ReportTopicCreated:
        if ok and task.topic not in self.topics:
            self.topics[task.topic] = node_id
            self.begins[task.topic] = 0
            self.ends[task.topic] = 3
        is_there = task.topic in self.topics
        return ReportTopicCreated(task.topic, is_there, "" if is_there else code, "")

    def store(self, task: ArchiveTopic, *, ok: bool, code: str) -> ReportTopicArchived:
        topic = task.topic
        if not ok:
            return ReportTopicArchived(topic, task.number, False, code, "")
        if topic not in self.topics:
            return ReportTopicArchived(topic, task.number, True, "QMTL-304", "")
        url = f"at/{topic}/{self.ends[topic]}"
        kept = self.stored.setdefault(url, Stored(self.ends[topic], tuple(self._records(topic))))
        return ReportTopicArchived(topic, task.number, True, "", "", url, len(kept.records), f"of {url}")

    def remove(self, task: RemoveTopic, *, ok: bool, code: str) -> ReportTopicRemoved:
        topic, kept = task.topic, task.archived
        told = ("", 0, "") if kept is None else (kept.url, kept.records, kept.digest)
        if not ok:
            return ReportTopicRemoved(topic, False, code, "")
        if topic in self.topics:
            there = None if kept is None else self.stored.get(kept.url)
            if task.archive and (there is None or there.end != self.ends[topic]):
                return ReportTopicRemoved(topic, False, CHANGED, "")
            self._must_be_stored(topic, archive=task.archive)
            del self.topics[topic]
        return ReportTopicRemoved(topic, True, "", "", *told)

    def _must_be_stored(self, topic: str, *, archive: bool) -> None:
        archives = [one.records for url, one in self.stored.items() if url.startswith(f"at/{topic}/")]
        found = {number for records in archives for number in records}
        assert self.owed.get(topic, frozenset()) <= found
        assert not archive or found.issuperset(self._records(topic))

    def _records(self, topic: str) -> range:
        return range(self.begins[topic], self.ends[topic])
