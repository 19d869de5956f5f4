"""Buckets: who waits for whom, what a delayed edge sees, and what becomes of what comes late."""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine import watermark
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.observer import Nobody, TaskId
from qmtl.engine.processor import Arrival, Input
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.watermark import Merge, Wait
from qmtl.foundation.contracts.control import LateRecord
from qmtl.foundation.wire.keys import decode_marker_bucket, encode_key, is_marker
from qmtl.foundation.wire.topics import DAY_MS
from tests.engine.driving import Bench, bench, closed, messages, outcome
from tests.engine.models import BUCKETS, MINUTE, Buckets, items, late_model, loop_model, minute
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    B_STATE,
    CODEC,
    DEAD,
    LATE,
    LATE_OUT,
    LATE_STATE,
    XX,
    A,
    B,
    Batch,
    Feed,
    FreeB,
    Item,
    Late,
    Seen,
    X,
    Y,
    make_topics,
    marker,
    spread,
)

# ---- delayed edges ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(
    BUCKETS,
    st.integers(1, 3),
    st.sampled_from([1, 2, 3, 4000]),
    st.lists(st.integers(0, 3), max_size=40),
    st.sampled_from([1, 3, watermark.BUFFERED_RECORDS]),
)
def test_a_loop_over_a_delayed_edge_gives_the_same_for_any_poll_size_any_bound_and_any_turns(
    buckets: Buckets, lag: int, poll: int, turns: list[int], bound: int
) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        patched.setattr(watermark, "BUFFERED_RECORDS", bound)
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        feed = Feed(log, X)
        todo = list(enumerate(buckets))
        with bench(log, Path(place) / "state", lambda: A(lag), B, poll=poll) as runs:
            for actor in (*turns, *[2] * len(todo)):  # people and both workers act in any order
                if actor < 2:
                    runs.workers[actor].step()
                elif todo:
                    number, bucket = todo.pop(0)
                    feed.bucket(minute(number), {0: items(bucket, number)})
            runs.settle()
        assert messages(log, A_OUT.name) == loop_model(buckets, lag)
        expected = [minute(number) for number in range(len(buckets))]
        assert closed(log, A_OUT.name) == closed(log, B_STATE.name) == [0, *expected]
        log.close()


@settings(deadline=None, max_examples=20)
@given(BUCKETS, st.integers(1, 3), st.sampled_from([1, 2, 3, 4000]), st.integers(1, 3))
def test_an_own_table_read_late_shows_the_cut_of_that_bucket_whatever_the_transactions_and_restarts(
    buckets: Buckets, lag: int, poll: int, restart: int
) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        feed = Feed(log, X)
        for number, bucket in enumerate(buckets):
            feed.bucket(minute(number), {0: items(bucket, number)})
            if number % restart == 0:  # some buckets meet a running task, some one that was just opened
                with bench(log, Path(place) / "state", lambda: Late(lag), poll=poll) as runs:
                    runs.settle()
        with bench(log, Path(place) / "state", lambda: Late(lag), poll=poll) as runs:
            runs.settle()
        assert messages(log, LATE_OUT.name) == late_model(buckets, lag)
        log.close()


def run_free(log: Log, place: Path, order: str) -> tuple[Wait, ...]:
    """B is fed by itself; `order` says when it and A run: `y` and `x` feed a bucket, `b` and `a` run. Gives what A waits for."""
    make_topics(log)
    feeds = {"x": Feed(log, X), "y": Feed(log, Y)}
    done = {"x": 0, "y": 0}
    with bench(log, place, FreeB) as of_b, bench(log, place, A) as of_a:
        for step in order:
            if step in feeds:
                number = done[step]
                feeds[step].bucket(minute(number), {0: [Item("n", number, number + 1)]})
                done[step] += 1
            else:
                {"a": of_a, "b": of_b}[step].settle()
        return of_a.workers[0].tasks[0].look().waits


SEEN_FROM_B = [
    Seen(minute(0), "n", 0, 1, ()),
    Seen(minute(1), "n", 1, 2, (f"n=1@{minute(0)}",)),
    Seen(minute(2), "n", 2, 3, (f"n=3@{minute(1)}",)),
    Seen(minute(3), "n", 3, 4, (f"n=6@{minute(2)}",)),
]


