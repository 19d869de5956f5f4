"""What happens in a simulated run, in order: a value that is made from a seed, written down, cut smaller and run again.

Every act carries the chance that it needs, so taking one out leaves what the others do as it was. An act that finds nothing
to act on does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Final, TypeAlias

from qmtl.engine.failpoint import POINTS
from qmtl.engine.simulate.network import Dawdle, Fate, Hitch, Lose, Refuse, Request

DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Die:
    """The process is killed at the n-th passage of a failpoint."""

    point: str
    passage: int = 1


@dataclass(frozen=True, slots=True)
class Pause:
    """The process stops at the n-th passage of a failpoint, other things happen, and it goes on as if nothing had."""

    point: str
    passage: int
    acts: tuple[Act, ...]


@dataclass(frozen=True, slots=True)
class Feed:
    """The next piece of input is written, if its time has come."""

    source: int


@dataclass(frozen=True, slots=True)
class Run:
    """A slot's process takes a step; where it has none, one is started.

    Attributes:
        chance: how its polls are split and ordered.
        trouble: what happens to it meanwhile.
        older: a process that a twin has taken the slot from takes the step instead.
    """

    slot: int
    chance: int = 0
    trouble: Die | Pause | Hitch | None = None
    older: bool = False


@dataclass(frozen=True, slots=True)
class Kill:
    """A slot's process is killed between two steps."""

    slot: int


@dataclass(frozen=True, slots=True)
class Stop:
    """A slot's process leaves in good order."""

    slot: int


@dataclass(frozen=True, slots=True)
class Twin:
    """A second process is started in a slot, on another machine; the first knows nothing of it."""

    slot: int


@dataclass(frozen=True, slots=True)
class Evict:
    """The group gives a member's place away."""

    slot: int


@dataclass(frozen=True, slots=True)
class Disk:
    """The stores of a slot without a process are lost, or are those of a machine that it ran on earlier."""

    slot: int
    lost: bool
    chance: int = 0


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passes."""

    ms: int


@dataclass(frozen=True, slots=True)
class Clean:
    """The cleaner visits a compacted partition, and comes as far as chance has it."""

    chance: int


@dataclass(frozen=True, slots=True)
class Retain:
    """Retention takes records that everybody has read from a partition that is not compacted."""

    chance: int


@dataclass(frozen=True, slots=True)
class Noise:
    """Somebody writes into a partition and aborts; or goes away with the transaction open."""

    chance: int
    leaves_open: bool


@dataclass(frozen=True, slots=True)
class Release:
    """A request that was held on its way arrives."""

    chance: int


Trouble: TypeAlias = Die | Pause | Hitch
Act: TypeAlias = Feed | Run | Kill | Stop | Twin | Evict | Disk | Tick | Clean | Retain | Noise | Release
Schedule: TypeAlias = tuple[Act, ...]

CALM: Final = 12
"""Steps without trouble, of twenty."""

_TICKS: Final = (1, 30, 1_000, 6_000, 11_000, 16_000, 61_000)
_HITCHES: Final[tuple[Hitch, ...]] = (
    *(Lose(request, fate) for request in Request for fate in Fate),
    Refuse(),
    Dawdle(),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """What schedules are made for.

    Attributes:
        slots, sources: how many there are.
        acts: how many acts a schedule has.
    """

    slots: int
    sources: int
    acts: int = 120


def make_schedule(seed: int, shape: Shape) -> Schedule:
    """The schedule of a seed: the same on every machine and under every hash seed."""
    chance = Random(seed)
    return tuple(_act(chance, shape, depth=0) for _ in range(shape.acts))


def _act(chance: Random, shape: Shape, depth: int) -> Act:
    slot = chance.randrange(shape.slots)
    number = chance.randrange(2**32)
    drawn = chance.randrange(100)
    makers: tuple[tuple[int, Callable[[], Act]], ...] = (
        (26, lambda: Feed(chance.randrange(shape.sources))),
        (74, lambda: _run(chance, shape, slot, number, depth)),
        (76, lambda: Kill(slot)),
        (78, lambda: Stop(slot)),
        (80, lambda: Twin(slot)),
        (82, lambda: Evict(slot)),
        (84, lambda: Disk(slot, lost=chance.random() < 0.5, chance=number)),
        (88, lambda: Tick(chance.choice(_TICKS))),
        (89, lambda: Tick(chance.choice((DAY_MS, 8 * DAY_MS)))),
        (93, lambda: Clean(number)),
        (94, lambda: Retain(number)),
        (97, lambda: Noise(number, leaves_open=chance.random() < 0.4)),
        (100, lambda: Release(number)),
    )
    return next(make for below, make in makers if drawn < below)()


def _run(chance: Random, shape: Shape, slot: int, number: int, depth: int) -> Run:
    older = chance.random() < 0.15
    drawn = chance.randrange(20)
    if drawn < CALM:
        return Run(slot, number, older=older)
    point, passage = chance.choice(POINTS), chance.choice((1, 1, 1, 2, 3))
    if drawn < CALM + 3:
        return Run(slot, number, Die(point, passage), older)
    if drawn < CALM + 5 and depth < 2:
        acts = tuple(_act(chance, shape, depth + 1) for _ in range(chance.randrange(2, 12)))
        return Run(slot, number, Pause(point, passage, acts), older)
    return Run(slot, number, chance.choice(_HITCHES), older)


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], *, tries: int = 400) -> Schedule:
    """A schedule that still fails and from which no single act can be taken; as far as `tries` runs allow.

    Acts are taken out in halves, quarters and so on; then troubles, acts inside of pauses.
    """
    left = tries

    def still(candidate: Schedule) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(candidate)

    size = max(len(schedule) // 2, 1)
    while left > 0:
        start = 0
        while start < len(schedule) and left > 0:
            candidate = schedule[:start] + schedule[start + size :]
            if still(candidate):
                schedule = candidate
            else:
                start += size
        if size == 1:
            break
        size //= 2
    for index in range(len(schedule)):
        for simpler in _simpler(schedule[index]):
            candidate = (*schedule[:index], simpler, *schedule[index + 1 :])
            if left > 0 and still(candidate):
                schedule = candidate
                break
    return schedule


def _simpler(act: Act) -> Sequence[Act]:
    """Acts that do less, the simplest first."""
    if not isinstance(act, Run) or act.trouble is None:
        return ()
    out: list[Act] = [replace(act, trouble=None)]
    if isinstance(act.trouble, Pause):
        pause = act.trouble
        out.append(replace(act, trouble=replace(pause, acts=())))
        for index in range(len(pause.acts)):
            fewer = pause.acts[:index] + pause.acts[index + 1 :]
            out.append(replace(act, trouble=replace(pause, acts=fewer)))
    return out
