"""Which tick is due: only whole ones, each once, forward only, whatever the wall shows; and who may write it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qmtl.foundation.common.errors import ClockTaken
from qmtl.services.clock.rule import LastTick, epoch_of, next_tick

MINUTE_MS = 60_000


@given(st.lists(st.integers(0, 10**13), max_size=50), st.sampled_from([1000, MINUTE_MS, 3_600_000]))
@example([120_000, 119_999, 60_000, 120_000, 180_000], MINUTE_MS)
def test_ticks_are_whole_and_only_grow_and_none_is_ahead_of_the_wall(walls: list[int], every_ms: int) -> None:
    ticks: list[int] = []
    for wall_ms in walls:
        tick = next_tick(ticks[-1] if ticks else None, wall_ms, every_ms)
        if tick is not None:
            assert tick <= wall_ms < tick + every_ms
            ticks.append(tick)
        assert (ticks[-1] if ticks else 0) + every_ms > wall_ms
    assert ticks == sorted(set(ticks))
    assert all(tick % every_ms == 0 for tick in ticks)


def test_after_an_outage_the_newest_tick_is_written_and_none_of_those_that_were_missed() -> None:
    assert next_tick(MINUTE_MS, 61 * MINUTE_MS + 7, MINUTE_MS) == 61 * MINUTE_MS
    assert next_tick(61 * MINUTE_MS, 61 * MINUTE_MS + 7, MINUTE_MS) is None


def test_a_beat_that_changes_goes_on_behind_the_last_tick() -> None:
    assert next_tick(90_000, 119_999, MINUTE_MS) is None
    assert next_tick(90_000, 120_000, MINUTE_MS) == 120_000


@pytest.mark.parametrize(
    ("last", "said", "epoch"),
    [
        (None, 1, 1),
        (LastTick(60_000, "clock", 1, 0), 1, 1),
        (LastTick(60_000, "clock", 3, 0), 1, 3),  # nobody has to say again what was said once
        (LastTick(60_000, "feed", 1, 0), 2, 2),
        (LastTick(60_000, "clock", 1, 0), 2, 2),
    ],
)
def test_a_sequence_of_markers_goes_on_in_its_epoch(last: LastTick | None, said: int, epoch: int) -> None:
    assert epoch_of(last, said) == epoch


@pytest.mark.parametrize("epoch", [1, 2])
def test_where_feeds_tick_a_clock_is_refused_unless_a_newer_epoch_is_said(epoch: int) -> None:
    with pytest.raises(ClockTaken, match=f"'feed'.*--config-epoch {epoch + 1}"):
        epoch_of(LastTick(60_000, "feed", epoch, 0), epoch)
