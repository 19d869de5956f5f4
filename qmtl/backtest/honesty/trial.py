"""One run of a program with one thing changed, as a process of a check is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from qmtl.backtest.honesty.change import UNCHANGED, Change
from qmtl.backtest.honesty.drive import AT_ONCE, Way, drive
from qmtl.backtest.honesty.subject import Subject
from qmtl.backtest.honesty.told import Trace


@dataclass(frozen=True, slots=True)
class Trial:
    """A run.

    Attributes:
        runs: how often it is done, one after the other in one process.
        until_ms: the last bucket that is told.
    """

    way: Way = AT_ONCE
    change: Change = UNCHANGED
    runs: int = 1
    until_ms: int | None = None

    def answer(self, subject: Subject) -> Sequence[Trace]:
        """The trace of each run."""
        bars = self.change.of(subject.bars)
        traces = [drive(subject.program, bars, subject.functions, self.way) for _ in range(self.runs)]
        return traces if self.until_ms is None else [one.upto(self.until_ms) for one in traces]


PLAIN = Trial()

Run: TypeAlias = Callable[[Trial], Sequence[Trace]]
"""Runs a trial where nothing has run before it."""
