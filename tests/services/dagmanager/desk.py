"""The DAG Manager on real tables without a log: the test hands it one message after another and looks at what it wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qmtl.engine.processor import Arrival
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.contracts.dag import DagSubmission, ReportTopicCreated
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic
from qmtl.services.dagmanager.processor import DagManager


class Desk:
    """What a processor may touch, kept by the test."""

    def __init__(self, directory: Path) -> None:
        self._store = Store(directory / "store", "desk")
        self._manager = DagManager()
        self._tables = {name: Table(topic(name), 0, self._store, codec) for name in DagManager.tables}
        self.emitted: list[Any] = []
        self._count = 0

    def table(self, topic: str) -> Table:
        return self._tables[topic]

    def emit(self, topic: str, message: Any) -> None:
        self.emitted.append((topic, message))

    def send(self, *messages: DagSubmission | ReportTopicCreated) -> None:
        for message in messages:
            name = "dag.submissions" if isinstance(message, DagSubmission) else "dag.reports"
            self._manager.on_record(self, Arrival(name, 0, self._count, message))
            self._count += 1

    def report_all(self) -> None:
        """Every topic that was asked for was made."""
        self.send(*(ReportTopicCreated(row.topic, True, "", "") for row in self.rows("dag.tasks")))

    def rows(self, name: str) -> list[Any]:
        return list(self._tables[name].items())

    def all_rows(self) -> dict[str, list[Any]]:
        return {name: self.rows(name) for name in self._tables}

    def close(self) -> None:
        self._store.close()
