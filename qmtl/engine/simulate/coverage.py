"""What simulated runs have reached: how often each thing happened, which followed which, and what never did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from qmtl.engine.failpoint import POINTS
from qmtl.engine.simulate.network import Fate, Request

PASSED: Final = tuple(f"passed {point}" for point in POINTS)
DEATHS: Final = tuple(f"died {point}" for point in POINTS)
PAUSES: Final = tuple(f"paused {point}" for point in POINTS)
LOSSES: Final = tuple(f"{request.value} lost, {fate.value}" for request in Request for fate in Fate)
LATE: Final = (
    "late InitProducerId applied",
    "late Produce refused",
    "late TxnOffsetCommit refused",
    "late EndTxn applied",
    "late EndTxn refused",
)
HAPPENINGS: Final = (
    "killed between steps",
    "left in good order",
    "a twin was started",
    "a twin was fenced",
    "an owner was fenced",
    "a place in the group was given away",
    "a member was fenced",
    "a member lost its place by time",
    "a generation of a group began for a member",
    "a stale fence was refused",
    "an old epoch was refused",
    "a new writer ended an open transaction",
    "a transaction ended for its age",
    "a transaction was aborted",
    "an outcome was unknown",
    "markers came after the answer",
    "stores were lost",
    "stores of an earlier machine came back",
    "somebody aborted",
    "somebody left a transaction open",
    "compaction took records",
    "compaction took tombstones",
    "retention took records",
    "days passed",
)
KNOWN: Final = (*PASSED, *DEATHS, *PAUSES, *LOSSES, *LATE, *HAPPENINGS)
"""Everything that a campaign should reach at least once."""

_NOT_A_FAULT: Final = frozenset((*PASSED, "a generation of a group began for a member"))


class Coverage:
    """Counts over one run or many.

    Attributes:
        counts: how often each thing happened.
        pairs: how often one fault was the next after another.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.pairs: Counter[tuple[str, str]] = Counter()
        self._last: str | None = None

    def note(self, what: str) -> None:
        """Something happened."""
        self.counts[what] += 1
        if what in _NOT_A_FAULT:
            return
        if self._last is not None:
            self.pairs[self._last, what] += 1
        self._last = what

    def add(self, other: Coverage) -> None:
        """Take over what another run has reached."""
        self.counts.update(other.counts)
        self.pairs.update(other.pairs)

    def never(self) -> tuple[str, ...]:
        """What should be reached and was not."""
        return tuple(name for name in KNOWN if not self.counts[name])

    def lines(self) -> Iterator[str]:
        """The report: a histogram, the faults that followed each other, what was never reached."""
        known = set(KNOWN)
        for name in (*KNOWN, *sorted(set(self.counts) - known)):
            yield f"{self.counts[name]:>9}  {name}"
        faults = [name for name in KNOWN if name not in _NOT_A_FAULT]
        reached = sum(bool(self.pairs[first, second]) for first in faults for second in faults)
        yield f"pairs of faults, one right after the other: {reached} of {len(faults) ** 2} reached"
        yield "never reached: " + (", ".join(self.never()) or "nothing")
