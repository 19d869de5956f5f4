"""How many records a transaction takes in: it finds what is handled in good time, from both sides."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qmtl.engine.pace import FIRST, QUICK_S, SLOW_S, Pace

ENOUGH = 40
"""Transactions after which a pace has found its way: more than doublings or halvings between one and the most."""


@given(st.integers(1, 10_000), st.lists(st.tuples(st.integers(0, 10_000), st.floats(0, 100)), max_size=50))
def test_there_is_always_room_for_one_and_never_for_more_than_the_most(
    most: int, handled: list[tuple[int, float]]
) -> None:
    pace = Pace(most)
    for records, seconds in handled:
        pace.handled(min(records, pace.room), seconds)
        assert 1 <= pace.room <= most


@given(st.integers(1, 10_000), st.floats(1e-6, 10))
def test_a_transaction_takes_at_last_as_long_as_it_may_or_all_that_there_is(most: int, each_s: float) -> None:
    pace = Pace(most)
    for _ in range(ENOUGH):
        pace.handled(pace.room, pace.room * each_s)
    assert pace.room * each_s <= SLOW_S or pace.room == 1
    assert pace.room == most or pace.room * each_s >= QUICK_S


def test_a_transaction_that_was_not_full_says_nothing_of_a_larger_one() -> None:
    pace = Pace(4000)
    pace.handled(FIRST - 1, 0.0)
    assert pace.room == FIRST
    pace.handled(FIRST, 0.0)
    assert pace.room == 2 * FIRST


def test_a_few_that_took_long_make_less_room_than_they_were() -> None:
    pace = Pace(4000)
    pace.handled(8, 2 * SLOW_S)
    assert pace.room == 4
