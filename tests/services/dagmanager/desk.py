"""The DAG Manager, to which a test hands one message after another, and looks at what it wrote."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest.mock import patch

from qmtl.engine.processor import Arrival, Bucket
from qmtl.engine.store import Store
from qmtl.engine.table import UNMARKED, Table
from qmtl.foundation.contracts.context import NodeContext
from qmtl.foundation.contracts.dag import (
    CreateTopic,
    DagCommand,
    DagSubmission,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    TopicReport,
)
from qmtl.foundation.contracts.diff import AckChunk, DiffChunk, DiffRequest
from qmtl.foundation.contracts.node import NodeDeployment
from qmtl.foundation.contracts.retention import ArchiveTopic, ReportTopicArchived
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.services.dagmanager import kinds
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.diff_stream import answer
from qmtl.services.dagmanager.processor import DagManager

MINUTE_MS: Final = 60_000

Message: TypeAlias = (
    DagSubmission | DagCommand | TopicReport | NodeDeployment | NodeContext | DiffRequest | AckChunk
)


def topic_of(message: Message) -> str:
    match message:
        case DagSubmission():
            return "dag.submissions"
        case ReportTopicCreated() | ReportTopicRemoved() | ReportTopicArchived():
            return "dag.reports"
        case NodeDeployment():
            return "node.deployments"
        case NodeContext():
            return "node.context"
        case DiffRequest():
            return "dag.diff.requests"
        case AckChunk():
            return "dag.diff.acks"
        case _:
            return "dag.commands"


class AnyDesk(ABC):
    """A DAG Manager that gets one message after the other, and what can be seen of it."""

    def __init__(self) -> None:
        self._manager = DagManager()
        self._tables: Mapping[str, Table] = {}
        self.emitted: list[Any] = []
        self._schemas: dict[str, str] = {}

    @abstractmethod
    def send(self, *messages: Message) -> None:
        """Each in a transaction of its own."""

    @abstractmethod
    def tick(self, bucket_ms: int) -> None:
        """The clock says that it is so late."""

    @abstractmethod
    def again(self) -> None:
        """Another process takes over: all memory is made again from the tables."""

    @abstractmethod
    def close(self) -> None: ...

    def upgrade(self, schemas: Mapping[str, str]) -> None:
        """Another process takes over, of a version of QMTL in which what nodes of these types write has schemas of these hashes."""
        if schemas != self._schemas:
            self._schemas = dict(schemas)
            self.again()

    def code(self) -> AbstractContextManager[Any]:
        """Inside of it the running code is that of the version."""
        return patch.dict(kinds.SCHEMA, self._schemas)

    def table(self, topic: str) -> Table:
        return self._tables[topic]

    def report_all(self) -> None:
        """Every topic that was asked for was made."""
        self.send(
            *(
                ReportTopicCreated(row.topic, True, "", "")
                for row in self.rows("dag.tasks")
                if isinstance(row, CreateTopic)
            )
        )

    def remove_all(self) -> None:
        """Every topic that was to be removed was removed."""
        for row in self.rows("dag.tasks"):
            if isinstance(row, RemoveTopic):
                kept = row.archived
                told = ("", 0, "") if kept is None else (kept.url, kept.records, kept.digest)
                self.send(ReportTopicRemoved(row.topic, True, "", "", *told))

    def told(self, name: str) -> list[Any]:
        """The events of a topic."""
        return [message for topic, message in self.emitted if topic == name]

    def at_length(self, request: DiffRequest) -> list[DiffChunk]:
        """The answer to a request, all of it let out, by somebody who remembers no message."""
        with self.code():
            return [replace(one, released=True) for one in answer(self.catalogue, request)]

    @property
    def catalogue(self) -> Catalogue:
        return self._manager._catalogue

    def references(self, node_id: str) -> int:
        return self.catalogue.references(node_id)

    def memory(self) -> dict[str, Any]:
        """What the processor remembers beside the tables."""
        found = vars(self.catalogue)
        return {name: value for name, value in found.items() if name not in ("_tables", "state")}

    def stream_memory(self) -> dict[str, Any]:
        """What it remembers beside the tables of the diffs that it answers."""
        return dict(vars(self._manager._streams))

    def rows(self, name: str) -> list[Any]:
        return list(self._tables[name].items())

    def all_rows(self) -> dict[str, list[Any]]:
        return {name: self.rows(name) for name in self._tables}


class Desk(AnyDesk):
    """Without a log: what a processor may touch is kept by the test."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._store = Store(directory / "store", "desk")
        self._tables = {name: Table(topic(name), 0, self._store, codec) for name in DagManager.tables}
        self._manager.restore(self._tables)
        self.closed_ms = 0
        self._count = 0

    def emit(self, topic: str, message: Any) -> None:
        self.emitted.append((topic, message))

    def encode(self, message: Any) -> bytes:
        return codec.encode(message)

    def send(self, *messages: Message) -> None:
        for message in messages:
            said = codec.encode(message) if isinstance(message, DiffRequest) else None
            with self.code():
                self._manager.on_record(self, Arrival(topic_of(message), 0, self._count, message, b"", said))
                self._count += 1
                self._manager.flush(self)

    def tick(self, bucket_ms: int) -> None:
        with self.code():
            self._manager.on_bucket(self, Bucket(bucket_ms, {}))
            self.closed_ms = bucket_ms
            self._manager.flush(self)

    def archive_all(self) -> None:
        """Every topic that was to be archived was archived; and those that come with the next ticks, of a minute each."""
        while asked := [row for row in self.rows("dag.tasks") if isinstance(row, ArchiveTopic)]:
            self.send(
                *(
                    ReportTopicArchived(row.topic, row.number, True, "", "", f"at/{row.topic}", 3, "of it")
                    for row in asked
                )
            )
            self.tick(self.closed_ms + MINUTE_MS)

    def again(self) -> None:
        self._manager = DagManager()
        self._manager.restore(self._tables)

    def seal(self) -> list[list[bytes]]:
        """End a transaction; returns the keys of each table's rows in the order in which it writes them."""
        return [[key for key, _ in table.seal(UNMARKED, 0)] for table in self._tables.values()]

    def close(self) -> None:
        self._store.close()
