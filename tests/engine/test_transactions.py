"""How much a transaction takes in: by records, by time, by a closed bucket, and never what it decides."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Input, Processor, Step
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import TransactionAborted
from qmtl.foundation.wire.keys import is_stamp
from tests.engine.driving import bench, closed, messages
from tests.engine.models import counted, items, late_model, loop_model, minute
from tests.engine.toys import (
    A_OUT,
    CODEC,
    COUNTS,
    DEAD,
    ECHO,
    ITEMS,
    LATE_OUT,
    RELAYED,
    SIDE,
    A,
    B,
    Counter,
    Feed,
    Item,
    Late,
    Relay,
    Seen,
    Toy,
    X,
    make_topics,
)

GIVEN = [Item(f"n{seq % 3}", seq, 1 + seq % 4) for seq in range(10)]


def transactions(log: Log, topic: str = COUNTS.name) -> list[int]:
    """How many rows each transaction has written to a table, in order; every transaction ends it with a stamp."""
    out, rows = [], 0
    for record in read_all(log, all_partitions(log, topic)):
        if is_stamp(record.key):
            out.append(rows)
            rows = 0
        else:
            rows += 1
    return out


def by_name(found: Sequence[Seen]) -> list[Seen]:
    """In an order that partitions don't show in: a name has one partition, and keeps its order there."""
    return sorted(found, key=lambda one: one.name)


def count_all(log: Log, place: Path, poll: int, room: int | None, interval_ms: float = 60_000.0) -> list[int]:
    """The counter over the given items in one partition; the transactions that it made."""
    make_topics(log)
    Feed(log, ITEMS).put({0: GIVEN})
    with bench(log, place, Counter, poll=poll, room=room, interval_ms=interval_ms) as runs:
        runs.settle()
    assert by_name(messages(log, ECHO.name)) == by_name(counted(GIVEN))
    return [rows for rows in transactions(log) if rows]


@pytest.mark.parametrize(
    "poll, room, interval_ms, made",
    [
        (1, None, 60_000.0, [1] * 10),  # a transaction takes in as many as one reading
        (1, 4, 60_000.0, [3, 3, 2]),  # four records of three names, then what is left
        (3, 4, 60_000.0, [3, 3, 2]),  # a second reading brings only as much as there is room for
        (1, 4000, 60_000.0, [3]),  # everything there is, and it does not wait for more
        (1, 4000, 0.0, [1] * 10),  # no time: one reading each
        (4000, None, 60_000.0, [3]),
    ],
)
def test_a_transaction_takes_in_what_its_room_and_its_time_allow(
    embedded_log: EmbeddedLog,
    tmp_path: Path,
    poll: int,
    room: int | None,
    interval_ms: float,
    made: Sequence[int],
) -> None:
    assert count_all(embedded_log, tmp_path, poll, room, interval_ms) == made


def test_a_record_alone_is_committed_at_once_however_long_a_transaction_may_last(
    log: Log, tmp_path: Path
) -> None:
    make_topics(log)
    crowd = Feed(log, ITEMS)
    with bench(log, tmp_path, Counter, room=4000, interval_ms=1e9) as runs:
        for seq in range(3):
            crowd.put({0: [Item("a", seq, 1)]})
            runs.until(lambda seq=seq: len(messages(log, ECHO.name)) == seq + 1)  # type: ignore[misc] # mypy can't type a lambda with a bound default


