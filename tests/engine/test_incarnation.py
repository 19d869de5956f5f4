"""Logs that are no longer what a task knew: it stays closed with a coded reason until an operator decides."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from qmtl.engine.incarnation import Finding, Kind
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Processor
from qmtl.engine.task import Task, TaskSettings
from qmtl.foundation.common.errors import LogRegressed, OffsetGone, StampMismatch, StateMismatch
from qmtl.foundation.contracts.control import PositionStamp
from qmtl.foundation.wire.keys import encode_key, stamp_key
from qmtl.foundation.wire.topics import TopicSpec
from qmtl.testing.broker import start_broker
from tests.contract.driving import put, settled
from tests.engine.driving import bench, delete, messages, table
from tests.engine.toys import (
    CODEC,
    COUNTS,
    DEAD,
    ECHO,
    ITEMS,
    RELAYED,
    SPECS,
    Counter,
    Feed,
    Item,
    Relay,
    Total,
    make_topics,
)

ITEMS0, COUNTS0 = TopicPartition(ITEMS.name, 0), TopicPartition(COUNTS.name, 0)


def give(log: Log, *found: Item) -> None:
    feed = Feed(log, ITEMS)
    feed.put({0: list(found)})
    feed.close()


def run(log: Log, state: Path, make: Callable[[], Processor] = Counter, *, echoed: int = 0) -> None:
    """Runs a processor until so many of its outputs are there."""
    topic = ECHO.name if make is Counter else RELAYED.name
    with bench(log, state, make) as runs:
        runs.until(lambda: len(messages(log, topic)) >= echoed)


def accept(
    log: Log,
    state: Path,
    make: Callable[[], Processor] = Counter,
    spoken: list[Sequence[Finding]] | None = None,
) -> tuple[Finding, ...]:
    """Accepts for both tasks; gives what was found for the first."""
    out = []
    for number in range(ITEMS.partitions):
        task = Task(log, make(), number, CODEC, TaskSettings(state))
        try:
            out.append(
                task.accept("ann", "the cluster was restored", ([] if spoken is None else spoken).append)
            )
        finally:
            task.close()
    return out[0]


def counts(log: Log) -> dict[str, int]:
    rows: list[Total] = [CODEC.decode(value) for value in table(log, COUNTS.name).values()]
    return {row.name: row.amount for row in rows}


# ---- the embedded log, copied, and changed by hand ------------------------------------------------------------------


class Copies:
    """An embedded log with a copy of itself as it was before its last transaction."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.state = place / "state"
        log = EmbeddedLog(place / "log")
        make_topics(log)
        give(log, Item("a", 0, 1))
        run(log, self.state, echoed=1)
        log.close()
        shutil.copytree(place / "log", place / "older")
        with self.open() as log:
            give(log, Item("a", 1, 2))
            run(log, self.state, echoed=2)

    def open(self, name: str = "log") -> Opened:
        return Opened(self.place / name)


class Opened:
    """A log that is closed at the end of a block."""

    def __init__(self, place: Path) -> None:
        self.log = EmbeddedLog(place)

    def __enter__(self) -> EmbeddedLog:
        return self.log

    def __exit__(self, *unused: object) -> None:
        self.log.close()


@pytest.fixture
def copies(tmp_path: Path) -> Copies:
    return Copies(tmp_path)


def remake(log: EmbeddedLog, name: str) -> None:
    """Gives a topic another identity, as deleting and making it again does, and leaves what lies in it."""
    row = json.loads(log._db.get(b"t" + name.encode()))
    row["id"] = f"{row['id']}-again"
    log._db.put(b"t" + name.encode(), json.dumps(row).encode())


def test_a_shorter_log_keeps_the_task_closed_until_it_is_accepted_and_then_goes_on_from_there(
    copies: Copies,
) -> None:
    with copies.open("older") as log:
        with pytest.raises(LogRegressed):
            run(log, copies.state)
        with pytest.raises(LogRegressed) as refused:  # it stays refused, and nothing is lost by asking
            run(log, copies.state)
        assert "toy.counts[0]: the log is shorter" in refused.value.what
        assert "qmtl worker accept counter --task 0" in refused.value.remedy
        spoken: list[Sequence[Finding]] = []
        found = accept(log, copies.state, spoken=spoken)
        assert [list(found)] == spoken
        assert {one.kind for one in found} == {Kind.SHORTER}
        give(log, Item("a", 1, 5))
        run(log, copies.state, echoed=2)
        assert counts(log) == {"a": 6}
        assert accept(log, copies.state) == ()


def test_a_log_that_grew_again_over_what_it_lost_is_known_by_the_end_of_the_last_transaction(
    copies: Copies,
) -> None:
    with copies.open("older") as log:
        give(log, Item("b", 1, 3), Item("b", 2, 4))
        run(log, copies.place / "elsewhere", echoed=3)
        give(log, Item("b", 3, 7))
        run(log, copies.place / "elsewhere", echoed=4)
        with pytest.raises(LogRegressed, match="another record where the last transaction ended"):
            run(log, copies.state)
        accept(log, copies.state)
        give(log, Item("c", 4, 1))
        run(log, copies.state, echoed=5)
        assert counts(log) == {"a": 1, "b": 14, "c": 1}