@pytest.mark.parametrize(
    "order, seen",
    [
        ("yyyybxxxxa", 4),  # B is far ahead: its later rows are not seen early
        ("xxxxayyyyba", 4),  # A is far ahead: it waits
        ("bxxa", 1),  # genesis lets the first bucket through, and only it
        ("xxa", 0),  # without genesis nobody knows that B has nothing yet
        ("xxyaba", 2),  # bucket 1 sees bucket 0 of B, and bucket 2 waits
        ("yyyybxaxaxaxa", 4),
        ("xyxyxyxyababababa", 4),
    ],
)
def test_a_bucket_sees_the_other_exactly_as_it_was_one_bucket_ago(
    embedded_log: EmbeddedLog, tmp_path: Path, order: str, seen: int
) -> None:
    run_free(embedded_log, tmp_path / "state", order)
    assert messages(embedded_log, A_OUT.name) == SEEN_FROM_B[:seen]


@pytest.mark.parametrize(
    "order, needed, have",
    [("xxa", 0, None), ("bxxa", minute(0), 0), ("xxxybaba", minute(1), minute(0)), ("xybaa", None, None)],
)
def test_a_task_tells_for_which_bucket_of_a_delayed_edge_it_waits(
    embedded_log: EmbeddedLog, tmp_path: Path, order: str, needed: int | None, have: int | None
) -> None:
    waits = run_free(embedded_log, tmp_path, order)
    where = TopicPartition(B_STATE.name, 0)
    assert waits == (() if needed is None else (Wait(where, needed, have),))


@settings(deadline=None, max_examples=25)
@given(st.text("xyabr", max_size=14), st.integers(1, 3))
@example(
    "bxarxa", 2
)  # the second bucket looks back at genesis too, which the task had read before it began anew
@example("byxarxarxa", 3)
def test_a_task_that_begins_anew_waits_for_nothing_that_it_has_read_of_a_delayed_edge(
    order: str, lag: int
) -> None:
    """`order` as above, and `r` is a restart of A: with restarts or without, the same buckets are closed, and see the same."""
    seen = []
    for restarts in (True, False):
        log = SimulatedLog()
        make_topics(log)
        feeds, done = {"x": Feed(log, X), "y": Feed(log, Y)}, {"x": 0, "y": 0}
        with tempfile.TemporaryDirectory() as place, bench(log, Path(place) / "b", FreeB) as of_b:
            of_a = Bench(log, Path(place) / "a", [lambda: A(lag)])
            for step in order:
                if step in feeds:
                    feeds[step].bucket(minute(done[step]), {0: [Item("n", done[step], 1)]})
                    done[step] += 1
                elif step != "r":
                    {"a": of_a, "b": of_b}[step].settle()
                elif restarts:
                    of_a.close()
                    of_a = Bench(log, Path(place) / "a", [lambda: A(lag)])
            of_a.settle()
            of_a.close()
        seen.append((closed(log, A_OUT.name), messages(log, A_OUT.name)))
    assert seen[0] == seen[1]


