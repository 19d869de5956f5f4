"""Inputs that come and go while a task runs, and processors that are refused."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine import watermark
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.engine.task import Task, TaskSettings
from qmtl.foundation.common.errors import InvalidTopology
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import put, until
from tests.engine.driving import Bench, bench, closed, delete, messages, trail
from tests.engine.models import minute
from tests.engine.steered import Steered
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    CODEC,
    DEAD,
    LATE,
    LATE_STATE,
    SIDE,
    XX,
    Feed,
    Item,
    Seen,
    Total,
    Toy,
    X,
    Y,
    make_topics,
)

# ---- inputs that come and go --------------------------------------------------------------------------------------------


class Watching(Toy):
    """Says what came by bucket of two sources; the second may be silent for two buckets of the first."""

    name = "watching"
    anchor = X.name
    tables = (A_MIRROR.name,)
    emits = (A_OUT.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (
            Input(X.name, bucketed=True),
            Input(XX.name, bucketed=True, broadcast=True, joins=True, idle_after=2),
        )

    def closes(self) -> tuple[TopicSpec, ...]:
        return (A_OUT,)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        for source in (X.name, XX.name):
            for arrival in bucket.arrivals[source]:
                item: Item = arrival.message
                step.emit(A_OUT.name, Seen(bucket.bucket_ms, item.name, item.seq, item.amount))


@pytest.mark.parametrize("restart", [False, True])
def test_a_source_that_falls_silent_holds_the_others_up_for_so_long_and_no_longer(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    monkeypatch.setattr(
        watermark, "BUFFERED_RECORDS", 1
    )  # the others are read all the same, to count their buckets
    make_topics(log)
    x, xx = Feed(log, X), Feed(log, XX)

    def seen() -> list[tuple[int, str]]:
        return [(one.bucket_ms, one.name) for one in messages(log, A_OUT.name)]

    def both(*names: str) -> list[tuple[int, str]]:
        return [(minute(number), name) for number in (1, 2) for name in names]

    with bench(log, tmp_path / "first", Watching) as runs:
        for number in (1, 2):
            x.bucket(minute(number), {0: [Item("x", number, 1)]})
            xx.bucket(minute(number), {number: [Item("xx", number, 1)]})
        runs.until(lambda: len(seen()) == 4)
        x.bucket(minute(3), {0: [Item("x", 3, 1)]})
        until(lambda: not runs.step() and not runs.step())
        assert seen() == both("x", "xx")  # one bucket is missed: it is waited for
    with bench(log, tmp_path / ("second" if restart else "first"), Watching, poll=1) as runs:
        x.bucket(minute(4), {0: [Item("x", 4, 1)]})
        runs.until(lambda: len(seen()) == 6)
        x.bucket(minute(5), {0: [Item("x", 5, 1)]})
        runs.until(lambda: len(seen()) == 7)  # nobody waits for it any more
        xx.bucket(minute(4), {0: [Item("xx", 4, 1)]})
        xx.bucket(minute(6), {0: [Item("xx", 6, 1)]})
        x.bucket(minute(6), {0: [Item("x", 6, 1)]})
        runs.until(lambda: len(seen()) == 9)  # it is back; what it says of closed buckets is late
        assert seen()[7:] == [(minute(6), "x"), (minute(6), "xx")]
        assert closed(log, A_OUT.name) == [0, *(minute(number) for number in range(1, 7))]
        x.bucket(minute(7))
        until(lambda: not runs.step() and not runs.step())
        assert closed(log, A_OUT.name)[-1] == minute(6)  # and it is waited for again
        xx.bucket(minute(7))
        runs.until(lambda: closed(log, A_OUT.name)[-1] == minute(7))


def feed_the_second(xx: Feed, number: int, ends: int) -> None:
    """Its bucket of this number; after its end the first partition goes on alone, and closes what the others never do."""
    partitions = range(XX.partitions) if number < ends else (0,)
    xx.bucket(
        minute(number),
        {one: [Item(f"xx{one}" if number < ends else "alone", number, 1)] for one in partitions},
        closes=partitions,
    )


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["x", "x", "xx", "step", "restart", "lose the store"]), max_size=40),
    st.integers(1, 6),
    st.integers(0, 2),
    st.integers(0, 12),
    st.sampled_from([1, 3, 7, 4000]),
    st.sampled_from([None, 2, 4000]),
    st.sampled_from([1, watermark.BUFFERED_RECORDS]),
)
@example([], 4, 0, 8, 4000, None, watermark.BUFFERED_RECORDS)
@example([], 4, 2, 8, 4000, None, 1)
@example(["x", "xx", "step", "restart"], 4, 0, 8, 4000, None, watermark.BUFFERED_RECORDS)
def test_what_a_source_has_closed_is_in_its_buckets_however_it_ended_and_whenever_the_task_ran(
    acts: list[str], ends: int, alone: int, more: int, poll: int, room: int | None, bound: int
) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patched:
        patched.setattr(watermark, "BUFFERED_RECORDS", bound)
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        feeds = {"x": Feed(log, X), "xx": Feed(log, XX)}
        goals = {"x": ends + more, "xx": ends + alone}
        done = dict.fromkeys(feeds, 0)

        def feed(name: str) -> None:
            if done[name] == goals[name]:
                return
            if name == "x" and done["xx"] < ends and (done["x"] > done["xx"] or not done["xx"]):
                feed("xx")  # while it is fed it is one bucket behind at most, and so never silent
            if name == "x":
                feeds["x"].bucket(minute(done["x"]), {0: [Item("x", done["x"], 1)]})
            else:
                feed_the_second(feeds["xx"], done["xx"], ends)
            done[name] += 1

        left, lives, act = list(acts), 0, ""
        while left:
            with bench(log, Path(place) / str(lives), Watching, poll=poll, room=room) as runs:
                while left and (act := left.pop(0)) not in ("restart", "lose the store"):
                    if act in feeds:
                        feed(act)
                    else:
                        runs.step()
            lives += act == "lose the store"
        while any(done[name] < goals[name] for name in feeds):
            feed("x")
            feed("xx")
        with bench(log, Path(place) / str(lives), Watching, poll=poll, room=room) as runs:
            runs.settle()
            for _ in range(
                2
            ):  # so many buckets later, the last of them counts as missed whenever the task began
                feeds["x"].bucket(minute(goals["x"]), {0: [Item("x", goals["x"], 1)]})
                goals["x"] += 1
            runs.settle()
        wanted = []
        for number in range(goals["x"]):
            both = [f"xx{one}" for one in range(XX.partitions)] if number < ends else []
            wanted += [(minute(number), name, number) for name in ("x", *both)]
        assert [(one.bucket_ms, one.name, one.seq) for one in messages(log, A_OUT.name)] == wanted
        assert closed(log, A_OUT.name) == [0, *(minute(number) for number in range(goals["x"]))]
        late = [CODEC.decode(one.value).name for one in messages(log, LATE.name)]
        assert set(late) <= {"alone"}  # what only one partition has closed was never complete
        assert messages(log, DEAD.name) == []
        log.close()


class Grown(Watching):
    """Watching, until an item of `toy.side` lets it read `toy.y` too."""

    name = "grown"
    anchor = SIDE.name

    def __init__(self) -> None:
        self._more = False

    def inputs(self) -> tuple[Input, ...]:
        more = (Input(Y.name, bucketed=True),) if self._more else ()
        return (Input(SIDE.name), *super().inputs(), *more)

    def restore(self, tables: Mapping[str, Table]) -> None:
        self._more = any(True for _ in tables[A_MIRROR.name].items())

    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.table(A_MIRROR.name).put(Total(arrival.message.name, 1))
        self._more = True


@pytest.mark.parametrize("poll", [1, 3, 4000])
@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("bound", [3, 1000])
def test_a_history_that_is_late_is_read_whole_though_a_source_has_nothing_more_to_say(
    embedded_log: EmbeddedLog,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    poll: int,
    restart: bool,
    bound: int,
) -> None:
    monkeypatch.setattr(watermark, "BUFFERED_BUCKETS", bound)
    log = embedded_log
    make_topics(log)
    x, xx, y, side = (Feed(log, spec) for spec in (X, XX, Y, SIDE))
    xx.bucket(minute(0))
    for number in range(10):
        x.bucket(minute(number))

    def come_too_late() -> None:
        for number in range(10):
            y.bucket(minute(number), {0: [Item("y", number, 1)]})

    with bench(log, tmp_path, Grown, poll=poll) as runs:
        runs.settle()
        assert closed(log, A_OUT.name)[-1] == minute(9)
        side.put({0: [Item("more", 0, 1)]})
        runs.settle()
        if not restart:
            come_too_late()
            runs.settle()
    if restart:
        come_too_late()
    with bench(log, tmp_path, Grown, poll=poll) as runs:
        runs.settle()
        for number in (10, 11):  # more of the silent source is not waited for
            x.bucket(minute(number))
            y.bucket(minute(number), {0: [Item("y", number, 1)]})
        runs.settle()
    assert [one.bucket_ms for one in messages(log, LATE.name)] == [minute(number) for number in range(10)]
    assert closed(log, A_OUT.name) == [0, *(minute(number) for number in range(12))]


@pytest.mark.parametrize("restarts", [False, True])
def test_inputs_may_come_and_go_while_a_task_runs(log: Log, tmp_path: Path, restarts: bool) -> None:
    make_topics(log)
    side = log.writer("side")
    feeds = {"x": Feed(log, X), "y": Feed(log, Y)}
    spec = Steered().topics()[SIDE.name]
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


@pytest.mark.broker
@pytest.mark.parametrize("made_again", [False, True])
def test_an_input_that_has_gone_may_be_deleted_and_come_back_as_another_one(
    kafka_log: KafkaLog, tmp_path: Path, made_again: bool
) -> None:
    log = kafka_log
    make_topics(log)
    feeds = {"x": Feed(log, X), "y": Feed(log, Y)}

    def read(names: str, number: int) -> None:
        item = Item(names, number, 1)
        spot = TopicPartition(SIDE.name, 0)
        put(log, [(spot, encode_key(SIDE.key_of(item)), CODEC.encode(item))], writer="side")

    def reaches(runs: Bench, names: str, number: int) -> None:
        for name in names:
            feeds[name].bucket(minute(number), {0: [Item("n", number, 1)]})
        runs.until(lambda: closed(log, A_OUT.name)[-1:] == [minute(number)])

    with bench(log, tmp_path, Steered) as runs:
        read("xy", 0)
        reaches(runs, "xy", 1)
        read("x", 1)
        reaches(runs, "x", 2)
        delete(log, Y.name)
        reaches(runs, "x", 3)  # the positions of a topic that is no more are not committed again
        if made_again:
            again = KafkaLog(log.bootstrap, log.namespace)
            make_topics(again)
            feeds["y"] = Feed(again, Y)
            read("xy", 2)
            runs.until(lambda: TopicPartition(Y.name, 0) in runs.workers[0].tasks[0].look().committed)
            reaches(runs, "xy", 4)  # the new one is read from its beginning
            again.close()
    if not made_again:
        with bench(log, tmp_path, Steered) as runs:
            reaches(runs, "x", 4)
    assert ((Y.name, 4) in [(one.name, one.seq) for one in messages(log, A_OUT.name)]) is made_again


# ---- what is refused ------------------------------------------------------------------------------------------------------


class Odd(Toy):
    """Whatever the test makes of it."""

    anchor = X.name


def test_a_processor_that_can_only_go_wrong_is_refused_at_once(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)

    def refused(*reads: Input, tables: tuple[str, ...] = (), closes: tuple[TopicSpec, ...] = ()) -> str:
        one = Odd()
        one.tables = tables
        one.inputs = lambda: reads  # type: ignore[method-assign] # one odd processor per case
        one.closes = lambda: closes  # type: ignore[method-assign]
        with pytest.raises(InvalidTopology) as error:
            Task(embedded_log, one, 0, CODEC, TaskSettings(tmp_path))
        return error.value.what

    mirror = (A_MIRROR.name,)
    assert "no table keeps which buckets" in refused(Input(X.name, bucketed=True))
    assert "9 buckets late, and 8 are kept" in refused(Input(X.name, bucketed=True, lag=9), tables=mirror)
    assert "not by bucket" in refused(Input(X.name, lag=1), tables=mirror)
    assert "none below 0" in refused(Input(X.name, bucketed=True, every_ms=-1), tables=mirror)
    assert "without lag" in refused(Input(X.name, bucketed=True, every_ms=1, lag=1), tables=mirror)
    assert "not read by bucket" in refused(Input(X.name, every_ms=1), tables=mirror)
    own = Input(LATE_STATE.name, bucketed=True, lag=1)
    assert "has to be closed" in refused(own, tables=(LATE_STATE.name,))
    assert "read late only" in refused(replace(own, lag=0), tables=(LATE_STATE.name,), closes=(LATE_STATE,))
    twice = (Input(X.name, bucketed=True), Input(X.name, bucketed=True, lag=1), Input(SIDE.name))
    assert refused(*twice, tables=mirror) == (
        f"toy: {X.name} is 2 inputs, and how it is read can be said once only."
    )
    assert f"{X.name} is 3 inputs" in refused(*(Input(X.name, broadcast=at > 0) for at in range(3)))


class Doubled(Grown):
    """What it reads more of is what it reads already."""

    name = "doubled"

    def inputs(self) -> tuple[Input, ...]:
        more = (Input(X.name, bucketed=True, lag=1),) if self._more else ()
        return (Input(SIDE.name), *Watching.inputs(self), *more)


def test_inputs_that_come_at_run_time_and_can_only_go_wrong_are_refused_then_and_at_every_start(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    Feed(embedded_log, X).bucket(minute(0))
    with bench(embedded_log, tmp_path, Doubled) as runs:
        runs.settle()
        Feed(embedded_log, SIDE).put({0: [Item("more", 0, 1)]})
        with pytest.raises(InvalidTopology, match=f"{X.name} is 2 inputs"):
            runs.settle()
    Feed(embedded_log, X).bucket(minute(1))
    with bench(embedded_log, tmp_path, Doubled) as runs, pytest.raises(InvalidTopology):
        runs.settle()
    assert closed(embedded_log, A_OUT.name) == [0, minute(0)]


class Loose(Toy):
    """Emits into a marked topic from a free input, where no bucket will close."""

    name = "loose"
    anchor = SIDE.name
    tables = (A_MIRROR.name,)
    emits = (A_OUT.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name),)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.emit(A_OUT.name, Seen(0, "n", 0, 0))


def test_an_event_that_no_marker_would_count_is_refused_and_nothing_shows(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    item = Item("n", 0, 1)
    put(
        embedded_log,
        [(TopicPartition(SIDE.name, 0), encode_key(("n", 0)), CODEC.encode(item))],
        writer="side",
    )
    with (
        bench(embedded_log, tmp_path, Loose) as runs,
        pytest.raises(InvalidTopology, match="outside of a bucket"),
    ):
        runs.settle()
    assert trail(embedded_log, A_OUT.name) == []
