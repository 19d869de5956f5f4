"""What may happen while tables are restored: the log changes underneath, the restore takes long, the task is given away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from qmtl.engine import recovery
from qmtl.engine.log import kafka_membership
from qmtl.engine.log.embedded import EmbeddedLog, EmbeddedReader
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.observer import Outcome
from qmtl.engine.processor import Bucket, Step
from qmtl.engine.recovery import restore
from qmtl.engine.simulate.cluster import Cluster
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.network import Process
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.worker import Worker, run
from qmtl.foundation.common.errors import (
    LogRegressed,
    LogUnreachable,
    OffsetGone,
    StoreUnavailable,
    TransactionAborted,
)
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import Row, put, until
from tests.contract.outsiders import outsider
from tests.engine.driving import messages
from tests.engine.models import minute
from tests.engine.poison_toys import NAMED, Column
from tests.engine.test_store import held_elsewhere
from tests.engine.toys import A_OUT, CODEC, COUNTS, DEAD, ITEMS, Counter, Feed, Item, Total, X, make_topics
from tests.engine.waiting import Told
from tests.neighbours.driving import delete_before

WHERE = TopicPartition(COUNTS.name, 0)


def fill(log: Log, rows: int) -> None:
    make_topics(log)
    found: list[Row] = [
        (WHERE, encode_key((f"n{one}",)), CODEC.encode(Total("n", one))) for one in range(rows)
    ]
    put(log, found)


def restoring(log: Log, place: Path, meanwhile: Callable[[], None]) -> int:
    """Restores a table of which something happens once the restore has come to offset 6."""
    store = Store(place, log.log_id)
    done: list[None] = []
    reached: list[int] = []

    def alive() -> None:
        if 6 in reached and not done:
            done.append(None)
            meanwhile()

    def progress(came: int, total: int) -> None:
        reached.append(came)

    try:
        tables = {COUNTS.name: Table(COUNTS, 0, store, CODEC)}
        found = restore(log, store, tables, CODEC, keep_alive=alive, progress=progress, stall_s=60.0)
        return found.records
    finally:
        store.close()


@pytest.mark.broker
def test_a_table_whose_segments_are_deleted_while_it_is_restored_is_told_as_gone(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    fill(log, 5)
    until(lambda: log.stable_offsets([WHERE]) == log.end_offsets([WHERE]))

    def drop() -> None:
        delete_before(log, WHERE, log.end_offsets([WHERE])[WHERE])

    with outsider(log, WHERE):
        fill(log, 5)
        with pytest.raises(OffsetGone, match=r"toy.counts\[0\] begins at \d+, and the restore has come to 6"):
            restoring(log, tmp_path, drop)


@pytest.mark.broker
def test_a_table_that_is_made_again_while_it_is_restored_is_told_as_shorter(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    fill(log, 5)
    until(lambda: log.stable_offsets([WHERE]) == log.end_offsets([WHERE]))
    admin = AdminClient({"bootstrap.servers": log.bootstrap})

    def remake() -> None:
        name = log.namespace + COUNTS.name
        admin.delete_topics([name])[name].result(60)
        until(lambda: COUNTS.name not in log.topics())
        other = KafkaLog(log.bootstrap, log.namespace)
        other.ensure_topics([COUNTS])
        other.close()

    with (
        suppress(KafkaException),  # the outsider's topic is gone under its transaction
        outsider(log, WHERE),
        pytest.raises(LogRegressed, match="ends at 0, and ended at 7"),
    ):
        restoring(log, tmp_path, remake)


class Shrinking(EmbeddedLog):
    """An embedded log that can be made to forget its end, as a truncated one does."""

    def forget(self, where: TopicPartition, end: int) -> None:
        self._ends[where] = end

    def raise_begin(self, where: TopicPartition, begin: int) -> None:
        self._begins[where] = begin


@pytest.mark.parametrize("gone", [True, False])
def test_an_embedded_table_that_shrinks_while_it_is_restored_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    monkeypatch.setattr(recovery, "BATCH", 2)
    log = Shrinking(tmp_path / "log")
    fill(log, 30)

    def shrink() -> None:
        if gone:
            log.raise_begin(WHERE, 20)
        else:
            log.forget(WHERE, 3)

    expected = OffsetGone if gone else LogRegressed
    says = "begins at 20, and the restore has come to 6" if gone else "ends at 3, and ended at 31"
    with pytest.raises(expected, match=says):
        restoring(log, tmp_path / "store", shrink)
    log.close()


# ---- long restores -----------------------------------------------------------------------------------------------------

LIMIT_MS = 6000


class Slow:
    """Makes each batch of a restore take a while; counts them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.batches = 0

    def __call__(self, task: str, done: int, total: int) -> None:
        self.batches += 1
        ends = time.monotonic() + self.seconds
        until(lambda: time.monotonic() >= ends)  # what is slow here is the disk


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Groups that wait for a silent member a few seconds only."""
    made = Consumer
    members: list[str] = []

    def consumer(settings: dict[str, Any]) -> Any:
        members.append(settings["group.instance.id"])
        settings = {**settings, "session.timeout.ms": LIMIT_MS, "max.poll.interval.ms": LIMIT_MS}
        settings["heartbeat.interval.ms"] = 300  # so that a rebalance is heard of between two batches
        return made(settings)

    monkeypatch.setattr(kafka_membership, "Consumer", consumer)
    monkeypatch.setattr(recovery, "BATCH", 20)
    yield
    assert members, "no member of a group was made impatient"


def counted_up(log: KafkaLog, place: Path, items: int) -> None:
    """Fills the counter's tables of both tasks."""
    make_topics(log)
    feed = Feed(log, ITEMS)
    feed.put({part: [Item(f"{part}n{one}", one, 1) for one in range(items)] for part in (0, 1)})
    worker = Worker(log, Counter, CODEC, TaskSettings(place / "first"))
    ends = [TopicPartition(COUNTS.name, part) for part in (0, 1)]
    until(lambda: not worker.step() and all(end > items for end in log.end_offsets(ends).values()), 60)
    worker.close()
    feed.close()


