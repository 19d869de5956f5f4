"""The DAG Manager on real tables without a log: the test hands it one message after another and looks at what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
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
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.services.dagmanager import graph
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.diff_stream import answer
from qmtl.services.dagmanager.processor import DagManager


class Desk:
    """What a processor may touch, kept by the test."""

    def __init__(self, directory: Path) -> None:
        self._store = Store(directory / "store", "desk")
        self._manager = DagManager()
        self._tables = {name: Table(topic(name), 0, self._store, codec) for name in DagManager.tables}
        self._manager.restore(self._tables)
        self.emitted: list[Any] = []
        self.closed_ms = 0
        self._count = 0
        self._schemas: dict[str, str] = {}

    def table(self, topic: str) -> Table:
        return self._tables[topic]

    def emit(self, topic: str, message: Any) -> None:
        self.emitted.append((topic, message))

    def send(
        self,
        *messages: DagSubmission
        | DagCommand
        | TopicReport
        | NodeDeployment
        | NodeContext
        | DiffRequest
        | AckChunk,
    ) -> None:
        """Each in a transaction of its own."""
        for message in messages:
            match message:
                case DagSubmission():
                    name = "dag.submissions"
                case ReportTopicCreated() | ReportTopicRemoved():
                    name = "dag.reports"
                case NodeDeployment():
                    name = "node.deployments"
                case NodeContext():
                    name = "node.context"
                case DiffRequest():
                    name = "dag.diff.requests"
                case AckChunk():
                    name = "dag.diff.acks"
                case _:
                    name = "dag.commands"
            said = codec.encode(message) if isinstance(message, DiffRequest) else None
            with self._code():
                self._manager.on_record(self, Arrival(name, 0, self._count, message, b"", said))
                self._count += 1
                self._manager.flush(self)

    def tick(self, bucket_ms: int) -> None:
        """The clock says that it is so late."""
        with self._code():
            self._manager.on_bucket(self, Bucket(bucket_ms, {}))
            self.closed_ms = bucket_ms
            self._manager.flush(self)

    def again(self) -> None:
        """Another process takes over: all memory is made again from the tables."""
        self._manager = DagManager()
        self._manager.restore(self._tables)

    def upgrade(self, schemas: Mapping[str, str]) -> None:
        """Another process takes over, of a version of QMTL in which what nodes of these types write has schemas of these hashes."""
        if schemas != self._schemas:
            self._schemas = dict(schemas)
            self.again()

    def _code(self) -> AbstractContextManager[Any]:
        return patch.dict(graph.SCHEMA, self._schemas)

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
        self.send(
            *(
                ReportTopicRemoved(row.topic, True, "", "", f"at/{row.topic}" if row.archive else "")
                for row in self.rows("dag.tasks")
                if isinstance(row, RemoveTopic)
            )
        )

    def told(self, name: str) -> list[Any]:
        """The events of a topic."""
        return [message for topic, message in self.emitted if topic == name]

    def references(self, node_id: str) -> int:
        return self.catalogue.references(node_id)

    def at_length(self, request: DiffRequest) -> list[DiffChunk]:
        """The answer to a request, all of it let out, by somebody who remembers no message."""
        with self._code():
            return [replace(one, released=True) for one in answer(self.catalogue, request)]

    @property
    def catalogue(self) -> Catalogue:
        return self._manager._catalogue

    def memory(self) -> dict[str, Any]:
        """What the processor remembers beside the tables."""
        found = vars(self.catalogue)
        return {name: value for name, value in found.items() if name not in ("_tables", "state")}

    def stream_memory(self) -> dict[str, Any]:
        """What it remembers beside the tables of the diffs that it answers."""
        return dict(vars(self._manager._streams))

    def seal(self) -> list[list[bytes]]:
        """End a transaction; returns the keys of each table's rows in the order in which it writes them."""
        return [[key for key, _ in table.seal(UNMARKED, 0)] for table in self._tables.values()]

    def rows(self, name: str) -> list[Any]:
        return list(self._tables[name].items())

    def all_rows(self) -> dict[str, list[Any]]:
        return {name: self.rows(name) for name in self._tables}

    def close(self) -> None:
        self._store.close()
