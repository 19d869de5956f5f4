"""A task whose transactions can't succeed waits by itself, longer and longer, until they do; all is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package re-exports them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from prometheus_client import CollectorRegistry

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.embedded_writer import EmbeddedWriter
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import MESSAGE_MAX_BYTES, TopicDescription
from qmtl.engine.observer import StallKind
from qmtl.engine.processor import Arrival, Step
from qmtl.engine.repeats import FAILURES_AT_ONE_PLACE, FORGOTTEN_S
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import LONGEST_WAIT_S, Worker
from qmtl.foundation.common.errors import (
    Fenced,
    LogRegressed,
    LogUnreachable,
    OutcomeUnknown,
    TransactionAborted,
    TransactionError,
)
from qmtl.interfaces.metrics.health import health
from qmtl.interfaces.metrics.watch import Watch
from tests.contract.driving import until
from tests.engine.driving import messages, takes
from tests.engine.models import counted
from tests.engine.poison_toys import NAMED, TORN, Column, Ledger
from tests.engine.test_refused_tasks import Refusing
from tests.engine.toys import CODEC, DEAD, ECHO, ITEMS, Counter, Feed, Item, X, make_topics
from tests.engine.waiting import Bed, Told, check, given, seen, seen_of
from tests.interfaces.metrics.scraping import shown


class Doomed(Counter):
    """Its transactions fail at what is less than nothing, with each of these errors in turn, as long as there are any."""

    name = "counter"
    errors: Sequence[type[TransactionError]] = ()
    failed = 0

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.message.amount < 0 and Doomed.errors:
            Doomed.failed += 1
            raise Doomed.errors[Doomed.failed % len(Doomed.errors)]("the topic takes none.", "Mend it.")
        super().on_record(step, arrival)


def attempts(bed: Bed, seconds: int) -> list[float]:
    """When the transaction of the first task was tried and failed."""
    tries: list[float] = []
    for _ in range(seconds):
        bed.settle()
        tries += [bed.now] * (Doomed.failed - len(tries))
        bed.now += 1.0
    return tries


@pytest.mark.parametrize(
    "errors", [[TransactionAborted], [OutcomeUnknown], [OutcomeUnknown, TransactionAborted]]
)
def test_a_task_whose_transactions_can_not_succeed_waits_longer_and_longer_by_itself_and_all_is_told(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, errors: Sequence[type[TransactionError]]
) -> None:
    monkeypatch.setattr(Doomed, "errors", errors)
    monkeypatch.setattr(Doomed, "failed", 0)
    bed.worker.close()
    bed.start(Doomed)
    feed = Feed(bed.log, ITEMS)
    items = given(feed, 0, 3)
    bed.settle()
    bad = Item("0", 3, -1)
    feed.put({0: [bad], 1: [Item("1", 3, 1)]})
    items += [bad, Item("1", 3, 1)]
    tries = attempts(bed, 200)
    assert tries[:FAILURES_AT_ONE_PLACE] == [tries[0]] * FAILURES_AT_ONE_PLACE
    waits = [after - before for before, after in pairwise(tries[FAILURES_AT_ONE_PLACE - 1 :])]
    assert waits == [1, 2, 4, 8, 16, *[LONGEST_WAIT_S] * (len(waits) - 5)]
    assert list(bed.worker.tasks) == [1]
    assert len(seen(bed.log)["1"]) == 4
    stalls = [stall for task, stall in bed.told.stalls if task.number == 0]
    assert len(stalls) == len(bed.told.stalls) == len(waits) + 1
    assert {stall.kind for stall in stalls} == {StallKind.FAILED_TRANSACTIONS}
    assert [stall.seconds for stall in stalls] == [at - tries[0] for at in tries[FAILURES_AT_ONE_PLACE - 1 :]]
    assert all(
        "the topic takes none." in one.what and one.remedy.startswith("Mend it. Compare") for one in stalls
    )
    # Once it succeeds, nothing of that counts any more.
    monkeypatch.setattr(Doomed, "errors", ())
    bed.now += LONGEST_WAIT_S
    bed.settle()
    check(bed.log, items)
    monkeypatch.setattr(Doomed, "errors", errors)
    monkeypatch.setattr(Doomed, "failed", 0)
    feed.put({0: [Item("0", 4, -1)]})
    again = attempts(bed, 5)
    assert again == [again[0]] * FAILURES_AT_ONE_PLACE + [again[0] + 1, again[0] + 3]


def test_a_task_that_fails_now_and_then_and_goes_on_between_waits_never(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Doomed, "errors", [TransactionAborted])
    monkeypatch.setattr(Doomed, "failed", 0)
    bed.worker.close()
    bed.start(Doomed)
    feed = Feed(bed.log, ITEMS)
    items: list[Item] = []
    for seq in range(3):
        items.append(Item("0", seq, -1))
        feed.put({0: items[-1:]})
        monkeypatch.setattr(Doomed, "errors", [TransactionAborted])
        for _ in range(1, FAILURES_AT_ONE_PLACE):
            before = Doomed.failed
            while Doomed.failed == before:
                bed.worker.step()
        monkeypatch.setattr(Doomed, "errors", ())
        bed.settle()
    assert bed.told.stalls == []
    check(bed.log, items)


def take_at_most(log: KafkaLog, topic: str, size: int) -> None:
    name = ConfigResource(ConfigResource.Type.TOPIC, log.namespace + topic)
    name.add_incremental_config(
        ConfigEntry("max.message.bytes", f"{size}", incremental_operation=AlterConfigOpType.SET)
    )
    admin = AdminClient({"bootstrap.servers": log.bootstrap})  # its answers end with it
    admin.incremental_alter_configs([name])[name].result(60)
    takes(log, topic, size)


def test_behind_a_topic_that_refuses_its_records_one_task_waits_and_goes_on_once_it_takes_them(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    make_topics(log)
    feed = Feed(log, ITEMS)
    items = given(feed, 0, 3)
    with shown(log, tmp_path, Counter) as runs:

        def stands() -> float:
            runs.worker.step(0.02)
            name, cause = "qmtl_restore_stalled_seconds", "failed_transactions"
            return runs.scrape().get(name, processor="counter", task=0, cause=cause) or 0

        until(lambda: stands() == 0 and all(len(one) == 3 for one in seen(log).values()))
        take_at_most(log, ECHO.name, 300)
        large = Item("".join(f"{number:03x}" for number in range(400)), 0, 1)
        feed.put({0: [large]})
        until(lambda: stands() > 0, 60)
        feed.put({1: (more := [Item("1", 3, 1)])})
        until(lambda: stands() >= 0 and len(seen_of("1", log)) == 4, 60)
        until(lambda: stands() > 0, 60)
        (reason,) = [one for one in runs.health().json()["reasons"] if "makes no progress" in one]
        assert f"{ECHO.name} [" in reason
        assert "Message size too large" in reason
        take_at_most(log, ECHO.name, MESSAGE_MAX_BYTES)
        until(lambda: stands() == 0 and len(seen_of(large.name, log)) == 1, 60)
        until(lambda: stands() == 0 and runs.health().status == 200)
    found = messages(log, ECHO.name)
    for one in ("0", "1", large.name):
        wanted = [item for item in (*items, *more, large) if item.name == one]
        assert [echo for echo in found if echo.name == one] == counted(wanted)


def test_a_task_whose_opening_is_aborted_again_and_again_waits_by_itself(tmp_path: Path) -> None:
    log, told = Refusing(tmp_path / "log"), Told()
    make_topics(log)
    given(Feed(log, ITEMS), 0, 2)
    now = 100.0
    worker = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "s", observer=told, clock=lambda: now))
    log.point, log.error = "opened", TransactionAborted
    for _ in range(50):
        worker.serve()
    assert log.asked == FAILURES_AT_ONE_PLACE
    assert list(worker.tasks) == [1]
    assert len(seen(log)["1"]) == 2
    assert [stall.kind for _, stall in told.stalls] == [StallKind.FAILED_TRANSACTIONS]
    log.point = ""
    now += LONGEST_WAIT_S
    for _ in range(10):
        worker.serve()
    assert len(seen(log)["0"]) == 2
    worker.close()
    log.close()


@pytest.mark.parametrize("apart_s, waits", [(1.0, True), (FORGOTTEN_S + 1, False)])
def test_what_failed_long_ago_has_nothing_to_do_with_what_fails_now(
    tmp_path: Path, apart_s: float, waits: bool
) -> None:
    log, told = Refusing(tmp_path / "log"), Told()
    make_topics(log)
    given(Feed(log, ITEMS), 0, 2)
    now = 100.0
    worker = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "s", observer=told, clock=lambda: now))
    for _ in range(6):
        worker.serve()
    for _ in range(2 * FAILURES_AT_ONE_PLACE):
        log.point, log.error = "run", LogUnreachable
        worker.serve()
        log.point = ""
        for _ in range(5):
            worker.serve()
        now += apart_s
    assert any(stall.kind is StallKind.FAILED_TRANSACTIONS for _, stall in told.stalls) == waits
    worker.close()
    log.close()


def test_health_says_so_also_while_a_further_attempt_is_made(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, asked = Watch(["counter"], CollectorRegistry(), lambda: bed.now), list[bool]()

    class Asking(Doomed):
        def on_record(self, step: Step, arrival: Arrival) -> None:
            if arrival.message.amount < 0:
                asked.append(health(watch).ready)
            super().on_record(step, arrival)

    monkeypatch.setattr(Doomed, "errors", [TransactionAborted])
    monkeypatch.setattr(Doomed, "failed", 0)
    bed.worker.close()
    settings = TaskSettings(bed.state, observer=watch, clock=lambda: bed.now)
    worker = Worker(bed.log, Asking, CODEC, settings)
    feed = Feed(bed.log, ITEMS)
    feed.put({0: [Item("0", 0, -1)]})
    for _ in range(20):
        worker.serve()
        bed.now += 5.0
    assert len(asked) > FAILURES_AT_ONE_PLACE
    assert not any(asked[FAILURES_AT_ONE_PLACE:])
    assert not health(watch).ready
    monkeypatch.setattr(Doomed, "errors", ())
    bed.now += LONGEST_WAIT_S
    for _ in range(5):
        worker.serve()
    assert health(watch).reasons == ()
    worker.close()
    bed.start(Counter)


def test_health_is_well_again_after_a_record_that_made_its_task_begin_anew(tmp_path: Path) -> None:
    log, watch = EmbeddedLog(tmp_path / "log"), Watch(["column"], CollectorRegistry())
    make_topics(log)
    feed = Feed(log, X)
    worker = Worker(log, Column, CODEC, TaskSettings(tmp_path / "s", observer=watch))
    for number, amount in enumerate((1, NAMED, 1), 1):
        feed.bucket(60_000 * number, {0: [Item("a", number, amount)]})
        for _ in range(5):
            worker.serve()
        assert health(watch).reasons == ()
    worker.close()
    log.close()


class Slots(Refusing):
    """A log on which writers can't be made for a while, and letters not be written."""

    made = 0
    denied = 0
    gone = False

    def describe(self, topic: str) -> TopicDescription | None:
        return None if self.gone and topic == DEAD.name else super().describe(topic)

    def writer(self, transactional_id: str) -> EmbeddedWriter:
        if transactional_id.startswith("qmtl."):
            self.made += 1
            if self.denied:
                self.denied -= 1
                raise LogUnreachable("no broker answers.", "Wait.")
        return super().writer(transactional_id)


def test_a_writer_that_can_not_be_made_closes_no_task(tmp_path: Path) -> None:
    log = Slots(tmp_path / "log")
    make_topics(log)
    given(Feed(log, ITEMS), 0, 2)
    worker = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "s"))
    for _ in range(6):
        worker.serve()
    log.point, log.error, log.denied = "run", LogRegressed, 1
    worker.serve()
    assert log.denied == 0
    assert list(worker.tasks) == [1]
    worker.close()
    log.close()


@pytest.mark.parametrize("gone", [False, True])
def test_a_worker_whose_slot_another_has_ends_whatever_became_of_its_letters(
    tmp_path: Path, gone: bool
) -> None:
    log = Slots(tmp_path / "log")
    make_topics(log)
    worker = Worker(log, Ledger, CODEC, TaskSettings(tmp_path / "s"))
    for _ in range(4):
        worker.serve()
    Feed(log, ITEMS).put({0: [TORN]})
    log.gone = gone
    log.writer("qmtl.ledger.0")
    before = log.made
    with pytest.raises(Fenced):
        worker.serve()
    assert log.made == before
    worker.close()
    log.close()
