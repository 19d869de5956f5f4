"""The outside of the topic admin, as its tests make it: a cluster with its own time, an archive, and who runs the processor again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from qmtl.engine.archive.port import Archived
from qmtl.engine.log.port import TopicDescription, Topics, TopicStanding
from qmtl.engine.processor import Arrival
from qmtl.foundation.common.errors import (
    LogError,
    LogUnreachable,
    QmtlError,
    TopicRefused,
    UnknownTopic,
)
from qmtl.foundation.contracts.dag import (
    CreateTopic,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    TopicClass,
    TopicReport,
    TopicTask,
)
from qmtl.foundation.contracts.retention import ArchiveTopic, ReportTopicArchived, TopicArchive
from qmtl.foundation.wire.topics import node_topic
from qmtl.services.dagmanager.topic_admin import (
    Archive,
    BrokerLoad,
    Patience,
    TopicAdmin,
)


def create(topic: str, partitions: int = 1) -> CreateTopic:
    spec = node_topic(topic, TopicClass.INDICATOR, partitions)
    return CreateTopic(topic, TopicClass.INDICATOR, partitions, spec.replication, spec.config())


def store(topic: str, number: int = 1) -> ArchiveTopic:
    return ArchiveTopic(topic, f"blake3:{topic}", number)


def kept(topic: str) -> TopicArchive:
    """What the vault keeps of a topic, as the DAG Manager notes it."""
    return TopicArchive(1, f"at/{topic}", f"of {topic}", 3)


def remove(topic: str, *, archive: bool = False) -> RemoveTopic:
    return RemoveTopic(topic, f"blake3:{topic}", archive, kept(topic) if archive else None)


def there(topic: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> TopicDescription:
    wanted = create(topic, partitions)
    return TopicDescription(topic, partitions, 1, {**wanted.config, **(config or {})})


def summary(report: TopicReport) -> tuple[str, bool, str]:
    match report:
        case ReportTopicCreated():
            return report.topic, report.created, report.code
        case ReportTopicRemoved():
            return report.topic, report.removed, report.code
        case ReportTopicArchived():
            return report.topic, report.archived, report.code


# ---- the outside ------------------------------------------------------------------------------------------------------


@dataclass
class Cluster:
    """A cluster as its admin port shows it, with its own time, which passes only while somebody waits.

    Attributes:
        topics: what is there.
        shows_s: how long after the request it is seen that a topic was made, or has gone; 0 for others.
        leaderless: topics of which a partition has no leader.
        refuses: what is not made, and not deleted.
        silent: calls that get no answer, by their number from 1 on.
        requests: what was asked, in order.
    """

    topics: dict[str, TopicDescription] = field(default_factory=dict)
    shows_s: dict[str, float] = field(default_factory=dict)
    leaderless: set[str] = field(default_factory=set)
    refuses: set[str] = field(default_factory=set)
    silent: Collection[int] = ()
    calls: int = 0
    now_ms: int = 100_000
    requests: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    seen_at_ms: dict[str, float] = field(default_factory=dict)
    was: dict[str, TopicDescription] = field(default_factory=dict)

    def wait(self, seconds: float) -> None:
        assert seconds > 0
        self.now_ms += round(seconds * 1000)

    def _answer(self) -> None:
        self.calls += 1
        if self.calls in self.silent:
            raise LogUnreachable("nobody is there.")

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        self._answer()
        seen = {**self.topics, **self.was}
        seen = {name: one for name, one in seen.items() if (name in self.was) == self._hidden(name)}
        out = {}
        for name in names:
            alike = [one for one in sorted(seen) if one != name and flat(one) == flat(name)]
            led = name in seen and name not in self.leaderless
            out[name] = TopicStanding(seen.get(name), led, alike[0] if alike else "")
        return out

    def _hidden(self, name: str) -> bool:
        """Whether what was asked of it does not show yet."""
        return self.now_ms < self.seen_at_ms.get(name, 0)

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        self._answer()
        self.requests.append(("create", tuple(one.name for one in wanted)))
        for one in wanted:
            if one.name not in self.refuses and one.name not in self.topics:
                self.topics[one.name] = one
                self.was.pop(one.name, None)
                self.seen_at_ms[one.name] = self.now_ms + 1000 * self.shows_s.get(one.name, 0.0)
        return {one.name: TopicRefused("policy.") for one in wanted if one.name in self.refuses}

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        self._answer()
        self.requests.append(("delete", tuple(names)))
        for name in names:
            if name not in self.refuses and name in self.topics:
                self.was[name] = self.topics.pop(name)
                self.seen_at_ms[name] = self.now_ms + 1000 * self.shows_s.get(name, 0.0)
        return {name: TopicRefused("policy.") for name in names if name in self.refuses}

    def made(self) -> list[str]:
        """Every name that a request has asked for."""
        return [name for verb, names in self.requests if verb == "create" for name in names]


def flat(name: str) -> str:
    return "".join("_" if char in "._-" else char for char in name.lower())


class Vault:
    """An archive, of topics that the cluster has.

    Attributes:
        kept: what is stored.
        checked: what was read back before it was to go, in order.
    """

    def __init__(self, cluster: Topics, *errors: QmtlError) -> None:
        self._cluster = cluster
        self._errors = list(errors)
        self.kept: dict[str, Archived] = {}
        self.checked: list[tuple[str, str]] = []

    def __call__(self, topic: str) -> Archived:
        if self._errors:
            raise self._errors.pop(0)
        if self._cluster.look_up([topic])[topic].found is not None:
            self.kept[topic] = Archived(f"at/{topic}", 3, f"of {topic}")
        if topic not in self.kept:
            raise UnknownTopic(f"there is no {topic}.")
        return self.kept[topic]

    def check(self, topic: str, where: str) -> None:
        if self._errors:
            raise self._errors.pop(0)
        if self._cluster.look_up([topic])[topic].found is None:
            raise UnknownTopic(f"there is no {topic}.")
        self.checked.append((topic, where))


class Told:
    """What a processor may touch: it only tells."""

    def __init__(self) -> None:
        self.reports: list[TopicReport] = []
        self.closed_ms = 0

    def table(self, topic: str) -> Any:
        raise AssertionError("an effect has no tables")

    def emit(self, topic: str, message: Any) -> None:
        assert topic == "dag.reports"
        self.reports.append(message)

    def encode(self, message: Any) -> bytes:
        raise AssertionError("an effect has no use for bytes")


class Office:
    """Where the topic admin works. A transaction that fails is run again by a processor that is made anew.

    Attributes:
        turns: how long each transaction took, in the cluster's time.
        patience: what outlives the processor.
    """

    def __init__(
        self, cluster: Cluster, archive: Archive | None = None, load: BrokerLoad | None = None
    ) -> None:
        self.cluster = cluster
        self.turns: list[float] = []
        self._archive = archive
        self._load = load
        self.patience = Patience(cluster.wait, lambda: cluster.now_ms / 1000)

    def do(self, *tasks: TopicTask, attempts: int = 50) -> list[TopicReport]:
        for _ in range(attempts):
            admin = TopicAdmin(self.cluster, self._archive, self.patience, self._load)
            told, began = Told(), self.cluster.now_ms
            try:
                for at, task in enumerate(tasks):
                    admin.on_record(told, Arrival("dag.tasks", 0, at, task))
                admin.flush(told)
            except LogUnreachable:
                continue
            finally:
                self.turns.append((self.cluster.now_ms - began) / 1000)
            return told.reports
        raise AssertionError("nothing came of it")
