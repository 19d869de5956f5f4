"""A worker by a clock that is set by hand, and what its two tasks have to give."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, Positions, TopicPartition
from qmtl.engine.observer import Nobody, Outcome, Stall, TaskId
from qmtl.engine.store import Rebuilt
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import (
    LogError,
    UnstableOffsets,
)
from tests.engine.driving import messages
from tests.engine.models import counted
from tests.engine.toys import (
    CODEC,
    ECHO,
    Counter,
    Feed,
    Item,
    Toy,
    make_topics,
)


def given(feed: Feed, begin: int, end: int) -> list[Item]:
    """Items for both tasks, with the numbers from `begin` to `end`."""
    rows = {number: [Item(f"{number}", seq, 1) for seq in range(begin, end)] for number in (0, 1)}
    feed.put(rows)
    return [one for items in rows.values() for one in items]


def seen(log: Log) -> dict[str, list[Any]]:
    """What came out, by name: the name is the number of the task."""
    out: dict[str, list[Any]] = {"0": [], "1": []}
    for one in messages(log, ECHO.name):
        out[one.name].append(one)
    return out


def seen_of(name: str, log: Log) -> list[Any]:
    return [one for one in messages(log, ECHO.name) if one.name == name]


def check(log: Log, items: list[Item]) -> None:
    """Everything came out once, in the order of each name."""
    assert seen(log) == {name: counted([one for one in items if one.name == name]) for name in ("0", "1")}


class Held(EmbeddedLog):
    """An embedded log on which a transaction holds positions as long as it is told to."""

    held: Collection[TopicPartition] = ()
    asked = 0
    error: Callable[[str, str], LogError] = UnstableOffsets

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        if any(where in self.held for where in partitions):
            self.asked += 1
            raise type(self).error("a transaction has not ended.", "Wait.")
        return super().committed(group, partitions, wait_s)


class Told(Nobody):
    """Remembers what it is told of stalls."""

    def __init__(self) -> None:
        self.stalls: list[tuple[TaskId, Stall]] = []
        self.opens: list[TaskId] = []
        self.closes: list[TaskId] = []
        self.ends: list[Outcome] = []

    def ended(self, task: TaskId, outcome: Outcome) -> None:
        self.ends.append(outcome)

    def stalled(self, task: TaskId, stall: Stall) -> None:
        self.stalls.append((task, stall))

    def opened(self, task: TaskId) -> None:
        self.opens.append(task)

    def closed(self, task: TaskId) -> None:
        self.closes.append(task)


class Bed:
    """A worker by a clock that is set by hand."""

    def __init__(self, place: Path) -> None:
        self.log = Held(place / "log")
        make_topics(self.log)
        self.now = 100.0
        self.told = Told()
        self.state = place / "state"
        self.rebuilt: list[Rebuilt] = []
        self.start(Counter)

    def start(self, make: Callable[[], Toy]) -> None:
        settings = TaskSettings(
            self.state, observer=self.told, clock=lambda: self.now, on_rebuild=self.rebuilt.append
        )
        self.worker = Worker(self.log, make, CODEC, settings)

    def settle(self) -> None:
        idle = 0
        while idle < 3:
            idle = 0 if self.worker.step() else idle + 1


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    one = Bed(tmp_path)
    yield one
    one.worker.close()
    one.log.close()
