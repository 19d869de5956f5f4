"""One decision of the DAG Manager while it is written down: what it came from, and where its rows and events go."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from qmtl.engine.processor import Step
from qmtl.foundation.contracts.dag import AdminAct, AdminEntry
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.prescan import Prescan


@dataclass(frozen=True, slots=True)
class Act:
    """What a decision may touch.

    Attributes:
        cause: the submission, the command, the topic of a report, or the tick.
        at_ms: the clock's last tick; before the first one, what the message says.
    """

    step: Step
    catalogue: Catalogue
    prescan: Prescan
    cause: str
    at_ms: int

    def note(
        self, act: AdminAct, subject: str, node_id: str = "", detail: str = "", digest: str = ""
    ) -> None:
        """Add a line to the admin log."""
        entry = AdminEntry(act, subject, node_id, self.cause, self.at_ms, detail, digest)
        self.step.emit("dag.admin.log", entry)

    @property
    def ts(self) -> str:
        """The instant as the control events tell it."""
        return told_time(self.at_ms)


LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, after which no calendar that we know tells an instant."""


def bounded(said_ms: int) -> int:
    """An instant as a message says it, if it can be one."""
    return min(max(said_ms, 0), LAST_MS)


def told_time(at_ms: int) -> str:
    """An instant as ISO 8601 in UTC, to the second."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
