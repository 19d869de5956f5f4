"""A task that can't be opened for what stands on the log waits by itself: the others of its worker go on, and all is told."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rocksdict import Rdict

from qmtl.engine import recovery
from qmtl.engine import store as stores
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.embedded_membership import EmbeddedMembership
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import KafkaSettings
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.observer import Outcome, StallKind
from qmtl.engine.processor import Arrival, Bucket, Step
from qmtl.engine.worker import LONGEST_WAIT_S
from qmtl.foundation.common.errors import (
    LogError,
    LogUnreachable,
    MembershipLost,
    RecoveryStalled,
    UnstableOffsets,
)
from qmtl.testing.broker import Broker, start_broker
from tests.contract.driving import until
from tests.contract.outsiders import holder, outsider
from tests.engine.driving import bench, messages
from tests.engine.models import counted, minute
from tests.engine.poison_toys import NAMED, Column
from tests.engine.test_store import Refusing, held_elsewhere
from tests.engine.toys import (
    A_OUT,
    COUNTS,
    DEAD,
    ECHO,
    ITEMS,
    Counter,
    Feed,
    Item,
    X,
    make_topics,
)
from tests.engine.waiting import Bed, Held, check, given, seen
from tests.interfaces.metrics.scraping import shown

HELD, FREE = TopicPartition(ITEMS.name, 0), TopicPartition(ITEMS.name, 1)


@contextmanager
def stuck(log: KafkaLog, what: str) -> Iterator[None]:
    """An open transaction of somebody else: with positions of the first task, or in its table."""
    if what == "positions":
        with holder(log, "qmtl.counter", {HELD: 1}):
            yield
    else:
        with outsider(log, TopicPartition(COUNTS.name, 0)):
            yield


@pytest.mark.parametrize("what", ["positions", "table"])
def test_behind_somebodys_transaction_one_task_waits_and_the_other_goes_on(
    kafka_log: KafkaLog, tmp_path: Path, what: str
) -> None:
    log = kafka_log
    make_topics(log)
    feed = Feed(log, ITEMS)
    items = given(feed, 0, 3)
    with bench(log, tmp_path / "first", Counter, interval_ms=50) as runs:
        runs.until(lambda: all(len(one) == 3 for one in seen(log).values()))
    with shown(log, tmp_path / "second", Counter) as fresh:
        with stuck(log, what):

            def stands() -> float:
                fresh.worker.step(0.02)
                name, cause = "qmtl_restore_stalled_seconds", "open_transaction"
                return fresh.scrape().get(name, processor="counter", task=0, cause=cause) or 0

            until(lambda: stands() > 0)
            before = stands()
            items += given(feed, 3, 5)
            until(
                lambda: stands() > before + 3 and len(seen(log)["1"]) == 5, 60
            )  # it is told less and less often
            told = fresh.health()
            assert told.status == 503
            (reason,) = [one for one in told.json()["reasons"] if "makes no progress" in one]
            assert reason.startswith("counter[0] makes no progress with that for ")
            assert "find-hanging" in reason
            assert [one["phase"] for one in told.json()["tasks"]] == ["restoring", "running"]
            assert len(seen(log)["0"]) == 3
        until(lambda: fresh.worker.step(0.02) is not None and fresh.health().status == 200)
        until(lambda: fresh.worker.step(0.02) is not None and len(seen(log)["0"]) == 5)
    check(log, items)


# ---- how long it waits ----------------------------------------------------------------------------------------


def test_it_is_tried_again_less_and_less_often_and_at_once_less_often_than_its_bound(bed: Bed) -> None:
    bed.log.held = [HELD]
    tries: list[float] = []
    for _ in range(200):
        bed.settle()
        if len(tries) < bed.log.asked:
            tries.append(bed.now)
        bed.now += 1.0
    assert bed.log.asked == len(tries), "between two attempts there is time"
    waits = [after - before for before, after in pairwise(tries)]
    assert waits == [1, 2, 4, 8, 16, *[LONGEST_WAIT_S] * (len(waits) - 5)]
    assert [task.number for task, _ in bed.told.stalls] == [0] * len(tries)
    assert [stall.seconds for _, stall in bed.told.stalls] == [at - tries[0] for at in tries]
    assert {stall.kind for _, stall in bed.told.stalls} == {StallKind.OPEN_TRANSACTION}
    assert list(bed.worker.tasks) == [1]
    bed.log.held = []
    bed.now += LONGEST_WAIT_S
    bed.settle()
    assert list(bed.worker.tasks) == [1, 0]
    assert [task.number for task in bed.told.opens] == [1, 0]


def test_a_task_that_waits_is_closed_with_its_worker_and_leaves_nothing_locked(
    bed: Bed, tmp_path: Path
) -> None:
    bed.log.held = [HELD, FREE]
    bed.settle()
    assert list(bed.worker.tasks) == []
    bed.worker.close()
    assert sorted(task.number for task in bed.told.closes) == [0, 1]
    bed.log.held = []
    with bench(bed.log, tmp_path / "state", Counter) as runs:  # the same stores
        runs.settle()
        assert list(runs.workers[0].tasks) == [0, 1]


class Picky(Column):
    """Can't use what is less than nothing; when it first says so, a transaction holds the positions that it reads."""

    log: Held | None

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        log = Picky.log
        if log is not None and any(one.message.amount < 0 for one in bucket.arrivals[X.name]):
            Picky.log, log.held = None, [TopicPartition(X.name, 0)]
        super().on_bucket(step, bucket)


