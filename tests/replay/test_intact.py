"""A second run needs what the first one read; where that is gone, or is another thing, it says so and reports no difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.processor import Bucket, Processor, Step
from qmtl.foundation.common.errors import CannotReplay
from qmtl.foundation.wire.topics import DAY_MS
from qmtl.replay.intact import compacted_away, require_intact
from qmtl.replay.rerun import rerun
from tests.engine.driving import Bench, bench
from tests.engine.models import minute
from tests.engine.steered import Steered, TwoSources
from tests.engine.toys import B_STATE, CODEC, TOPICS, A, B, Feed, Item, X, Y, make_topics


@pytest.fixture
def embedded_log(tmp_path: Path) -> Iterator[EmbeddedLog]:
    one = EmbeddedLog(tmp_path / "log")
    yield one
    one.close()


def read_leave_and_make_anew(world: TwoSources, runs: Bench) -> None:
    world.read("xy", 0)
    runs.settle()
    world.give("xy", 1, 2, 3)
    runs.settle()
    world.read("x", 1)
    runs.settle()
    world.make_anew(Y.name)


def again(log: EmbeddedLog, place: Path) -> None:
    """Run again what was altered by nobody."""
    assert rerun(log, CODEC, Steered, 0, place / "again").differences == []


def test_inputs_that_come_and_go_give_the_same_bytes(embedded_log: EmbeddedLog, tmp_path: Path) -> None:
    world = TwoSources(embedded_log)
    with bench(embedded_log, tmp_path / "state", Steered) as runs:
        for number, names in enumerate(("xy", "x", "xy"), 1):
            world.read(names, number)
            runs.settle()
            world.give("xy", 2 * number, 2 * number + 1)
            runs.settle()
    again(embedded_log, tmp_path)


def test_an_input_that_was_made_anew_and_read_again_cannot_be_run_again(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    world = TwoSources(embedded_log)
    with bench(embedded_log, tmp_path / "state", Steered) as runs:
        read_leave_and_make_anew(world, runs)
        world.read("xy", 2)
        runs.settle()
        world.give("xy", 4)
        runs.settle()
        with pytest.raises(CannotReplay, match=r"read toy\.y when it was|read toy\.y\[0\] up to"):
            again(embedded_log, tmp_path)


def test_a_new_life_that_has_outgrown_the_old_one_is_told_by_its_id(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    world = TwoSources(embedded_log)
    with bench(embedded_log, tmp_path / "state", Steered) as runs:
        read_leave_and_make_anew(world, runs)
        world.give("xy", 4, 5, 6, 7, 8, 9)  # more than the old life had
        world.read("xy", 2)
        runs.settle()
    with pytest.raises(
        CannotReplay, match=r"read toy\.y when it was .+ and .+-again; the topic of this name is"
    ):
        again(embedded_log, tmp_path)


def test_a_new_life_of_an_input_that_left_is_not_what_was_read(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    world = TwoSources(embedded_log)
    with bench(embedded_log, tmp_path / "state", Steered) as runs:
        read_leave_and_make_anew(world, runs)
        world.give("x", 4)
        runs.settle()
    with pytest.raises(CannotReplay, match=r"read toy\.y when it was"):
        again(embedded_log, tmp_path)


class Ageing:
    """A, which reads B's table a bucket late, on a log whose clock is set by hand."""

    def __init__(self, place: Path, rows: Sequence[str]) -> None:
        self.now_ms, self._place, self._runs = 10**12, place, 0
        self.log = EmbeddedLog(place / "ageing", clock_ms=lambda: self.now_ms)
        make_topics(self.log)
        feed = Feed(self.log, X)
        with bench(self.log, place / "state", A, B) as runs:
            for number, name in enumerate(rows, 1):
                feed.bucket(minute(number), {0: [Item(name, number, 1)]})
                runs.settle()

    def differences(self, make: Callable[[], Processor] = A) -> list[str]:
        self._runs += 1
        found = rerun(self.log, CODEC, make, 0, self._place / f"again {self._runs}")
        return [one.topic for one in found.differences]


class Doubting(A):
    """Computes something else than it did."""

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        if bucket.bucket_ms > minute(3):
            super().on_bucket(step, bucket)


class Broken(A):
    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise ZeroDivisionError


class Needing(A):
    """Breaks without the row of every bucket."""

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        if bucket.bucket_ms > minute(1):
            assert bucket.arrivals[B_STATE.name][0]
        super().on_bucket(step, bucket)


