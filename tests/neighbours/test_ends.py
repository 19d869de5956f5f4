"""Where a table's log ends, and how many records it has, does not decide whether its recovery ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.recovery import Restored, restore
from qmtl.engine.store import Store
from qmtl.engine.table import Table
from qmtl.foundation.contracts.control import InputPosition, PositionStamp
from qmtl.foundation.wire.keys import encode_key, stamp_key
from tests.contract.driving import put, until
from tests.engine.toys import Total
from tests.neighbours.driving import (
    QUICKLY_CLEANED,
    aborted,
    alter,
    check,
    plain,
    raw,
    serve,
    serving,
    stranger,
    tasks_of,
    told_count,
)
from tests.neighbours.toys import CODEC, FIRST, INPUT, SUMS, Crowd, make_topics

STALL_S = 5.0
BEGIN = TopicPartition(INPUT.name, 0)


def row(name: str, amount: int) -> tuple[bytes, bytes]:
    return encode_key((name,)), CODEC.encode(Total(name, amount))


def stamp(offset: int = 0) -> tuple[bytes, bytes]:
    value = PositionStamp("tally", 0, (InputPosition(INPUT.name, 0, offset),))
    return stamp_key("tally", 0), CODEC.encode(value)


def commit(log: Log, rows: Sequence[tuple[bytes, bytes | None]], writer: str = "writer") -> None:
    put(log, [(FIRST, key, value) for key, value in rows], writer=writer)


def brought_back(log: Log, place: Path) -> tuple[Restored, dict[str, int], list[tuple[int, int]]]:
    """The first partition of the table, restored into an empty store: its rows, and the progress that was told.

    Where it ends must not change meanwhile: a broker tells a writer of its commit before it has written the marker.
    """
    until(lambda: log.stable_offsets([FIRST]) == log.end_offsets([FIRST]))
    store = Store(place, log.log_id)
    told: list[tuple[int, int]] = []
    try:
        table = Table(SUMS, 0, store, CODEC)
        found = restore(
            log,
            store,
            {SUMS.name: table},
            CODEC,
            stall_s=STALL_S,
            progress=lambda done, of: told.append((done, of)),
        )
        assert store.checkpoint.tables.get(FIRST, 0) in (0, log.end_offsets([FIRST])[FIRST])
        return found, {total.name: total.amount for total in table.items()}, told
    finally:
        store.close()


# ---- N5 ---------------------------------------------------------------------------------------------------------------


def rows_of(size: int) -> list[tuple[bytes, bytes | None]]:
    return [[], [stamp()], [row("a", 1), stamp()]][size]  # type: ignore[return-value]


@pytest.mark.parametrize("size", [0, 1, 2])
def test_a_table_of_no_record_of_one_and_of_two_is_restored_as_what_it_is(
    log: Log, tmp_path: Path, size: int
) -> None:
    """N5, https://github.com/quixio/quix-streams/issues/769: offset 0 as the only offset was read as "nothing there"."""
    make_topics(log)
    if isinstance(log, KafkaLog) and size:
        plain(log, FIRST, rows_of(size))
        assert log.end_offsets([FIRST]) == {FIRST: size}
    elif size:
        commit(log, rows_of(size))
    found, rows, _ = brought_back(log, tmp_path / "store")
    assert found.records == size
    assert found.fresh == (size == 0)
    assert found.positions == ({BEGIN: 0} if size else {})
    assert rows == ({"a": 1} if size == 2 else {})


def test_a_counter_that_has_counted_nothing_one_and_two_goes_on_from_there(log: Log, tmp_path: Path) -> None:
    """N5 once more, through a worker that loses its store each time."""
    make_topics(log)
    crowd = Crowd(log)
    for size in range(4):
        with serving(log, tmp_path / str(size)) as worker:
            serve([worker], lambda: bool(tasks_of(worker)) and told_count(log) >= size)  # noqa: B023
        check(log, crowd.given)
        crowd.give(1, ["a"])