@pytest.mark.parametrize("name", [COUNTS.name, ITEMS.name])
def test_a_topic_that_was_made_again_keeps_the_task_closed_though_it_is_as_long(
    copies: Copies, name: str
) -> None:
    with copies.open() as log:
        remake(log, name)
    with copies.open() as log:
        for _ in range(2):
            with pytest.raises(LogRegressed, match=f"{name}.0.: the topic was deleted and made again"):
                run(log, copies.state)
        assert {one.kind for one in accept(log, copies.state)} == {Kind.REMADE}
        give(log, Item("z", 5, 1))
        run(log, copies.state, echoed=3)
        again = name == ITEMS.name  # the new topic is read from its beginning
        assert counts(log) == {"a": 6 if again else 3, "z": 1}


def test_an_accepted_state_is_refused_again_when_the_log_changes_before_it_is_used(copies: Copies) -> None:
    with copies.open() as log:
        remake(log, ITEMS.name)
    with copies.open() as log:
        accept(log, copies.state)
        remake(log, ITEMS.name)
    with copies.open() as log, pytest.raises(LogRegressed, match="made again"):
        run(log, copies.state)


def test_positions_that_somebody_moved_are_accepted_in_favour_of_the_tables(copies: Copies) -> None:
    with copies.open() as log:
        writer = log.writer("somebody")
        writer.begin()
        writer.commit({ITEMS0: 0}, "qmtl.counter", None)
        with pytest.raises(StampMismatch):
            run(log, copies.state)
        assert [one.kind for one in accept(log, copies.state)] == [Kind.MOVED]
        give(log, Item("a", 2, 4))
        run(log, copies.state, echoed=3)
        assert counts(log) == {"a": 7}
        assert log.committed("qmtl.counter", [ITEMS0])[ITEMS0] > 2


def test_a_decision_about_moved_positions_is_void_when_they_are_moved_again(copies: Copies) -> None:
    with copies.open() as log:
        for to in (0, 1):
            writer = log.writer("somebody")
            writer.begin()
            writer.commit({ITEMS0: to}, "qmtl.counter", None)
            with pytest.raises(StampMismatch):
                run(log, copies.state)
            if to == 0:
                accept(log, copies.state)


def test_records_that_retention_took_before_they_were_read_keep_the_task_closed(tmp_path: Path) -> None:
    now = [10**12]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    kept = replace(ITEMS, retention_ms=1000)
    log.ensure_topics([kept])
    make_topics_besides(log, kept)
    give(log, Item("a", 0, 1))
    run(log, tmp_path / "state", echoed=1)
    run(log, tmp_path / "relay", Relay, echoed=1)
    give(log, Item("a", 1, 1), Item("a", 2, 1))
    now[0] += 5000
    assert log.clean() > 0
    give(log, Item("a", 3, 1))
    for state, make in ((tmp_path / "state", Counter), (tmp_path / "relay", Relay)):
        with pytest.raises(OffsetGone, match=r"toy.items\[0\]: the log no longer holds what comes next"):
            run(log, state, make, echoed=2)
        assert [one.kind for one in accept(log, state, make)] == [Kind.GONE]
        run(log, state, make, echoed=2)
    assert counts(log) == {"a": 2}
    log.close()


def make_topics_besides(log: Log, kept: TopicSpec) -> None:
    log.ensure_topics([spec for spec in (*SPECS, DEAD) if spec.name != kept.name])


# ---- state that was recorded under another key or number of partitions --------------------------------------------------


class OtherKey(Counter):
    """A counter whose table has another key in the catalogue."""

    def topics(self) -> dict[str, TopicSpec]:
        return {**super().topics(), COUNTS.name: replace(COUNTS, key=("bucket_ms",))}


@pytest.mark.parametrize("keep", [True, False])
def test_a_table_whose_key_was_changed_is_refused_with_the_store_and_without(
    embedded_log: EmbeddedLog, tmp_path: Path, keep: bool
) -> None:
    make_topics(embedded_log)
    give(embedded_log, Item("a", 0, 1), Item("b", 1, 1))
    run(embedded_log, tmp_path, echoed=2)
    if not keep:
        shutil.rmtree(tmp_path / "counter-0")
    with pytest.raises(StateMismatch, match="key") as refused:
        run(embedded_log, tmp_path, OtherKey)
    assert refused.value.code == "QMTL-309"
    run(embedded_log, tmp_path, echoed=2)


@pytest.mark.parametrize("name", [COUNTS.name, ITEMS.name])
def test_another_number_of_partitions_than_the_state_was_recorded_with_is_refused(
    copies: Copies, name: str
) -> None:
    with copies.open() as log:
        row = json.loads(log._db.get(b"t" + name.encode()))
        log._db.put(b"t" + name.encode(), json.dumps({**row, "partitions": 3}).encode())
    with copies.open() as log, pytest.raises(StateMismatch, match=f"{name} has 3 partitions.*with 2"):
        run(log, copies.state)