@pytest.mark.parametrize("error", [UnstableOffsets, RecoveryStalled, LogUnreachable])
def test_a_task_that_can_not_begin_again_at_a_record_that_it_can_not_use_waits_by_itself(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, error: type[LogError]
) -> None:
    bed.worker.close()
    monkeypatch.setattr(Held, "error", error)
    monkeypatch.setattr(Picky, "log", bed.log, raising=False)
    bed.start(Picky)
    Feed(bed.log, X).bucket(minute(1), {0: [Item("a", 0, 1), Item("b", 1, NAMED), Item("c", 2, 1)]})
    bed.settle()
    assert 0 not in bed.worker.tasks
    assert bed.told.ends == [Outcome.ABORTED]
    assert [task.number for task, _ in bed.told.stalls] == [0]
    bed.log.held = []
    bed.now += 1.0
    bed.settle()
    assert 0 in bed.worker.tasks
    assert len(messages(bed.log, DEAD.name)) == 1
    assert [(one.name, one.amount) for one in messages(bed.log, A_OUT.name)] == [("a", 1), ("c", 2)]


# ---- a store that can't be used --------------------------------------------------------------------------------


def test_behind_another_process_that_has_its_store_open_one_task_waits_and_the_other_goes_on(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, ITEMS)
    items = given(feed, 0, 3)
    with bench(log, tmp_path, Counter) as runs:
        runs.settle()
    with shown(log, tmp_path, Counter) as fresh:

        def stands() -> float:
            fresh.worker.step(0.02)
            name = "qmtl_restore_stalled_seconds"
            return fresh.scrape().get(name, processor="counter", task=0, cause="store_held") or 0

        with held_elsewhere(tmp_path / "counter-0", log.log_id):
            until(lambda: stands() > 0)
            items += given(feed, 3, 5)
            until(lambda: stands() > 0 and len(seen(log)["1"]) == 5)
            told = fresh.health()
            assert told.status == 503
            (reason,) = [one for one in told.json()["reasons"] if "makes no progress" in one]
            assert "counter-0 is held by another process" in reason
            assert "--state-dir" in reason
            assert len(seen(log)["0"]) == 3
        until(lambda: fresh.worker.step(0.02) is not None and fresh.health().status == 200)
        until(lambda: fresh.worker.step(0.02) is not None and len(seen(log)["0"]) == 5)
    check(log, items)


class Short:
    """Opens databases; that of the first task not, so many times after it was opened so many times."""

    def __init__(self, after: int, times: int) -> None:
        self.after, self.times = after, times

    def __call__(self, path: str, *args: Any, **more: Any) -> Any:
        if path.endswith("counter-0"):
            self.after -= 1
            if self.after < 0 <= self.after + self.times:
                said = os.strerror(errno.EMFILE)
                raise Exception(f"IO error: While open a file for random read: {path}/000012.sst: {said}")
        return Rdict(path, *args, **more)


@pytest.mark.parametrize("after", [0, 1, 2])  # as it is found; for the rows of a restore; at the end of these
def test_a_store_that_the_system_does_not_open_makes_its_task_wait_and_loses_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    items = given(Feed(bed.log, ITEMS), 0, 3)
    bed.settle()
    bed.worker.close()
    if after:
        monkeypatch.setattr(recovery, "MANY", 1)
        shutil.rmtree(bed.state)
    monkeypatch.setattr(stores, "Rdict", Short(after, 3))
    bed.start(Counter)
    for wait_s in (1, 2, 4):
        bed.settle()
        assert list(bed.worker.tasks) == [1]
        bed.now += wait_s
    items += given(Feed(bed.log, ITEMS), 3, 5)
    bed.settle()
    assert list(bed.worker.tasks) == [1, 0]
    assert [(stall.kind, stall.seconds) for _, stall in bed.told.stalls] == [
        (StallKind.STORE_ERROR, seconds) for seconds in (0, 1, 3)
    ]
    assert "Too many open files" in bed.told.stalls[0][1].what
    assert bed.rebuilt == []
    check(bed.log, items)


