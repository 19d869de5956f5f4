"""Where a task is in its inputs: in what it reads now, and in what it has read and may read again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from qmtl.engine.entry import Find
from qmtl.engine.incarnation import Finding, Kind, facts_of, regressions
from qmtl.engine.log.port import Incarnation, Log, Positions, TopicPartition, partitions_of
from qmtl.engine.processor import Input
from qmtl.engine.stored import TopicFacts
from qmtl.foundation.common.errors import UnknownTopic
from qmtl.foundation.contracts.control import InputTopic
from qmtl.foundation.wire.topics import TopicSpec

_logger: Final = logging.getLogger(__name__)


class Places:
    """Positions of inputs, each with the life of the topic that it belongs to.

    An input that has gone keeps its position, in case it comes back, and as long as the log has its topic. Nobody holds the log to
    it meanwhile: what retention takes of it, or who makes its topic anew, takes nothing from a task that does not read it.

    Args:
        number: of the task.
        specs: what is known of a topic that is read.
        find: where a topic is entered that begins to be read.

    Attributes:
        positions: the next offset of every partition that is read, or has been.
        reads: the partitions that are read now.
        slept: the sources that are asleep, with the ends of their partitions that are read, in their order, as they fell asleep.
    """

    def __init__(
        self, log: Log, label: str, number: int, specs: Callable[[str], TopicSpec], find: Find
    ) -> None:
        self._log, self._label, self._number, self._specs, self._find = log, label, number, specs, find
        self.positions: dict[TopicPartition, int] = {}
        self.reads: tuple[TopicPartition, ...] = ()
        self._ids: dict[str, str] = {}
        self._held: frozenset[str] | None = None
        self.slept: dict[str, tuple[int, ...]] = {}
        self._told: tuple[object, tuple[InputTopic, ...]] | None = None
        self._cut_off: dict[TopicPartition, int] = {}

    def restored(self, positions: Positions, topics: Sequence[InputTopic]) -> None:
        """Go on from what the last transaction has left; nothing is read yet."""
        self.positions, self.reads = dict(positions), ()
        self._ids = {one.topic: one.id for one in topics if one.id}
        # A stamp of before there were topics in it leaves it open: then everything is held to.
        self._held = frozenset(one.topic for one in topics if one.read) if topics else None
        self.slept = {one.topic: one.slept for one in topics if one.slept}
        self._told = None
        cut_off = {one.topic: one.cut_off for one in topics if one.read}
        self._cut_off = {
            where: at
            for where, at in positions.items()
            if where.topic not in cut_off or where.partition in cut_off[where.topic]
        }

    def accepted(self, positions: Positions) -> None:
        """Go on from where an operator has decided; these positions belong to what the log was then."""
        changed = {where: at for where, at in positions.items() if self.positions.get(where) != at}
        self._begin_at(changed)
        for where in positions:
            self._ids.pop(where.topic, None)

    def facts(self, wheres: Iterable[TopicPartition]) -> Mapping[str, TopicFacts]:
        """What the topics of these partitions are now.

        Raises:
            UnknownTopic: one is no more.
        """
        try:
            return facts_of(self._log, {where.topic for where in wheres}, {})
        except UnknownTopic as error:
            raise UnknownTopic(
                f"{self._label} reads a topic that is no more: {error.what}",
                "Make it again, empty, and decide to go on from there with `qmtl worker accept`. A topic may be deleted once"
                " no task reads it (`qmtl lag`).",
            ) from None

    def check(
        self,
        wheres: Iterable[TopicPartition],
        known: Mapping[str, TopicFacts],
        now: Mapping[str, TopicFacts],
        committed: Positions | None = None,
    ) -> list[Finding]:
        """Hold the positions of these partitions to what the log has of them.

        Of a topic that the last transaction did not read everything is taken as it is, unless it was cut off.

        Args:
            known: what the store knows of topics, for those of which the positions don't tell.
            now: what the topics are; asked before, so that one that is made anew from now on is found.
            committed: the group's positions, where it has none but this task's.
        """
        reached = {where: self.positions[where] for where in wheres if where in self.positions}
        ids = {name: self._ids.get(name) or (known[name].id if name in known else "") for name in now}
        facts = {name: replace(now[name], id=one) for name, one in ids.items() if one}
        found = []
        for one in regressions(self._log, facts, reached):
            if not self._is_held(one.where) and one.kind in (Kind.REMADE, Kind.GONE):
                _logger.warning("%s reads again, from what is there now: %s", self._label, one)
                self._begin_at({one.where: one.begin})
            elif self._lost_a_marker(one, reached[one.where]):
                self.positions[one.where] = one.begin
            else:
                found.append(one)
        wrong = {one.where for one in found}
        for where, offset in sorted((committed or {}).items()):
            if self._is_held(where) and where not in wrong and reached.get(where) != offset:
                contained = f"the tables contain it up to {reached.get(where)}"
                found.append(Finding(Kind.MOVED, where, contained, f"committed {offset}", committed=offset))
        self._ids.update({name: fact.id for name, fact in now.items()})
        self._told = None
        return found

    def _is_held(self, where: TopicPartition) -> bool:
        return self._held is None or (where.topic in self._held and not self.is_cut_off(where))

    def _lost_a_marker(self, one: Finding, reached: int) -> bool:
        """Whether no record was lost: what is written in transactions ends with the marker of the last one. Of more than one offset
        nobody knows whether records lay there that were committed, or aborted ones."""
        is_last = one.kind is Kind.GONE and one.begin == one.end == reached + 1
        return is_last and self._specs(one.where.topic).transactional

    def take(self, found: Iterable[Finding]) -> None:
        """Read these from the first record that is there; one of which only the group's position was moved, as the tables say."""
        self._begin_at({one.where: one.begin for one in found if one.kind is not Kind.MOVED})

    def _begin_at(self, positions: Positions) -> None:
        """Read on from here, where no record was read before."""
        self.positions.update(positions)
        self._cut_off.update(positions)
        anew = {where.topic for where in positions}
        self.slept = {name: ends for name, ends in self.slept.items() if name not in anew}

    def partitions(self, one: Input) -> list[TopicPartition]:
        """What the task reads of this input."""
        if not one.broadcast:
            return [TopicPartition(one.topic, self._number)]
        return partitions_of(one.topic, self._specs(one.topic).partitions)

    def entries(self, inputs: Iterable[Input], bucket_ms: int) -> Positions:
        """Where to enter what begins to be read of these inputs once this bucket was closed: only where something is before it.

        Of a table everything is read, and of what is read late all up to its cut. A topic that comes back is entered behind the
        bucket too, if it is the one that was read; of any other `check` tells.
        """
        events = [
            one for one in inputs if one.bucketed and not one.lag and not self._specs(one.topic).compacted
        ]
        new = [where for one in events for where in self.partitions(one) if where not in self.reads]
        lives = self._lives({where.topic for where in new})
        new = [
            where for where in new if where.topic in lives and where.partition < lives[where.topic].partitions
        ]
        same = {name for name, life in lives.items() if life.id == self._ids.get(name)}
        new = [where for where in new if where not in self.positions or where.topic in same]
        found = self._find(new, bucket_ms)
        return {where: at for where, at in found.items() if at > self.positions.get(where, 0)}

    def _lives(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        """Those of these topics that are there: asked once for all of them, as a transaction is open meanwhile."""
        return self._log.incarnations(frozenset(self._log.topics()) & frozenset(topics)) if topics else {}

    def follow(
        self, wheres: Sequence[TopicPartition], begins: Positions, bucketed: Collection[str] = ()
    ) -> None:
        """Read these partitions from now on; positions of topics that are neither read nor there any more are forgotten."""
        read = frozenset(where.topic for where in wheres)
        self.reads, self._held = tuple(wheres), read
        self._begin_at({where: begins[where] for where in wheres if where not in self.positions})
        self._cut_off = {
            where: at
            for where, at in self._cut_off.items()
            if where not in begins or (where.topic in bucketed and 0 < at <= begins[where])
        }
        gone = {where.topic for where in self.positions} - read
        gone -= set(self._log.topics()) if gone else set()
        self.positions = {
            where: offset for where, offset in self.positions.items() if where.topic not in gone
        }
        self.slept = {name: ends for name, ends in self.slept.items() if name in read}
        self._told = None

    def is_cut_off(self, where: TopicPartition, reached: Positions | None = None) -> bool:
        """Whether what comes next may belong to a bucket of which retention took a part: nothing was read before it.

        Args:
            reached: where the task is; None, where it was after its last transaction.
        """
        at = self._cut_off.get(where)
        return at is not None and at == (self.positions if reached is None else reached).get(where)

    def has_given(self, where: TopicPartition, begin: int) -> bool:
        """Whether the task has taken a bucket of a partition, whatever retention has left of it."""
        at = self.positions[where]
        return at > begin or (at > 0 and not self.is_cut_off(where))

    def topics(self, inputs: tuple[Input, ...], reached: Positions | None = None) -> tuple[InputTopic, ...]:
        """What a stamp with these positions says of their topics, after which these are the inputs.

        A partition that is cut off is held to nothing until a bucket of it was taken: till then it begins with what is there, whenever.
        """
        cut_off = sorted(where for where in self._cut_off if self.is_cut_off(where, reached))
        asked = (inputs, cut_off, dict(self.slept))
        if self._told is None or self._told[0] != asked:
            reads = {where.topic for where in self.reads}
            staying = {one.topic: one.every_ms for one in inputs if one.topic in reads}
            names = sorted({where.topic for where in self.positions})
            told = tuple(
                InputTopic(
                    name,
                    self._ids.get(name, ""),
                    True,
                    staying[name],
                    self.slept.get(name, ()),
                    tuple(where.partition for where in cut_off if where.topic == name),
                )
                if name in staying
                else InputTopic(name, self._ids.get(name, ""), False)
                for name in names
            )
            self._told = (asked, told)
        return self._told[1]

    def told(self, reached: Positions, topics: Iterable[InputTopic]) -> Positions:
        """What the group is told: the positions of what was read and still is.

        Those of a topic that was deleted, the client would commit again and again until the transaction expires.
        """
        read = {one.topic for one in topics if one.read}
        return {where: reached[where] for where in self.reads if where.topic in read}
