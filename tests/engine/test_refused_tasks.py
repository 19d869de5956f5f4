"""A task that is refused is kept closed by itself: the others of its worker go on, all is told, and who ends the cause opens it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog, EmbeddedReader
from qmtl.engine.log.port import Positions, Record, TopicDescription, TopicPartition
from qmtl.engine.observer import Outcome, StallKind, TaskId
from qmtl.engine.refusal import noted_refusals
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.worker import LONGEST_WAIT_S, Worker, run
from qmtl.foundation.common.errors import (
    CrashLoop,
    CutMismatch,
    DeadLettersRefused,
    Fenced,
    HandlerBroken,
    IncompatibleSchema,
    InvalidTopology,
    InvariantBroken,
    LogError,
    LogRegressed,
    MalformedValue,
    MissingRight,
    OffsetGone,
    QmtlError,
    StampMismatch,
    StateMismatch,
    UnknownTopic,
)
from tests.contract.driving import until
from tests.engine.driving import messages
from tests.engine.faults import Fault, FaultyLog
from tests.engine.models import counted
from tests.engine.poison_toys import BAD, Ledger
from tests.engine.toys import CODEC, DEAD, ECHO, ITEMS, Counter, Feed, Item, make_topics
from tests.engine.waiting import Told, check, given, seen
from tests.interfaces.metrics.scraping import shown

FIRST = TopicPartition(ITEMS.name, 0)

REFUSALS = (
    CrashLoop,
    CutMismatch,
    DeadLettersRefused,
    IncompatibleSchema,
    LogError,
    LogRegressed,
    MalformedValue,
    OffsetGone,
    StampMismatch,
    StateMismatch,
    UnknownTopic,
)
ENDS = (Fenced, MissingRight, InvariantBroken, InvalidTopology, ZeroDivisionError)
POINTS = ("made", "opened", "run")


class Refusing(EmbeddedLog):
    """An embedded log on which the first task of the counter meets an error at one point of its way, until it is ended."""

    point = ""
    error: type[Exception] = LogRegressed
    asked = 0
    made = 0

    def meet(self, point: str) -> None:
        if point == self.point:
            self.asked += 1
            raise self.error("the log is not the one that the task knows.")

    def describe(self, topic: str) -> TopicDescription | None:
        if topic == ITEMS.name and self.point == "made":
            self.made += 1
            if self.made != 2:  # the second is the other task, which is made once
                self.meet("made")
        return super().describe(topic)

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        if FIRST in partitions:
            self.meet("opened")
        return super().committed(group, partitions, wait_s)

    def reader(self) -> EmbeddedReader:
        return RefusingReader(self)


class RefusingReader(EmbeddedReader):
    def __init__(self, log: Refusing) -> None:
        super().__init__(log)
        self._refusing = log

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if FIRST in self.positions():
            self._refusing.meet("run")
        return super().poll(max_records, timeout_s)


class Bed:
    """A worker by a clock that is set by hand; two items of each task are done."""

    def __init__(self, place: Path, point: str, error: type[Exception]) -> None:
        self.log = Refusing(place / "log")
        make_topics(self.log)
        self.now = 100.0
        self.told = Told()
        self.state = place / "state"
        self.settings = TaskSettings(self.state, observer=self.told, clock=lambda: self.now)
        self.feed = Feed(self.log, ITEMS)
        self.worker = Worker(self.log, Counter, CODEC, self.settings)
        self.items = given(self.feed, 0, 2)
        if point == "run":
            self.settle()
        self.log.point, self.log.error = point, error

    def settle(self) -> None:
        idle = 0
        while idle < 3:
            idle = 0 if self.worker.serve() else idle + 1


@pytest.fixture
def beds(tmp_path: Path) -> Iterator[Callable[[str, type[Exception]], Bed]]:
    made: list[Bed] = []

    def make(point: str, error: type[Exception]) -> Bed:
        made.append(Bed(tmp_path, point, error))
        return made[-1]

    yield make
    for one in made:
        one.worker.close()
        one.log.close()


Beds = Callable[[str, type[Exception]], Bed]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("error", REFUSALS)
def test_a_refused_task_is_closed_by_itself_and_opens_when_the_cause_has_ended(
    beds: Beds, point: str, error: type[QmtlError]
) -> None:
    bed = beds(point, error)
    for _ in range(3):
        bed.settle()
        assert list(noted_refusals(bed.state)) == [TaskId("counter", 0)]
        bed.items += given(bed.feed, len(seen(bed.log)["1"]), len(seen(bed.log)["1"]) + 2)
        bed.now += LONGEST_WAIT_S - 0.5
        bed.settle()  # not yet
        assert list(bed.worker.tasks) == [1]
        bed.now += 0.5
    assert bed.log.asked == 3
    assert len(seen(bed.log)["1"]) == 8
    # One that runs for a moment each time has failed each time; one that is not opened is only asked for again.
    assert bed.told.ends == [Outcome.FAILED] * (3 if point == "run" else 1)
    stalls = [(task.number, stall.kind, stall.seconds) for task, stall in bed.told.stalls]
    stood = (0, 0, 0) if point == "run" else (0, 30, 60)
    assert stalls == [(0, StallKind.REFUSED, seconds) for seconds in stood]
    assert bed.told.stalls[0][1].what.startswith(f"[{error.code}] the log is not")
    assert noted_refusals(bed.state)[TaskId("counter", 0)].startswith(f"[{error.code}] the log is not")
    bed.log.point = ""
    bed.settle()
    assert sorted(bed.worker.tasks) == [0, 1]
    assert noted_refusals(bed.state) == {}
    check(bed.log, bed.items)


def test_a_worker_that_leaves_takes_its_notes_with_it(beds: Beds) -> None:
    bed = beds("opened", LogRegressed)
    bed.settle()
    assert noted_refusals(bed.state)
    bed.worker.close()
    assert noted_refusals(bed.state) == {}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("error", ENDS)
def test_what_is_no_fault_of_one_task_ends_its_worker(beds: Beds, point: str, error: type[Exception]) -> None:
    bed = beds(point, error)
    with pytest.raises(error):
        run([bed.worker], lambda: False)
    assert bed.told.stalls == []


@pytest.mark.parametrize("point", POINTS)
def test_a_refused_task_holds_nothing(beds: Beds, point: str) -> None:
    bed = beds(point, StampMismatch)
    bed.settle()
    bed.log.point = ""
    task = Task(bed.log, Counter(), 0, CODEC, TaskSettings(bed.state))  # the same store
    task.open()
    task.close()


def test_a_handler_that_is_broken_is_not_tried_again_as_each_time_costs_letters(beds: Beds) -> None:
    bed = beds("run", HandlerBroken)
    bed.settle()
    bed.now += 1e6
    bed.settle()
    assert (bed.log.asked, list(bed.worker.tasks)) == (1, [1])


def test_who_steps_a_worker_is_told_of_a_refusal_by_its_error_and_may_go_on(beds: Beds) -> None:
    bed = beds("opened", OffsetGone)
    with pytest.raises(OffsetGone):
        bed.worker.step()
    while bed.worker.step():
        pass
    assert list(bed.worker.tasks) == [1]


def test_under_run_the_others_go_on(beds: Beds) -> None:
    bed = beds("opened", OffsetGone)
    run([bed.worker], lambda: len(seen(bed.log)["1"]) == 2)
    assert list(bed.worker.tasks) == [1]


class Letterless(FaultyLog):
    """Says that it has no topic of letters: that is why a commit of one came to no end that is known."""

    def describe(self, topic: str) -> TopicDescription | None:
        return None if topic == DEAD.name else super().describe(topic)


def test_a_writer_whose_last_transaction_is_unknown_is_not_left_to_the_others(tmp_path: Path) -> None:
    log = Letterless(tmp_path / "log", iter([Fault.UNKNOWN_BEFORE]))
    make_topics(log)
    items = [Item("1", 0, 1), Item("1", 1, 2)]
    Feed(log, ITEMS).put({0: [Item("0", 0, BAD)], 1: items})
    with closing(Worker(log, Ledger, CODEC, TaskSettings(tmp_path / "state"))) as worker:
        with pytest.raises(DeadLettersRefused):
            worker.step()
        while worker.step():
            pass
        assert messages(log, ECHO.name) == counted(items)
    log.close()


def test_a_decision_that_is_made_while_the_worker_runs_is_taken_by_it(tmp_path: Path) -> None:
    bed = Bed(tmp_path, "", LogRegressed)
    bed.settle()
    bed.worker.close()
    somebody = bed.log.writer("somebody")
    somebody.begin()
    somebody.commit({FIRST: 0}, "qmtl.counter", None)
    bed.worker = Worker(bed.log, Counter, CODEC, bed.settings)
    bed.items += given(bed.feed, 2, 4)
    bed.settle()
    assert {stall.what.split()[0] for _, stall in bed.told.stalls} == {f"[{StampMismatch.code}]"}
    assert "qmtl worker accept counter --task 0" in bed.told.stalls[0][1].remedy
    task = Task(bed.log, Counter(), 0, CODEC, TaskSettings(bed.state))
    assert len(task.accept("ann", "it was a mistake", lambda found: None)) == 1
    task.close()
    bed.now += LONGEST_WAIT_S
    bed.settle()
    check(bed.log, bed.items)
    bed.worker.close()
    bed.log.close()


def test_a_refused_task_is_told_to_who_watches(tmp_path: Path) -> None:
    log = Refusing(tmp_path / "log")
    make_topics(log)
    log.point = "opened"
    items = given(Feed(log, ITEMS), 0, 2)
    with shown(log, tmp_path / "state", Counter) as runs:
        until(lambda: runs.worker.serve() is not None and len(seen(log)["1"]) == 2)
        told = runs.health()
        assert told.status == 503
        (reason,) = told.json()["reasons"]
        assert re.match(r"counter\[0\] is kept closed for \d+ s: \[QMTL-307\] the log is not the one", reason)
        assert [one["phase"] for one in told.json()["tasks"]] == ["refused", "running"]
        found = runs.scrape()
        labels: dict[str, str | int] = {"processor": "counter", "task": 0}
        assert found.get("qmtl_task_phase", phase="refused", **labels) == 1
        assert (found.get("qmtl_restore_stalled_seconds", cause="refused", **labels) or 0) > 0
        assert found.get("qmtl_restore_running_seconds", **labels) == 0
        assert messages(log, ECHO.name) == counted([one for one in items if one.name == "1"])
    log.close()
