"""Who has the tasks on the embedded log: the one process that holds it."""

from __future__ import annotations

from qmtl.engine.log.port import Fence


class EmbeddedMembership:
    """The one process has all tasks."""

    def __init__(self, tasks: frozenset[int]) -> None:
        self._tasks = tasks

    def poll(self, timeout_s: float = 0.0) -> frozenset[int]:
        return self._tasks

    def fence(self) -> Fence | None:
        return None

    def close(self) -> None:
        self._tasks = frozenset()
