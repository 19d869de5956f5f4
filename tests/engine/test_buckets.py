"""Buckets: who waits for whom, what a delayed edge sees, and what becomes of what comes late or is no record."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine import watermark
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.task import LATE, Task, TaskSettings
from qmtl.engine.watermark import CutDigest, Merge
from qmtl.foundation.common.errors import CutMismatch, InvalidTopology, InvariantBroken, WireError
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import put
from tests.engine.driving import bench, closed, messages, outcome, trail
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    B_STATE,
    CODEC,
    DEAD,
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
    Toy,
    X,
    Y,
    make_topics,
    rows,
)

MINUTE = 60_000
Buckets = Sequence[Sequence[tuple[str, int]]]
BUCKETS: st.SearchStrategy[Buckets] = st.lists(
    st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 9)), max_size=3),
    min_size=1,
    max_size=6,
)


def items(bucket: Sequence[tuple[str, int]], number: int) -> list[Item]:
    return [Item(name, number * 100 + index, amount) for index, (name, amount) in enumerate(bucket)]


def minute(number: int) -> int:
    return (number + 1) * MINUTE


# ---- models: what must come out, from the definition of a cut alone -----------------------------------------------


def render(state: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    return tuple(f"{name}={amount}@{at}" for name, (amount, at) in sorted(state.items()))


def loop_model(buckets: Buckets, lag: int) -> list[Seen]:
    """A sees B's state at the close of the bucket `lag` before; B adds up what A gave out."""
    out: list[Seen] = []
    cuts: list[tuple[str, ...]] = []
    state: dict[str, tuple[int, int]] = {}
    for number, bucket in enumerate(buckets):
        visible = cuts[number - lag] if number >= lag else ()
        for item in items(bucket, number):
            out.append(Seen(minute(number), item.name, item.seq, item.amount, visible))
            state[item.name] = (state.get(item.name, (0, 0))[0] + item.amount, minute(number))
        cuts.append(render(state))
    return out


def late_model(buckets: Buckets, lag: int) -> list[Seen]:
    """An own table `lag` buckets ago, with deletions."""
    out: list[Seen] = []
    cuts: list[dict[str, tuple[int, int]]] = []
    state: dict[str, tuple[int, int]] = {}
    for number, bucket in enumerate(buckets):
        before = cuts[number - lag] if number >= lag else {}
        for item in items(bucket, number):
            if item.amount:
                state[item.name] = (state.get(item.name, (0, 0))[0] + item.amount, minute(number))
            else:
                state.pop(item.name, None)
            out.append(
                Seen(minute(number), item.name, item.seq, before.get(item.name, (0, 0))[0], render(before))
            )
        cuts.append(dict(state))
    return out


# ---- delayed edges ------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(BUCKETS, st.integers(1, 3), st.sampled_from([1, 2, 3, 4000]), st.lists(st.integers(0, 3), max_size=40))
def test_a_loop_over_a_delayed_edge_gives_the_same_for_any_poll_size_and_any_turns(
    buckets: Buckets, lag: int, poll: int, turns: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as place:
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


def run_free(log: Log, place: Path, order: str) -> None:
    """B is fed by itself; `order` says when it and A run: `y` and `x` feed a bucket, `b` and `a` run."""
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


def test_a_waiting_bucket_leaves_its_input_where_it_was(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    run_free(embedded_log, tmp_path / "state", "bxxxa")
    where = TopicPartition(X.name, 0)
    assert embedded_log.committed("qmtl.a", [where]) == {where: 2}  # behind the first marker


# ---- who waits for whom ---------------------------------------------------------------------------------------------


def spread(*sources: Input) -> type[A]:
    """A over other inputs, and without the delayed edge."""

    class Spread(A):
        def inputs(self) -> tuple[Input, ...]:
            return sources

        def on_bucket(self, step: Step, bucket: Bucket) -> None:
            for source in sources:
                for arrival in bucket.arrivals[source.topic]:
                    item: Item = arrival.message
                    step.emit(A_OUT.name, Seen(bucket.bucket_ms, item.name, item.seq, item.amount))

    return Spread


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
        feed.bucket(minute(0), closes=[2])
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(0)]
        assert [seen.name for seen in messages(log, A_OUT.name)] == ["p0", "p2"]
        feed.bucket(minute(5), closes=[2])
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(0), minute(1)]


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


