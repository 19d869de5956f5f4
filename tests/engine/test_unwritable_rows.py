"""Rows that can't be written: the record that put one is one letter, and all others count as if it had never come."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log
from qmtl.engine.pace import FIRST
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import HandlerBroken, InvalidValue
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter, LateRecord, PositionStamp, TaskCut
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec
from tests.engine.driving import bench, closed, messages, table
from tests.engine.models import minute
from tests.engine.poison_toys import (
    BAD,
    BOUNDLESS,
    Column,
    Heedless,
    Keeping,
    column_model,
    home,
    ledger_model,
)
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    CODEC,
    COUNTS,
    DEAD,
    ECHO,
    ITEMS,
    SIDE,
    Counter,
    Feed,
    Item,
    Seen,
    Total,
    X,
    make_topics,
)

POLLS = (1, 2, 3, 4000)
NUMBERS = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.integers(0, 9), st.just(BAD))), min_size=1, max_size=12
)


def numbered(found: Sequence[tuple[str, int]]) -> list[Item]:
    return [Item(name, number, amount) for number, (name, amount) in enumerate(found)]


def letters(log: Log) -> list[DeadLetter]:
    return sorted(messages(log, DEAD.name), key=lambda one: (one.topic, one.partition, one.offset))


def check(log: Log, items: Sequence[Item]) -> None:
    seen, sums = ledger_model(items)
    assert messages(log, ECHO.name) == sorted(seen, key=lambda one: home(Item(one.name, 0, 0)))
    assert table(log, COUNTS.name) == {
        encode_key((name,)): CODEC.encode(Total(name, amount)) for name, amount in sorted(sums.items())
    }
    bad = [one for one in items if one.amount == BAD]
    assert sorted(one.value or b"" for one in letters(log)) == sorted(map(CODEC.encode, bad))
    assert {one.code for one in letters(log)} <= {InvalidValue.code}


@settings(deadline=None, max_examples=10)
@given(NUMBERS, st.sampled_from([Heedless, Keeping]))
@example([("a", 1), ("b", BAD), ("a", 2), ("b", 3)], Heedless)
@example([("a", 1), ("b", BAD), ("a", 2), ("b", 3), ("a", BAD), ("a", BAD), ("b", 4)], Keeping)
def test_a_record_whose_row_cant_be_written_is_one_letter_and_the_others_count_as_if_it_were_not_there(
    found: list[tuple[str, int]], make: type[Heedless]
) -> None:
    """Whatever the size of the batches, the letters are the same to the last field."""
    items = numbered(found)
    told = []
    for poll in POLLS:
        with tempfile.TemporaryDirectory() as where:
            log = EmbeddedLog(Path(where) / "log")
            make_topics(log)
            crowd = Feed(log, ITEMS)
            for one in items:
                crowd.put({home(one): [one]})
            with bench(log, Path(where) / "state", make, poll=poll) as runs:
                runs.settle()
            check(log, items)
            told.append(letters(log))
            log.close()
    assert all(one == told[0] for one in told)


@pytest.mark.parametrize("poll", POLLS)
@pytest.mark.parametrize("bad, stops", [(4, False), (5, True)])
def test_more_unwritable_rows_in_a_row_than_may_be_stop_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path, poll: int, bad: int, stops: bool
) -> None:
    log = embedded_log
    make_topics(log)
    items = numbered([*[("a", BAD)] * 3, ("a", 1), *[("a", BAD)] * bad, ("a", 2)])
    Feed(log, ITEMS).put({home(items[0]): items})
    worker = Worker(log, Heedless, CODEC, TaskSettings(tmp_path, poll, failures=4))
    if stops:
        with pytest.raises(HandlerBroken, match="5 records in a row"):
            list(iter(worker.step, False))
    else:
        while worker.step():
            pass
        check(log, items)
    worker.close()


# ---- with buckets -----------------------------------------------------------------------------------------------------


class Beside(Keeping):
    """Reads the side as free records, and buckets in the same transactions."""

    name = "beside"
    anchor = X.name
    tables = (*Keeping.tables, A_MIRROR.name)
    emits = (*Keeping.emits, *Column.emits)

    def __init__(self) -> None:
        super().__init__()
        self.column = Column()

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name), *self.column.inputs())

    def closes(self) -> tuple[TopicSpec, ...]:
        return self.column.closes()

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        self.column.on_bucket(step, bucket)


class BesideAtOnce(Beside):
    keeps = False


def feed_both(log: Log) -> tuple[list[Item], list[tuple[int, list[Item]]]]:
    items = numbered([("a", 1), ("b", BAD), ("a", 2), ("b", 3), ("b", BAD), ("a", 4)])
    buckets = [(minute(n), [Item("x", n, n)]) for n in range(1, 5)]
    Feed(log, SIDE).put({0: items})
    x = Feed(log, X)
    for bucket_ms, found in buckets:
        x.bucket(bucket_ms, {0: found})
    return items, buckets


@pytest.mark.parametrize("poll", POLLS)
@pytest.mark.parametrize("make", [Beside, BesideAtOnce])
def test_buckets_of_the_same_transaction_are_closed_once_and_whole(
    embedded_log: EmbeddedLog, tmp_path: Path, make: type[Beside], poll: int
) -> None:
    log = embedded_log
    make_topics(log)
    items, buckets = feed_both(log)
    with bench(log, tmp_path, make, poll=poll) as runs:
        runs.settle()
    check(log, items)
    assert [(one.topic, one.offset) for one in letters(log)] == [(SIDE.name, 1), (SIDE.name, 4)]
    assert messages(log, A_OUT.name) == column_model(buckets)
    assert closed(log, A_OUT.name) == [0, *(bucket_ms for bucket_ms, _ in buckets)]


class Overflowing(Beside):
    """It is the third bucket that puts a row that can't be written."""

    keeps = False

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.message.amount != BAD:
            super().on_record(step, arrival)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        super().on_bucket(step, bucket)
        if bucket.bucket_ms == minute(3):
            step.table(A_MIRROR.name).put(Total("all", BOUNDLESS))


@pytest.mark.parametrize("poll", POLLS)
def test_a_row_of_a_bucket_that_cant_be_written_stops_the_task_and_no_record_is_blamed(
    embedded_log: EmbeddedLog, tmp_path: Path, poll: int
) -> None:
    make_topics(embedded_log)
    feed_both(embedded_log)
    for _ in range(2):
        with bench(embedded_log, tmp_path, Overflowing, poll=poll) as runs, pytest.raises(InvalidValue):
            runs.settle()
    assert letters(embedded_log) == []
    assert minute(3) not in closed(embedded_log, A_OUT.name)


# ---- what it costs ------------------------------------------------------------------------------------------------------


class CountingCodec(Codec):
    """A codec that knows how many rows it has written."""

    rows = 0

    def encode(self, message: object) -> bytes:
        self.rows += isinstance(message, Total)
        return super().encode(message)


def test_a_row_is_encoded_once_however_often_it_was_put(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    log = embedded_log
    make_topics(log)
    Feed(log, ITEMS).put({1: [Item("a", number, 1) for number in range(FIRST)]})
    counting = CountingCodec((CloseMarker, PositionStamp, TaskCut, DeadLetter, LateRecord, Item, Total, Seen))
    worker = Worker(log, Counter, counting, TaskSettings(tmp_path))
    while worker.step():
        pass
    worker.close()
    assert counting.rows == 1
