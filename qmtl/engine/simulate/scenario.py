"""What a simulation runs: workers, the people who feed them, and what has to come out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from qmtl.engine.log.port import Log
from qmtl.engine.simulate.schedule import Schedule
from qmtl.engine.simulate.trace import Normal, Trace
from qmtl.engine.task import TaskSettings
from qmtl.engine.worker import Worker

if TYPE_CHECKING:
    from qmtl.engine.simulate.world import World

Waiting: TypeAlias = Callable[[], bool]
Said: TypeAlias = Waiting | Schedule | None
People: TypeAlias = Callable[[Log], Iterator[Said]]
"""Writes one piece of input between two yields. What it yields has to be true before it goes on; or is a schedule, which is
played there and then, but not in the run without faults."""

Start: TypeAlias = Callable[[Log, TaskSettings], Worker]
"""Makes the worker of one slot; the same slot each time."""

Invariant: TypeAlias = Callable[["World"], Iterator[str]]
"""Looks at a world after a step, and says in words what is wrong."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One set of workers and what they are fed. Everything in it is deterministic.

    Attributes:
        prepare: makes the topics.
        slots: by name, in the order in which a calm run steps them.
        people: the sources of input; each is an order of its own.
        inputs: topics that only people write.
        whole, unordered, cuts: see `Trace`.
        normal: see `Normal`.
        readers: the groups that read a topic. Retention takes only what all of them have read, and of no topic that is not
            here. Where a compacted topic is here, the cleaner takes no more either: who reads it bucket by bucket needs every
            version, and has `min.compaction.lag.ms` to read it in.
        alone: groups and topics of which each partition is read by one task of the group: its position only grows.
        cleans: whether the cleaner may run long after a bucket was closed. Not where a table is read more than a bucket
            late: such a cut is kept for `min.compaction.lag.ms` only.
        invariants: what has to hold after every act, besides what the world itself looks at.
        poll_records: how many records a task reads at once.
    """

    name: str
    prepare: Callable[[Log], None]
    slots: Mapping[str, Start]
    people: Sequence[People]
    normal: Normal
    inputs: frozenset[str]
    whole: frozenset[str] = frozenset()
    unordered: frozenset[str] = frozenset({"dead.letters"})
    cuts: frozenset[str] = frozenset()
    readers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    alone: frozenset[tuple[str, str]] = frozenset()
    cleans: bool = True
    invariants: Sequence[Invariant] = ()
    poll_records: int = 4000

    def trace(self, expected: Trace | None = None) -> Trace:
        """A trace for a run of this."""
        return Trace(
            self.normal,
            skips=self.inputs,
            whole=self.whole,
            unordered=self.unordered,
            cuts=self.cuts,
            expected=expected,
        )