def test_a_bucket_that_was_closed_already_goes_to_the_dead_letters_and_changes_nothing(
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
    (letter,) = messages(log, DEAD.name)
    assert (letter.code, letter.topic, letter.partition, letter.offset) == (LATE, XX.name, 1, 0)
    assert (letter.key, letter.value) == (encode_key(("late", 9)), CODEC.encode(late))


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
    assert [letter.code for letter in messages(log, DEAD.name)] == [LATE]


def test_a_partition_far_ahead_waits_and_loses_nothing(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watermark, "BUFFERED_BUCKETS", 3)
    make_topics(log)
    feed = Feed(log, XX)
    for number in range(12):
        feed.bucket(minute(number), one(number), closes=[0])
    with bench(log, tmp_path, ALL, poll=2) as runs:
        runs.until(lambda: closed(log, A_OUT.name) == [0])
        for number in range(12):
            feed.bucket(minute(number), {1: [Item("p1", number, 1)]}, closes=[1, 2])
        runs.until(lambda: closed(log, A_OUT.name)[-1] == minute(11))
    assert [(seen.bucket_ms, seen.name) for seen in messages(log, A_OUT.name)] == [
        (minute(number), name) for number in range(12) for name in ("p0", "p1")
    ]


# ---- proofs of a cut ------------------------------------------------------------------------------------------------


def marker(bucket_ms: int, count: int, digest: str, processor: str = "people", task: int = 0) -> CloseMarker:
    return CloseMarker(processor, task, 1, bucket_ms, count, digest, 1)


def digest_of(*found: Item) -> str:
    cut = CutDigest()
    for item in found:
        cut.add(encode_key(X.key_of(item)), CODEC.encode(item))
    return cut.hexdigest()


@pytest.mark.parametrize(
    "count, digest",
    [
        (2, digest_of(Item("n", 0, 1))),
        (0, digest_of(Item("n", 0, 1))),
        (1, digest_of(Item("n", 0, 2))),
        (1, ""),
    ],
)
def test_a_cut_that_is_not_the_one_that_was_counted_stops_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path, count: int, digest: str
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, X)
    feed.put({0: [Item("n", 0, 1)]})
    feed.forge(marker(minute(0), count, digest))
    with bench(log, tmp_path, A) as runs, pytest.raises(CutMismatch, match=X.name):
        runs.settle()
    assert messages(log, A_OUT.name) == []


def test_the_cut_that_was_counted_is_taken(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    make_topics(embedded_log)
    feed = Feed(embedded_log, X)
    feed.put({0: [Item("n", 0, 1)]})
    feed.forge(marker(minute(0), 1, digest_of(Item("n", 0, 1))))
    with bench(embedded_log, tmp_path, spread(Input(X.name, bucketed=True))) as runs:
        runs.settle()
    assert messages(embedded_log, A_OUT.name) == [Seen(minute(0), "n", 0, 1)]


@pytest.mark.parametrize("other", [marker(minute(1), 0, "", "somebody"), marker(minute(1), 0, "", task=1)])
def test_a_second_writer_of_markers_stops_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path, other: CloseMarker
) -> None:
    make_topics(embedded_log)
    feed = Feed(embedded_log, X)
    feed.bucket(minute(0))
    feed.forge(other)
    with bench(embedded_log, tmp_path, A, B) as runs, pytest.raises(InvariantBroken, match="one writer"):
        runs.settle()


@pytest.mark.parametrize("again", [minute(0), minute(1)])
def test_a_marker_that_goes_back_stops_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path, again: int
) -> None:
    make_topics(embedded_log)
    feed = Feed(embedded_log, X)
    feed.bucket(minute(1))
    feed.forge(marker(again, 0, ""))
    with bench(embedded_log, tmp_path, A, B) as runs, pytest.raises(InvariantBroken, match="after"):
        runs.settle()


def test_a_reader_that_comes_when_retention_took_part_of_a_bucket_begins_with_the_next(
    tmp_path: Path,
) -> None:
    now = [0]
    log = EmbeddedLog(tmp_path / "log", clock_ms=lambda: now[0])
    make_topics(log, brief := replace(X, name="toy.brief", retention_ms=100))
    feed = Feed(log, brief)
    feed.put({0: [Item("n", 0, 1)]})
    now[0] = 90
    feed.bucket(minute(0), {0: [Item("n", 1, 1)]})
    feed.bucket(minute(1), {0: [Item("n", 2, 1)]})
    now[0] = 150
    assert log.clean() == 1

    class Brief(spread(Input(brief.name, bucketed=True))):  # type: ignore[misc] # the class is made on the spot
        def topics(self) -> dict[str, TopicSpec]:
            return {**super().topics(), brief.name: brief}

    with bench(log, tmp_path / "state", Brief) as runs:
        runs.settle()
        feed.put({0: [Item("n", 3, 1)]})
        feed.forge(marker(minute(2), 2, ""))
        with pytest.raises(CutMismatch):  # from the second cut on, it is proved
            runs.settle()
    assert [seen.seq for seen in messages(log, A_OUT.name)] == [2]
    assert closed(log, A_OUT.name) == [0, minute(0), minute(1)]
    log.close()