def test_a_waiting_bucket_leaves_its_input_where_it_was(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    run_free(embedded_log, tmp_path / "state", "bxxxa")
    where = TopicPartition(X.name, 0)
    assert embedded_log.committed("qmtl.a", [where]) == {where: 2}  # behind the first marker


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
def test_of_a_tables_markers_the_last_eight_and_genesis_are_live_on_the_log_and_when_it_was_cleaned(
    tmp_path: Path, count: int
) -> None:
    now = [minute(0)]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    make_topics(log)
    feed = Feed(log, X)
    for number in range(count):
        feed.bucket(minute(number), {0: [Item("n", number, 1)]})
        if number in (5, 12):  # what a task was told by its stamp decides as what it knew
            with bench(log, tmp_path / "state", lambda: Late(2)) as runs:
                runs.settle()
    with bench(log, tmp_path / "state", lambda: Late(2), poll=3) as runs:
        runs.settle()
    expected = [0, *[minute(number) for number in range(count)][-8:]]

    def markers() -> list[tuple[int, bool]]:
        """Buckets and whether the record is a tombstone, as they lie in the partition."""
        found = read_all(log, all_partitions(log, LATE_STATE.name))
        return [(decode_marker_bucket(one.key), one.value is None) for one in found if is_marker(one.key)]

    newest = dict(markers())
    assert sorted(bucket_ms for bucket_ms, dead in newest.items() if not dead) == expected
    assert closed(log, LATE_OUT.name) == [
        0,
        *(minute(number) for number in range(count)),
    ]  # events keep them all
    for _ in range(2):  # tombstones go once they were seen to be the newest
        now[0] += 400 * DAY_MS
        log.clean()
    assert markers() == [(bucket_ms, False) for bucket_ms in expected]
    log.close()


# ---- who waits for whom ---------------------------------------------------------------------------------------------


PLAIN = Input(X.name, bucketed=True)
ALL = spread(Input(XX.name, bucketed=True, broadcast=True))
JOINING = spread(PLAIN, Input(XX.name, bucketed=True, broadcast=True, joins=True))


def one(number: int) -> Batch:
    return {0: [Item("p0", number, 1)]}


def test_an_empty_bucket_closes_too(log: Log, tmp_path: Path) -> None:
    make_topics(log)
    feed = Feed(log, X)
    for number in range(4):
        feed.bucket(minute(number), {0: [Item("n", number, 1)]} if number == 2 else {})
    with bench(log, tmp_path, A, B) as runs:
        runs.until(lambda: closed(log, B_STATE.name)[-1:] == [minute(3)])
    assert closed(log, A_OUT.name) == [0, minute(0), minute(1), minute(2), minute(3)]
    assert messages(log, A_OUT.name) == [Seen(minute(2), "n", 2, 1)]


def test_a_silent_partition_holds_the_bucket_until_its_marker(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, XX)
    with bench(log, tmp_path, ALL) as runs:
        feed.bucket(minute(0), one(0), closes=[0, 1])
        feed.bucket(minute(1), one(1), closes=[0, 1])
        feed.put({2: [Item("p2", 7, 1)]})
        runs.settle()
        assert closed(log, A_OUT.name) == [0]
        silent = TopicPartition(XX.name, 2)
        assert runs.workers[0].tasks[0].look().waits == (Wait(silent, minute(0), None),)
        feed.bucket(minute(0), closes=[2])
        runs.settle()
        assert runs.workers[0].tasks[0].look().waits == (Wait(silent, minute(1), minute(0)),)
        assert closed(log, A_OUT.name) == [0, minute(0)]
        assert [seen.name for seen in messages(log, A_OUT.name)] == ["p0", "p2"]
        feed.bucket(minute(5), closes=[2])
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(0), minute(1)]
        behind = [TopicPartition(XX.name, number) for number in (0, 1)]
        assert runs.workers[0].tasks[0].look().waits == tuple(
            Wait(one, minute(5), minute(1)) for one in behind
        )
        feed.bucket(minute(5), closes=[0, 1])
        runs.settle()
        assert (
            runs.workers[0].tasks[0].look().waits == ()
        )  # nobody is ahead of the task: nothing is waited for


def test_partitions_whose_markers_skip_buckets_merge_by_bucket(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, XX)
    feed.bucket(minute(0), {0: [Item("p0", 0, 1)]}, closes=[0])
    feed.bucket(minute(1), {1: [Item("p1", 1, 1)]}, closes=[1])
    feed.bucket(minute(2), {2: [Item("p2", 2, 1)]}, closes=[2])
    feed.bucket(minute(2), {0: [Item("p0", 2, 1)], 1: [Item("p1", 2, 1)]}, closes=[0, 1])
    with bench(log, tmp_path, ALL) as runs:
        runs.settle()
    assert [(seen.bucket_ms, seen.name) for seen in messages(log, A_OUT.name)] == [
        (minute(0), "p0"),
        (minute(1), "p1"),
        (minute(2), "p0"),
        (minute(2), "p1"),
        (minute(2), "p2"),
    ]
    assert closed(log, A_OUT.name) == [0, minute(0), minute(1), minute(2)]


def test_who_joins_holds_nobody_up_before_its_first_record_and_everybody_after(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    x, xx = Feed(log, X), Feed(log, XX)
    with bench(log, tmp_path, JOINING) as runs:
        x.bucket(minute(0), one(0))
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(0)]
        xx.put({2: [Item("p2", 0, 1)]})
        x.bucket(minute(1), one(1))
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(0)]  # from now on all of it, a silent partition too
    with bench(log, tmp_path, JOINING) as runs:
        runs.settle()
        xx.bucket(minute(1), closes=[2])
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(0)]
        xx.bucket(minute(1), closes=[0, 1])
        x.bucket(minute(2), one(2))
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(0), minute(1)]
    with bench(log, tmp_path, JOINING) as runs:
        runs.settle()
        assert closed(log, A_OUT.name) == [
            0,
            minute(0),
            minute(1),
        ]  # who once took part does so after a restart
    assert [(seen.bucket_ms, seen.name) for seen in messages(log, A_OUT.name)] == [
        (minute(0), "p0"),
        (minute(1), "p0"),
        (minute(1), "p2"),
    ]


