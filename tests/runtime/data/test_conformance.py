"""Conformance: nothing is sorted, filled or dropped unsaid; gaps and coverage are those that counting finds."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import ConflictingBars, DataIncomplete, InvalidBar
from qmtl.foundation.contracts.market import Bar
from qmtl.runtime.columns import BarColumns, Scaled
from qmtl.runtime.data.conformance import Conformance, Gap, Terms, conform, coverage_of, gaps_of

STEP = 60_000
MINUTES = st.sets(st.integers(0, 40), min_size=1)


def bar(minute: int, close: str = "2", volume: str = "1.5") -> Bar:
    low, high = Decimal(1), Decimal(9)
    return Bar("X", minute * STEP, 60, Decimal(3), high, low, Decimal(close), Decimal(volume))


def columns(*bars: Bar) -> BarColumns:
    """Unchecked, as a provider may send them."""

    def of(name: str) -> Scaled:
        return Scaled.of([getattr(one, name) for one in bars], 8)

    times = np.array([one.open_time_ms for one in bars], dtype=np.int64)
    return BarColumns("X", 60, times, of("open"), of("high"), of("low"), of("close"), of("volume"))


@given(MINUTES, st.data())
def test_what_is_said_twice_in_the_same_words_is_taken_once_and_counted(
    minutes: set[int], data: st.DataObject
) -> None:
    ordered = sorted(minutes)
    sent = [minute for minute in ordered for _ in range(data.draw(st.integers(1, 3)))]
    at = data.draw(st.integers(0, len(sent)))
    # The second chunk may begin again some bars before the first one's end, as pages of an exchange do.
    back = data.draw(st.integers(0, at))
    chunks = [columns(*map(bar, part)) for part in (sent[:at], sent[at - back :]) if part]
    kept, found = conform(chunks, "X", 60)
    assert [int(time) // STEP for part in kept for time in part.open_time_ms] == ordered
    assert (found.bars, found.duplicates) == (len(ordered), len(sent) + back - len(ordered))
    assert (found.first_ms, found.last_ms) == (ordered[0] * STEP, ordered[-1] * STEP)


@pytest.mark.parametrize(
    "bars, error, words",
    [
        ([bar(1), bar(3), bar(2)], InvalidBar, ("row 2", str(2 * STEP), "Sort")),
        ([bar(1), bar(2), bar(1, "4")], ConflictingBars, ("row 2", str(STEP))),
        ([bar(1), bar(1, volume="1.50000001")], ConflictingBars, ("row 1", str(STEP))),
        ([bar(1), bar(2, "10")], InvalidBar, ("row 1", "close", "10")),
        ([bar(1), bar(2, volume="-1")], InvalidBar, ("row 1", "volume")),
    ],
)
def test_what_is_not_conform_is_refused_with_its_place(
    bars: list[Bar], error: type[Exception], words: tuple[str, ...]
) -> None:
    with pytest.raises(error) as caught:
        Conformance("X", 60).take(columns(*bars), lambda row: f"row {row}")
    for word in words:
        assert word in str(caught.value)


def test_a_time_off_the_grid_is_refused() -> None:
    made = columns(bar(1), bar(2))
    made.open_time_ms[1] += 1
    with pytest.raises(InvalidBar, match="row 1"):
        Conformance("X", 60).take(made, lambda row: f"row {row}")


@given(MINUTES, st.integers(0, 5), st.integers(41, 50), st.data())
def test_gaps_and_coverage_are_those_that_counting_finds(
    minutes: set[int], before: int, end: int, data: st.DataObject
) -> None:
    start = max(0, min(minutes) - before)
    times = np.array(sorted(minutes), dtype=np.int64) * STEP
    at = data.draw(st.integers(0, len(times)))
    chunks = [times[:at], times[at:]]
    found = list(gaps_of(chunks, 60, start * STEP, end * STEP))
    missing = {minute for gap in found for minute in range(gap.from_ms // STEP, gap.to_ms // STEP)}
    assert missing == set(range(start, end)) - minutes
    assert all(one.to_ms < other.from_ms for one, other in pairwise(found))
    told = coverage_of(chunks, 60, start * STEP, end * STEP)
    assert (told.expected, told.bars, told.gaps) == (end - start, len(minutes), len(found))
    assert told.longest_gap == max((gap.to_ms - gap.from_ms for gap in found), default=0) // STEP
    assert told.stale_ms((max(minutes) + 1) * STEP + 7) == 7


def test_between_neighbours_there_is_no_gap() -> None:
    assert list(gaps_of([np.array([0, STEP, 3 * STEP])], 60)) == [Gap(2 * STEP, 3 * STEP)]
    assert coverage_of([np.array([0, STEP])], 60).percent == 100.0


@pytest.mark.parametrize(
    "terms, word",
    [
        (Terms(min_percent=75.1), "75.1 %"),
        (Terms(max_gap=0), "gap of 1"),
        (Terms(max_stale_ms=9), "10 ms"),
    ],
)
def test_terms_that_are_broken_are_told(terms: Terms, word: str) -> None:
    found = coverage_of([np.array([0, STEP, 3 * STEP])], 60)
    Terms(75.0, 1, 10).require("X", found, 4 * STEP + 10)
    with pytest.raises(DataIncomplete, match=word):
        terms.require("X", found, 4 * STEP + 10)