# ---- what is no record ------------------------------------------------------------------------------------------------


JUNK = b"\xc3\x01 nothing that anybody wrote"
WRONG = CODEC.encode(Seen(0, "n", 0, 0))  # well formed, but not of this topic


@pytest.mark.parametrize("value", [JUNK, WRONG, b""])
def test_what_is_no_record_goes_whole_to_the_dead_letters_once_and_the_rest_goes_on(
    log: Log, tmp_path: Path, value: bytes
) -> None:
    make_topics(log)
    feed = Feed(log, X)
    feed.bucket(minute(0), {0: [Item("n", 0, 1), value, Item("n", 1, 1)]})
    feed.bucket(minute(1), {0: [Item("n", 2, 1)]})
    with bench(log, tmp_path, A, B) as runs:
        runs.until(lambda: closed(log, A_OUT.name)[-1:] == [minute(1)])
    assert [seen.seq for seen in messages(log, A_OUT.name)] == [0, 1, 2]
    (letter,) = messages(log, DEAD.name)
    assert letter == DeadLetter("a", X.name, letter.code, letter.cause, b"\x02raw\x00\x01", value, 0, 1)
    assert letter.code.startswith("QMTL-2")


def test_what_is_no_record_is_told_once_even_if_its_bucket_stays_open_over_a_restart(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, X)
    feed.put({0: [JUNK, Item("n", 0, 1)]})
    for _ in range(3):
        with bench(log, tmp_path, A, B) as runs:
            runs.settle()
    feed.bucket(minute(0))
    with bench(log, tmp_path, A, B) as runs:
        runs.settle()
    assert len(messages(log, DEAD.name)) == 1
    assert [seen.seq for seen in messages(log, A_OUT.name)] == [0]


def test_a_marker_that_is_none_goes_to_the_dead_letters_and_closes_nothing(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, X)
    feed.bucket(minute(0), {0: [Item("n", 0, 1)]})
    key = b"\x00m" + encode_key(("people", 0, minute(1)))
    put(log, [(TopicPartition(X.name, 0), key, JUNK)], writer="other")
    put(log, [(TopicPartition(X.name, 0), key, CODEC.encode(Item("n", 1, 1)))], writer="other")
    feed.bucket(minute(2), {0: [Item("n", 2, 1)]})
    with bench(log, tmp_path, A, B) as runs:
        runs.settle()
    assert closed(log, A_OUT.name) == [0, minute(0), minute(2)]
    assert [letter.key for letter in messages(log, DEAD.name)] == [key, key]


# ---- inputs that come and go --------------------------------------------------------------------------------------------


class Steered(Toy):
    """Which of its inputs are read is what the last item of `toy.side` says: `x`, `y`, both or none."""

    name = "steered"
    anchor = "toy.side"
    tables = (A_MIRROR.name,)
    emits = (A_OUT.name,)

    def __init__(self) -> None:
        self._read: tuple[str, ...] = ()

    def inputs(self) -> tuple[Input, ...]:
        return (Input("toy.side"), *(Input(f"toy.{name}", bucketed=True) for name in self._read))

    def closes(self) -> tuple[TopicSpec, ...]:
        return (A_OUT,)

    def restore(self, tables: Mapping[str, object]) -> None:
        mirror = tables[A_MIRROR.name]
        self._read = tuple(sorted(row.name for row in mirror.items()))  # type: ignore[attr-defined] # it is a table

    def on_record(self, step: Step, arrival: Arrival) -> None:
        mirror = step.table(A_MIRROR.name)
        for name in ("x", "y"):
            mirror.delete(name)
        for name in arrival.message.name:
            mirror.put(rows("").messages[0](name, 1))
        self._read = tuple(sorted(arrival.message.name))

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        for topic in sorted(bucket.arrivals):
            for arrival in bucket.arrivals[topic]:
                step.emit(
                    A_OUT.name, Seen(bucket.bucket_ms, topic, arrival.message.seq, arrival.message.amount)
                )


