"""The broker's side of the simulated log: topics, transaction coordinator, positions, groups, and what lies in the network.

Transactions are Kafka's as a client without KIP-890 meets them: the epoch of a producer goes up only when a writer is made
anew or when the cluster itself ends a transaction for its age, so a request that arrives late is refused by its epoch, and
only by that. One that carries the current epoch counts for whatever transaction is open then.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from qmtl.engine.log.port import (
    Incarnation,
    Positions,
    TopicDescription,
    TopicPartition,
    TopicStanding,
    described,
    partitions_of,
    require_same,
    standings,
)
from qmtl.engine.simulate.clock import Clock
from qmtl.engine.simulate.coverage import Coverage
from qmtl.engine.simulate.group import Group, Running, SimulatedFence
from qmtl.engine.simulate.network import Held, Request
from qmtl.engine.simulate.partition import Partition, Share
from qmtl.foundation.common.errors import (
    Fenced,
    InvariantBroken,
    TransactionAborted,
    UnknownTopic,
    UnstableOffsets,
)
from qmtl.foundation.wire.topics import Cleanup, TopicSpec

TRANSACTION_TIMEOUT_MS: Final = 15_000
MARKER_DELAY_MS: Final = 20
HELD_MS: Final = 60_000
IDLE_WAITS: Final = 20_000
"""So many waits in a row without anything written or read, and a run is stuck."""


class Stuck(InvariantBroken):
    """Somebody waits for something that never comes."""


@dataclass(slots=True)
class Topic:
    """A topic with its partitions and configuration.

    Attributes:
        number: how many topics were made before.
    """

    name: str
    config: dict[str, str]
    partitions: list[Partition]
    number: int

    @property
    def compacted(self) -> bool:
        return self.config["cleanup.policy"] == Cleanup.COMPACT.value


@dataclass(slots=True)
class Producer:
    """What the coordinator knows of a transactional id.

    Attributes:
        since_ms: when the open transaction began; None where none is open.
        shares: what the open transaction has in each partition.
        offsets: the positions in it, by group.
        tags: which transactions of clients have put something into it: one, unless something is wrong.
        ending: an end that is decided, whose markers are not all written; whether it commits, and when they come.
        sequence: the next batch that each partition takes of this epoch.
    """

    id: str
    epoch: int = 0
    since_ms: int | None = None
    timeout_ms: int = TRANSACTION_TIMEOUT_MS
    shares: dict[TopicPartition, Share] = field(default_factory=dict)
    offsets: dict[str, dict[TopicPartition, int]] = field(default_factory=dict)
    tags: dict[int, None] = field(default_factory=dict)
    ending: tuple[bool, int] | None = None
    sequence: dict[TopicPartition, int] = field(default_factory=dict)


class Cluster:
    """The whole cluster; deterministic, and nothing happens in it but in answer to a call.

    Attributes:
        held: requests on their way.
        coverage: what has happened that is worth knowing of.
        asked: the transactions of clients that a client has asked to commit.
        torn: what contradicts "all of a transaction or nothing", in words.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.topics: dict[str, Topic] = {}
        self.held: list[Held] = []
        self.coverage = Coverage()
        self.asked: dict[int, None] = {}
        self.torn: list[str] = []
        self.positions: dict[str, dict[TopicPartition, int]] = {}
        self._producers: dict[str, Producer] = {}
        self._groups: dict[str, Group] = {}
        self._tags = 0
        self._idle = 0
        self._made = 0

    # ---- topics -----------------------------------------------------------------------------------------------------

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        for spec in specs:
            known = self.topics.get(spec.name)
            if known is None:
                self.create_topic(described(spec))
            else:
                require_same(described(spec), len(known.partitions), known.config)

    def create_topic(self, wanted: TopicDescription) -> None:
        """Make a topic, unless there is one of the name."""
        if wanted.name not in self.topics:
            partitions = [Partition(where) for where in partitions_of(wanted.name, wanted.partitions)]
            self.topics[wanted.name] = Topic(wanted.name, dict(wanted.config), partitions, self._made)
            self._made += 1

    def delete_topic(self, name: str) -> None:
        """Forget a topic, if there is one of the name, and every position in it, of an open transaction too."""
        if self.topics.pop(name, None) is None:
            return
        for producer in self._producers.values():
            for where in [one for one in producer.shares if one.topic == name]:
                del producer.shares[where]
        offsets = [of for one in self._producers.values() for of in one.offsets.values()]
        for positions in (*self.positions.values(), *offsets):
            for where in [one for one in positions if one.topic == name]:
                del positions[where]

    def describe(self, name: str) -> TopicDescription | None:
        known = self.topics.get(name)
        return None if known is None else TopicDescription(name, len(known.partitions), 1, dict(known.config))

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        there = {name: found for name in self.topics if (found := self.describe(name)) is not None}
        return standings(names, there)

    def incarnation(self, name: str) -> Incarnation:
        """
        Raises:
            UnknownTopic: no such topic.
        """
        known = self.topics.get(name)
        if known is None:
            raise UnknownTopic(f"the log has no topic {name!r}.", "Create it first.")
        return Incarnation(f"simulated-{known.number}", len(known.partitions))

    def partition(self, where: TopicPartition) -> Partition:
        """
        Raises:
            UnknownTopic: no such partition.
        """
        known = self.topics.get(where.topic)
        if known is None or not 0 <= where.partition < len(known.partitions):
            raise UnknownTopic(
                f"the log has no partition {where.partition} of topic {where.topic!r}.", "Create it first."
            )
        return known.partitions[where.partition]

    def partitions(self) -> list[Partition]:
        """Every partition, by topic and number."""
        return [one for _, topic in sorted(self.topics.items()) for one in topic.partitions]

    # ---- time -------------------------------------------------------------------------------------------------------

    def pass_ms(self, ms: int) -> None:
        """Let time pass, and what comes of it: markers, late requests, transactions and sessions that end."""
        now = self.clock.pass_ms(ms)
        for producer in self._producers.values():
            if producer.ending is not None and producer.ending[1] <= now:
                self._finish(producer)
            if producer.since_ms is not None and now - producer.since_ms > producer.timeout_ms:
                if producer.ending is None:
                    producer.epoch += 1
                    producer.sequence.clear()
                    self._decide(producer, commit=False)
                    self.coverage.note("a transaction ended for its age")
                self._finish(producer)
        for one in [held for held in self.held if held.due_ms <= now]:
            self.arrive(one)
        for group in self._groups.values():
            for _ in group.pass_time(now):
                self.coverage.note("a member lost its place by time")

    def wait(self, ms: int) -> None:
        """Let time pass because there is nothing to do.

        Raises:
            Stuck: nothing has been written or read for very long.
        """
        self._idle += 1
        if self._idle > IDLE_WAITS:
            raise Stuck(f"nothing was read or written over {IDLE_WAITS} waits in a row.")
        self.pass_ms(max(ms, 1))

    def progressed(self) -> None:
        """Something was read or written."""
        self._idle = 0

    def arrive(self, held: Held) -> None:
        """Let a request arrive that was on its way."""
        self.held.remove(held)
        applied = held.arrive()
        self.coverage.note(f"late {held.request.value} {'applied' if applied else 'refused'}")

    def hold(self, request: Request, arrive: Callable[[], bool]) -> None:
        """Keep a request on its way."""
        self.held.append(Held(request, arrive, self.clock.now_ms + HELD_MS))

    # ---- transactions -----------------------------------------------------------------------------------------------

    def new_tag(self) -> int:
        """A number for the transaction that a client begins."""
        self._tags += 1
        return self._tags

    def init(self, producer_id: str, timeout_ms: int = TRANSACTION_TIMEOUT_MS) -> int:
        """A new epoch of a transactional id, after everything that was open under it is ended."""
        producer = self._producers.setdefault(producer_id, Producer(producer_id))
        if producer.since_ms is not None:
            if producer.ending is None:
                self._decide(producer, commit=False)
                self.coverage.note("a new writer ended an open transaction")
            self._finish(producer)
        producer.epoch += 1
        producer.timeout_ms = timeout_ms
        producer.sequence.clear()
        return producer.epoch

    def is_current(self, producer_id: str, epoch: int) -> bool:
        return self._producers[producer_id].epoch == epoch

    def produce(
        self,
        producer_id: str,
        epoch: int,
        tag: int,
        where: TopicPartition,
        rows: Sequence[tuple[bytes, bytes | None]],
        sequence: int,
    ) -> int:
        """Append a batch; returns the offset of its last record.

        Args:
            sequence: how many records this epoch has sent to the partition before.

        Raises:
            Fenced: the epoch is not the current one.
            TransactionAborted: a batch before this one never arrived.
        """
        producer = self._the_one(producer_id, epoch)
        partition = self.partition(where)
        if sequence != producer.sequence.get(where, 0):
            raise TransactionAborted(f"{where} got a batch out of sequence.")
        self._begin(producer, tag)
        share = producer.shares.get(where)
        if share is None:
            share = producer.shares[where] = partition.open_share()
        for key, value in rows:
            partition.append(share, key, value, self.clock.now_ms)
        producer.sequence[where] = sequence + len(rows)
        self.progressed()
        return partition.end - 1

    def add_offsets(
        self, producer_id: str, epoch: int, tag: int, positions: Positions, fence: SimulatedFence
    ) -> None:
        """Take positions into the open transaction.

        Raises:
            Fenced: the epoch is not the current one.
            TransactionAborted: the group refuses the fence.
        """
        producer = self._the_one(producer_id, epoch)
        if not self._groups[fence.group].takes(fence):
            self.coverage.note("a stale fence was refused")
            raise TransactionAborted(f"group {fence.group!r} has a newer generation.")
        self._begin(producer, tag)
        producer.offsets.setdefault(fence.group, {}).update(positions)

    def end(self, producer_id: str, epoch: int, *, commit: bool, dawdle: bool = False) -> None:
        """Decide the open transaction; its markers are written at once, or some time later.

        Raises:
            Fenced: the epoch is not the current one.
        """
        producer = self._the_one(producer_id, epoch)
        if producer.since_ms is None or producer.ending is not None:
            return
        self._decide(producer, commit=commit)
        if not dawdle:
            self._finish(producer)

    def _the_one(self, producer_id: str, epoch: int) -> Producer:
        producer = self._producers[producer_id]
        if producer.epoch != epoch:
            self.coverage.note("an old epoch was refused")
            raise Fenced(f"transactional id {producer_id!r} belongs to a newer writer.", "This one stops.")
        return producer

    def _begin(self, producer: Producer, tag: int) -> None:
        if producer.ending is not None:
            self._finish(producer)  # the client asks again and again until the last markers are written
        if producer.since_ms is None:
            producer.since_ms = self.clock.now_ms
        producer.tags[tag] = None

    def _decide(self, producer: Producer, *, commit: bool) -> None:
        producer.ending = (commit, self.clock.now_ms + MARKER_DELAY_MS)
        if not commit:
            return
        if len(producer.tags) > 1:
            self.torn.append(f"{producer.id}: {len(producer.tags)} transactions of its client became one.")
        self.torn += [
            f"{producer.id}: a transaction was committed before its client asked for it."
            for tag in producer.tags
            if tag not in self.asked
        ]

    def _finish(self, producer: Producer) -> None:
        """Write the markers of a decided end, and show its positions."""
        if producer.ending is None:
            return
        commit = producer.ending[0]
        for where, share in producer.shares.items():
            self.partition(where).end_share(share, self.clock.now_ms, commit=commit)
        if commit:
            for group, positions in producer.offsets.items():
                self.positions.setdefault(group, {}).update(positions)
        producer.ending = producer.since_ms = None
        producer.shares, producer.offsets, producer.tags = {}, {}, {}
        self.progressed()

    # ---- positions and groups ---------------------------------------------------------------------------------------

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        """The committed positions; waits while a transaction is open or unfinished that may change one.

        Raises:
            UnstableOffsets: it is that for `wait_s` already.
        """
        until_ms = None if wait_s is None else self.clock.now_ms + wait_s * 1e3
        while any(
            where in one.offsets.get(group, {}) for one in self._producers.values() for where in partitions
        ):
            if until_ms is not None and self.clock.now_ms >= until_ms:
                raise UnstableOffsets(f"a transaction with positions of {group!r} has not ended.")
            self.wait(50)
        known = self.positions.get(group, {})
        return {where: known[where] for where in partitions if where in known}

    def group(self, name: str, anchor: str) -> Group:
        """
        Raises:
            UnknownTopic: no topic of the anchor's name.
        """
        known = self.topics.get(anchor)
        if known is None:
            raise UnknownTopic(f"the log has no topic {anchor!r}.", "Create the topics first.")
        return self._groups.setdefault(name, Group(name, len(known.partitions)))

    def enter(self, group: Group, member: str, process: Running) -> int:
        """Join a group; returns the incarnation."""
        return group.enter(member, process, self.clock.now_ms)

    def give_away(self, group: str, member: str) -> None:
        """A group gives a member's place to a repeated request of the same name."""
        if group in self._groups:
            self._groups[group].give_away(member)

    def groups(self) -> Mapping[str, Group]:
        return self._groups

    # ---- cleaning ---------------------------------------------------------------------------------------------------

    def compact(self, where: TopicPartition, position: int) -> int:
        """Compact one partition up to a cleaner position; returns how many entries went.

        The position is taken back to what the topic's `min.compaction.lag.ms` allows.
        """
        topic, partition = self.topics[where.topic], self.partition(where)
        limit = partition.cleanable(self.clock.now_ms, int(topic.config["min.compaction.lag.ms"]))
        gone, tombstones = partition.compact(
            min(position, limit), self.clock.now_ms, int(topic.config["delete.retention.ms"])
        )
        if gone:
            self.coverage.note("compaction took records")
        if tombstones:
            self.coverage.note("compaction took tombstones")
        return gone

    def retain(self, where: TopicPartition, position: int) -> bool:
        """Drop what lies before a position of a topic that is not compacted; says whether anything went."""
        moved = not self.topics[where.topic].compacted and self.partition(where).trim(position)
        if moved:
            self.coverage.note("retention took records")
        return moved
