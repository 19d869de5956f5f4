"""Clocks on a simulated cluster: however many there are and whatever happens to them, the log has each tick once, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qmtl.engine.failpoint import passing, watched
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.simulate.cluster import Cluster
from qmtl.engine.simulate.log import SimulatedLog
from qmtl.engine.simulate.network import Dawdle, Died, Fate, Hitch, Lose, Process, Refuse, Request
from qmtl.engine.view import all_partitions, read_all
from qmtl.foundation.common.errors import ClockTaken, Fenced
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.replay.feed import Feed, last_closed
from qmtl.services.clock.edge import Clock, keep_time, last_tick
from tests.replay.logs import MINUTE_MS, RAW_SPEC, START_MS, commit, ticks

WHERE = TopicPartition("clock", 0)
NOW = START_MS + 10_000 * MINUTE_MS
EPOCH = 1


def written(log: Log) -> list[CloseMarker]:
    found = [one.value for one in read_all(log, all_partitions(log, "clock"))]
    return [codec.decode(value) for value in found if value is not None]


# ---- anything that may happen --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wall:
    """The wall moves, perhaps back."""

    by_ms: int


@dataclass(frozen=True)
class Pass:
    """The cluster's time passes: sessions and transactions may end."""

    ms: int


@dataclass(frozen=True)
class Round:
    """A clock has its round; a new process starts in its slot where none lives."""

    slot: int
    dies_at: str = ""


@dataclass(frozen=True)
class Halts:
    """A clock stands still at a point of its next transaction, while this happens."""

    slot: int
    at: str
    meanwhile: tuple[Act, ...]


@dataclass(frozen=True)
class Twin:
    """Another process starts in a slot whose first one lives."""

    slot: int


@dataclass(frozen=True)
class Pause:
    slot: int


@dataclass(frozen=True)
class Meets:
    slot: int
    hitch: Hitch


Act = Wall | Pass | Round | Halts | Twin | Pause | Meets

slots = st.integers(0, 1)
hitches = st.one_of(
    st.builds(Lose, st.sampled_from(Request), st.sampled_from(Fate)), st.just(Refuse()), st.just(Dawdle())
)
points = st.sampled_from(["wall", "after_flush", "inside_commit", "commit_sent"])
plain: st.SearchStrategy[Act] = st.one_of(
    st.builds(Wall, st.sampled_from([1, 59_999, 60_000, 60_001, 3_600_000, -60_000, -1, -7_200_000])),
    st.builds(Pass, st.sampled_from([1, 500, 11_000, 61_000])),
    st.builds(Round, slots),
    st.builds(Round, slots),
    st.builds(Round, slots, points),
    st.builds(Twin, slots),
    st.builds(Pause, slots),
    st.builds(Meets, slots, hitches),
)
acts = st.one_of(plain, st.builds(Halts, slots, points, st.lists(plain, max_size=8).map(tuple)))

BOTH = (Round(0), Round(1)) * 4
"""The group has both, and the first of them ticks."""
OTHER_TICKS = (Pass(11_000), Round(1), Round(1), Round(1), Wall(MINUTE_MS), Round(1))
"""A clock that stands by takes over from one whose session has ended, and ticks twice if it may."""


