"""A worker: what it does when commits fail, when its tasks go to another, and when its slot is taken."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.kafka_settings import GROUP_PROTOCOLS, GroupProtocol, KafkaSettings
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Processor, Step
from qmtl.engine.table import Table
from qmtl.engine.task import Task, TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import Fenced, TransactionAborted
from qmtl.foundation.wire.keys import encode_key, partition_for
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import until
from tests.engine.driving import bench, closed, messages, trail
from tests.engine.faults import Fault, FaultyLog
from tests.engine.models import Buckets, counted, items, late_model, loop_model, minute
from tests.engine.toys import (
    A_OUT,
    B_STATE,
    CODEC,
    COUNTS,
    ECHO,
    ITEMS,
    LATE_OUT,
    RELAYED,
    SIDE,
    TOPICS,
    XX,
    A,
    B,
    Counter,
    Feed,
    Item,
    Late,
    Relay,
    Seen,
    Total,
    Toy,
    X,
    events,
    make_topics,
    spread,
)

BUCKETS: Buckets = [[("a", 1), ("b", 2)], [], [("a", 3), ("a", 0)], [("b", 4)], [("c", 7), ("a", 5)]]


def home(item: Item) -> int:
    return partition_for(encode_key((item.name,)), ITEMS.partitions)


def feed_all(log: Log) -> list[Item]:
    """Items for the counter and the relay, buckets for the others."""
    given = [Item(f"n{seq % 3}", seq, seq % 4) for seq in range(12)]
    crowd = Feed(log, ITEMS)
    for item in given:
        crowd.put({home(item): [item]})
    x = Feed(log, X)
    for number, bucket in enumerate(BUCKETS):
        x.bucket(minute(number), {0: items(bucket, number)})
    return given


def check_all(log: Log, given: Sequence[Item]) -> None:
    """What came out is what the models say, each thing once."""
    for partition in range(ITEMS.partitions):
        mine = [item for item in given if home(item) == partition]
        at_home = [
            one for one in messages(log, ECHO.name) if partition_for(encode_key((one.name,)), 2) == partition
        ]
        assert at_home == counted(mine)
    relayed = sorted(messages(log, RELAYED.name), key=lambda one: one.seq)
    assert relayed == [Seen(0, item.name, item.seq, item.amount) for item in given]
    assert messages(log, A_OUT.name) == loop_model(BUCKETS, 1)
    assert messages(log, LATE_OUT.name) == late_model(BUCKETS, 2)


@settings(deadline=None, max_examples=15)
@example([Fault.ABORTED] * 6, 1)  # so many at one place wait for a second
@given(st.lists(st.sampled_from(Fault), max_size=8), st.sampled_from([1, 2, 4000]))
def test_whatever_becomes_of_commits_every_output_comes_once(faults: list[Fault], poll: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = FaultyLog(Path(place) / "log", iter(faults))
        make_topics(log)
        given = feed_all(log)
        makes: list[Callable[[], Processor]] = [Counter, Relay, A, B, lambda: Late(2)]
        with bench(log, Path(place) / "state", *makes, poll=poll) as runs:
            runs.settle_patiently()
        check_all(log, given)
        log.close()


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_after_a_failed_commit_the_batch_is_read_again_and_gives_the_same(
    tmp_path: Path, fault: Fault
) -> None:
    log = FaultyLog(tmp_path / "log", iter([fault] * 3))
    make_topics(log)
    given = [Item("a", number, 1) for number in range(3)]
    Feed(log, ITEMS).put({0: given})
    with bench(log, tmp_path / "state", Counter) as runs:
        made = log.writers
        assert runs.step(), "a worker that has to try again has something to do"
        runs.settle()
        unknown = fault in (Fault.UNKNOWN_BEFORE, Fault.UNKNOWN_AFTER)
        assert (
            log.writers - made > 1
        ) == unknown  # a writer is thrown away when its outcome is unknown, and only then
    assert messages(log, ECHO.name) == counted(given)
    log.close()


def test_what_has_waited_long_is_worked_off_in_transactions_of_bounded_size(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, XX)
    for number in range(60):
        feed.bucket(minute(number), {0: [Item("p0", number, 1)]}, closes=[0])
    sizes = [1]
    with bench(log, tmp_path, spread(Input(XX.name, bucketed=True, broadcast=True)), poll=10) as runs:
        runs.settle()
        assert closed(log, A_OUT.name) == [0]
        feed.bucket(minute(59), closes=[1, 2])  # everything may go at once
        while runs.step():
            sizes.append(len(closed(log, A_OUT.name)))
    assert [seen.seq for seen in messages(log, A_OUT.name)] == list(range(60))
    assert closed(log, A_OUT.name) == [0, *(minute(number) for number in range(60))]
    assert max(after - before for before, after in pairwise(sizes)) <= 10


class Unlucky(Counter):
    """Has a bug that shows after the third item, and is of no one record."""

    name = "counter"
    met = False

    def on_record(self, step: Step, arrival: Arrival) -> None:
        super().on_record(step, arrival)
        self.met = arrival.message.seq >= 2

    def flush(self, step: Step) -> None:
        if self.met:
            raise ZeroDivisionError


def test_a_bug_stops_the_task_and_leaves_nothing_half_done(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    given = [Item("a", number, 1) for number in range(4)]
    Feed(log, ITEMS).put({0: given})
    with bench(log, tmp_path, Unlucky) as runs:
        for _ in range(2):  # it meets the bug again, and does not go on behind it
            with pytest.raises(ZeroDivisionError):
                runs.until(lambda: False)
    assert trail(log, ECHO.name) == trail(log, COUNTS.name) == []
    with bench(log, tmp_path, Counter) as runs:
        runs.until(lambda: len(messages(log, ECHO.name)) >= 4)
    assert messages(log, ECHO.name) == counted(given)


def test_a_task_that_could_not_be_opened_lets_go_of_its_store(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    tries: list[int] = []

    class Unready(Late):
        def __init__(self) -> None:
            super().__init__(1)

        def restore(self, tables: Mapping[str, Table]) -> None:
            tries.append(len(tries))
            if len(tries) == 1:
                raise TransactionAborted("once")
            if len(tries) == 2:
                raise ZeroDivisionError

    with bench(embedded_log, tmp_path, Unready) as runs:
        assert runs.step()
        with pytest.raises(ZeroDivisionError):
            runs.step()
        runs.settle()
    assert len(tries) == 3


def test_a_second_worker_in_a_slot_takes_it_over(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    crowd = Feed(log, ITEMS)
    given = [Item("a", number, 1) for number in range(4)]
    crowd.put({0: given[:2]})
    first = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "first"))
    until(lambda: not first.step() and len(messages(log, ECHO.name)) == 2)
    second = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "second"))
    crowd.put({0: given[2:]})
    until(lambda: not second.step() and len(messages(log, ECHO.name)) == 4)
    crowd.put({0: [Item("a", 4, 1)]})

    def go_on() -> bool:
        first.step()
        return False

    with pytest.raises(Fenced):
        until(go_on)
    until(lambda: not second.step() and len(messages(log, ECHO.name)) == 5)
    assert messages(log, ECHO.name) == counted([*given, Item("a", 4, 1)])
    first.close()
    second.close()


def test_where_members_are_dynamic_the_older_of_two_workers_in_a_slot_ends_with_its_next_transaction(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace, KafkaSettings(group_protocol="consumer"))
    make_topics(log)
    crowd = Feed(log, ITEMS)
    given = [Item("a", number, 1) for number in range(4)]
    crowd.put({0: given[:2], 1: [Item("b", 0, 1)]})
    older = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "older"))
    until(lambda: not older.step(0.02) and len(messages(log, ECHO.name)) == 3)
    newer = Worker(log, Counter, CODEC, TaskSettings(tmp_path / "newer"))
    newer.claim()
    crowd.put({0: given[2:], 1: [Item("b", 1, 1)]})

    def go_on() -> bool:
        older.step(0.02)
        return False

    with pytest.raises(Fenced):
        until(go_on)
    older.close()
    until(lambda: not newer.step(0.02) and len(messages(log, ECHO.name)) == 6)
    assert [one for one in messages(log, ECHO.name) if one.name == "a"] == counted(given)
    newer.close()
    log.close()


def test_a_worker_whose_slot_another_has_ends_even_with_nothing_to_write(
    kafka_log: Log, tmp_path: Path
) -> None:
    make_topics(kafka_log)
    older, newer = (
        Worker(kafka_log, Counter, CODEC, TaskSettings(tmp_path / name)) for name in ("older", "newer")
    )
    until(lambda: not older.step(0.02) and bool(older._tasks))
    until(lambda: not newer.step(0.02) and bool(newer._tasks))

    def go_on() -> bool:
        newer.step(0.02)
        older.step(0.02)
        return False

    with pytest.raises(Fenced):
        until(go_on)
    until(lambda: not newer.step(0.02) and bool(newer._tasks))
    older.close()
    newer.close()


def test_a_worker_that_lost_its_place_to_nobody_takes_part_again(kafka_log: KafkaLog, tmp_path: Path) -> None:
    log = kafka_log
    make_topics(log)
    crowd = Feed(log, ITEMS)
    worker = Worker(log, Counter, CODEC, TaskSettings(tmp_path))
    until(lambda: worker.step(0.02) or bool(worker._tasks))
    # A repeated request to join looks to the group like this: a newer member of the same name, which then is not there.
    ghost = log.membership("qmtl.counter", "qmtl.counter.0", Counter.anchor)
    until(lambda: bool(ghost.poll(0.05)))
    until(lambda: worker.step(0.02) and not worker._tasks)
    crowd.put({0: [Item("a", 0, 1)]})
    until(lambda: not worker.step(0.02) and len(messages(log, ECHO.name)) == 1)
    worker.close()
    ghost.close()


def test_a_worker_without_a_task_waits_for_one(kafka_log: Log, tmp_path: Path) -> None:
    make_topics(kafka_log)
    busy, spare = (Worker(kafka_log, A, CODEC, TaskSettings(tmp_path / slot), slot) for slot in ("0", "1"))
    until(lambda: [busy.step(0.02), spare.step(0.02)] != [] and bool(busy._tasks or spare._tasks))
    idle = spare if busy._tasks else busy
    started = time.monotonic()
    assert not idle.step(0.3)
    assert time.monotonic() - started > 0.25
    busy.close()
    spare.close()


@pytest.mark.parametrize("protocol", GROUP_PROTOCOLS)
def test_tasks_that_move_to_another_worker_and_back_lose_and_double_nothing(
    kafka_log: KafkaLog, tmp_path: Path, protocol: GroupProtocol
) -> None:
    log = KafkaLog(kafka_log.bootstrap, kafka_log.namespace, KafkaSettings(group_protocol=protocol))
    make_topics(log)
    crowd = Feed(log, ITEMS)
    given: list[Item] = []
    workers: list[Worker] = []

    def feed_and_wait() -> None:
        fresh = [Item(f"n{seq % 3}", seq, seq % 4) for seq in range(len(given), len(given) + 12)]
        for item in fresh:
            crowd.put({home(item): [item]})
        given.extend(fresh)

        def done() -> bool:
            busy = [worker.step() for worker in workers]
            return not any(busy) and len(messages(log, ECHO.name)) >= len(given)

        until(done, 60.0)

    for slot in ("0", "1"):
        workers.append(Worker(log, Counter, CODEC, TaskSettings(tmp_path / slot), slot))
        feed_and_wait()
    until(
        lambda: [worker.step() for worker in workers] != [] and all(worker._tasks for worker in workers), 60.0
    )
    assert sorted(number for worker in workers for number in worker._tasks) == [0, 1]
    feed_and_wait()
    for partition in range(2):
        mine = [item for item in given if home(item) == partition]
        assert [
            one for one in messages(log, ECHO.name) if home(Item(one.name, 0, 0)) == partition
        ] == counted(mine)
    workers.pop().close()
    until(lambda: [worker.step() for worker in workers] != [] and len(workers[0].tasks) == 2, 60.0)
    feed_and_wait()
    assert sorted(one.seq for one in messages(log, ECHO.name)) == list(range(len(given)))
    workers.pop().close()
    log.close()


# ---- topics that come at run time -------------------------------------------------------------------------------------


GROWN = replace(events("toy.grown", Seen), marked=True)


class Growing(Toy):
    """Gets a new topic from a record, and writes to it in the bucket of the same step."""

    name = "growing"
    anchor = SIDE.name
    tables = (B_STATE.name,)

    def __init__(self) -> None:
        self._grown = False

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name), Input(X.name, bucketed=True))

    def closes(self) -> tuple[TopicSpec, ...]:
        return (GROWN,) if self._grown else ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {**TOPICS, GROWN.name: GROWN} if self._grown else TOPICS

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._grown = tables[B_STATE.name].get("grown") is not None

    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.table(B_STATE.name).put(Total("grown", 1))
        self._grown = True

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        if self._grown:
            step.emit(GROWN.name, Seen(bucket.bucket_ms, "n", 0, 0))


def test_a_topic_that_a_record_brings_can_be_written_in_the_same_step(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log, GROWN)
    Feed(embedded_log, X).bucket(minute(0))
    with bench(embedded_log, tmp_path, Growing) as runs:
        Feed(embedded_log, SIDE).put({0: [Item("grow", 0, 1)]})
        runs.settle()
    assert messages(embedded_log, GROWN.name) == [Seen(minute(0), "n", 0, 0)]
    assert closed(embedded_log, GROWN.name) == [minute(0)]


# ---- a task by itself ---------------------------------------------------------------------------------------------------


def test_a_task_that_is_opened_again_after_an_abort_forgets_what_it_did_not_commit(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    given = [Item("a", number, 1) for number in range(3)]
    Feed(log, ITEMS).put({0: given})
    task = Task(log, Counter(), 0, CODEC, TaskSettings(tmp_path))
    task.open()
    stale = log.writer("qmtl.counter.0")
    writer = log.writer("qmtl.counter.0")
    with pytest.raises(Fenced):
        task.step(stale, None, 0.0)
    for _ in range(2):
        task.open()
    assert task.step(writer, None, 0.0)
    assert not task.step(writer, None, 0.0)
    assert messages(log, ECHO.name) == counted(given)
    assert log.committed("qmtl.counter", [TopicPartition(ITEMS.name, 0)]) == {
        TopicPartition(ITEMS.name, 0): 3
    }
    task.close()
