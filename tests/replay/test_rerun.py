"""A second run by the recorded cuts: it gives the same bytes whatever the interleaving was, and sees what was altered."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.intake import DEATHS
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Arrival, Bucket, Input, Processor, Step
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import CannotReplay, Quarantined
from qmtl.foundation.contracts.control import DeadLetter
from qmtl.foundation.wire.keys import is_marker, is_reserved
from qmtl.foundation.wire.topics import TopicSpec
from qmtl.replay import rerun as rerun_module
from qmtl.replay.rerun import rerun
from tests.contract.driving import until
from tests.engine.driving import bench, messages
from tests.engine.models import minute
from tests.engine.poison_toys import BAD, BOUNDLESS, DEADLY, NAMED, REFUSED, Column, fail
from tests.engine.toys import (
    A_MIRROR,
    A_OUT,
    B_STATE,
    CODEC,
    DEAD,
    ECHO,
    ITEMS,
    LATE_OUT,
    SIDE,
    XX,
    Counter,
    Feed,
    Item,
    Late,
    Seen,
    Total,
    Toy,
    X,
    make_topics,
)


class Scaled(Toy):
    """Multiplies what comes by bucket with the factor that was set last; the second source is optional."""

    name = "scaled"
    anchor = SIDE.name
    tables = (B_STATE.name,)

    def inputs(self) -> tuple[Input, ...]:
        return (
            Input(SIDE.name),
            Input(X.name, bucketed=True),
            Input(XX.name, bucketed=True, broadcast=True, joins=True, idle_after=2),
        )

    def closes(self) -> tuple[TopicSpec, ...]:
        return (A_OUT,)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.table(B_STATE.name).put(Total("factor", arrival.message.amount))

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        factor: Total | None = step.table(B_STATE.name).get("factor")
        for source in (X.name, XX.name):
            for arrival in bucket.arrivals[source]:
                item: Item = arrival.message
                amount = item.amount * (factor.amount if factor else 1)
                step.emit(A_OUT.name, Seen(bucket.bucket_ms, item.name, item.seq, amount))


class SidedColumn(Column):
    """With a free input, so that it takes its steps by cuts."""

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name), *super().inputs())

    def on_record(self, step: Step, arrival: Arrival) -> None:
        step.table(A_MIRROR.name).put(Total("side", arrival.message.seq))


MAKERS: list[Callable[[], Processor]] = [Scaled, lambda: Late(1)]

acts = st.lists(
    st.sampled_from(["side", "x", "xx", "step", "step", "restart", "lose the store"]), min_size=1, max_size=40
)


def play(
    log: Log,
    place: Path,
    what: list[str],
    poll: int,
    make: Callable[[], Processor],
    room: int | None = None,
) -> None:
    """Does these things in this order; a live run whose interleaving nobody knew before."""
    make_topics(log)
    side, x, xx = log.writer("side"), Feed(log, X), Feed(log, XX)
    done = dict.fromkeys(("side", "x", "xx"), 0)
    lives = 0
    act = ""
    state = place / "0"
    while True:
        with bench(log, state, make, poll=poll, room=room) as runs:
            while what:
                act, *what = what
                if act in done:
                    done[act] += 1
                number = done.get(act, 0)
                match act:
                    case "side":
                        side.begin()
                        key = b"\x02side" + bytes([number]) + b"\x00\x01"
                        side.append(SIDE.name, 0, key, CODEC.encode(Item("side", number, number + 1)))
                        side.commit({}, "", None)
                    case "x":
                        x.bucket(minute(number), {0: [Item("x", number, number)]})
                    case "xx":
                        xx.bucket(minute(number), {number % 3: [Item("xx", number, number)]})
                    case "step":
                        runs.step()
                    case _:
                        break
            else:
                runs.settle()
                return
        lives += act == "lose the store"
        state = place / str(lives)


@settings(deadline=None, max_examples=60)
@given(acts, st.sampled_from([1, 3, 4000]), st.sampled_from([None, 2, 4, 4000]), st.sampled_from(MAKERS))
def test_a_second_run_by_the_cuts_writes_the_same_bytes(
    what: list[str], poll: int, room: int | None, make: Callable[[], Processor]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log")
        play(log, Path(place) / "state", what, poll, make, room)
        report = rerun(log, CODEC, make, 0, Path(place) / "again")
        assert report.differences == []
        written = {one.topic.partition("[")[0]: one.records for one in report.outputs}
        events = A_OUT.name if make is Scaled else LATE_OUT.name
        live = list(read_all(log, all_partitions(log, events)))
        assert written[events] == len(live)
        log.close()


def test_under_another_configuration_the_second_run_closes_the_same_buckets(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    feed = Feed(log, X)
    for epoch in (1, 3):
        for number in (2 * epoch, 2 * epoch + 1):
            feed.bucket(minute(number), {0: [Item("x", number, number)]})
        settings = TaskSettings(tmp_path / "state", config_epoch=epoch)
        with closing(Worker(log, lambda: Late(1), CODEC, settings)) as worker:
            until(lambda: not worker.step() and not worker.step())
    found = [one.value for one in read_all(log, all_partitions(log, LATE_OUT.name)) if is_marker(one.key)]
    assert [CODEC.decode(value or b"").config_epoch for value in found] == [1, 1, 1, 3, 3]
    assert rerun(log, CODEC, lambda: Late(1), 0, tmp_path / "again").differences == []
    log.close()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.sampled_from([1, 2, NAMED]), max_size=4), min_size=1, max_size=6),
    st.sampled_from([1, 3, 4000]),
    st.sampled_from([Column, SidedColumn]),
)
def test_what_a_bucket_had_to_be_computed_without_is_left_out_again(
    buckets: list[list[int]], poll: int, make: Callable[[], Processor]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        feed, side = Feed(log, X), Feed(log, SIDE)
        with bench(log, Path(place) / "state", make, poll=poll) as runs:
            for number, amounts in enumerate(buckets):
                items = [Item("n", 10 * number + at, amount) for at, amount in enumerate(amounts)]
                feed.bucket(minute(number + 1), {0: items})
                if number % 2:
                    side.put({0: [Item("side", number, 1)]})
                    runs.settle()
            runs.settle()
        assert rerun(log, CODEC, make, 0, Path(place) / "again").differences == []
        assert len(messages(log, DEAD.name)) == sum(amounts.count(NAMED) for amounts in buckets)
        log.close()


class Overwriting(Toy):
    """Puts the row of a name anew with each item, also where no row can hold it, or where it refuses the item after that."""

    name = "overwriting"
    anchor = SIDE.name
    tables = (A_MIRROR.name,)
    emits = (ECHO.name, DEAD.name)

    def inputs(self) -> tuple[Input, ...]:
        return (Input(SIDE.name),)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        item: Item = arrival.message
        step.table(A_MIRROR.name).put(Total(item.name, BOUNDLESS if item.amount == BAD else item.amount))
        step.emit(ECHO.name, Seen(0, item.name, item.seq, item.amount))
        if item.amount in (REFUSED, NAMED):
            fail(arrival, item.amount)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([1, 2, BAD, REFUSED, NAMED])), min_size=1, max_size=8
    ),
    st.sampled_from([1, 2, 3, 4000]),
)
@example([("a", BAD), ("a", 1)], 1)  # a letter in the one run, and put anew in the other
@example([("a", BAD), ("a", 1), ("b", NAMED)], 2)  # put anew in both, though the second goes one by one
def test_a_row_that_cant_be_written_is_a_letter_in_both_runs_or_in_none(
    found: list[tuple[str, int]], poll: int
) -> None:
    """One partition is read without cuts: the second run takes in one transaction what the first took in several."""
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        Feed(log, SIDE).put({0: [Item(name, number, amount) for number, (name, amount) in enumerate(found)]})
        with bench(log, Path(place) / "state", Overwriting, poll=poll) as runs:
            runs.settle()
        assert rerun(log, CODEC, Overwriting, 0, Path(place) / "again").differences == []
        log.close()


class Died(BaseException):
    """Stands for the end of the process, of which the test itself has to be told."""


class Deadly(SidedColumn):
    emits = (A_OUT.name, DEAD.name)

    def on_record(self, step: Step, arrival: Arrival) -> None:
        if arrival.message.amount == DEADLY:
            raise Died
        super().on_record(step, arrival)

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        if any(arrival.message.amount == DEADLY for arrival in bucket.arrivals[X.name]):
            raise Died
        super().on_bucket(step, bucket)


def test_a_record_that_killed_the_process_is_its_letter_again(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    feed, side, other = Feed(log, X), Feed(log, SIDE), Feed(log, SIDE, "other")
    side.put({0: [Item("side", 1, 1), Item("side", 2, DEADLY)]})
    feed.bucket(minute(1), {0: [Item("n", 1, 1), Item("n", 2, DEADLY)]})
    feed.bucket(minute(2), {0: [Item("n", 3, 1)]})
    died = [[SIDE.name, 0, 1, DEATHS], [X.name, 0, 1, DEATHS]]
    (tmp_path / "state").mkdir()
    deaths = tmp_path / "state" / f"{Deadly.name}-0.deaths"
    deaths.write_text(json.dumps({"log_id": log.log_id, "records": died, "buckets": []}))
    with bench(log, tmp_path / "state", Deadly) as runs:
        runs.settle()
        other.put({0: [Item("side", 3, 1)]})
        runs.settle()
    assert [(one.code, one.topic, one.offset) for one in messages(log, DEAD.name)] == [
        (Quarantined.code, SIDE.name, 1),
        (Quarantined.code, X.name, 1),
    ]
    report = rerun(log, CODEC, Deadly, 0, tmp_path / "again")
    assert report.differences == []
    assert {one.topic: one.records for one in report.outputs}["dead.letters[0]"] == 2
    log.close()


def test_a_letter_of_another_task_leaves_nothing_out(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    Feed(log, X).bucket(minute(1), {0: [Item("n", 1, 1)]})
    writer = log.writer("letters")
    writer.begin()
    for processor, task, code in (
        ("other", 0, Quarantined.code),
        ("column", 1, Quarantined.code),
        ("column", 0, "x"),
    ):
        letter = DeadLetter(processor, X.name, code, "no", b"", b"", 0, 0, task)
        writer.append(DEAD.name, 0, b"\x02a\x00\x01", CODEC.encode(letter))
    writer.commit({}, "", None)
    with bench(log, tmp_path / "state", Column) as runs:
        runs.settle()
    assert rerun(log, CODEC, Column, 0, tmp_path / "again").differences == []
    log.close()


def test_more_failures_than_a_task_bears_in_a_row_are_run_again(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    feed = Feed(log, X)
    for number in range(1, 5):
        with bench(log, tmp_path / "state", Column) as runs:  # each start counts from the beginning
            feed.bucket(
                minute(number), {0: [Item("n", at, NAMED) for at in range(number * 30, number * 30 + 30)]}
            )
            runs.settle()
    assert rerun(log, CODEC, Column, 0, tmp_path / "again").differences == []
    log.close()


def test_what_the_second_run_never_uses_is_told(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)

    class Free(SidedColumn):
        def inputs(self) -> tuple[Input, ...]:
            return (Input(SIDE.name), Input(X.name))

    with bench(log, tmp_path / "state", Free) as runs:
        Feed(log, X).put({0: [Item("n", 1, 1), Item("n", 2, 1)]})
        runs.settle()
    assert rerun(log, CODEC, Free, 0, tmp_path / "again").differences == []
    found = rerun(log, CODEC, SidedColumn, 0, tmp_path / "otherwise")  # waits for a marker that never comes
    told = {one.topic: one.difference for one in found.differences}
    assert told["task.cuts[0]"] == "the second run has used toy.x[0] up to 0 of 2"
    log.close()


def test_without_the_cuts_the_interleaving_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EmbeddedLog(tmp_path / "log")
    play(log, tmp_path / "state", ["x", "step", "side", "step", "x", "step", "side", "x"], 4000, Scaled)
    assert rerun(log, CODEC, Scaled, 0, tmp_path / "again").differences == []
    monkeypatch.setattr(
        rerun_module, "_cuts", lambda *_: []
    )  # all inputs at once, as the last stamp has them
    assert rerun(log, CODEC, Scaled, 0, tmp_path / "blind").differences != []
    log.close()


def test_a_record_that_was_altered_is_named(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    play(log, tmp_path / "state", ["side", "step", "x", "x"], 4000, Scaled)
    (first, _) = messages(log, A_OUT.name)
    forged = CODEC.encode(Seen(first.bucket_ms, first.name, first.seq, first.amount + 1))
    where = TopicPartition(A_OUT.name, 0)
    copy = EmbeddedLog(tmp_path / "copy")
    make_topics(copy)
    writer = copy.writer("copy")
    for name in (SIDE.name, X.name, B_STATE.name, "task.cuts", A_OUT.name):
        writer.begin()
        changed = False
        for record in read_all(log, all_partitions(log, name)):
            value = record.value
            if record.topic == where.topic and not is_reserved(record.key) and not changed:
                value, changed = forged, True
            writer.append(record.topic, record.partition, record.key, value)
        writer.commit({}, "", None)
    (found,) = rerun(copy, CODEC, Scaled, 0, tmp_path / "again").differences
    assert found.topic == f"{A_OUT.name}[0]"
    assert "is another one" in found.difference
    copy.close()
    log.close()


def test_a_second_run_that_ends_too_soon_is_no_equal_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = EmbeddedLog(tmp_path / "log")
    play(log, tmp_path / "state", ["side", "step", "x", "step", "x", "step", "x"], 4000, Scaled)
    whole = rerun_module._cuts
    monkeypatch.setattr(rerun_module, "_cuts", lambda *given: whole(*given)[:-1])
    assert f"{A_OUT.name}[0]" in [
        one.topic for one in rerun(log, CODEC, Scaled, 0, tmp_path / "again").differences
    ]
    log.close()


def test_a_task_that_wrote_nothing_yet_cannot_be_run_again(tmp_path: Path) -> None:
    log = EmbeddedLog(tmp_path / "log")
    make_topics(log)
    with pytest.raises(CannotReplay, match="neither a cut nor a table"):
        rerun(log, CODEC, Scaled, 0, tmp_path / "again")
    log.close()


def test_a_table_whose_task_goes_on_meanwhile_is_compared_up_to_where_it_was(tmp_path: Path) -> None:
    with closing(EmbeddedLog(tmp_path / "log")) as log:
        make_topics(log)

        def go_on(*_: object) -> None:
            Feed(log, ITEMS).put({0: [Item("a", len(messages(log, ITEMS.name)), 1)]})
            with bench(log, tmp_path / "state", Counter) as runs:
                runs.settle()

        go_on()
        report = rerun(log, CODEC, Counter, 0, tmp_path / "again", go_on)
        assert len(messages(log, ITEMS.name)) == 2
        assert report.differences == []
