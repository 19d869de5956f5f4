"""Inputs that come and go while a task runs, and processors that are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from qmtl.engine import watermark
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.task import Task, TaskSettings
from qmtl.foundation.common.errors import InvalidTopology, LogRegressed
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import put, until
from tests.engine.driving import Bench, bench, closed, delete, messages, trail
from tests.engine.models import minute
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    CODEC,
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


class Steered(Toy):
    """Which of its inputs are read is what the last item of `toy.side` says: `x`, `y`, both or none."""

    name = "steered"
    anchor = SIDE.name
    tables = (A_MIRROR.name,)
    emits = (A_OUT.name,)

    def __init__(self) -> None:
        self._read: tuple[str, ...] = ()

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name), *(Input(f"toy.{name}", bucketed=True) for name in self._read))

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
            mirror.put(Total(name, 1))
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
def test_an_input_that_has_gone_may_be_deleted_and_never_comes_back_as_another_one(
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
            Feed(again, Y).bucket(minute(3), {0: [Item("n", 3, 1)]})
            again.close()
            read("xy", 2)
            with pytest.raises(LogRegressed, match=rf"{Y.name}\[0\]: the topic was deleted and made again"):
                reaches(runs, "x", 4)
    if not made_again:
        with bench(log, tmp_path, Steered) as runs:
            reaches(runs, "x", 4)


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
