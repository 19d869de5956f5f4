"""Look-ahead: the future is changed, and the past must not move. And whether a function knows bars or instants that its view did not give it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from qmtl.backtest.honesty.change import CALENDAR_MS, Bars, Future, OtherCalendar, OtherFuture, all_buckets
from qmtl.backtest.honesty.findings import Cause, Finding, culprits, finding, instant, intents_changed
from qmtl.backtest.honesty.program import Program
from qmtl.backtest.honesty.told import Difference, Trace, differences
from qmtl.backtest.honesty.trial import Run, Trial

ROUNDING: Final = 1e-6
"""By which numbers may differ in another calendar, as instants that are far away have fewer digits behind the point."""

_WORDS: Final = {
    Future.DOUBLED: "when all bars after the cut at {} were doubled",
    Future.HALVED: "when all bars after the cut at {} were halved",
    Future.REVERSED: "when all bars after the cut at {} came in reverse",
    Future.DROPPED: "when there were no bars after the cut at {}",
}

Advance = Callable[[int], None]
"""Called with how many runs are done."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found, after how many cuts, in how many runs."""

    findings: tuple[Finding, ...]
    cuts: int
    runs: int


def cuts(bars: Bars, program: Program, plain: Trace, count: int) -> tuple[int, ...]:
    """The buckets after which the future is changed: half of them evenly over the range, the others at targets of signals, which are evenly
    chosen among all, and in the bucket before each."""
    buckets = all_buckets(bars)
    if len(buckets) < 2:
        return ()
    last = len(buckets) - 2  # behind a cut lies one bucket at least
    spread = max(count - count // 2, 1)
    chosen = {(last + 1) * (place + 1) // (spread + 1) for place in range(spread)}
    given = [
        plain.of(node_id, symbol).bucket_ms
        for node_id in program.signals
        for symbol in plain.told.get(node_id, {})
    ]
    targets = np.unique(np.concatenate(given)) if given else np.zeros(0, dtype=np.int64)
    for place in range(min(count // 4, len(targets))):
        middle = len(targets) * (2 * place + 1) // (2 * min(count // 4, len(targets)))
        at = int(np.searchsorted(buckets, targets[middle]))
        chosen |= {at, at - 1}
    return tuple(int(buckets[at]) for at in sorted(chosen) if 0 <= at <= last)


def look_ahead(
    program: Program,
    run: Run,
    bars: Bars,
    plain: Trace,
    at_ms: Sequence[int],
    unsteady: frozenset[str] = frozenset(),
    advance: Advance = lambda done: None,
) -> Looked:
    """Change the future behind each cut in every way, and compare what was given until it.

    Args:
        at_ms: the cuts.
        unsteady: nodes that differ between two runs anyway, and are not judged.
    """
    found: dict[str, Finding] = {}
    runs = 0
    for cut_ms in at_ms:
        past = plain.upto(cut_ms)
        for future in Future:
            (trace,) = run(Trial(change=OtherFuture(cut_ms, future), until_ms=cut_ms))
            runs += 1
            advance(runs)
            every = differences(past, trace)
            for node_id, first in culprits(program, every).items():
                if node_id not in unsteady and node_id not in found:
                    intents = intents_changed(program, node_id, past, trace)
                    changing = _WORDS[future].format(f"{cut_ms} ({instant(cut_ms)})")
                    found[node_id] = finding(
                        Cause.LOOK_AHEAD, program, node_id, first, changing, every, intents
                    )
    findings = tuple(found[one.node_id] for one in program.nodes if one.node_id in found)
    return Looked(findings, len(at_ms), runs)


def other_calendar(
    program: Program, run: Run, plain: Trace, unsteady: frozenset[str] = frozenset()
) -> tuple[Finding, ...]:
    """Move all bars by so many years that weekdays, dates and hours stay what they are, and compare what functions give. Built-in nodes know no
    instants but by the length of an interval, which need not fit into those years."""
    (moved,) = run(Trial(change=OtherCalendar()))
    told = {
        node_id: {symbol: one.moved(-CALENDAR_MS) for symbol, one in by_symbol.items()}
        for node_id, by_symbol in moved.told.items()
    }
    back = Trace(told, moved.failures)
    every = differences(plain, back, ROUNDING)
    every = {node_id: _said(moved, node_id, first) for node_id, first in every.items()}
    changing = f"when the same bars came {CALENDAR_MS // 31_556_952_000} years later"
    return tuple(
        finding(
            Cause.CALENDAR,
            program,
            node_id,
            first,
            changing,
            every,
            intents_changed(program, node_id, plain, back),
        )
        for node_id, first in culprits(program, every).items()
        if node_id not in unsteady and program.node(node_id).is_python
    )


def _said(moved: Trace, node_id: str, first: Difference) -> Difference:
    """A failure there has a bucket of the other calendar."""
    failure = moved.failures.get(node_id)
    if failure is None or failure.bucket_ms - CALENDAR_MS > first.bucket_ms:
        return first
    return Difference(
        first.symbol, first.bucket_ms, first.was, failure.what.partition(f" for {failure.symbol}")[0]
    )
