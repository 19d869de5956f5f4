"""A log that is far away: a task opens however long its answers take, and one that can't open leaves the others most of the time."""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog, EmbeddedReader
from qmtl.engine.log.port import Positions, Record, TopicPartition
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import LONGEST_WAIT_S, STALL_S, Worker
from tests.engine.toys import CODEC, COUNTS, ITEMS, Counter, Feed, make_topics
from tests.engine.waiting import Told, check, given, seen

TABLE = TopicPartition(COUNTS.name, 0)


class Far(EmbeddedLog):
    """An embedded log of which the table of the first task is far away, by a clock of its own.

    Attributes:
        delay_s: a reader of it is given nothing for so long.
        gives: and so many records in all.
        held: an open transaction is why.
    """

    now = 100.0
    delay_s = 0.0
    gives = math.inf
    held = False

    def reader(self) -> EmbeddedReader:
        return FarReader(self)

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        found = dict(super().stable_offsets(partitions))
        return {**found, TABLE: 0} if self.held and TABLE in found else found


class FarReader(EmbeddedReader):
    def __init__(self, log: Far) -> None:
        super().__init__(log)
        self._far = log
        self._began = log.now
        self._given = 0

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if TABLE not in self.positions():
            return super().poll(max_records, timeout_s)
        if self._far.now < self._began + self._far.delay_s or self._given >= self._far.gives:
            self._far.now += timeout_s
            return []
        self._given += 1
        return super().poll(1, timeout_s)


class Bed:
    """A worker that has to restore what another life of it wrote."""

    def __init__(self, place: Path) -> None:
        self.log = Far(place / "log")
        make_topics(self.log)
        self.feed = Feed(self.log, ITEMS)
        self.told = Told()
        self.settings = TaskSettings(place / "state", observer=self.told, clock=lambda: self.log.now)
        self.worker = Worker(self.log, Counter, CODEC, self.settings)
        self.items = []
        for number in range(6):
            self.items += given(self.feed, number, number + 1)
            self.settle()
        self.worker.close()
        shutil.rmtree(place / "state")
        self.worker = Worker(self.log, Counter, CODEC, self.settings)

    def settle(self) -> None:
        while self.worker.step():
            pass


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    one = Bed(tmp_path)
    yield one
    one.worker.close()
    one.log.close()


@pytest.mark.parametrize("delay_s", [0.0, STALL_S - 0.5, STALL_S + 0.5, 7.0, 14.0])
def test_a_task_opens_however_late_a_log_begins_to_give(bed: Bed, delay_s: float) -> None:
    bed.log.delay_s = delay_s
    for _ in range(10):
        bed.settle()
        bed.log.now += LONGEST_WAIT_S
    assert sorted(bed.worker.tasks) == [0, 1]
    bed.items += given(bed.feed, 6, 8)
    bed.settle()
    check(bed.log, bed.items)


@pytest.mark.parametrize("held", [True, False])
def test_an_attempt_takes_less_than_the_wait_before_it_and_no_longer_where_a_transaction_is_why(
    bed: Bed, held: bool
) -> None:
    bed.log.delay_s, bed.log.held = math.inf, held
    took_s = 0.0
    for _ in range(12):
        before = bed.log.now
        bed.settle()
        took_s = bed.log.now - before
        assert took_s < (STALL_S if held else LONGEST_WAIT_S / 2) + 0.5
        bed.log.now += LONGEST_WAIT_S
    assert took_s > (0 if held else LONGEST_WAIT_S / 2 - 0.5)
    assert list(bed.worker.tasks) == [1]
    assert len(seen(bed.log)["1"]) == 6


def test_a_restore_that_gets_on_is_soon_gone_on_with(bed: Bed) -> None:
    bed.log.gives = 2
    rounds = bed.log.end_offsets([TABLE])[TABLE] // 2 + 1
    assert rounds > 5
    for _ in range(rounds):
        bed.settle()
        bed.log.now += 1.0
    assert sorted(bed.worker.tasks) == [0, 1]
    assert max(stall.seconds for _, stall in bed.told.stalls) < STALL_S + 0.5
    check(bed.log, bed.items)