# ---- a real Kafka --------------------------------------------------------------------------------------------------


def admin_of(log: KafkaLog) -> AdminClient:
    return AdminClient({"bootstrap.servers": log.bootstrap})


@pytest.mark.broker
@pytest.mark.parametrize("name", [COUNTS.name, ITEMS.name])
def test_a_topic_that_was_deleted_and_made_again_on_kafka_closes_the_task_until_it_is_accepted(
    kafka_log: KafkaLog, tmp_path: Path, name: str
) -> None:
    log = kafka_log
    make_topics(log)
    give(log, Item("a", 0, 1), Item("a", 1, 2))
    run(log, tmp_path, echoed=2)
    delete(log, name)
    again = KafkaLog(log.bootstrap, log.namespace)
    make_topics(again)
    with pytest.raises(LogRegressed, match=rf"{name}\[0\]: the topic was deleted and made again"):
        run(again, tmp_path, echoed=99)
    # A table that is gone leaves the group's positions without what they stand for, too.
    assert Kind.REMADE in {one.kind for one in accept(again, tmp_path)}
    give(again, Item("b", 2, 4))
    run(again, tmp_path, echoed=3)
    assert counts(again)["b"] == 4
    again.close()


@pytest.mark.broker
def test_records_that_were_deleted_on_kafka_before_they_were_read_close_the_task(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    log = kafka_log
    make_topics(log)
    give(log, Item("a", 0, 1))
    run(log, tmp_path, echoed=1)
    give(log, Item("a", 1, 1))
    end = settled(log, [ITEMS0])[ITEMS0]
    place = KafkaPartition(log.namespace + ITEMS.name, 0, end)
    admin = admin_of(log)
    for future in admin.delete_records([place]).values():
        future.result(20)
    give(log, Item("a", 2, 5))
    with pytest.raises(OffsetGone, match=rf"to be read from \d+; there: offsets {end}"):
        run(log, tmp_path, echoed=2)
    accept(log, tmp_path)
    run(log, tmp_path, echoed=2)
    assert counts(log) == {"a": 6}


def test_a_record_that_somebody_put_where_the_last_transaction_ended_is_no_reason_to_believe_it(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    give(embedded_log, Item("a", 0, 1))
    run(embedded_log, tmp_path, echoed=1)
    stamp = CODEC.encode(PositionStamp("counter", 0))
    row = CODEC.encode(Total("a", 9))
    put(
        embedded_log,
        [(COUNTS0, encode_key(("a",)), row), (COUNTS0, stamp_key("counter", 0), stamp)],
        writer="somebody",
    )
    with pytest.raises(StampMismatch):
        run(embedded_log, tmp_path, echoed=1)


# ---- a broker that lost the end of a segment ------------------------------------------------------------------------


def cut_off(data_dir: Path, name: str, batches: int) -> int:
    """Takes the last batches from the only segment of a partition of a dead broker, as a power failure does with what was not on
    the disk yet; gives the offset at which it then ends.

    A batch begins with its first offset and its length, https://kafka.apache.org/documentation/#recordbatch.
    """
    (segment,) = (data_dir / name).glob("*.log")
    data = segment.read_bytes()
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(data):
        first, length = struct.unpack_from(">qi", data, at)
        found.append((at, first))
        at += 12 + length
    assert at == len(data)
    place, end = found[-batches]
    segment.write_bytes(data[:place])
    for known in data_dir.glob("*-checkpoint"):  # how far it was on the disk, which no longer holds
        known.unlink()
    return end


@pytest.mark.broker
def test_a_broker_that_lost_the_last_transaction_of_a_table_keeps_the_task_closed_until_it_is_accepted(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    with start_broker() as broker:
        log = KafkaLog(broker.bootstrap, "cut.")
        make_topics(log)
        with bench(log, state, Counter) as runs:
            give(log, Item("a", 0, 1))
            runs.until(lambda: len(messages(log, ECHO.name)) == 1)
            give(log, Item("a", 1, 2))
            runs.until(lambda: len(messages(log, ECHO.name)) == 2)
        known = log.incarnations([COUNTS.name])
        ends = settled(log, [COUNTS0])[COUNTS0]
        log.close()
        broker.kill()
        left = cut_off(broker.data_dir, "cut.toy.counts-0", 2)  # the records of a transaction, and its marker
        assert left < ends
        broker.start()
        log = KafkaLog(broker.bootstrap, "cut.")
        assert log.end_offsets([COUNTS0]) == {COUNTS0: left}
        assert log.incarnations([COUNTS.name]) == known, "the topic is the one that it was"
        with pytest.raises(LogRegressed, match=r"toy.counts\[0\]: the log is shorter than it was"):
            run(log, state, echoed=99)
        # The group's positions were on another partition, and are ahead of the table by now.
        assert [one.kind for one in accept(log, state)] == [Kind.SHORTER, Kind.MOVED]
        give(log, Item("a", 2, 5))
        run(log, state, echoed=4)
        assert counts(log) == {"a": 8}
        log.close()