@pytest.mark.parametrize("name", ["write", "get"])
def test_a_task_whose_store_fails_while_it_runs_waits_by_itself_and_loses_nothing(
    bed: Bed, name: str
) -> None:
    feed = Feed(bed.log, ITEMS)
    items = given(feed, 0, 3)
    bed.settle()
    store = bed.worker.tasks[0].store
    store._db = Refusing(store._db, name, errno.EIO)
    # Other names are not in the memory of the table.
    feed.put({0: (fresh := [Item("2", seq, 1) for seq in range(3)])})
    items += given(feed, 3, 5)
    bed.settle()
    assert list(bed.worker.tasks) == [1]
    assert bed.told.ends == [Outcome.ABORTED]
    assert [(task.number, stall.kind) for task, stall in bed.told.stalls] == [(0, StallKind.STORE_ERROR)]
    bed.now += 1.0
    bed.settle()
    assert list(bed.worker.tasks) == [1, 0]
    assert bed.rebuilt == []
    found = messages(bed.log, ECHO.name)
    for one in ("0", "1", "2"):
        wanted = [item for item in [*items, *fresh] if item.name == one]
        assert [echo for echo in found if echo.name == one] == counted(wanted)


class Fatal(Counter):
    """Kills its broker at the fourth item of a name, once."""

    name = "counter"
    broker: Broker | None = None

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.message.seq == 3 and Fatal.broker is not None:
            broker, Fatal.broker = Fatal.broker, None
            broker.kill()
        super().on_record(step, arrival)


@pytest.mark.broker
def test_a_worker_outlives_a_broker_that_is_away_for_longer_than_any_call_may_take(tmp_path: Path) -> None:
    with start_broker() as broker:
        log = KafkaLog(broker.bootstrap, settings=KafkaSettings(call_timeout_s=2.0))
        patient = KafkaLog(broker.bootstrap)
        make_topics(patient)
        feed = Feed(patient, ITEMS)
        items = given(feed, 0, 3)
        with shown(log, tmp_path / "state", Fatal) as runs:

            def step() -> bool:
                return runs.worker.step(0.02) is not None

            until(lambda: step() and all(len(one) == 3 for one in seen(patient).values()), 60)
            items += given(feed, 3, 5)
            Fatal.broker = broker
            until(lambda: step() and Fatal.broker is None and runs.health().status == 503, 60)
            away = time.monotonic()
            until(lambda: step() and time.monotonic() - away > 8, 60)  # several calls that nobody answers
            broker.start()
            until(lambda: step() and runs.health().status == 200, 60)
            until(lambda: step() and all(len(one) == 5 for one in seen(patient).values()), 60)
        check(patient, items)
        log.close()
        patient.close()


class Patient(Counter):
    """Asks a log that is away three times."""

    name = "counter"
    away = 3

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if Patient.away:
            Patient.away -= 1
            raise LogUnreachable("no broker.")
        super().on_record(step, arrival)


def test_a_handler_that_reaches_no_log_is_asked_again_and_nothing_is_a_letter(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    items = given(Feed(embedded_log, ITEMS), 0, 3)
    with bench(embedded_log, tmp_path, Patient) as runs:
        runs.settle()
    assert Patient.away == 0
    assert messages(embedded_log, DEAD.name) == []
    check(embedded_log, items)


class Leaving(EmbeddedLog):
    """An embedded log that takes its members' places away when it is told to, and can't be asked to join for a while then."""

    lost = False
    away = 0

    def membership(self, group: str, member: str, anchor: str) -> EmbeddedMembership:
        if self.away:
            self.away -= 1
            raise LogUnreachable("no broker.")
        made = super().membership(group, member, anchor)
        return LeavingMembership(made.poll(), self)


class LeavingMembership(EmbeddedMembership):
    def __init__(self, tasks: frozenset[int], log: Leaving) -> None:
        super().__init__(tasks)
        self._log = log

    def poll(self, timeout_s: float = 0.0) -> frozenset[int]:
        if self._log.lost:
            self._log.lost = False
            raise MembershipLost("another has it.")
        return super().poll(timeout_s)


def test_a_worker_that_lost_its_place_while_the_log_is_away_joins_when_it_is_back(tmp_path: Path) -> None:
    log = Leaving(tmp_path / "log")
    make_topics(log)
    feed = Feed(log, ITEMS)
    items = given(feed, 0, 3)
    with bench(log, tmp_path / "state", Counter) as runs:
        runs.settle()
        items += given(feed, 3, 5)
        log.lost, log.away = True, 3
        runs.settle()
    assert (log.lost, log.away) == (False, 0)
    check(log, items)
    log.close()
