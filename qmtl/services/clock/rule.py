"""Which tick the clock writes next, and whether it may: pure, the wall's time comes in as a number.

A tick is a close marker. It says that all time up to it is over, so what has passed without one is closed by the next one: after an
outage one tick is written, the newest, and none for each bucket that was missed. No reader needs those: the graph's terms are
differences of ticks, the world service closes at each tick that comes, and a node's bucket is closed by its sources as well as by the
clock, whose later tick closes the earlier ones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qmtl.foundation.common.errors import ClockTaken

NAME: Final = "clock"
"""The topic, and who closes it."""
EVERY_S: Final = 60
"""As far apart as the shortest bars: nodes compute a bucket of bars once the clock has closed it too."""
LONGEST_S: Final = 3600


@dataclass(frozen=True, slots=True)
class LastTick:
    """The newest close marker of a partition of the clock.

    Attributes:
        bucket_ms: the instant that it says, epoch ms.
        processor: who wrote it.
        config_epoch: of its sequence of markers.
        offset: where it lies.
    """

    bucket_ms: int
    processor: str
    config_epoch: int
    offset: int


def next_tick(last_ms: int | None, wall_ms: int, every_ms: int) -> int | None:
    """The tick that is due: the newest whole `every_ms` of the wall's time, unless the log is there already, or beyond.

    So ticks only grow, whatever the wall does: while it shows less than the last tick, nothing is due.

    Args:
        last_ms: the newest tick of the log; None where there is none.
    """
    due = wall_ms // every_ms * every_ms
    return due if due > (last_ms or 0) else None


def epoch_of(last: LastTick | None, config_epoch: int) -> int:
    """The configuration epoch in which the clock goes on: a sequence of markers has one writer.

    Where feeds of recorded bars tick, time is that of their bars. A tick of now would close every bucket between, and what the bars
    have still to say would be late. So a clock takes such a log over only in a newer epoch, which an operator says.

    Raises:
        ClockTaken: another one ticks here.
    """
    if last is None or last.config_epoch < config_epoch:
        return config_epoch
    if last.processor != NAME:
        raise ClockTaken(
            f"the clock of this log is ticked by {last.processor!r}, last at {last.bucket_ms}; a tick of now would close what it has"
            " still to feed.",
            "Leave this log without `qmtl worker run clock`, or say --config-epoch"
            f" {last.config_epoch + 1} once nothing is fed any more.",
        )
    return last.config_epoch
