"""What a task knew of its topics against what is there: a log that is shorter, cut off or another one keeps the task closed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from qmtl.engine.log.port import Incarnation, Log, Positions, TopicPartition
from qmtl.engine.stored import TopicFacts
from qmtl.foundation.common.errors import LogRegressed, OffsetGone, StampMismatch, StateMismatch
from qmtl.foundation.wire.topics import TopicSpec


class Kind(Enum):
    """In what a partition is not as it was."""

    REMADE = "the topic was deleted and made again"
    SHORTER = "the log is shorter than it was"
    REWRITTEN = "the log holds another record where the last transaction ended"
    GONE = "the log no longer holds what comes next"
    MOVED = "the group has committed another position"


@dataclass(frozen=True, slots=True)
class Finding:
    """One partition that is not as the task knew it.

    Attributes:
        known: what the task knew, in words.
        there: what is there, in words.
        begin: the first offset that is there.
        end: the offset after the last one that is there.
        committed: what the group has committed, where that is what differs; -1 for nothing.
    """

    kind: Kind
    where: TopicPartition
    known: str
    there: str
    begin: int = 0
    end: int = 0
    committed: int = -1

    def __str__(self) -> str:
        return (
            f"{self.where.topic}[{self.where.partition}]: {self.kind.value} (known: {self.known};"
            f" there: {self.there})"
        )


Judge = Callable[[Sequence[Finding]], None]
"""Raises, unless an operator has decided to go on from what is there."""


def refuse(findings: Sequence[Finding], who: str = "", remedy: str = "") -> None:
    """Raise for what was found.

    Args:
        who: the task, as `trading[0]`.

    Raises:
        StampMismatch: the group's positions alone were moved.
        OffsetGone: records are gone that were still to be read, and nothing else is wrong.
        LogRegressed: the log is shorter than it was, or another one.
    """
    what = "; ".join(str(one) for one in findings) + "."
    kinds = {one.kind for one in findings}
    family = StampMismatch if kinds == {Kind.MOVED} else OffsetGone if kinds == {Kind.GONE} else LogRegressed
    raise family(
        f"{who}: {what}" if who else what,
        remedy or "Bring the log back, or delete the task's state directory if this is intended.",
    )


def decision(processor: str, task: int) -> str:
    """What an operator may do about a log that is no longer the one that a task knew."""
    command = f"qmtl worker accept {processor} --task {task} --reason TEXT"
    return (
        f"Bring the log back; or decide to go on from what is there: `{command}`, with the worker's --log and"
        " --state-dir."
    )


def regressions(
    log: Log, facts: Mapping[str, TopicFacts], known: Positions, *, tables: bool = False
) -> list[Finding]:
    """What became of the partitions in which these offsets come next.

    Args:
        tables: what is gone from the beginning of a table is no loss, as it is read from the beginning then.
    """
    lives = log.incarnations({where.topic for where in known})
    begins, ends = log.begin_offsets(list(known)), log.end_offsets(list(known))
    out = []
    for where, offset in sorted(known.items()):
        begin, end, life = begins[where], ends[where], lives[where.topic]
        fact = facts.get(where.topic)
        there = f"offsets {begin} to {end}"
        if fact is not None and fact.id != life.id:
            known_as = f"id {fact.id}, read up to {offset}"
            out.append(Finding(Kind.REMADE, where, known_as, f"id {life.id}, {there}", begin, end))
        elif offset > end:
            out.append(Finding(Kind.SHORTER, where, f"read up to {offset}", there, begin, end))
        elif offset < begin and not tables:
            there += "; whether what is gone was records, or transactions that were aborted, the log can't tell any more"
            out.append(Finding(Kind.GONE, where, f"to be read from {offset}", there, begin, end))
    return out


def facts_of(log: Log, topics: Collection[str], specs: Mapping[str, TopicSpec]) -> dict[str, TopicFacts]:
    """What these topics are now.

    Args:
        specs: of the task's own tables.
    """
    lives: Mapping[str, Incarnation] = log.incarnations(topics)
    return {
        name: TopicFacts(life.id, life.partitions, specs[name].key if name in specs else ())
        for name, life in sorted(lives.items())
    }


def contradicted(known: Mapping[str, TopicFacts], now: Mapping[str, TopicFacts]) -> None:
    """Hold the topics of now to what a task has recorded of them.

    Raises:
        StateMismatch: another number of partitions, or another key, of the same incarnation.
    """
    for name, fact in sorted(now.items()):
        before = known.get(name)
        if before is None or before.id != fact.id:
            continue
        if before.partitions != fact.partitions:
            raise StateMismatch(
                f"{name} has {fact.partitions} partitions, and the state was recorded with {before.partitions}:"
                " keys would be looked for where they are not.",
                "Partitions are never changed in place: move to a new topic, and give it the rows of this one.",
            )
        if before.key and before.key != fact.key:
            raise StateMismatch(
                f"{name} has the key {'/'.join(fact.key)}, and its rows were recorded under {'/'.join(before.key)}.",
                "A key is never changed in place: move to a new topic, and give it the rows of this one.",
            )