def test_a_bucket_that_was_closed_already_goes_to_the_late_records_and_changes_nothing(
    log: Log, tmp_path: Path
) -> None:
    make_topics(log)
    x, xx = Feed(log, X), Feed(log, XX)
    late = Item("late", 9, 1)
    x.bucket(minute(3), one(3))
    with bench(log, tmp_path, JOINING) as runs:
        runs.until(lambda: closed(log, A_OUT.name) == [0, minute(3)])
        xx.bucket(minute(1), {1: [late]})  # joins with a bucket of the past
        xx.bucket(minute(4), {1: [Item("p1", 4, 1)]})
        x.bucket(minute(4), one(4))
        runs.until(lambda: closed(log, A_OUT.name) == [0, minute(3), minute(4)])
    assert [(seen.bucket_ms, seen.name) for seen in messages(log, A_OUT.name)] == [
        (minute(3), "p0"),
        (minute(4), "p0"),
        (minute(4), "p1"),
    ]
    assert messages(log, DEAD.name) == []
    assert messages(log, LATE.name) == [
        LateRecord(
            "a",
            XX.name,
            minute(1),
            minute(3),
            2 * MINUTE,
            encode_key(("late", 9)),
            CODEC.encode(late),
            partition=1,
            offset=0,
        )
    ]


class WithEdge(A):
    """A, with another source that joins, and B's state one bucket late."""

    def inputs(self) -> tuple[Input, ...]:
        return (*super().inputs(), Input(XX.name, bucketed=True, broadcast=True, joins=True))