@pytest.mark.parametrize("restarts", [False, True])
def test_inputs_may_come_and_go_while_a_task_runs(log: Log, tmp_path: Path, restarts: bool) -> None:
    make_topics(log)
    side = log.writer("side")
    feeds = {"x": Feed(log, X), "y": Feed(log, Y)}
    spec = Steered().topics()["toy.side"]
    given = 0
    for number, read in enumerate(["x", "xy", "y", "xy"]):
        item = Item(read, number, 1)
        side.begin()
        side.append(spec.name, 0, encode_key(spec.key_of(item)), CODEC.encode(item))
        side.commit({}, "", None)
        with bench(log, tmp_path, Steered) as runs:
            where = TopicPartition(spec.name, 0)
            runs.until(lambda: log.committed("qmtl.steered", [where]).get(where, 0) > 2 * given)  # noqa: B023
            given += 1
            for name in feeds:
                feeds[name].bucket(minute(number), {0: [Item("n", number, 1)]})
            if not restarts or number == 3:
                runs.until(lambda: closed(log, A_OUT.name)[-1:] == [minute(number)])  # noqa: B023
    seen = {(one.bucket_ms, one.name, one.seq) for one in messages(log, A_OUT.name)}
    assert {(minute(3), "toy.x", 3), (minute(3), "toy.y", 3)} <= seen
    assert len(seen) == len(messages(log, A_OUT.name))


# ---- what is refused ------------------------------------------------------------------------------------------------------


class Odd(Toy):
    """Whatever the test makes of it."""

    anchor = X.name


def test_a_processor_that_can_only_go_wrong_is_refused_at_once(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)

    def refused(reads: Input, tables: tuple[str, ...] = (), closes: tuple[TopicSpec, ...] = ()) -> str:
        one = Odd()
        one.tables = tables
        one.inputs = lambda: (reads,)  # type: ignore[method-assign] # one odd processor per case
        one.closes = lambda: closes  # type: ignore[method-assign]
        with pytest.raises(InvalidTopology) as error:
            Task(embedded_log, one, 0, CODEC, TaskSettings(tmp_path))
        return error.value.what

    mirror = (A_MIRROR.name,)
    assert "no table keeps which buckets" in refused(Input(X.name, bucketed=True))
    assert "9 buckets late, and 8 are kept" in refused(Input(X.name, bucketed=True, lag=9), mirror)
    assert "not by bucket" in refused(Input(X.name, lag=1), mirror)
    own = Input(LATE_STATE.name, bucketed=True, lag=1)
    assert "has to be closed" in refused(own, (LATE_STATE.name,))
    assert "read late only" in refused(replace(own, lag=0), (LATE_STATE.name,), (LATE_STATE,))


class Loose(Toy):
    """Emits into a marked topic from a free input, where no bucket will close."""

    name = "loose"
    anchor = "toy.side"
    tables = (A_MIRROR.name,)
    emits = (A_OUT.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input("toy.side"),)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.emit(A_OUT.name, Seen(0, "n", 0, 0))


def test_an_event_that_no_marker_would_count_is_refused_and_nothing_shows(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    item = Item("n", 0, 1)
    put(
        embedded_log,
        [(TopicPartition("toy.side", 0), encode_key(("n", 0)), CODEC.encode(item))],
        writer="side",
    )
    with (
        bench(embedded_log, tmp_path, Loose) as runs,
        pytest.raises(InvalidTopology, match="outside of a bucket"),
    ):
        runs.settle()
    assert trail(embedded_log, A_OUT.name) == []


def test_a_merge_gives_a_bucket_only_when_every_partition_has_closed_it() -> None:
    merge = Merge()
    wheres = [TopicPartition(XX.name, number) for number in range(3)]
    merge.configure([(Input(XX.name, bucketed=True, broadcast=True), wheres, False)])
    for where in wheres:
        assert merge.take() is None
        buffer = merge.buffer(where)
        assert buffer is not None
        buffer.close(marker(minute(0), 0, ""), 0)
    assert merge.behind(minute(1)) == wheres
    ready = merge.take()
    assert ready is not None
    assert (ready.bucket_ms, dict(ready.positions)) == (minute(0), dict.fromkeys(wheres, 1))
    assert merge.take() is None


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


assert issubclass(CutMismatch, InvariantBroken)
assert WireError.code == "QMTL-200"