@pytest.mark.broker
def test_a_restore_that_takes_longer_than_the_group_waits_keeps_its_place(
    kafka_log: KafkaLog, tmp_path: Path, impatient: None
) -> None:
    log = kafka_log
    counted_up(log, tmp_path, 100)
    slow = Slow(0.75)
    opened: list[int] = []
    worker = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "second", on_restore=slow))
    opening = worker._open

    def counted(number: int) -> Task | None:
        opened.append(number)
        return opening(number)

    worker._open = counted  # type: ignore[method-assign]
    until(
        lambda: (
            not worker.step()
            and slow.batches * slow.seconds > LIMIT_MS / 1000
            and worker._tasks.keys() == {0, 1}
        ),
        60,
    )
    for _ in range(3):  # a place that was lost shows when the group is asked again
        worker.step(0.1)
        assert worker._tasks.keys() == {0, 1}
    assert sorted(opened) == [0, 1]
    worker.close()


@pytest.mark.broker
def test_a_task_that_is_given_to_another_while_it_is_restored_is_given_up_and_the_rest_goes_on(
    kafka_log: KafkaLog, tmp_path: Path, impatient: None
) -> None:
    log = kafka_log
    counted_up(log, tmp_path, 100)
    others: list[Any] = []
    polled: list[frozenset[int]] = [frozenset()]
    opened: list[tuple[int, bool]] = []

    def meanwhile(task: str, done: int, total: int) -> None:
        if not others:
            # Tasks are given in the order of the names, so the one that is restored now goes to this member.
            others.append(log.membership("qmtl.counter", "qmtl.counter.-", ITEMS.name))
        if not polled[-1]:
            polled.append(others[0].poll(0.5))

    worker = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "second", on_restore=meanwhile))
    opening = worker._open

    def counted(number: int) -> Task | None:
        found = opening(number)
        opened.append((number, found is not None))
        return found

    worker._open = counted  # type: ignore[method-assign]

    def shared() -> bool:
        busy = worker.step()
        if others:
            polled.append(others[0].poll(0.02))
        return not busy and bool(others) and len(worker._tasks) == 1 == len(polled[-1])

    until(shared, 60)
    assert worker._tasks.keys() == {1}
    assert polled[-1] == {0}
    assert opened == [(0, False), (1, True)]
    others[0].close()
    worker.close()