def test_a_transaction_ends_when_a_bucket_has_closed(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, X)
    for number in range(4):
        feed.bucket(minute(number), {0: [Item("a", number, 1), Item("b", number, 1)]})
    seen = []
    with bench(log, tmp_path, lambda: Late(1), poll=1, room=4000) as runs:
        while runs.step():
            seen.append(len(closed(log, LATE_OUT.name)))
    assert [before for before in seen if before] == [2, 3, 4, 5]  # genesis with the first
    assert closed(log, LATE_OUT.name) == [0, *(minute(number) for number in range(4))]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=4), max_size=5),
    st.sampled_from([1, 2, 3, 4000]),
    st.sampled_from([None, 1, 3, 8, 4000]),
    st.sampled_from([0.0, 0.1, 60_000.0]),
    st.lists(st.integers(0, 5), max_size=30),
)
def test_what_is_decided_does_not_depend_on_how_much_a_transaction_takes_in(
    buckets: list[list[tuple[str, int]]], poll: int, room: int | None, interval_ms: float, turns: list[int]
) -> None:
    makes: list[Callable[[], Processor]] = [Counter, Relay, A, B, lambda: Late(2)]
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        x, crowd = Feed(log, X), Feed(log, ITEMS)
        todo = list(enumerate(buckets))
        state = Path(place) / "state"
        with bench(log, state, *makes, poll=poll, room=room, interval_ms=interval_ms) as runs:
            for actor in (*turns, *[5] * len(todo)):  # people and the workers act in any order
                if actor < len(makes):
                    runs.workers[actor].step()
                elif todo:
                    number, bucket = todo.pop(0)
                    x.bucket(minute(number), {0: items(bucket, number)})
                    crowd.put({0: items(bucket, number)})
            runs.settle()
        given = [item for number, bucket in enumerate(buckets) for item in items(bucket, number)]
        assert by_name(messages(log, ECHO.name)) == by_name(counted(given))
        relayed = [Seen(0, one.name, one.seq, one.amount) for one in given]
        assert by_name(messages(log, RELAYED.name)) == by_name(relayed)
        assert messages(log, A_OUT.name) == loop_model(buckets, 1)
        assert messages(log, LATE_OUT.name) == late_model(buckets, 2)
        log.close()


class Picky(Counter):
    """Fails once, at the third record, in the middle of a transaction of several readings."""

    failed = False

    def on_record(self, step: Step, arrival: Arrival) -> None:
        super().on_record(step, arrival)
        if arrival.offset == 2 and not Picky.failed:
            Picky.failed = True
            raise TransactionAborted("planned")


def test_a_transaction_that_fails_after_several_readings_leaves_nothing_and_is_done_again(
    log: Log, tmp_path: Path
) -> None:
    make_topics(log)
    Feed(log, ITEMS).put({0: GIVEN})
    Picky.failed = False
    with bench(log, tmp_path, Picky, poll=1, room=6) as runs:
        runs.until(lambda: len(messages(log, ECHO.name)) >= len(GIVEN))
    assert Picky.failed
    assert by_name(messages(log, ECHO.name)) == by_name(counted(GIVEN))
    assert log.committed("qmtl.counter", [TopicPartition(ITEMS.name, 0)])[TopicPartition(ITEMS.name, 0)] >= 10


def test_what_is_no_record_keeps_its_place_among_several_readings(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, ITEMS)
    batch: list[Item | bytes] = [GIVEN[0], b"no record 1", GIVEN[1], b"no record 2", GIVEN[2]]
    for one in batch:
        feed.put({0: [one]})
    with bench(log, tmp_path, Counter, poll=1, room=4) as runs:
        runs.settle()
    assert by_name(messages(log, ECHO.name)) == by_name(counted(GIVEN[:3]))
    assert [letter.value for letter in messages(log, DEAD.name)] == [b"no record 1", b"no record 2"]


class Two(Toy):
    """Relays two free inputs, whose order within a transaction is theirs, whatever a reading brought first."""

    name = "two"
    anchor = SIDE.name
    tables = (COUNTS.name,)
    emits = (ECHO.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(ITEMS.name), Input(SIDE.name))

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        step.emit(ECHO.name, Seen(0, item.name, item.seq, item.amount))


@pytest.mark.parametrize("poll", [1, 2, 3, 4000])
def test_the_order_of_several_free_inputs_is_that_of_the_whole_transaction(
    embedded_log: EmbeddedLog, tmp_path: Path, poll: int
) -> None:
    log = embedded_log
    make_topics(log)
    Feed(log, SIDE).put({0: GIVEN[5:]})
    Feed(log, ITEMS).put({0: GIVEN[:5]})
    with bench(log, tmp_path, Two, poll=poll, room=4000) as runs:
        runs.settle()
    for partition in range(ECHO.partitions):
        from_side = [
            CODEC.decode(one.value or b"").seq >= 5
            for one in read_all(log, [TopicPartition(ECHO.name, partition)])
        ]
        assert from_side == sorted(from_side)
    assert len(messages(log, ECHO.name)) == len(GIVEN)
