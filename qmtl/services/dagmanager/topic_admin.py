"""The effect beside the DAG Manager: makes, archives and removes the topics that were asked for, and reports what it found.

A task is done in rounds of CREATE_TOPICS → VERIFY → WAIT → BACKOFF: the request is made, the cluster's metadata are looked at until they
show every partition with a leader and the configuration that was asked for, and where they don't within the time of the round, the next
round makes the request anew and waits twice as long. There are `ROUNDS` of them, with 0.5, 1, 2, 4 and 4 s; a removal has the same, and
looks until the topic is gone. What they leave undone is reported as such.

Only what the metadata show is reported. A cluster that does not answer is no round: the transaction fails as unreachable, so its tasks are
read again, by the worker's own growing intervals, and nothing is told of them meanwhile. Nor are the rounds held in one transaction,
which is not to last: a turn ends before it has waited for longer than `TURN_S`, as a transaction that fails, and the next one goes on with
the round that is due. How many rounds a topic has had is all that is remembered, by the process alone; whoever is started again begins anew
with the first. Every request may be repeated: a topic that is there as it was asked for is made, and one that is not there is removed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final, Protocol, TypeAlias, TypeVar, assert_never

from qmtl.engine.archive.port import Archived
from qmtl.engine.log.port import TopicDescription, Topics, TopicStanding, require_same
from qmtl.engine.processor import Arrival, Bucket, Input, Step
from qmtl.engine.table import Table
from qmtl.foundation.common.errors import (
    InvariantBroken,
    LogError,
    LogUnreachable,
    NoArchive,
    QmtlError,
    TopicChanged,
    TopicCollision,
    TopicMismatch,
    TopicProtected,
    TopicUnsettled,
    UnknownTopic,
)
from qmtl.foundation.common.names import look
from qmtl.foundation.contracts.dag import (
    CreateTopic,
    RemoveTopic,
    ReportTopicCreated,
    ReportTopicRemoved,
    TopicReport,
    TopicTask,
)
from qmtl.foundation.contracts.retention import ArchiveTopic, ReportTopicArchived
from qmtl.foundation.wire.topics import CATALOGUE, TopicSpec

ROUNDS: Final = 5
"""The seed names four steps and calls them five: the fifth is the request again, so there are five rounds."""
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 4.0
TURN_S: Final = 4.0
"""A transaction waits no longer, and has time left for its commit."""
LOOK_S: Final = 0.05
"""Between two looks at the metadata."""

_NAMED: Final = 3
_KEPT: Final = frozenset(spec.name for spec in CATALOGUE)


class Archive(Protocol):
    """Stores topics that nobody writes any more, and says whether they may go."""

    def __call__(self, topic: str) -> Archived:
        """Store everything that is in a topic, and read it back.

        It is asked again after a transaction that failed, perhaps for want of time: what is stored is not stored again but looked
        up, so that a repetition is short; it says the same of a topic that is gone since.

        Raises:
            UnknownTopic: no such topic, and nothing was stored of it.
            QmtlError: it is not stored.
        """

    def check(self, topic: str, where: str) -> None:
        """Make sure that an archive is there, reading all of it, and that its topic has nothing that it lacks.

        Args:
            where: as it was told of when the topic was stored.

        Raises:
            UnknownTopic: the topic is gone.
            TopicChanged: it has something that the archive has not.
            QmtlError: the archive is not what was stored, or can't be read; the topic stays.
        """


class BrokerLoad(Protocol):
    """Knows how busy the brokers are."""

    def percent(self) -> int:
        """The busiest one, of what it is said to bear; 0 where that is not known. Takes a second at most, and raises nothing."""

    def failures(self) -> Mapping[str, int]:
        """How often it could not be found out, by the cause."""


class Trouble(Enum):
    """What keeps a topic from being made or removed at once; each is tried again."""

    UNREACHABLE = "unreachable"
    """Neither a broker nor the controller answers."""
    REFUSED = "refused"
    UNSETTLED = "unsettled"
    """A round ended before the metadata showed what was asked for."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How the effect waits, how many rounds each topic has had so far in this process, and what it has met.

    Attributes:
        clock: seconds that only go forward.
        met: how often; another thread reads it.
    """

    wait: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    rounds: dict[str, int] = field(default_factory=dict)
    met: dict[Trouble, int] = field(default_factory=lambda: dict.fromkeys(Trouble, 0))


class _TurnOver(LogUnreachable):
    """The cluster answers, and more of its time is needed than a transaction has."""


_Report = TypeVar(
    "_Report", ReportTopicCreated, ReportTopicRemoved
)  # of what is asked of the cluster in rounds
_Refused: TypeAlias = Mapping[str, LogError]


class TopicAdmin:
    """Turns each task into a topic that is there, archived or gone, and a report.

    Tasks of one transaction are done together: one request removes all topics that are to go, another one makes all that are missing.

    Args:
        topics: of the log.
        archive: of topics that are not to be lost; None where there is none, and they stay.
        patience: outlives the processor, which is made anew after a transaction that failed.
        load: is written into the report of each archive and removal; None where nobody measures it.
    """

    name = "topicadmin"
    anchor = "dag.tasks"
    tables = ()
    emits = ("dag.reports",)

    def __init__(
        self,
        topics: Topics,
        archive: Archive | None = None,
        patience: Patience | None = None,
        load: BrokerLoad | None = None,
    ) -> None:
        self._topics = topics
        self._archive = archive
        self._load = load
        self._patience = patience or Patience()
        self._tasks: dict[str, TopicTask] = {}

    def inputs(self) -> tuple[Input, ...]:
        return (Input("dag.tasks"),)

    def closes(self) -> tuple[TopicSpec, ...]:
        return ()

    def topics(self) -> Mapping[str, TopicSpec]:
        return {}

    def restore(self, tables: Mapping[str, Table]) -> None:
        """Forget what was gathered: it is read again."""
        self._tasks.clear()

    def on_bucket(self, step: Step, bucket: Bucket) -> None:
        raise InvariantBroken("the topic admin has no bucketed input.")

    def on_record(self, step: Step, arrival: Arrival) -> None:
        task: TopicTask = arrival.message
        # Of two rows of a topic the newer one counts, as it does for the cleaner.
        self._tasks.pop(task.topic, None)
        self._tasks[task.topic] = task

    def flush(self, step: Step) -> None:
        """Do what was gathered, and report it in the order in which it was asked for.

        What is to go goes first: that does not depend on what is made then, and so is found the same by whoever repeats all.

        Raises:
            LogUnreachable: nobody answers, or the turn is over.
            MissingRight: this client may not make or delete topics.
        """
        tasks, self._tasks = self._tasks, {}
        creating, removing, storing = list[CreateTopic](), list[RemoveTopic](), list[ArchiveTopic]()
        for task in tasks.values():
            match task:
                case CreateTopic():
                    creating.append(task)
                case RemoveTopic():
                    removing.append(task)
                case ArchiveTopic():
                    storing.append(task)
                case _:
                    assert_never(task)
        try:
            percent = self._load.percent() if (removing or storing) and self._load is not None else 0
            reports: dict[str, TopicReport] = {
                **self._remove(removing, percent),
                **self._create(creating),
                **{task.topic: self._store(task, percent) for task in storing},
            }
        except _TurnOver:
            raise
        except LogUnreachable:
            self._patience.met[Trouble.UNREACHABLE] += 1
            raise
        for topic in tasks:
            step.emit("dag.reports", reports[topic])

    # ---- making ---------------------------------------------------------------------------------------------------

    def _create(self, tasks: Sequence[CreateTopic]) -> Mapping[str, ReportTopicCreated]:
        wanted = {
            task.topic: TopicDescription(task.topic, task.partitions, task.replication, task.config)
            for task in tasks
        }

        # Of two that look alike the first that was asked for is made, and the other never, whatever becomes of the first.
        first = {look(name): name for name in reversed(wanted)}
        twins = {name: first[look(name)] for name in wanted if first[look(name)] != name}

        def request(names: Sequence[str]) -> _Refused:
            standing = self._topics.look_up(names)
            alone = [name for name in names if name not in twins and not standing[name].lookalike]
            return self._topics.create_topics(
                [wanted[name] for name in alone if standing[name].found is None]
            )

        def verify(name: str, there: TopicStanding, refusal: LogError | None) -> ReportTopicCreated | None:
            if there.found is None:
                if other := there.lookalike or twins.get(name):
                    return _not_created(name, _collision(name, other))
                return None if refusal is None else _not_created(name, refusal)
            if not there.led:
                return None
            try:
                require_same(wanted[name], there.found.partitions, there.found.config)
            except TopicMismatch as error:
                return _not_created(name, error)
            return ReportTopicCreated(name, True, "", "")

        def give_up(name: str) -> ReportTopicCreated:
            what = "does not show with a leader for every partition"
            return _not_created(name, _unsettled(name, what))

        return self._rounds(list(wanted), request, verify, give_up)

    # ---- archiving ------------------------------------------------------------------------------------------------

    def _store(self, task: ArchiveTopic, percent: int) -> ReportTopicArchived:
        """
        Raises:
            LogUnreachable: nobody answers.
        """
        topic, number = task.topic, task.number
        try:
            kept = self._archives(topic)(topic)
        except LogUnreachable:
            raise
        except QmtlError as error:
            is_gone = isinstance(error, UnknownTopic) and self._is_gone(topic)
            return ReportTopicArchived(
                topic, number, is_gone, error.code, error.what, broker_load_percent=percent
            )
        return ReportTopicArchived(
            topic, number, True, "", "", kept.where, kept.records, kept.digest, percent
        )

    def _archives(self, topic: str) -> Archive:
        """
        Raises:
            NoArchive: there is none.
        """
        if self._archive is None:
            raise NoArchive(
                f"topic {topic!r} is archived before it goes, and there is no archive.", "Configure one."
            )
        return self._archive

    # ---- removing -------------------------------------------------------------------------------------------------

    def _remove(self, tasks: Sequence[RemoveTopic], percent: int) -> Mapping[str, ReportTopicRemoved]:
        out, gone = dict[str, ReportTopicRemoved](), dict[str, ReportTopicRemoved]()
        for task in tasks:
            try:
                gone[task.topic] = self._before_it_goes(task)
            except LogUnreachable:
                raise
            except QmtlError as error:
                if isinstance(error, UnknownTopic) and self._is_gone(task.topic):  # nothing is left to lose
                    gone[task.topic] = _gone(task, error)
                else:
                    out[task.topic] = _not_removed(task.topic, error)
            else:
                if task.archive:  # at once: what is written behind an archive is in none
                    self._topics.delete_topics([task.topic])

        def verify(name: str, there: TopicStanding, refusal: LogError | None) -> ReportTopicRemoved | None:
            if there.found is None:
                return gone[name]
            return None if refusal is None else _not_removed(name, refusal)

        def give_up(name: str) -> ReportTopicRemoved:
            return _not_removed(name, _unsettled(name, "is still there"))

        out |= self._rounds(list(gone), self._topics.delete_topics, verify, give_up)
        return {name: replace(report, broker_load_percent=percent) for name, report in out.items()}

    def _is_gone(self, topic: str) -> bool:
        return self._topics.look_up([topic])[topic].found is None

    def _before_it_goes(self, task: RemoveTopic) -> ReportTopicRemoved:
        """What is to be reported once a topic is gone.

        Raises:
            TopicProtected: nobody removes it.
            NoArchive: nobody can read its archive.
            TopicChanged: it has something that its archive has not.
            UnknownTopic: it is to be archived, and gone.
            QmtlError: its archive is not what was stored.
        """
        topic = task.topic
        if topic in _KEPT or topic.startswith("__"):
            raise TopicProtected(
                f"topic {topic!r} belongs to the catalogue or to the cluster.",
                "Only topics of nodes are removed.",
            )
        if not task.archive:
            return ReportTopicRemoved(topic, True, "", "")
        archives, kept = self._archives(topic), task.archived
        if kept is None or not kept.url:
            if self._is_gone(topic):
                raise UnknownTopic(f"the log has no topic {topic!r}.", "Nothing is left to be removed.")
            raise TopicChanged(
                f"topic {topic!r} is archived before it goes, and is not yet.",
                "It is archived, and goes then.",
            )
        archives.check(topic, kept.url)
        return ReportTopicRemoved(topic, True, "", "", kept.url, kept.records, kept.digest)

    # ---- rounds ---------------------------------------------------------------------------------------------------

    def _rounds(
        self,
        names: Sequence[str],
        request: Callable[[Sequence[str]], _Refused],
        verify: Callable[[str, TopicStanding, LogError | None], _Report | None],
        give_up: Callable[[str], _Report],
    ) -> dict[str, _Report]:
        """One report per name.

        Args:
            request: makes the request for the names that are left; what is refused, and why.
            verify: what the metadata say of a name, and why its request was refused; None where that is not known yet.
            give_up: what to report after the last round.
        """
        had, began = self._patience.rounds, self._patience.clock()
        out: dict[str, _Report] = {}
        left, here = list(names), 0
        while left:
            within_s = max(_wait_s(had.get(name, 0)) for name in left)
            if here and self._patience.clock() - began + within_s > TURN_S:
                raise _later(left, 1 + max(had.get(name, 0) for name in left))
            here += 1
            refused = request(left)
            self._patience.met[Trouble.REFUSED] += len(refused)
            until = self._patience.clock() + within_s
            while True:
                found = self._topics.look_up(left)
                for name in left:
                    if (report := verify(name, found[name], refused.get(name))) is not None:
                        out[name] = report
                left = [name for name in left if name not in out]
                if not left or self._patience.clock() >= until:
                    break
                self._patience.wait(LOOK_S)
            for name in left:
                self._patience.met[Trouble.UNSETTLED] += 1
                had[name] = had.get(name, 0) + 1
                if had[name] >= ROUNDS:
                    out[name] = give_up(name)
            left = [name for name in left if name not in out]
        for name in names:
            had.pop(name, None)
        return out


def _wait_s(rounds: int) -> float:
    """How long the round after so many waits; one that has had all of them is only looked at."""
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**rounds) if rounds < ROUNDS else 0.0


def _later(names: Sequence[str], number: int) -> _TurnOver:
    shown = ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
    return _TurnOver(
        f"the cluster has not done yet what was asked of it for {shown}; round {number} of {ROUNDS} comes next.",
        "It goes on by itself; check that the cluster has all of its brokers.",
    )


def _collision(name: str, other: str) -> TopicCollision:
    return TopicCollision(
        f"topic {name!r} was not made: there is, or is asked for, {other!r}, which differs by case, or by '.', '_' and '-', alone.",
        "Its node gets the next name; remove the other topic if nobody needs it.",
    )


def _unsettled(name: str, what: str) -> TopicUnsettled:
    return TopicUnsettled(f"topic {name!r} {what} after {ROUNDS} requests.", "Check the cluster.")


def _gone(task: RemoveTopic, error: UnknownTopic) -> ReportTopicRemoved:
    """Of a topic that is to be archived before it goes and is gone: by a request whose report nobody has made, or by somebody else."""
    kept = task.archived
    if kept is None or not kept.url:
        return ReportTopicRemoved(task.topic, True, error.code, error.what)
    return ReportTopicRemoved(task.topic, True, "", "", kept.url, kept.records, kept.digest)


def _not_created(name: str, error: QmtlError) -> ReportTopicCreated:
    return ReportTopicCreated(name, False, error.code, error.what)


def _not_removed(name: str, error: QmtlError) -> ReportTopicRemoved:
    return ReportTopicRemoved(name, False, error.code, error.what)
