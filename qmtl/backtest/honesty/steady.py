"""Whether a program gives the same whoever runs it, when, in which order and how often: determinism, and what a function is not to hang on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from qmtl.backtest.honesty.conditions import Conditions
from qmtl.backtest.honesty.drive import Way
from qmtl.backtest.honesty.findings import Cause, Finding, culprits, finding, intents_changed
from qmtl.backtest.honesty.program import Program
from qmtl.backtest.honesty.told import Trace, differences
from qmtl.backtest.honesty.trial import Run, Trial

HERE: Final = Conditions()

_TEN_YEARS_MS: Final = 315_569_520_000

ELSEWHERE: Final[Sequence[tuple[Cause, Conditions, str]]] = (
    (Cause.PROCESS, replace(HERE, ballast=5_000), "in another process in which nothing was changed"),
    (Cause.HASH_ORDER, replace(HERE, hash_seed=2), "where texts hash otherwise (PYTHONHASHSEED)"),
    (Cause.SURROUNDINGS, replace(HERE, elsewhere=True), "in another directory, time zone and language"),
    (
        Cause.CLOCK,
        replace(HERE, clock_ms=HERE.clock_ms + _TEN_YEARS_MS, tick_ns=7 * HERE.tick_ns),
        "when the clock was moved",
    ),
    (Cause.CHANCE, replace(HERE, chance=2), "when random numbers began with another seed"),
)
"""Processes beside the first, each with one thing changed. One that differs under the first of them differs under all, so its cause is that one."""

CHUNKS: Final = (7, 64, 1024)
"""Bars of a chunk. Chunks of one are what goes on record by record."""


@dataclass(frozen=True, slots=True)
class Steadiness:
    """What was found.

    Attributes:
        unsteady: ids of the nodes that move by themselves from run to run, so that other checks can't judge them.
    """

    findings: tuple[Finding, ...]
    unsteady: frozenset[str]


def steadiness(
    program: Program, here: Run, plain: Trace, elsewhere: Sequence[Trace], symbols: int
) -> Steadiness:
    """Run a program in every way, and hold what it gives against what it gave in other processes.

    Args:
        here: a run where nothing has run before, in the first process.
        plain: what it gave.
        elsewhere: what the processes of `ELSEWHERE` gave, in their order.
        symbols: how many there are; of one there is one order.
    """
    found: dict[str, list[Finding]] = {}

    def note(cause: Cause, node_id: str, made: Finding) -> None:
        known = found.setdefault(node_id, [])
        if not any(one.cause is cause or cause in _IMPLIED.get(one.cause, ()) for one in known):
            known.append(made)

    def compare(cause: Cause, was: Trace, became: Trace, changing: str) -> None:
        every = differences(was, became)
        for node_id, first in culprits(program, every).items():
            of = Cause.CHUNKS if cause is Cause.ORDER and not program.node(node_id).is_python else cause
            intents = intents_changed(program, node_id, was, became)
            note(of, node_id, finding(of, program, node_id, first, changing, every, intents))

    for (cause, _, changing), trace in zip(ELSEWHERE, elsewhere, strict=True):
        compare(cause, plain, trace, changing)
    (twice,) = here(Trial(Way(twice=True)))
    for node_id, unlike in twice.unequal.items():
        changing = "when it was called again with the same view"
        note(Cause.HIDDEN_STATE, node_id, finding(Cause.HIDDEN_STATE, program, node_id, unlike, changing, {}))
    first, again = here(Trial(runs=2))
    compare(Cause.HIDDEN_STATE, first, again, "when the run was repeated in one process")
    (steps,) = here(Trial(Way(by_bucket=True)))
    compare(Cause.ORDER, plain, steps, "record by record instead of in columns")
    if symbols > 1:
        (backwards,) = here(Trial(Way(backwards=True)))
        (both,) = here(Trial(Way(by_bucket=True, backwards=True)))
        compare(Cause.ORDER, plain, backwards, "when the last symbol was computed first")
        compare(Cause.ORDER, steps, both, "when the last symbol was computed first, record by record")
    for chunk in CHUNKS:
        (trace,) = here(Trial(Way(chunk=chunk)))
        compare(Cause.CHUNKS, plain, trace, f"in chunks of {chunk}")
    findings = tuple(one for node in program.nodes for one in found.get(node.node_id, ()))
    unsteady = frozenset(one.node_id for one in findings if one.cause in _MOVING)
    return Steadiness(findings, unsteady)


_MOVING: Final = (Cause.PROCESS, Cause.CLOCK, Cause.CHANCE, Cause.HIDDEN_STATE)
"""Behind a cut there are fewer calls, so a clock that is read at each stands elsewhere for the next symbol."""

_LATER: Final = (Cause.HIDDEN_STATE, Cause.ORDER, Cause.CHUNKS)

_IMPLIED: Final[Mapping[Cause, tuple[Cause, ...]]] = {
    Cause.PROCESS: (Cause.HASH_ORDER, Cause.SURROUNDINGS, Cause.CLOCK, Cause.CHANCE, *_LATER),
    Cause.HASH_ORDER: (),
    Cause.SURROUNDINGS: (),
    Cause.CLOCK: _LATER,
    Cause.CHANCE: _LATER,
    Cause.HIDDEN_STATE: (Cause.ORDER, Cause.CHUNKS),
    Cause.ORDER: (Cause.CHUNKS,),
}
"""What a node does anyway that hangs on something: the clock goes on between two calls, so it seems to remember."""
