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
    """The process stops at the n-th passage of a failpoint, other things happen, and it goes on as if nothing had.

    Attributes:
        then: what happens to it after that, in the same step.
    """

    point: str
    passage: int
    acts: tuple[Act, ...]
    then: Die | Pause | None = None


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
class Crash:
    """A slot's process takes steps until one of them reaches a failpoint, and is killed there."""

    slot: int
    point: str
    passage: int = 1


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
Act: TypeAlias = (
    Feed | Run | Crash | Kill | Stop | Twin | Evict | Disk | Tick | Clean | Retain | Noise | Release
)
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
    out: list[Act] = []
    while len(out) < shape.acts:
        out += _next(chance, shape, depth=0)
    return tuple(out)


def _next(chance: Random, shape: Shape, depth: int) -> Schedule:
    """An act, or a few that belong together because they seldom meet by chance."""
    slot = chance.randrange(shape.slots)
    number = chance.randrange(2**32)
    drawn = chance.randrange(100)
    makers: tuple[tuple[int, Callable[[], Schedule]], ...] = (
        (25, lambda: (Feed(chance.randrange(shape.sources)),)),
        (68, lambda: (_run(chance, shape, slot, number, depth),)),
        (70, lambda: (Kill(slot),)),
        (72, lambda: (Stop(slot),)),
        (74, lambda: (Twin(slot),)),
        (76, lambda: (Evict(slot),)),
        (78, lambda: (Disk(slot, lost=chance.random() < 0.5, chance=number),)),
        (82, lambda: (Tick(chance.choice(_TICKS)),)),
        (83, lambda: (Tick(chance.choice((DAY_MS, 8 * DAY_MS))),)),
        (86, lambda: (Clean(number),)),
        (87, lambda: (Retain(number),)),
        (90, lambda: (Noise(number, leaves_open=chance.random() < 0.4),)),
        (92, lambda: (Release(number),)),
        (100, lambda: chance.choice(_STORIES)(chance, shape, slot, number)),
    )
    return next(make for below, make in makers if drawn < below)()


def _rebuild(chance: Random, shape: Shape, slot: int, number: int) -> Schedule:
    """A slot comes back without its stores, or behind what it had committed, and meets trouble while it restores."""
    point = chance.choice(("inside_restore", "after_restore"))
    trouble = (
        Die(point, chance.choice((1, 1, 2)))
        if chance.random() < 0.6
        else Pause(point, 1, _some(chance, shape, 2))
    )
    before: Schedule = (
        (Kill(slot), Disk(slot, lost=True))
        if chance.random() < 0.5
        else (Feed(chance.randrange(shape.sources)), Run(slot, number, Die("before_store_write")))
    )
    return (*before, *(Run(slot, number + one, trouble) for one in range(3)), Run(slot, number + 3))


def _return(chance: Random, shape: Shape, slot: int, number: int) -> Schedule:
    """A slot moves to another machine, works there, and comes back to the first, whose stores have grown old."""
    there: Schedule = tuple(
        act for one in range(6) for act in (Feed(chance.randrange(shape.sources)), Run(slot, number + one))
    )
    back = (Kill(slot), Kill(slot), Disk(slot, lost=False, chance=number), Run(slot, number + 2))
    asleep: Schedule = _season(chance, shape, slot, number) if chance.random() < 0.6 else ()
    return (Run(slot, number), Twin(slot), *there, Run(slot, number, older=True), *asleep, *back)


def _season(chance: Random, shape: Shape, slot: int, number: int) -> Schedule:
    """So much time that the cleaner takes tombstones too."""
    return (Tick(8 * DAY_MS), Clean(number), Tick(8 * DAY_MS), Clean(number + 1))


def _usurp(chance: Random, shape: Shape, slot: int, number: int) -> Schedule:
    """A process stands still until others have its tasks, and then goes on with what it has read."""
    point = chance.choice(POINTS)
    rest = chance.choice((11_000, 16_000, 61_000))
    others = tuple(
        Run(one, number + one) for one in range(shape.slots) if one != slot or chance.random() < 0.5
    )
    acts = (*_some(chance, shape, 2), Tick(rest), *others, *others, *others)
    return (
        Feed(chance.randrange(shape.sources)),
        Run(slot, number, Pause(point, 1, acts)),
        Run(slot, number + 1),
    )


def _share(chance: Random, shape: Shape, slot: int, number: int) -> Schedule:
    """A member comes while its neighbour works on a batch, and takes tasks that the neighbour still has in its hands."""
    other = (slot + chance.choice((-1, 1))) % shape.slots
    feed = Feed(chance.randrange(shape.sources))
    alone: Schedule = (Kill(other), Tick(11_000), *(Run(slot, number + one) for one in range(3)))
    point = chance.choice(("after_decode", "after_apply", "before_commit", "inside_commit"))
    takes = Pause(point, 1, tuple(Run(other, number + one) for one in range(5)))
    comes = Pause("after_poll", 1, (Run(other, number),), takes)
    return (*alone, feed, feed, Run(slot, number + 3, comes), Run(slot, number + 4))


def _late(chance: Random, shape: Shape, slot: int, number: int) -> Schedule:
    """A request is given up, and arrives before or after its client has made itself anew."""
    feed, lose = Feed(chance.randrange(shape.sources)), Lose(chance.choice(_MIDDLE), Fate.LATE)
    between: Schedule = (Run(slot, number + 1),) if chance.random() < 0.5 else ()
    return (feed, Run(slot, number, lose), *between, Release(number), Run(slot, number + 2))


_MIDDLE: Final = (Request.PRODUCE, Request.OFFSETS, Request.END, Request.END)
_STORIES: Final = (_rebuild, _rebuild, _return, _return, _season, _usurp, _share, _share, _late, _late)


def _some(chance: Random, shape: Shape, depth: int) -> Schedule:
    return tuple(act for _ in range(chance.randrange(1, 6)) for act in _next(chance, shape, depth))


def _run(chance: Random, shape: Shape, slot: int, number: int, depth: int) -> Run:
    older = chance.random() < 0.15
    drawn = chance.randrange(20)
    if drawn < CALM:
        return Run(slot, number, older=older)
    point, passage = chance.choice(POINTS), chance.choice((1, 1, 1, 2, 3))
    if drawn < CALM + 3:
        return Run(slot, number, Die(point, passage), older)
    if drawn < CALM + 5 and depth < 2:
        acts = (*_some(chance, shape, depth + 1), *_some(chance, shape, depth + 1))
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
        out.append(replace(act, trouble=pause.then))
        out.append(replace(act, trouble=replace(pause, acts=())))
        for index in range(len(pause.acts)):
            fewer = pause.acts[:index] + pause.acts[index + 1 :]
            out.append(replace(act, trouble=replace(pause, acts=fewer)))
    return out
