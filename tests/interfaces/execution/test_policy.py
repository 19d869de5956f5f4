"""What becomes of a run follows from what happened and when: never two processes, never more restarts than it may have, no start after a stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import NodesInError
from qmtl.interfaces.execution.policy import (
    AT_REST,
    LIVE,
    Act,
    Due,
    Exited,
    Happened,
    Phase,
    Restart,
    RestartAsked,
    RunState,
    StartAsked,
    Started,
    StopAsked,
    Terms,
    begun,
    least_ms,
    step,
    wait_ms,
)

TERMS = Terms(Restart.ON_FAILURE, 1_000, 8_000, 3, 60_000, 5_000)


@dataclass
class Life:
    """A run and a process that does as it is told: what was done, when, and whether it could be."""

    terms: Terms
    at_ms: int = 0
    state: RunState = field(default_factory=lambda: begun(0))
    alive: bool = False
    starts: list[int] = field(default_factory=list)
    kills: list[int] = field(default_factory=list)
    terms_sent: list[int] = field(default_factory=list)

    def happens(self, happened: Happened) -> None:
        self.state, act = step("one", self.terms, self.state, happened, self.at_ms)
        if act is Act.START:
            assert not self.alive, "a second process"
            self.alive = True
            self.starts.append(self.at_ms)
            self.happens(Started())
        elif act is not Act.NOTHING:
            assert self.alive, "a signal to nobody"
            (self.kills if act is Act.KILL else self.terms_sent).append(self.at_ms)
        assert self.alive == (self.state.phase in LIVE)

    def phase(self) -> Phase:
        return self.state.phase

    def passes(self, until_ms: int) -> None:
        """Time passes; what falls due is done when it does."""
        while self.state.due_ms is not None and self.state.due_ms <= until_ms:
            self.at_ms = max(self.at_ms, self.state.due_ms)
            self.happens(Due())
        self.at_ms = until_ms
        self.happens(Due())

    def dies(self, code: int) -> None:
        if self.alive:
            self.alive = False
            self.happens(Exited(code))


codes = st.sampled_from((0, 1, 3, 2, 5, -9, -15))
terms = st.builds(
    Terms,
    st.sampled_from(Restart),
    st.integers(100, 3_000),
    st.integers(3_000, 9_000),
    st.integers(1, 5),
    st.integers(50_000, 100_000),
    st.integers(100, 9_000),
)
asks = st.sampled_from((StopAsked(), StartAsked(), RestartAsked()))
moves = st.lists(st.tuples(st.integers(0, 20_000), st.one_of(codes, asks, st.just(Due()))), max_size=40)


def lived(terms: Terms, moves: Sequence[tuple[int, int | Happened]]) -> Life:
    life = Life(terms)
    for after_ms, move in moves:
        life.passes(life.at_ms + after_ms)
        if isinstance(move, int):
            life.dies(move)
        else:
            life.happens(move)
    return life


@given(terms, moves)
def test_there_is_never_a_second_process_and_nobody_signals_one_that_is_gone(
    terms: Terms, moves: list[tuple[int, int | Happened]]
) -> None:
    lived(terms, moves)  # a life asserts it at each step


@given(terms, moves)
def test_who_was_asked_to_stop_is_gone_after_its_grace_and_starts_no_more(
    terms: Terms, moves: list[tuple[int, int | Happened]]
) -> None:
    life = lived(terms, moves)
    was_alive, before = life.phase() is Phase.RUNNING, len(life.kills)
    asked_ms, starts = life.at_ms, list(life.starts)
    life.happens(StopAsked())
    life.passes(asked_ms + terms.grace_ms - 1)
    if was_alive:
        assert life.terms_sent[-1] == asked_ms
        assert len(life.kills) == before
    life.passes(asked_ms + terms.grace_ms)
    if was_alive:
        assert life.kills[before:] == [asked_ms + terms.grace_ms]
    life.dies(-9)
    life.passes(asked_ms + 10_000_000)
    assert life.starts == starts
    assert life.phase() in AT_REST


failures = st.tuples(st.integers(0, 40_000), st.sampled_from((1, 3, -9)))


@given(terms, st.lists(st.one_of(failures, failures, st.tuples(st.integers(0, 1_000), codes)), max_size=60))
def test_restarts_are_counted_over_the_window_and_wait_longer_and_longer(
    terms: Terms, deaths: list[tuple[int, int]]
) -> None:
    """Held to a count of its own: of all instants at which it went down and came back."""
    life = Life(terms)
    life.passes(0)
    downs: list[int] = []
    for after_ms, code in deaths:
        life.passes(life.at_ms + after_ms)
        if not life.alive:
            continue
        life.dies(code)
        recent = [one for one in downs if life.at_ms - one < terms.window_ms]
        may = terms.restart is Restart.ALWAYS or (terms.restart is Restart.ON_FAILURE and code != 0)
        if code in (2, 5) or (may and len(recent) == terms.max_restarts):
            assert life.phase() is Phase.GIVEN_UP
        elif not may:
            assert life.phase() is (Phase.FAILED if code else Phase.ENDED)
        else:
            assert life.phase() is Phase.WAITING
            assert life.state.due_ms is not None
            whole = min(terms.backoff_max_ms, terms.backoff_ms * 2 ** len(recent))
            assert whole * 0.75 - 1 <= life.state.due_ms - life.at_ms <= whole
            downs.append(life.at_ms)
    assert life.state.restarted == len(downs)
    assert len(life.starts) - 1 in (len(downs), len(downs) - 1)


def test_who_ends_now_and_then_is_never_given_up_and_waits_as_for_the_first_time() -> None:
    life = Life(TERMS)
    life.passes(0)
    for _ in range(20):
        life.passes(life.at_ms + TERMS.window_ms // 3)
        life.dies(1)
        assert life.state.due_ms is not None
        assert (
            life.state.due_ms - life.at_ms <= 4 * TERMS.backoff_ms
        )  # at most two before it within the window
    assert life.state.restarted == 20


@given(terms)
def test_who_ends_at_once_is_given_up_if_the_window_is_longer_than_all_waits(terms: Terms) -> None:
    always = Terms(Restart.ALWAYS, terms.backoff_ms, terms.backoff_max_ms, 5, least_ms(terms) + 50_000)
    life = Life(always)
    life.passes(0)
    for _ in range(always.max_restarts + 1):
        life.dies(1)
        if life.state.due_ms is not None:
            life.passes(life.state.due_ms)
    assert life.phase() is Phase.GIVEN_UP
    assert len(life.starts) == always.max_restarts + 1


ENDS = [
    (Restart.ALWAYS, 0, Phase.WAITING),
    (Restart.ALWAYS, 3, Phase.WAITING),
    (Restart.ALWAYS, 2, Phase.GIVEN_UP),
    (Restart.ALWAYS, NodesInError.exit_code, Phase.GIVEN_UP),
    (Restart.ON_FAILURE, 0, Phase.ENDED),
    (Restart.ON_FAILURE, 1, Phase.WAITING),
    (Restart.ON_FAILURE, -9, Phase.WAITING),
    (Restart.ON_FAILURE, 2, Phase.GIVEN_UP),
    (Restart.ON_FAILURE, 5, Phase.GIVEN_UP),
    (Restart.ON_FAILURE, NodesInError.exit_code, Phase.GIVEN_UP),
    (Restart.NEVER, 0, Phase.ENDED),
    (Restart.NEVER, 1, Phase.FAILED),
    (Restart.NEVER, -15, Phase.FAILED),
]


@pytest.mark.parametrize("restart, code, phase", ENDS)
def test_what_becomes_of_a_run_whose_process_ends(restart: Restart, code: int, phase: Phase) -> None:
    life = Life(Terms(restart))
    life.passes(0)
    life.dies(code)
    assert (life.phase(), life.state.last_exit) == (phase, code)


STOPS = [
    (0, False, Phase.STOPPED),
    (-15, False, Phase.STOPPED),
    (143, False, Phase.STOPPED),
    (3, False, Phase.FAILED),
    (-9, True, Phase.FAILED),
    (0, True, Phase.FAILED),
]


@pytest.mark.parametrize("code, too_late, phase", STOPS)
def test_what_becomes_of_a_run_that_is_stopped(code: int, too_late: bool, phase: Phase) -> None:
    life = Life(TERMS)
    life.passes(0)
    life.happens(StopAsked())
    life.passes(TERMS.grace_ms if too_late else TERMS.grace_ms - 1)
    life.dies(code)
    assert life.phase() is phase


def test_a_run_that_is_started_anew_has_all_its_restarts_again_and_runs_in_another_process() -> None:
    life = Life(TERMS)
    life.passes(0)
    for _ in range(4):
        life.dies(1)
        life.passes(life.at_ms + 8_000)
    assert life.phase() is Phase.GIVEN_UP
    life.happens(StartAsked())
    life.passes(life.at_ms)
    assert (life.alive, life.state.restarts) == (True, ())
    life.happens(StartAsked())
    assert life.phase() is Phase.RUNNING  # who runs is left alone
    life.happens(RestartAsked())
    assert life.phase() is Phase.STOPPING
    life.dies(0)
    life.passes(life.at_ms)
    assert life.alive
    assert life.state.restarted == 3  # asked for is not by itself


def test_the_last_word_on_a_run_that_stops_holds() -> None:
    life = Life(TERMS)
    life.passes(0)
    life.happens(RestartAsked())
    life.happens(StopAsked())
    life.dies(0)
    assert life.phase() is Phase.STOPPED
    life.happens(StartAsked())
    life.passes(1)
    life.happens(StopAsked())
    life.happens(StartAsked())
    life.dies(0)
    life.passes(2)
    assert life.phase() is Phase.RUNNING


def test_the_waits_of_runs_that_went_down_together_are_spread_and_the_same_each_time() -> None:
    names = [f"run{number}" for number in range(50)]
    waits = [wait_ms(name, TERMS, 2) for name in names]
    assert waits == [wait_ms(name, TERMS, 2) for name in names]
    assert len(set(waits)) > 40
    assert all(3_000 <= one <= 4_000 for one in waits)
