"""How long what nobody needs stays in the tables of the graph, what is kept of topics that go, and what stays for good of what has gone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SetRetention:
    """Keep what nobody needs any more, and the outcomes of submissions and commands, for so many days of the clock from now on."""

    command_id: str
    keep_days: int
    issued_at_ms: int


@dataclass(frozen=True, slots=True)
class GcPace:
    """How busy the brokers were when a topic was removed last: the row of `dag.pace`.

    Attributes:
        at_ms: when that was, by the clock's ticks.
    """

    what: str
    broker_load_percent: int
    at_ms: int = 0


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rows stay that nobody needs, and outcomes: a row of `dag.pace`. There is none until something of it was said or done.

    Attributes:
        keep_ms: by the clock's ticks.
        forgotten_until_ms: no outcome that is gone was of a message that said a later time; 0 where none is gone. What is not known and
            says this time or an earlier one may have been decided before, and is refused.
    """

    what: str
    keep_ms: int
    forgotten_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class TopicArchive:
    """Where the records of a topic are that nobody writes any more: all that were there then.

    Attributes:
        since_ms: when the DAG Manager was told of it, by the clock's ticks.
        url: of its manifest; empty where the topic was gone by then, and there was nothing to store.
        digest: of the manifest, and so of all records.
    """

    since_ms: int
    url: str
    digest: str
    records: int


@dataclass(frozen=True, slots=True)
class ArchiveTopic:
    """What the DAG Manager asks of the topic admin, a row of `dag.tasks`: everything in a topic is stored and read back, and the topic stays.

    Attributes:
        number: how often that was asked for of the topic, this time included.
    """

    topic: str
    node_id: str
    number: int


@dataclass(frozen=True, slots=True)
class ReportTopicArchived:
    """What became of an archive that was asked for.

    Attributes:
        number: of the task.
        archived: it is stored, and was read back; or the topic is gone, and the code says so.
        archive: URL of its manifest.
        digest, records, broker_load_percent: as in `ReportTopicRemoved`.
    """

    topic: str
    number: int
    archived: bool
    code: str
    detail: str
    archive: str = ""
    records: int = 0
    digest: str = ""
    broker_load_percent: int = 0


@dataclass(frozen=True, slots=True)
class TopicLife:
    """From which generation on new nodes name their topics: a row of `dag.lives`, all that is left of nodes whose rows went.

    Attributes:
        prefix: the first hex digits of the ids of these nodes: so there are no more rows than prefixes, and nodes whose topics might
            have the same name have the same one.
        generation: the latest that any of them had.
    """

    prefix: str
    generation: int
