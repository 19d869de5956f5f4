"""The proof of a cut, and what lies in the log that is no record."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.cut import CutDigest
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Input, Processor
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker
from qmtl.foundation.common.errors import CutMismatch, InvariantBroken
from qmtl.foundation.contracts.control import CloseMarker, DeadLetter
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.topics import TopicSpec
from tests.contract.driving import put, until
from tests.engine.driving import bench, closed, messages
from tests.engine.models import minute
from tests.engine.toys import (
    A_OUT,
    B_STATE,
    CODEC,
    DEAD,
    LATE,
    LATE_STATE,
    A,
    B,
    Feed,
    Item,
    Seen,
    X,
    Y,
    make_topics,
    marker,
    spread,
)

# ---- proofs of a cut ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("restart", [False, True])
def test_a_marker_that_closes_no_records_and_no_new_bucket_says_nothing(
    embedded_log: EmbeddedLog, tmp_path: Path, restart: bool
) -> None:
    log = embedded_log
    make_topics(log)
    feed = Feed(log, X)
    source = spread(Input(X.name, bucketed=True))
    for number in (1, 2):
        feed.bucket(minute(number))
    with bench(log, tmp_path, source) as runs:
        if restart:
            runs.settle()
    with bench(log, tmp_path, source) as runs:
        for repeated in (2, 1, 1, 0, 2):
            feed.forge(marker(minute(repeated), 0, ""))
            runs.settle()
        feed.bucket(minute(3))
        runs.settle()
        assert closed(log, A_OUT.name) == [0, minute(1), minute(2), minute(3)]


def test_a_writer_of_a_new_configuration_goes_on_and_one_of_the_old_is_refused(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    make_topics(embedded_log)
    feed = Feed(embedded_log, X)
    feed.bucket(minute(0), {0: [Item("n", 0, 1)]})
    feed.put({0: [Item("n", 1, 1)]})
    feed.forge(replace(marker(minute(1), 1, digest_of(Item("n", 1, 1)), "heirs", 3), config_epoch=2))
    with bench(embedded_log, tmp_path, A, B) as runs:
        runs.settle()
        assert [one.seq for one in messages(embedded_log, A_OUT.name)] == [0, 1]
        feed.forge(marker(minute(2), 0, ""))
        with pytest.raises(InvariantBroken, match="after 2 began"):
            runs.settle()


class HeirFeed(Feed):
    """Goes on with what people have fed, under the next configuration."""

    def mark(self, partition: int, marker: CloseMarker) -> None:
        super().mark(partition, replace(marker, config_epoch=2))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 4),
    st.integers(0, 6),
    st.lists(st.sampled_from(["x", "y", "y", "step", "restart", "lose the store"]), max_size=30),
    st.sampled_from([1, 2, 4000]),
)
@example(4, 2, ["x", "x", "x", "x", "x", "step", "x", "x", "step", "y"], 4000)
@example(4, 2, [*["x", "y"] * 5, "step", "step", "x", "step", "restart", "x"], 4000)
@example(4, 4, ["x"] * 6, 4000)
@example(4, 2, [*["x"] * 6, *["y"] * 5, "restart"], 4000)
def test_what_an_heir_closes_again_is_late_however_far_the_reader_was_and_whenever_it_began(
    ends: int, begins: int, acts: list[str], poll: int
) -> None:
    """The predecessor closes up to one bucket; the heir begins before it, with it, or behind it."""
    begins, last = min(begins, ends + 1), 7
    source = spread(Input(X.name, bucketed=True), Input(Y.name, bucketed=True))
    with tempfile.TemporaryDirectory() as place:
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        first, heir, y = Feed(log, X), HeirFeed(log, X, "heirs"), Feed(log, Y)
        todo = {
            "x": [(first, number) for number in range(ends + 1)]
            + [(heir, number) for number in range(begins, last + 1)],
            "y": [(y, number) for number in range(last + 1)],
        }
        left = [*acts, *["x"] * 20, *["y"] * 20, "restart"]
        lives, done = 0, {"x": -1, "y": -1}
        while left:
            with bench(log, Path(place) / str(lives), source, poll=poll) as runs:
                act = ""
                while left and (act := left.pop(0)) not in ("restart", "lose the store"):
                    if act == "step":
                        runs.step()
                    elif todo[act]:
                        feed, number = todo[act].pop(0)
                        done[act] = max(done[act], number)
                        name = {id(first): "first", id(heir): "heir"}.get(id(feed), "y")
                        empty = name == "heir" and number % 3 == 1
                        feed.bucket(minute(number), {0: [] if empty else [Item(name, number, 1)]})
                runs.settle()
                reached = min(done.values())
                assert closed(log, A_OUT.name)[-1:] == [0 if reached < 0 else minute(reached)]
            lives += act == "lose the store"
        wanted = []
        for number in range(last + 1):
            mine = "first" if number <= ends else "heir"
            wanted += [(minute(number), mine, number)] if mine == "first" or number % 3 != 1 else []
            wanted.append((minute(number), "y", number))
        assert [(one.bucket_ms, one.name, one.seq) for one in messages(log, A_OUT.name)] == wanted
        assert closed(log, A_OUT.name) == [0, *(minute(number) for number in range(last + 1))]
        late = messages(log, LATE.name)
        assert [(one.bucket_ms, CODEC.decode(one.value).seq) for one in late] == [
            (minute(number), number) for number in range(begins, ends + 1) if number % 3 != 1
        ]
        log.close()


class Heir(spread(Input(Y.name, bucketed=True))):  # type: ignore[misc] # a class that a function has made
    """Writes what A has written before, from another source and with a table of its own."""

    name = "heir"
    anchor = Y.name
    tables = (LATE_STATE.name,)


@pytest.mark.parametrize("epoch", [1, 2])
def test_another_processor_goes_on_with_a_topic_under_a_new_configuration_and_under_no_other(
    log: Log, tmp_path: Path, epoch: int
) -> None:
    make_topics(log)
    x, y = Feed(log, X), Feed(log, Y)

    def write(make: Callable[[], Processor], config_epoch: int, bucket_ms: int) -> None:
        with closing(Worker(log, make, CODEC, TaskSettings(tmp_path, config_epoch=config_epoch))) as worker:
            until(lambda: not worker.step() and closed(log, A_OUT.name)[-1:] == [bucket_ms])

    first = spread(Input(X.name, bucketed=True))
    for number in (0, 1):
        x.bucket(minute(number), {0: [Item("n", number, 1)]})
        y.bucket(minute(number + 2), {0: [Item("n", number, 10)]})
    write(first, 1, minute(1))
    write(Heir, epoch, minute(3))
    with bench(log, tmp_path, B) as runs:
        if epoch == 1:
            with pytest.raises(InvariantBroken, match="one writer"):
                runs.until(lambda: False)
            return
        runs.until(lambda: closed(log, B_STATE.name)[-1:] == [minute(3)])
        assert closed(log, B_STATE.name) == [0, *(minute(number) for number in range(4))]
        assert [row.amount for row in messages(log, B_STATE.name)] == [1, 2, 12, 22]
        x.bucket(minute(4))
        write(first, 1, minute(4))
        with pytest.raises(InvariantBroken, match="after 2 began"):
            runs.until(lambda: False)


@pytest.mark.parametrize("again", [minute(0), minute(1)])
def test_a_marker_that_goes_back_with_records_stops_the_task(
    embedded_log: EmbeddedLog, tmp_path: Path, again: int
) -> None:
    make_topics(embedded_log)
    feed = Feed(embedded_log, X)
    feed.bucket(minute(1))
    feed.put({0: [Item("n", 0, 1)]})
    feed.forge(marker(again, 1, digest_of(Item("n", 0, 1))))
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
