"""Where a task enters a topic: never behind a record of a bucket that it has not closed, and behind all that proves to be before."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.engine import entry
from qmtl.engine.cut import CutDigest
from qmtl.engine.entry import entries, finder
from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.places import Places
from qmtl.engine.processor import Input
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.wire.keys import encode_key, marker_key
from qmtl.replay.rerun import rerun
from tests.contract.driving import put, settled
from tests.engine.driving import bench, closed, messages
from tests.engine.models import minute
from tests.engine.steered import Steered, TwoSources
from tests.engine.toys import A_OUT, B_STATE, CODEC, LATE, TOPICS, XX, Item, Y, make_topics, marker

FIRST = TopicPartition(XX.name, 0)

# ---- the place ----------------------------------------------------------------------------------------------------------

closes = st.tuples(st.integers(0, 3), st.integers(0, 12), st.booleans())
"""Records, buckets since the one before, and whether they are said again by a feed that was behind."""


def play(log: Log, partition: int, heirs: list[list[tuple[int, int, bool]]]) -> list[tuple[int, int]]:
    """Writes a partition, each configuration from the beginning of time; gives (offset, bucket) of what proves."""
    where, proving = TopicPartition(XX.name, partition), list[tuple[int, int]]()
    for epoch, found in enumerate(heirs, 1):
        bucket = 0
        for count, on, repeated in found:
            bucket += on + 1
            items = [Item("n", number, bucket) for number in range(count)]
            put(log, [(where, encode_key(XX.key_of(one)), CODEC.encode(one)) for one in items], writer="f")
            said = [CloseMarker("people", 0, 1, bucket, count, CutDigest().hexdigest(), epoch)]
            if repeated:
                said.append(CloseMarker("people", 0, 1, bucket - 1, 0, "", epoch))
            for one in said:
                at = settled(log, [where])[where]
                put(log, [(where, marker_key("people", 0, one.bucket_ms), CODEC.encode(one))], writer="f")
                if epoch == 1 and one.count:
                    proving.append((at, one.bucket_ms))
    return proving


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.lists(st.lists(closes, max_size=25), min_size=1, max_size=2), min_size=3, max_size=3),
    st.integers(0, 120),
    st.sampled_from([1, 2, 5, 1000]),
)
def test_every_partition_is_entered_behind_the_newest_bucket_that_proves_it(
    heirs: list[list[list[tuple[int, int, bool]]]], last: int, span: int
) -> None:
    with tempfile.TemporaryDirectory() as place, pytest.MonkeyPatch.context() as patch:
        patch.setattr(entry, "SPAN", span)
        log = EmbeddedLog(Path(place) / "log")
        make_topics(log)
        expected = {}
        for partition, one in enumerate(heirs):
            if known := [offset for offset, bucket in play(log, partition, one) if bucket <= last]:
                expected[TopicPartition(XX.name, partition)] = known[-1] + 1
        assert (
            entries(
                log, [TopicPartition(XX.name, number) for number in range(3)], last, CODEC, time.monotonic
            )
            == expected
        )
        log.close()


def test_a_log_that_gives_nothing_in_time_proves_nothing(embedded_log: EmbeddedLog) -> None:
    make_topics(embedded_log)
    play(embedded_log, 0, [[(1, 0, False)] * 9])
    now = iter([0.0])
    assert entries(embedded_log, [FIRST], 99, CODEC, lambda: next(now, entry.BUDGET_S)) == {}


@pytest.mark.parametrize("span", [3, 1000])
def test_a_transaction_that_is_open_or_aborted_is_no_part_of_it(
    log: Log, monkeypatch: pytest.MonkeyPatch, span: int
) -> None:
    monkeypatch.setattr(entry, "SPAN", span)
    make_topics(log)
    proving = play(log, 0, [[(2, 0, False)] * 9])
    writer = log.writer("other")
    for ends in (True, False):
        writer.begin()
        writer.append(XX.name, 0, b"\x02k\x00\x01", CODEC.encode(Item("n", 1, 1)))
        writer.append(XX.name, 0, marker_key("people", 0, 10), CODEC.encode(marker(10, 1, "")))
        if ends:
            writer.abort()
    for last in (0, 5, 9, 10):
        found = [offset + 1 for offset, bucket in proving if bucket <= last]
        assert entries(log, [FIRST], last, CODEC, time.monotonic) == ({FIRST: found[-1]} if found else {})
    writer.abort()


# ---- what comes of it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def world(embedded_log: EmbeddedLog) -> TwoSources:
    return TwoSources(embedded_log)


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("behind", [0, 2])
@pytest.mark.parametrize("known", [False, True])
def test_what_was_there_before_a_source_is_read_is_not_late(
    world: TwoSources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    restarts: bool,
    behind: int,
    known: bool,
) -> None:
    """Whether it was read before or never was, and whether it has closed all that its reader has, or lacks some buckets."""
    with bench(world.log, tmp_path / "0", Steered) as runs:
        world.read("xy" if known else "x", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
        world.read("x", 1)
        runs.settle()
        world.give("y", *range(2, 9 - behind))
        world.give("x", *range(2, 9))
        runs.settle()
        assert closed(world.log, A_OUT.name)[-1] == minute(8)
        world.read("xy", 2)
        runs.step()
        if not restarts:
            world.give("y", *range(9 - behind, 9))
            world.reach(runs, "xy", 9)
    if restarts:
        world.give("y", *range(9 - behind, 9))
        with bench(world.log, tmp_path / "1", Steered) as runs:
            runs.settle()
            world.reach(runs, "xy", 9)
    assert [one.bucket_ms for one in messages(world.log, LATE.name)] == [
        minute(number) for number in range(9 - behind, 9)
    ]
    assert [number for name, number in world.seen() if name == "y"] == [*([1] if known else []), 9]
    late = messages(world.log, LATE.name)
    monkeypatch.setattr(entry, "BUDGET_S", 0.0)  # a second run looks for nothing, however much time there is
    assert rerun(world.log, CODEC, Steered, 0, tmp_path / "again").differences == []
    again = EmbeddedLog(tmp_path / "again" / "log")
    assert messages(again, LATE.name) == late
    again.close()


@pytest.mark.parametrize(
    ("asked", "reads", "position", "entered"),
    [
        (Input(Y.name, bucketed=True), False, None, True),
        (Input(Y.name, bucketed=True), False, 1, True),
        (Input(Y.name, bucketed=True), False, 99, False),
        (Input(Y.name, bucketed=True), True, 1, False),
        (Input(Y.name, bucketed=True, lag=1), False, None, False),
        (Input(Y.name), False, None, False),
        (Input(B_STATE.name, bucketed=True), False, None, False),
        (Input("toy.nowhere", bucketed=True), False, None, False),
    ],
)
@pytest.mark.parametrize("made_anew", [False, True])
def test_only_what_begins_to_be_read_by_bucket_is_entered(
    world: TwoSources, asked: Input, reads: bool, position: int | None, entered: bool, made_anew: bool
) -> None:
    where = TopicPartition(asked.topic, 0)
    places = Places(
        world.log,
        "test",
        0,
        lambda name: TOPICS.get(name, Y),
        finder(world.log, CODEC, time.monotonic, recorded=False),
    )
    if position is not None:
        places.positions[where] = position
        places.check([where], {}, places.facts([where]))
    if reads:
        places.follow([where], {where: 0})
    if made_anew:
        world.make_anew(Y.name)
    world.give("y", 1, 2, 3)
    table = (TopicPartition(B_STATE.name, 0), marker_key("b", 0, 1), CODEC.encode(marker(1, 1, "", "b")))
    put(world.log, [table], writer="b")
    found = places.entries([asked], minute(2))
    assert [one.topic for one in found] == ([Y.name] if entered and not (made_anew and position) else [])


def test_a_bucket_that_was_closed_while_its_source_is_taken_in_is_waited_for(
    world: TwoSources, tmp_path: Path
) -> None:
    with bench(world.log, tmp_path, Steered) as runs:
        world.read("x", 0)
        runs.settle()
        world.reach(runs, "xy", 1)
        world.read("xy", 1)
        runs.settle()
        world.give("x", 2)
        runs.settle()
        assert closed(world.log, A_OUT.name)[-1] == minute(1)
        world.give("y", 2)
        runs.settle()
    assert world.seen() == [("x", 1), ("x", 2), ("y", 2)]