def test_what_keep_alive_raises_ends_the_restore_as_it_is(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    fill(log, 10)

    def alive() -> None:
        raise TransactionAborted("no longer wanted")

    store = Store(tmp_path / "store", log.log_id)
    spec: TopicSpec = COUNTS
    with pytest.raises(TransactionAborted, match="no longer wanted"):
        restore(log, store, {COUNTS.name: Table(spec, 0, store, CODEC)}, CODEC, keep_alive=alive)
    store.close()
    log.close()


@pytest.mark.parametrize("many", [1, recovery.MANY])
def test_a_worker_that_is_to_end_gives_a_restore_up_and_the_next_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, many: int
) -> None:
    monkeypatch.setattr(recovery, "BATCH", 3)
    monkeypatch.setattr(recovery, "MANY", many)
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    Feed(log, ITEMS).put({0: [Item(f"n{one}", one, 1) for one in range(30)]})
    first = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "first"))
    while first.step():
        pass
    first.close()
    reached: list[tuple[int, int]] = []
    settings = TaskSettings(
        tmp_path / "second", on_restore=lambda task, done, total: reached.append((done, total))
    )
    second = Worker(log, Counter, CODEC, settings)
    run([second], lambda: bool(reached) and reached[-1][0] >= 9)
    assert 0 not in second.tasks
    second.close()
    done, total = reached[-1]
    assert done < total
    third = Worker(log, Counter, CODEC, settings)
    while third.step():
        pass
    third.close()
    assert (0, total - done) in reached
    log.close()


# ---- a restore in the middle of a step ------------------------------------------------------------------------------


class Left(Column):
    """Can't use what is less than nothing; when it first says so, somebody joins its group."""

    joins: Callable[[], object] | None = None

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        joins = Left.joins
        if joins is not None and any(one.message.amount < 0 for one in bucket.arrivals[X.name]):
            Left.joins = None
            joins()
        super().on_bucket(step, bucket)


@pytest.mark.parametrize("member, ends", [("qmtl.column.0", []), ("qmtl.column.-", [Outcome.ABORTED])])
def test_a_restore_that_begins_again_at_a_bad_record_hears_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, member: str, ends: list[Outcome]
) -> None:
    """Another takes the member's place; or joins beside it, and every task is given anew."""
    cluster, process = Cluster(), Process("ghost")
    log, ghost = SimulatedLog(cluster, Process("worker")), SimulatedLog(cluster, process)
    make_topics(log)
    feed, told = Feed(log, X), Told()
    monkeypatch.setattr(Left, "joins", lambda: ghost.membership("qmtl.column", member, X.name))
    settings = TaskSettings(tmp_path, observer=told, clock=cluster.clock.seconds)
    worker = Worker(log, Left, CODEC, settings)
    feed.bucket(minute(1), {0: [Item("a", 0, 1)]})
    until(lambda: not worker.step(0.1) and len(messages(log, A_OUT.name)) == 1)
    feed.bucket(minute(2), {0: [Item("b", 1, NAMED), Item("c", 2, 1)]})
    while Left.joins is not None:
        worker.step(0.1)
    assert 0 not in worker.tasks, "it was told before the restore was over"
    assert told.ends == ends
    process.alive = False
    until(lambda: not worker.step(0.1) and len(messages(log, A_OUT.name)) == 2)
    assert [(one.name, one.amount) for one in messages(log, A_OUT.name)] == [("a", 1), ("c", 2)]
    assert len(messages(log, DEAD.name)) == 1
    assert told.stalls == []
    worker.close()


class Sparing(EmbeddedLog):
    """Refuses readers for a while, and knows those that are open."""

    refuses = 0

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.readers: list[EmbeddedReader] = []

    def reader(self) -> EmbeddedReader:
        if self.refuses:
            self.refuses -= 1
            raise LogUnreachable("no broker.")
        self.readers.append(SparingReader(self))
        return self.readers[-1]


class SparingReader(EmbeddedReader):
    def __init__(self, log: Sparing) -> None:
        super().__init__(log)
        self._sparing = log

    def close(self) -> None:
        super().close()
        self._sparing.readers.remove(self)


def test_a_task_that_could_not_be_made_leaves_nothing_open(tmp_path: Path) -> None:
    log = Sparing(tmp_path / "log")
    make_topics(log)

    def make() -> Task:
        return Task(log, Counter(), 0, CODEC, TaskSettings(tmp_path / "state"))

    log.refuses = 1
    with pytest.raises(LogUnreachable):
        make()
    make().close()  # the store is free
    with held_elsewhere(tmp_path / "state" / "counter-0", log.log_id), pytest.raises(StoreUnavailable):
        make()
    assert log.readers == []
    log.close()
