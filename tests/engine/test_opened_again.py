"""A task that is opened again is where it would have been: it waits for the same, takes the same, and is held to the same."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from qmtl.engine.log.embedded import _OFFSET, EmbeddedLog
from qmtl.engine.log.port import TopicPartition
from qmtl.engine.processor import Input
from qmtl.engine.task import Task, TaskSettings
from qmtl.foundation.common.errors import OffsetGone
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.replay.rerun import rerun
from tests.engine.driving import Bench, bench, closed, messages
from tests.engine.models import MINUTE
from tests.engine.steered import TwoSources
from tests.engine.test_places import end_at
from tests.engine.toys import A_OUT, CODEC, LATE, XX, A, Feed, Item, X, Y, make_topics, spread

LONG = 5
START_MS = 1_700_000_100_000 // (LONG * MINUTE) * (LONG * MINUTE)
CLOCK = Input(X.name, bucketed=True)
SLEEPY = Input(Y.name, bucketed=True, joins=True, idle_after=3)
LONG_SLEEPY = replace(SLEEPY, every_ms=LONG * MINUTE)
WIDE = Input(XX.name, bucketed=True, broadcast=True)
Y0 = TopicPartition(Y.name, 0)


def at(number: int) -> int:
    return START_MS + number * MINUTE


def item(name: str, number: int) -> dict[int, list[Item]]:
    return {0: [Item(name, number, 1)]}


class Heir(Feed):
    """Writes with the next configuration epoch."""

    def mark(self, partition: int, marker: CloseMarker) -> None:
        super().mark(partition, replace(marker, config_epoch=2))


class Life:
    """A task that is opened again where it is asked to be, or lives on."""

    def __init__(self, place: Path, make: Callable[[], A], restarts: bool, stack: ExitStack) -> None:
        self.log = EmbeddedLog(place / "log")
        make_topics(self.log)
        self.x, self.y = Feed(self.log, X), Feed(self.log, Y)
        self._state, self._make, self._restarts, self._stack = place / "state", make, restarts, stack
        self.runs = self._open()

    def _open(self) -> Bench:
        return self._stack.enter_context(bench(self.log, self._state, self._make))

    def opened_again(self) -> None:
        if self._restarts:
            self._stack.close()
            self.runs = self._open()

    def tick(self, *numbers: int) -> None:
        for number in numbers:
            self.x.bucket(at(number), item("x", number))
            self.runs.settle()

    @property
    def task(self) -> Task:
        return self.runs.workers[0].tasks[0]

    def outcome(self) -> tuple[list[int], list[tuple[str, int]], list[int]]:
        """Buckets that were closed, what came out, what was late."""
        late = [CODEC.decode(one.value).seq for one in messages(self.log, LATE.name)]
        out = [(one.name, one.seq) for one in messages(self.log, A_OUT.name)]
        return [(ms - START_MS) // MINUTE for ms in closed(self.log, A_OUT.name) if ms], out, late


def twice(
    tmp_path: Path, make: type[A], live: Callable[[Life], None], *, runs_again: bool = True
) -> tuple[list[int], list[tuple[str, int]], list[int]]:
    """What comes out of a life, which is the same where the task is opened again in its middle, and where it is run again.

    Args:
        runs_again: the log has all that a second run reads.
    """
    outcomes = []
    for restarts in (False, True):
        with ExitStack() as stack:
            one = Life(tmp_path / str(restarts), make, restarts, stack)
            live(one)
            outcomes.append(one.outcome())
            stack.close()
            if runs_again:
                again = rerun(one.log, CODEC, make, 0, tmp_path / f"again-{restarts}")
                assert again.differences == []
            one.log.close()
    assert outcomes[0] == outcomes[1]
    return outcomes[1]


def test_genesis_of_an_heir_waits_for_no_source_of_long_buckets(tmp_path: Path) -> None:
    def live(one: Life) -> None:
        old, heir = Feed(one.log, XX, "old"), Heir(one.log, XX, "heir")
        one.y.bucket(at(0), item("y", 0))
        for number in range(2):
            old.bucket(at(number))
            one.tick(number)
        one.opened_again()
        heir.bucket(0)
        for number in range(2, 5):
            heir.bucket(at(number))
            one.tick(number)

    buckets, _, _ = twice(tmp_path, spread(CLOCK, LONG_SLEEPY, WIDE), live)
    assert buckets == [0, 1, 2, 3, 4]


def test_a_source_of_which_retention_took_all_that_was_read_is_waited_for(tmp_path: Path) -> None:
    def live(one: Life) -> None:
        one.y.bucket(at(0), item("y", 0))
        one.tick(0, 1)
        end_at(one.log, Y0, one.log.end_offsets([Y0])[Y0])
        one.opened_again()
        one.tick(2, 3, 4, 5)
        one.y.bucket(at(5), item("y", 5))
        one.runs.settle()
        one.tick(6)

    _, out, late = twice(tmp_path, spread(CLOCK, LONG_SLEEPY), live, runs_again=False)
    assert ("y", 5) in out
    assert late == []


@pytest.mark.parametrize("more", [[], [3]])
def test_a_marker_that_says_nothing_new_is_as_far_read_in_every_life(tmp_path: Path, more: list[int]) -> None:
    def live(one: Life) -> None:
        one.tick(0, 1, 2)
        one.opened_again()
        one.x.bucket(at(2))  # the tick of a second feed
        one.runs.settle()
        one.tick(*more)

    twice(tmp_path, spread(CLOCK), live)


WIDE_SLEEPY = replace(WIDE, joins=True, idle_after=3)


def partly_cut_off(one: Life) -> Feed:
    """Of a source with three partitions, one begins where retention has come to and is never written again; all fall asleep."""
    wide, cut = Feed(one.log, XX), TopicPartition(XX.name, 1)
    wide.bucket(at(0), {1: [Item("old", 0, 1)]}, closes=[1])
    end_at(one.log, cut, one.log.end_offsets([cut])[cut])
    one.tick(1, 2)
    wide.bucket(at(3), item("w", 3), closes=[0, 2])
    one.tick(3, 4, 5, 6, 7, 8)
    return wide


def test_a_source_sleeps_on_of_which_one_partition_is_cut_off(tmp_path: Path) -> None:
    def live(one: Life) -> None:
        partly_cut_off(one)
        one.opened_again()
        one.tick(9, 10)

    buckets, _, _ = twice(tmp_path, spread(CLOCK, WIDE_SLEEPY), live, runs_again=False)
    assert buckets[-1] == 10


def test_a_partition_is_held_to_the_log_beside_one_that_is_cut_off(tmp_path: Path) -> None:
    with ExitStack() as stack:
        one = Life(tmp_path, spread(CLOCK, WIDE_SLEEPY), True, stack)
        wide, first = partly_cut_off(one), TopicPartition(XX.name, 0)
        assert one.log.committed("qmtl.a", [first]) == {first: one.task.positions[first]}
        stack.close()
        wide.bucket(at(15), item("lost", 15), closes=[0, 2])
        end_at(one.log, first, one.log.end_offsets([first])[first])
        one.opened_again()
        with pytest.raises(OffsetGone):
            one.runs.settle()
        stack.close()
        one.log.close()


def begin_at(log: EmbeddedLog, where: TopicPartition, offset: int) -> None:
    """Let retention have taken what lies before."""
    log._db.put(b"b" + log._slot(where), _OFFSET.pack(offset))
    log._load_catalogue()


def test_a_bucket_of_which_retention_took_a_part_is_empty_also_for_who_is_opened_again_before_it(
    tmp_path: Path,
) -> None:
    wide = replace(WIDE_SLEEPY, idle_after=0)

    def live(one: Life) -> None:
        source, cut = Feed(one.log, XX), TopicPartition(XX.name, 1)
        source.put({1: [Item("cut", 3, 1), Item("cut", 3, 2)]})
        begin_at(one.log, cut, 1)
        one.tick(1, 2)
        one.opened_again()
        source.bucket(at(3), item("w", 3))
        one.tick(3)
        source.bucket(at(4), {1: [Item("whole", 4, 1)]})
        one.tick(4)

    _, out, late = twice(tmp_path, spread(CLOCK, wide), live, runs_again=False)
    assert out[2:] == [("x", 3), ("w", 3), ("x", 4), ("whole", 4)]
    assert late == []


def test_a_partition_that_is_cut_off_is_held_to_nothing_until_a_bucket_of_it_was_taken(
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        one = Life(tmp_path, spread(CLOCK, WIDE_SLEEPY), True, stack)
        source, cut = Feed(one.log, XX), TopicPartition(XX.name, 1)
        source.put({1: [Item("cut", 1, 1), Item("cut", 1, 2), Item("cut", 1, 3)]})
        begin_at(one.log, cut, 1)
        one.tick(1, 2)
        stack.close()
        begin_at(one.log, cut, 2)
        one.opened_again()
        one.tick(3)
        assert one.task.positions[cut] == 2
        stack.close()
        one.log.close()


class Named(spread(CLOCK, SLEEPY)):  # type: ignore[misc] # a class that is made
    name = "steered"


@pytest.mark.parametrize("more", [0, 1])
def test_a_source_that_slept_and_was_made_anew_wakes_wherever_its_new_end_is(
    tmp_path: Path, more: int
) -> None:
    world, state = TwoSources(EmbeddedLog(tmp_path / "log")), tmp_path / "state"
    x, log = world.feeds["x"], world.log
    with bench(log, state, Named) as runs:
        world.feeds["y"].bucket(at(0), item("y", 0))
        for number in range(7):
            x.bucket(at(number), item("x", number))
            runs.settle()
    world.make_anew(Y.name)
    task = Task(log, Named(), 0, CODEC, TaskSettings(state))
    assert task.accept("somebody", "made anew", lambda found: None)
    task.close()
    world.feeds["y"].bucket(at(7), {0: [Item("y", 7, 1)] + [Item("y", 70, 1)] * more})
    with bench(log, state, Named) as runs:
        x.bucket(at(7), item("x", 7))
        runs.settle()
    assert [(one.name, one.seq) for one in messages(log, A_OUT.name)][-2 - more :][:2] == [("x", 7), ("y", 7)]
    assert messages(log, LATE.name) == []
    log.close()