class Town:
    """Clocks of two slots, with everything that happens to them."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.people = SimulatedLog(self.cluster)
        self.people.ensure_topics([spec for spec in CATALOGUE if spec.name in ("clock", "dead.letters")])
        self.wall_ms = NOW
        self.newest_ms = NOW
        self.living: dict[int, list[tuple[Process, Clock]]] = {0: [], 1: []}
        self.halted: list[Process] = []

    def look(self) -> int:
        """What a clock sees may be old when it comes to write it."""
        seen_ms = self.wall_ms
        passing("wall")
        return seen_ms

    def start(self, slot: int) -> None:
        process = Process(f"clock-{slot}")
        log = SimulatedLog(self.cluster, process)
        self.living[slot].append((process, Clock(log, codec, MINUTE_MS, str(slot), EPOCH, self.look)))

    def round(self, slot: int, dies_at: str = "", meanwhile: tuple[Act, ...] | None = None) -> None:
        if not self.living[slot]:
            self.start(slot)
        for process, clock in list(self.living[slot]):
            if process in self.halted:
                continue
            left = [dies_at] if dies_at else []

            def passed(point: str, process: Process = process, left: list[str] = left) -> None:
                if point not in left:
                    return
                left.remove(point)
                if meanwhile is None:
                    process.alive = False
                    process.must_live()
                process.paused = True
                self.halted.append(process)
                for act in meanwhile or ():
                    self.does(act)
                self.halted.remove(process)
                process.paused = False

            process.paused = False
            try:
                with watched(passed):
                    clock.serve()
            except (Died, Fenced):
                process.alive = False
                self.living[slot] = [one for one in self.living[slot] if one[0] is not process]

    def does(self, act: Act) -> None:
        match act:
            case Wall(by_ms):
                self.wall_ms += by_ms
                self.newest_ms = max(self.newest_ms, self.wall_ms)
            case Pass(ms):
                self.cluster.pass_ms(ms)
            case Round(slot, dies_at):
                self.round(slot, dies_at)
            case Halts(slot, at, meanwhile):
                self.round(slot, at, meanwhile)
            case Twin(slot):
                self.start(slot)
            case Pause(slot):
                for process, _ in self.living[slot]:
                    process.paused = True
            case Meets(slot, hitch):
                for process, _ in self.living[slot]:
                    process.hitches.append(hitch)

    def ticks(self) -> list[int]:
        return [one.bucket_ms for one in written(self.people)]


@settings(max_examples=60)
@given(st.lists(acts, max_size=40))
@example([*BOTH, Wall(MINUTE_MS), Halts(0, "wall", OTHER_TICKS)])
@example([*(Round(1),) * 3, *BOTH, Wall(MINUTE_MS), Round(1), Round(0), Wall(MINUTE_MS), Round(1), Round(0)])
@example([*BOTH, Wall(MINUTE_MS), Halts(0, "after_flush", OTHER_TICKS)])
@example(
    [
        Round(0),
        Round(0),
        Wall(MINUTE_MS),
        Halts(0, "wall", (Twin(0), Pass(1), Round(0), Wall(MINUTE_MS), Round(0))),
    ]
)
@example([*BOTH, Wall(MINUTE_MS), Halts(0, "inside_commit", OTHER_TICKS)])
@example([*BOTH, Wall(MINUTE_MS), Halts(0, "commit_sent", OTHER_TICKS)])
@example([*BOTH, Wall(MINUTE_MS), Meets(0, Dawdle()), Round(0, "commit_sent"), *OTHER_TICKS])
@example([Round(0), Round(0), Wall(MINUTE_MS), Meets(0, Lose(Request.END, Fate.APPLIED)), Round(0), Round(0)])
@example([Round(0), Round(0), Pause(0), Pass(11_000), Round(1), Round(1), Wall(60_000), Round(1), Round(0)])
@example([Round(0), Round(0), Wall(60_000), Twin(0), Round(0), Round(0), Wall(60_000), Round(0)])
@example([Round(0), Round(0), Meets(0, Lose(Request.END, Fate.LATE)), Wall(60_000), Round(0), Round(0)])
def test_the_log_has_each_tick_once_and_in_order_and_the_newest_in_the_end(given_acts: list[Act]) -> None:
    town = Town()
    for act in given_acts:
        town.does(act)
        found = town.ticks()
        assert found == sorted(set(found))
        assert all(tick % MINUTE_MS == 0 and tick <= town.newest_ms for tick in found)
    town.wall_ms = town.newest_ms + MINUTE_MS
    for _ in range(60):
        town.does(Pass(3_000))
        town.does(Round(0))
        town.does(Round(1))
    assert town.ticks()[-1] == town.wall_ms // MINUTE_MS * MINUTE_MS
    assert town.ticks() == sorted(set(town.ticks()))
    assert {(one.processor, one.config_epoch) for one in written(town.people)} == {("clock", 1)}


def test_of_two_one_stands_by_and_goes_on_where_the_other_one_ended() -> None:
    town = Town()
    for _ in range(4):
        town.does(Round(0))
        town.does(Round(1))
    assert town.ticks() == [NOW]
    for process, _ in town.living[0]:
        process.alive = False
    town.living[0].clear()
    town.does(Wall(MINUTE_MS))
    town.does(Round(1))
    assert town.ticks() in ([NOW], [NOW, NOW + MINUTE_MS])
    town.does(Pass(11_000))
    for _ in range(4):
        town.does(Round(1))
    assert town.ticks() == [NOW, NOW + MINUTE_MS]


def test_of_two_in_one_slot_the_newer_one_goes_on_and_the_older_one_ends() -> None:
    town = Town()
    for _ in range(3):
        town.does(Round(0))
    ((older, _),) = town.living[0]
    town.does(Twin(0))
    for _ in range(4):
        town.does(Wall(MINUTE_MS))
        town.does(Round(0))
    ((newer, _),) = town.living[0]
    assert newer is not older
    assert town.ticks()[-1] == NOW + 4 * MINUTE_MS


# ---- whose clock it is ---------------------------------------------------------------------------------------------


def test_a_clock_is_refused_where_feeds_tick_and_writes_nothing(log: Log) -> None:
    log.ensure_topics(CATALOGUE)
    commit(log, ticks(1, 3), "feed")
    clock = Clock(log, codec, MINUTE_MS, wall=lambda: NOW)
    with pytest.raises(ClockTaken, match="'feed'"):
        _rounds(clock)
    clock.close()
    assert last_closed(log, WHERE) == START_MS + 3 * MINUTE_MS


def test_an_operator_takes_such_a_log_over_with_a_newer_epoch_which_stays(log: Log) -> None:
    log.ensure_topics(CATALOGUE)
    commit(log, ticks(1, 3), "feed")
    for epoch, now_ms in ((2, NOW), (1, NOW + MINUTE_MS)):
        clock = Clock(log, codec, MINUTE_MS, "0", epoch, partial(int, now_ms))
        _rounds(clock)
        clock.close()
    assert [(one.processor, one.config_epoch, one.bucket_ms) for one in written(log)[3:]] == [
        ("clock", 2, NOW),
        ("clock", 2, NOW + MINUTE_MS),
    ]


@pytest.mark.parametrize("begun", [False, True])
def test_recorded_bars_are_not_fed_where_a_clock_ticks(log: Log, begun: bool) -> None:
    log.ensure_topics([*CATALOGUE, RAW_SPEC])

    def feed() -> Feed:
        return Feed(log, codec, RAW_SPEC, 60, iter(()), START_MS, START_MS + 5 * MINUTE_MS)

    fed = feed() if begun else None
    clock = Clock(log, codec, MINUTE_MS, wall=lambda: NOW)
    _rounds(clock)
    clock.close()
    with pytest.raises(ClockTaken, match="'clock'"):
        (fed or feed()).push(5)
    assert last_closed(log, TopicPartition(RAW_SPEC.name, 0)) == -1


def _rounds(clock: Clock) -> None:
    for _ in range(4):
        clock.serve()


# ---- on the way ----------------------------------------------------------------------------------------------------


def test_the_last_tick_is_found_behind_any_length_of_history(log: Log) -> None:
    log.ensure_topics(CATALOGUE)
    assert last_tick(log, WHERE, codec) is None
    commit(log, ticks(1, 300), "feed")
    found = last_tick(log, WHERE, codec)
    assert found is not None
    assert (found.bucket_ms, found.processor, found.config_epoch) == (START_MS + 300 * MINUTE_MS, "feed", 1)


def test_workers_go_on_where_the_clock_beside_them_is_refused(log: Log) -> None:
    log.ensure_topics(CATALOGUE)
    commit(log, ticks(1, 3), "feed")
    rounds: list[float] = []
    refused: list[ClockTaken] = []

    class Busy:
        def serve(self, timeout_s: float, until: Callable[[], bool]) -> bool:
            rounds.append(timeout_s)
            return False

    clock = Clock(log, codec, MINUTE_MS, wall=lambda: NOW)
    keep_time(clock, [Busy()], lambda: len(rounds) >= 10, idle_s=0.02, refused=refused.append)
    assert len(refused) == 1
    assert len(rounds) == 10


def test_a_clock_alone_waits_between_two_looks_and_ticks_as_the_wall_moves(log: Log) -> None:
    log.ensure_topics(CATALOGUE)
    now = [NOW]

    def wait(seconds: float) -> None:
        now[0] += 30_000

    clock = Clock(log, codec, MINUTE_MS, wall=lambda: now[0])
    keep_time(clock, [], lambda: now[0] > NOW + 10 * MINUTE_MS, idle_s=0.02, wait=wait)
    clock.close()
    found = [one.bucket_ms for one in written(log)]
    assert found == [NOW + number * MINUTE_MS for number in range(11)][-len(found) :]
    assert len(found) >= 9