# ---- N9 ---------------------------------------------------------------------------------------------------------------


def end_with_data(log: KafkaLog) -> None:
    commit(log, [row("a", 1), stamp(1)])
    plain(log, FIRST, [row("a", 2), stamp(2)])


def end_with_commit(log: Log) -> None:
    commit(log, [row("a", 1), stamp(1)])
    commit(log, [row("a", 2), stamp(2)])


def end_with_abort(log: KafkaLog) -> None:
    end_with_commit(log)
    with stranger(log) as one:
        aborted(log, one, FIRST)


def end_with_many_aborts(log: KafkaLog) -> None:
    end_with_data(log)
    with stranger(log) as one:
        for _ in range(5):
            aborted(log, one, FIRST)


@pytest.mark.parametrize("end", [end_with_data, end_with_commit, end_with_abort, end_with_many_aborts])
def test_a_recovery_ends_at_the_end_whatever_lies_there(
    kafka_log: KafkaLog, tmp_path: Path, end: Callable[[Log], None]
) -> None:
    """N9, https://github.com/faust-streaming/faust/issues/155: one record short of the end, or one past it, for ever."""
    make_topics(kafka_log)
    end(kafka_log)
    found, rows, told = brought_back(kafka_log, tmp_path / "store")
    assert rows == {"a": 2}
    assert (found.records, found.positions) == (4, {BEGIN: 2})
    assert told[-1][0] == told[-1][1] == kafka_log.end_offsets([FIRST])[FIRST]


def test_a_recovery_on_the_embedded_log_ends_behind_the_place_of_a_marker(
    embedded_log: Log, tmp_path: Path
) -> None:
    """N9 where no record but only an offset stands for the end of a transaction."""
    make_topics(embedded_log)
    end_with_commit(embedded_log)
    found, rows, told = brought_back(embedded_log, tmp_path / "store")
    assert rows == {"a": 2}
    assert (found.records, told[-1]) == (4, (6, 6))


# ---- N1 ---------------------------------------------------------------------------------------------------------------


def test_markers_that_the_cleaner_has_taken_are_not_waited_for(kafka_log: KafkaLog, tmp_path: Path) -> None:
    """N1, https://github.com/quixio/quix-streams/issues/1017: the last thing in a changelog was a transaction's marker; the
    cleaner took it, and recovery waited for an offset that could never come.

    Behind the last row only transactions come that show nothing, until the cleaner has taken some of them away again.
    """
    log = kafka_log
    make_topics(log)
    alter(log, SUMS.name, QUICKLY_CLEANED)
    for number in range(20):
        commit(log, [row("a", number), stamp(number + 1)])
    last = raw(log, FIRST)[-1].offset

    def spent() -> int:
        return log.end_offsets([FIRST])[FIRST]

    def there() -> int:
        return len(raw(log, FIRST, "read_uncommitted"))

    with stranger(log) as one:
        rolls = iter(range(1000))

        def cleaned() -> bool:
            if next(rolls) % 20 == 0:  # the segment that is written to is rolled by the next record only
                aborted(log, one, FIRST)
            return there() < 10

        until(cleaned, 120.0)
        for _ in range(3):
            aborted(log, one, FIRST)
    assert spent() > last + 6
    found, rows, told = brought_back(log, tmp_path / "store")
    assert rows == {"a": 19}
    assert found.positions == {BEGIN: 20}
    assert found.records < 10
    assert told[-1] == (spent(), spent())


def test_a_table_whose_every_record_is_gone_behind_its_marker_is_no_wait(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    """N1 at its extreme: nothing that was committed is left, and the end is still where the last marker was."""
    log = kafka_log
    make_topics(log)
    with stranger(log) as one:
        for _ in range(3):
            aborted(log, one, FIRST)
    found, rows, told = brought_back(log, tmp_path / "store")
    assert (rows, found.records) == ({}, 0)
    assert told[-1] == (6, 6)
