"""Warm-up: the data begin later, and what a node gives has to be the same once its windows are; what remembers more has to come to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from qmtl.backtest.honesty.change import Bars, LaterStart, all_buckets
from qmtl.backtest.honesty.findings import Cause, Finding, Settling, finding, instant, intents_changed
from qmtl.backtest.honesty.program import Program, ProgramNode
from qmtl.backtest.honesty.told import Difference, Told, Trace, changed, difference, differences
from qmtl.backtest.honesty.trial import Run, Trial
from qmtl.runtime.columns import BarColumns, Flags, Integers
from qmtl.runtime.indicators.registry import SOURCE
from qmtl.runtime.sdk.python_node import PYTHON


@dataclass(frozen=True, slots=True)
class Warmed:
    """What was found.

    Attributes:
        intents: how many targets of signals differ behind the warm-up of their node, in all runs together.
        last: bars after the beginning at which the last of them lies.
    """

    findings: tuple[Finding, ...]
    settlings: tuple[Settling, ...]
    starts: int
    runs: int
    intents: int
    last: int


def starts(bars: Bars, count: int) -> tuple[int, ...]:
    """The open times at which the data are to begin: evenly over the first half of the buckets."""
    buckets = all_buckets(bars)
    interval_ms = next(iter(bars.values())).interval * 1000 if bars else 0
    places = {len(buckets) * (place + 1) // (2 * count) for place in range(count)}
    return tuple(int(buckets[at]) - interval_ms for at in sorted(places) if 0 < at < len(buckets))


def warm_up(
    program: Program,
    run: Run,
    bars: Bars,
    plain: Trace,
    starts_ms: Sequence[int],
    unsteady: frozenset[str] = frozenset(),
    advance: Callable[[int], None] = lambda done: None,
) -> Warmed:
    """Begin later, and compare with the run over all bars.

    A node that remembers no more than its last inputs is judged in each bucket before which the inputs of its whole window, and its bars, are the
    same in both runs: there its output has to be the same, too. Of every node it is told how long it takes to be.

    Args:
        unsteady: nodes that differ between two runs anyway, and are not judged.
    """
    found: dict[str, Finding] = {}
    worst: dict[str, Settling] = {}
    warm_ups = program.warm_ups()
    intents = last = 0
    for done, start_ms in enumerate(starts_ms):
        change = LaterStart(start_ms)
        later = change.of(bars)
        (late,) = run(Trial(change=change))
        advance(done + 1)
        for one in program.nodes:
            node_id = one.node_id
            if one.node.node_type == SOURCE:
                continue
            for symbol in sorted(plain.told.get(node_id, {})):
                market = later[symbol]
                if not len(market):
                    continue
                was, became = plain.of(node_id, symbol).since(start_ms + 1), late.of(node_id, symbol)
                apart = np.searchsorted(market.bucket_ms, changed(was, became))
                seen = _settling(one, warm_ups[node_id], apart, market, was, became)
                worst[node_id] = _worse(worst.get(node_id), seen)
                behind = apart[apart >= warm_ups[node_id]]
                if node_id in program.signals and len(behind):
                    intents += len(behind)
                    last = max(last, int(behind[-1]) + 1)
                is_judged = (
                    node_id not in unsteady and node_id not in plain.remembers and node_id not in found
                )
                if is_judged and node_id not in late.failures and node_id not in plain.failures:
                    first = _first_unlike(one, symbol, market, plain, late, was, became)
                    if first is not None:
                        changing = f"when the data began at {start_ms} ({instant(start_ms)})"
                        found[node_id] = finding(
                            Cause.START_OF_DATA,
                            program,
                            node_id,
                            first,
                            changing,
                            differences(plain.since(first.bucket_ms), late.since(first.bucket_ms)),
                            intents_changed(
                                program, node_id, plain.since(first.bucket_ms), late.since(first.bucket_ms)
                            ),
                        )
    findings = tuple(found[one.node_id] for one in program.nodes if one.node_id in found)
    settlings = tuple(worst[one.node_id] for one in program.nodes if one.node_id in worst)
    return Warmed(findings, settlings, len(starts_ms), len(starts_ms), intents, last)


def _first_unlike(
    one: ProgramNode, symbol: str, bars: BarColumns, plain: Trace, late: Trace, was: Told, became: Told
) -> Difference | None:
    """The first bucket in which a node gave something else though all that it looks back on was the same."""
    judged = bars.bucket_ms[_is_judged(one, symbol, bars, plain, late)]
    return difference(symbol, _among(was, judged), _among(became, judged))


def _is_judged(one: ProgramNode, symbol: str, bars: BarColumns, plain: Trace, late: Trace) -> Flags:
    """The buckets of the later run before which the whole window of a node was the same in both."""
    count = len(bars)
    places = np.arange(count)
    same = np.ones(count, dtype=np.bool_)
    ports = []
    for read in one.node.dependencies:
        was, became = plain.of(read, symbol).since(int(bars.bucket_ms[0])), late.of(read, symbol)
        there = np.zeros(count, dtype=np.bool_)
        there[np.searchsorted(bars.bucket_ms, became.bucket_ms)] = True
        same[np.searchsorted(bars.bucket_ms, changed(was, became))] = False
        ports.append(there)
    reach = _reach(one)
    if one.node.node_type != PYTHON:  # it counts the buckets in which all inputs are there
        ports = [np.logical_and.reduce(ports)] if ports else []
    ports.append(np.ones(count, dtype=np.bool_))  # the bars
    last_apart = np.maximum.accumulate(np.where(same, -1, places))
    judged = same
    for there, least in zip(ports, [*[reach] * (len(ports) - 1), max(reach, one.bars_kept)], strict=True):
        until = np.concatenate(([0], np.cumsum(there)))
        judged = judged & (until[places + 1] - until[last_apart + 1] >= least)
    return judged


def _reach(one: ProgramNode) -> int:
    """How many inputs a window holds; of a built-in node at most, as some look back on one more than the period."""
    return max(one.node.period, 1) + (0 if one.is_python else 1)


def _among(told: Told, buckets: Integers) -> Told:
    at = np.isin(told.bucket_ms, buckets)
    return Told(told.bucket_ms[at], told.values[at])


def _settling(
    one: ProgramNode, warm_up: int, apart: Integers, bars: BarColumns, was: Told, became: Told
) -> Settling:
    """Args: apart, the places among the later bars at which the two differ."""
    place_of = float(10.0**-bars.close.places)
    behind = apart[apart >= warm_up]
    both, left, right = np.intersect1d(
        was.bucket_ms, became.bucket_ms, assume_unique=True, return_indices=True
    )
    largest, coarse = 0.0, np.zeros(0, dtype=np.int64)
    is_number = was.values.dtype.kind == became.values.dtype.kind == "f"
    if is_number and len(both):
        sizes = np.abs(was.values[left] - became.values[right])
        places = np.searchsorted(bars.bucket_ms, both)
        largest = float(sizes[places >= warm_up].max(initial=0.0))
        coarse = places[sizes >= place_of]
    alone = np.setdiff1d(behind, np.searchsorted(bars.bucket_ms, both)) if is_number else behind
    counts = np.concatenate(
        (coarse, np.setdiff1d(apart, np.searchsorted(bars.bucket_ms, both)) if is_number else apart)
    )
    last = int(counts.max()) + 1 if len(counts) else 0
    settled = None if last == len(bars) and last > warm_up else last + 1
    return Settling(one.name, one.node_id, warm_up, settled, largest, len(alone))


def _worse(known: Settling | None, seen: Settling) -> Settling:
    if known is None:
        return seen
    settled = None if known.settled is None or seen.settled is None else max(known.settled, seen.settled)
    return Settling(
        known.node,
        known.node_id,
        known.warm_up,
        settled,
        max(known.largest, seen.largest),
        known.missing + seen.missing,
    )