def test_a_table_that_lost_versions_cannot_be_read_again(tmp_path: Path) -> None:
    world = Ageing(tmp_path, ["a"] * 12)
    assert world.differences() == []
    world.now_ms += 2 * DAY_MS
    assert world.differences() == []  # old, and nobody has cleaned
    assert world.log.clean()
    lost = r"a\[0\] can't be computed again: toy\.b\.state\[0\] may have lost"
    with pytest.raises(CannotReplay, match=lost):
        world.differences()
    with pytest.raises(CannotReplay, match=f"{lost}.+ differs in IndexError"):
        world.differences(Needing)
    world.log.close()


def test_an_error_over_tables_that_are_whole_stays_what_it_is(tmp_path: Path) -> None:
    world = Ageing(tmp_path, ["a"] * 3)
    world.now_ms += 2 * DAY_MS
    assert world.differences(Needing) == []
    with pytest.raises(ZeroDivisionError):
        world.differences(Broken)
    world.log.close()


def test_what_compaction_has_taken_is_no_matter_where_the_bytes_are_the_same(tmp_path: Path) -> None:
    world = Ageing(tmp_path, ["a"])
    world.now_ms += 2 * DAY_MS
    assert world.log.clean()  # stamps, which nobody reads
    table = TopicPartition(B_STATE.name, 0)
    assert compacted_away(world.log, TOPICS, {table: 5}) == [table]
    assert world.differences() == []
    world.log.close()


def test_another_result_of_a_table_that_is_whole_is_a_difference_however_old(tmp_path: Path) -> None:
    world = Ageing(tmp_path, ["a"] * 12)
    world.now_ms += 2 * DAY_MS
    assert world.differences(Doubting) == ["toy.a.out[0]"]
    world.log.clean()
    with pytest.raises(CannotReplay, match="may have lost"):
        world.differences(Doubting)
    world.log.close()


def test_a_gap_among_young_records_is_no_compaction(tmp_path: Path) -> None:
    world = Ageing(tmp_path, ["a"] * 3)
    where = TopicPartition(B_STATE.name, 0)
    world.log._delete(where, [1])  # as an aborted transaction leaves one
    assert compacted_away(world.log, TOPICS, {where: 5}) == []
    world.now_ms += 2 * DAY_MS
    assert compacted_away(world.log, TOPICS, {where: 5}) == [where]
    events = TopicPartition(X.name, 0)
    world.log._delete(events, [1])
    assert compacted_away(world.log, TOPICS, {where: 0, events: 5}) == []
    world.log.close()


@pytest.mark.parametrize(
    ("cuts", "says"),
    [
        ([{"x": 2}, {"x": 5}, {"x": 4}], r"had read toy\.x\[0\] up to 5, and in step 3 up to 4"),
        ([{"x": 2, "y": 3}, {"x": 5}, {"y": 0}], r"had read toy\.y\[0\] up to 3, and in step 3 up to 0"),
    ],
)
def test_cuts_that_go_backwards_are_told(
    embedded_log: EmbeddedLog, cuts: list[dict[str, int]], says: str
) -> None:
    TwoSources(embedded_log).give("xy", 1, 2, 3, 4)
    given = [{TopicPartition(f"toy.{name}", 0): at for name, at in cut.items()} for cut in cuts]
    with pytest.raises(CannotReplay, match=says):
        require_intact(embedded_log, "steered[0]", given, {})
    require_intact(embedded_log, "steered[0]", given[:2], {})


def test_a_topic_that_was_read_and_is_gone_cannot_be_run_again(
    embedded_log: EmbeddedLog, tmp_path: Path
) -> None:
    world = TwoSources(embedded_log)
    with bench(embedded_log, tmp_path / "state", Steered) as runs:
        read_leave_and_make_anew(world, runs)
        world.log._topics.pop(Y.name)  # the log has no way to delete one
        world.give("x", 4)
        runs.settle()
    with pytest.raises(CannotReplay, match=r"steered\[0\] has read toy\.y, and the log has no such topic"):
        again(embedded_log, tmp_path)


def test_a_copy_of_a_log_is_as_good_unless_a_topic_had_two_lives_there(embedded_log: EmbeddedLog) -> None:
    TwoSources(embedded_log).give("xy", 1)
    cuts = [{TopicPartition("toy.x", 0): 1, TopicPartition("toy.y", 0): 1}]
    require_intact(embedded_log, "steered[0]", cuts, {"toy.x": {"there x"}, "toy.y": {"there y"}})
    with pytest.raises(CannotReplay, match=r"read toy\.y when it was first and second"):
        require_intact(embedded_log, "steered[0]", cuts, {"toy.x": {"there x"}, "toy.y": {"first", "second"}})