def test_a_late_bucket_takes_nothing_from_a_delayed_edge(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    log = embedded_log
    make_topics(log)
    x, xx, y = Feed(log, X), Feed(log, XX), Feed(log, Y)
    with bench(log, tmp_path, FreeB, WithEdge) as runs:
        y.bucket(minute(3), {0: [Item("n", 0, 5)]})
        x.bucket(minute(3), one(3))
        runs.settle()
        xx.bucket(minute(1), {1: [Item("late", 9, 1)]})
        runs.settle()
        xx.bucket(minute(4))
        x.bucket(minute(4), one(4))
        runs.settle()
    assert [(seen.bucket_ms, seen.rows) for seen in messages(log, A_OUT.name)] == [
        (minute(3), ()),
        (minute(4), (f"n=5@{minute(3)}",)),
    ]
    assert [late.bucket_ms for late in messages(log, LATE.name)] == [minute(1)]


class Pauses(Nobody):
    """Counts what was read and how often the worker took part in its group, and keeps what was paused."""

    def __init__(self) -> None:
        self.records = self.polls = 0
        self.pauses: list[TopicPartition] = []

    def read(self, task: TaskId, records: int) -> None:
        self.records += records

    def polled(self, processor: str, tasks: Collection[int]) -> None:
        self.polls += 1

    def paused(self, task: TaskId, partitions: Collection[TopicPartition]) -> None:
        self.pauses += sorted(partitions)


POLL = 2
FEW_BUCKETS, FEW_RECORDS = ("BUFFERED_BUCKETS", 3), ("BUFFERED_RECORDS", 7)


@pytest.mark.parametrize("bound, buffered", [(FEW_BUCKETS, 3 * (4 + 1)), (FEW_RECORDS, 7 + 2)])
def test_of_a_partition_far_ahead_no_more_is_read_than_the_bound_while_the_group_is_polled_on(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: tuple[str, int], buffered: int
) -> None:
    monkeypatch.setattr(watermark, *bound)
    make_topics(log)
    feed, seen = Feed(log, XX), Pauses()
    ahead = TopicPartition(XX.name, 0)
    for number in range(12):
        feed.bucket(minute(number), {0: [Item("p0", number, part) for part in range(4)]}, closes=[0])
    with bench(log, tmp_path, ALL, poll=POLL, observer=seen) as runs:
        runs.until(lambda: seen.pauses == [ahead])
        polls = seen.polls
        runs.until(lambda: seen.polls >= polls + 50)
        assert seen.records <= buffered + POLL  # of 60 that lie there, its markers among them
        look = runs.workers[0].tasks[0].look()
        assert look.paused == frozenset({ahead})
        assert look.held <= buffered + POLL
        feed.put({1: [Item("p1", 0, 0)]})
        runs.until(lambda: look.held < runs.workers[0].tasks[0].look().held)  # the others are read
        feed.bucket(minute(0), {}, closes=[1, 2])
        for number in range(1, 12):
            feed.bucket(minute(number), {1: [Item("p1", number, 0)]}, closes=[1, 2])
        runs.until(lambda: closed(log, A_OUT.name)[-1] == minute(11))
        look = runs.workers[0].tasks[0].look()
        assert (len(look.paused), look.held) == (0, 0)
    assert [(seen.bucket_ms, seen.name) for seen in messages(log, A_OUT.name)] == [
        (minute(number), name) for number in range(12) for name in ("p0", "p0", "p0", "p0", "p1")
    ]


@pytest.mark.parametrize("size", [1, 5])
def test_a_bucket_larger_than_the_bound_closes_all_the_same(
    embedded_log: EmbeddedLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(watermark, "BUFFERED_RECORDS", size)
    log = embedded_log
    make_topics(log)
    feed = Feed(log, XX)
    for number in range(3):
        feed.bucket(minute(number), {0: [Item("p0", number, part) for part in range(20)]}, closes=[0])
    for number in range(3):
        feed.bucket(minute(number), {2: [Item("p2", number, part) for part in range(20)]}, closes=[1, 2])
    with bench(log, tmp_path, ALL, poll=3) as runs:
        runs.settle()
    assert closed(log, A_OUT.name) == [0, minute(0), minute(1), minute(2)]
    assert len(messages(log, A_OUT.name)) == 120


def test_a_merge_gives_a_bucket_only_when_every_partition_has_closed_it() -> None:
    merge = Merge()
    wheres = [TopicPartition(XX.name, number) for number in range(3)]
    merge.configure([(Input(XX.name, bucketed=True, broadcast=True), wheres, False)])
    for where in wheres:
        assert merge.take() is None
        buffer = merge.buffer(where)
        assert buffer is not None
        buffer.close(marker(minute(0), 0, ""), 0)
        assert [one.where for one in merge.waits()] == wheres[where.partition + 1 :]
    assert merge.waits() == ()
    ready = merge.take()
    assert ready is not None
    assert (ready.bucket_ms, dict(ready.positions)) == (minute(0), dict.fromkeys(wheres, 1))
    assert merge.take() is None


def test_a_partition_for_which_the_next_bucket_waits_is_read_whatever_is_buffered_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A delayed input whose buckets are finer than the task's: it has closed some, and not yet the one that is looked back to."""
    monkeypatch.setattr(watermark, "BUFFERED_RECORDS", 1)
    merge = Merge([minute(1)])
    source, edge = TopicPartition(X.name, 0), TopicPartition(B_STATE.name, 0)
    late = Input(B_STATE.name, bucketed=True, lag=1)
    merge.configure([(PLAIN, [source], False), (late, [edge], True)])
    ahead, behind = merge.buffer(source), merge.buffer(edge)
    assert ahead is not None
    assert behind is not None
    ahead.close(marker(minute(2), 0, ""), 0)
    for number in range(3):
        behind.add(Arrival(B_STATE.name, 0, 2 * number, None), b"", b"")
        behind.close(marker(minute(0) + 1 + number, 1, ""), 2 * number + 1)
    assert merge.take() is None
    assert [one.where for one in merge.waits()] == [edge]
    assert merge.full() == [source]


def test_the_same_loop_gives_the_same_records_on_kafka_and_embedded(
    embedded_log: EmbeddedLog, kafka_log: Log, tmp_path: Path
) -> None:
    found = []
    buckets: Buckets = [[("a", 1), ("b", 2)], [], [("a", 3)], [("c", 4), ("a", 5), ("b", 6)], [("c", 7)]]
    logs: tuple[Log, ...] = (embedded_log, kafka_log)
    for log in logs:
        make_topics(log)
        feed = Feed(log, X)
        with bench(log, tmp_path / log.log_id, A, B) as runs:
            for number, bucket in enumerate(buckets):
                feed.bucket(minute(number), {0: items(bucket, number)})
            runs.until(lambda: closed(log, B_STATE.name)[-1:] == [minute(4)])  # noqa: B023
        assert messages(log, A_OUT.name) == loop_model(buckets, 1)
        found.append(outcome(log, [A_OUT.name, B_STATE.name], [B_STATE.name, A_MIRROR.name]))
    assert found[0] == found[1]
