"""The simulated log through the eyes of one client process: the whole port, on a `Cluster` in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from qmtl.engine.failpoint import passing
from qmtl.engine.log.port import (
    MESSAGE_MAX_BYTES,
    Columns,
    Fence,
    Group,
    GroupState,
    Incarnation,
    Member,
    Positions,
    Record,
    TopicDescription,
    TopicPartition,
    TopicStanding,
    columns_of,
)
from qmtl.engine.simulate.cluster import TRANSACTION_TIMEOUT_MS, Cluster
from qmtl.engine.simulate.group import UNKNOWN_GENERATION, SimulatedFence
from qmtl.engine.simulate.network import Dawdle, Fate, Process, Refuse, Request
from qmtl.foundation.common.errors import (
    Fenced,
    InvariantBroken,
    LogError,
    MembershipLost,
    OffsetGone,
    OutcomeUnknown,
    TooLarge,
    TransactionAborted,
    UnknownTopic,
)
from qmtl.foundation.wire.topics import TopicSpec

Row = tuple[bytes, bytes | None]


class SimulatedLog:
    """One process's client of a cluster.

    Args:
        cluster: shared by all processes; None makes an empty one.
        process: who asks; None is somebody who never dies.
    """

    def __init__(self, cluster: Cluster | None = None, process: Process | None = None) -> None:
        self.cluster = cluster if cluster is not None else Cluster()
        self.process = process if process is not None else Process("somebody")
        self.transaction_timeout_ms = TRANSACTION_TIMEOUT_MS

    @property
    def log_id(self) -> str:
        return "simulated"

    def now_ms(self) -> int:
        """The simulated time; each look at it takes a millisecond."""
        self.ask()
        return self.cluster.clock.now_ms

    def ask(self) -> None:
        """Every request takes a millisecond.

        Raises:
            Died: the process was killed.
        """
        self.process.must_live()
        self.cluster.pass_ms(1)

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        self.ask()
        self.cluster.ensure_topics(specs)

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        self.ask()
        return self.cluster.look_up(names)

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        self.ask()
        for one in wanted:
            self.cluster.create_topic(one)
        return {}

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        self.ask()
        for name in names:
            self.cluster.delete_topic(name)
        return {}

    def describe(self, topic: str) -> TopicDescription | None:
        self.ask()
        return self.cluster.describe(topic)

    def incarnations(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        self.ask()
        return {name: self.cluster.incarnation(name) for name in topics}

    def topics(self) -> list[str]:
        self.ask()
        return sorted(self.cluster.topics)

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        self.ask()
        return {where: self.cluster.partition(where).begin for where in partitions}

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        self.ask()
        return {where: self.cluster.partition(where).end for where in partitions}

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        self.ask()
        return {where: self.cluster.partition(where).stable for where in partitions}

    def offsets_at_time(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Positions:
        self.ask()
        return {where: self.cluster.partition(where).first_at(timestamp_ms) for where in partitions}

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        self.ask()
        return self.cluster.committed(group, partitions, wait_s)

    def members(self, group: str) -> Group:
        self.ask()
        known = self.cluster.groups().get(group)
        shares = {} if known is None else known.shares()
        if not shares or known is None:
            return Group(GroupState.EMPTY)
        state = GroupState.RUNNING if known.preparing_since_ms is None else GroupState.REBALANCING
        return Group(state, tuple(Member(name, "simulated", tasks) for name, tasks in sorted(shares.items())))

    def reader(self) -> SimulatedReader:
        self.process.must_live()
        return SimulatedReader(self)

    def writer(self, transactional_id: str) -> SimulatedWriter:
        self.ask()
        return SimulatedWriter(self, transactional_id)

    def membership(self, group: str, member: str, anchor: str) -> SimulatedMembership:
        self.ask()
        return SimulatedMembership(self, group, member, anchor)

    def close(self) -> None:
        """Nothing is held."""


class SimulatedReader:
    """Reads committed records; how a poll is split, and in which order partitions come, is the process's chance."""

    def __init__(self, log: SimulatedLog) -> None:
        self._log = log
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()

    def assign(self, positions: Positions) -> None:
        self._log.begin_offsets(positions)
        self._positions = dict(sorted(positions.items()))
        self._paused = frozenset()

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        self._paused = frozenset(partitions)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        self._log.ask()
        out = self._read(max_records)
        if not out and timeout_s > 0:
            self._log.cluster.wait(int(timeout_s * 1000))
            out = self._read(max_records)
        return out

    def poll_columns(self, max_records: int, timeout_s: float, ends: Positions) -> list[Columns]:
        return columns_of(self.poll(max_records, timeout_s), ends)

    def _read(self, max_records: int) -> list[Record]:
        process = self._log.process
        left = process.portion(max_records)
        wheres = [where for where in self._positions if where not in self._paused]
        if process.chance is not None:
            process.chance.shuffle(wheres)
        out: list[Record] = []
        for where in wheres:
            position = self._positions[where]
            partition = self._log.cluster.partition(where)
            if position > partition.end:
                raise OffsetGone(
                    f"position {position} of {where} lies past the end {partition.end}: the log is shorter than it was."
                )
            if position < partition.begin:
                raise OffsetGone(f"position {position} of {where} lies before the first record that is kept.")
            if len(out) < left:
                found, self._positions[where] = partition.read(position, left - len(out))
                out += found
        if out:
            self._log.cluster.progressed()
        return out

    def positions(self) -> Positions:
        return dict(self._positions)

    def close(self) -> None:
        self._positions = {}


class SimulatedWriter:
    """A transactional producer: its records travel to the log at once, and the end of a transaction is a request."""

    def __init__(self, log: SimulatedLog, transactional_id: str) -> None:
        self._log = log
        self._cluster = log.cluster
        self._id = transactional_id
        self._open = False
        self._problem: TransactionAborted | Fenced | None = None
        self._tracked: dict[TopicPartition, int] = {}
        self._sent: dict[TopicPartition, int] = {}
        self._tag = 0
        self._mute = False
        timeout_ms = log.transaction_timeout_ms
        lost = log.process.lost(Request.INIT)
        if lost is not None:
            self._lose(Request.INIT, lost.fate, lambda: bool(self._cluster.init(self._id, timeout_ms)))
            raise self._unknown(f"nobody knows whether {transactional_id!r} has a new epoch.")
        self._epoch = self._cluster.init(transactional_id, timeout_ms)

    def begin(self) -> None:
        self._log.process.must_live()
        if self._open:
            raise InvariantBroken(f"transaction {self._id!r} is already open.")
        self._open, self._problem, self._mute = True, None, False
        self._tracked = {}
        self._tag = self._cluster.new_tag()

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, *, track: bool = False
    ) -> None:
        process = self._log.process
        process.must_live()
        if not self._open:
            raise InvariantBroken(f"transaction {self._id!r} is not open.")
        where = TopicPartition(topic, partition)
        self._cluster.partition(where)
        if len(key) + len(value or b"") > MESSAGE_MAX_BYTES:
            raise TooLarge(
                f"a record for {topic} was larger than {MESSAGE_MAX_BYTES} bytes.", "Send less at a time."
            )
        if self._problem is not None or self._mute:
            return  # the client queues it; what is wrong is told at the commit
        sequence = self._sent.get(where, 0)
        self._sent[where] = sequence + 1
        produce = self._producing(where, (key, value), sequence)
        lost = process.lost(Request.PRODUCE)
        if lost is not None:
            # Later batches wait for this one to be acknowledged, and the transaction fails when that takes too long.
            self._mute = True
            self._lose(Request.PRODUCE, lost.fate, lambda: produce() >= 0)
            return
        try:
            offset = produce()
        except (TransactionAborted, Fenced) as error:
            self._problem = error
            return
        if track:
            self._tracked[where] = offset

    def _producing(self, where: TopicPartition, row: Row, sequence: int) -> Callable[[], int]:
        epoch, tag = self._epoch, self._tag
        return lambda: self._cluster.produce(self._id, epoch, tag, where, [row], sequence)

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        if not self._open:
            raise InvariantBroken(f"transaction {self._id!r} is not open.")
        self._log.ask()
        try:
            self._flush()
            passing("after_flush")
            if positions:
                self._send_positions(positions, group, fence)
            passing("inside_commit")
            self._log.ask()
            self._end()
        except TransactionAborted:
            self._note("a transaction was aborted")
            self.abort()
            raise
        self._open = False
        return dict(self._tracked)

    def _flush(self) -> None:
        if self._problem is not None:
            raise self._problem
        if self._mute:
            # The client aborts what timed out, and takes a new epoch, as nobody knows what the cluster has.
            self._cluster.end(self._id, self._epoch, commit=False)
            self._renew()
            raise TransactionAborted("a batch was not acknowledged in time.")

    def _renew(self) -> None:
        if not self._cluster.is_current(self._id, self._epoch):
            raise Fenced(f"transactional id {self._id!r} belongs to a newer writer.", "This one stops.")
        self._epoch = self._cluster.init(self._id, self._log.transaction_timeout_ms)
        self._sent.clear()

    def _send_positions(self, positions: Positions, group: str, fence: Fence | None) -> None:
        if not isinstance(fence, SimulatedFence):
            raise InvariantBroken("positions are committed without proof of membership.")
        if fence.group != group:
            raise InvariantBroken(f"positions of {group!r} are committed with a proof for {fence.group!r}.")
        epoch, tag, taken = self._epoch, self._tag, dict(positions)

        def send() -> bool:
            self._cluster.add_offsets(self._id, epoch, tag, taken, fence)
            return True

        lost = self._log.process.lost(Request.OFFSETS)
        if lost is None:
            send()
            return
        self._lose(Request.OFFSETS, lost.fate, send)
        raise self._unknown(f"nobody knows whether the positions of {self._id!r} were taken.")

    def _end(self) -> None:
        process, epoch = self._log.process, self._epoch
        if process.meets(Refuse()):
            raise TransactionAborted("the cluster refused the commit.")
        self._cluster.asked[self._tag] = None
        dawdle = process.meets(Dawdle())
        lost = process.lost(Request.END)
        if lost is None:
            if dawdle:
                self._note("markers came after the answer")
            self._cluster.end(self._id, epoch, commit=True, dawdle=dawdle)
            passing("commit_sent")
            process.must_live()
            return

        def end() -> bool:
            self._cluster.end(self._id, epoch, commit=True)
            return True

        self._lose(Request.END, lost.fate, end)
        raise self._unknown(f"nobody knows whether {self._id!r} was committed.")

    def _lose(self, request: Request, fate: Fate, arrive: Callable[[], bool]) -> None:
        """Do with a request what its fate is; whatever the cluster answers is not heard."""

        def arrives() -> bool:
            try:
                return arrive()
            except (TransactionAborted, Fenced, UnknownTopic):
                return False

        self._note(f"{request.value} lost, {fate.value}")
        match fate:
            case Fate.APPLIED:
                arrives()
            case Fate.LATE:
                self._cluster.hold(request, arrives)
            case Fate.NEVER:
                pass

    def _unknown(self, what: str) -> OutcomeUnknown:
        self._note("an outcome was unknown")
        self._open = False
        return OutcomeUnknown(what)

    def _note(self, what: str) -> None:
        self._cluster.coverage.note(what)

    def abort(self) -> None:
        process = self._log.process
        process.must_live()
        if not self._open:
            return
        self._open = False
        lost = process.lost(Request.END)
        epoch = self._epoch
        if lost is None:
            self._cluster.end(self._id, epoch, commit=False)
            return

        def end() -> bool:
            self._cluster.end(self._id, epoch, commit=False)
            return True

        self._lose(Request.END, lost.fate, end)
        raise self._unknown(f"the abort of {self._id!r} was not confirmed.")

    def prove(self) -> None:
        self._log.ask()
        if self._open:
            raise InvariantBroken(f"transaction {self._id!r} is open.")
        if not self._cluster.is_current(self._id, self._epoch):
            raise Fenced(f"transactional id {self._id!r} belongs to a newer writer.", "This one stops.")

    def close(self) -> None:
        """Ends nothing: whoever opens the id next does that."""
        self._open = False


class SimulatedMembership:
    """A static member; it sees its tasks go before it sees others come."""

    def __init__(self, log: SimulatedLog, group: str, member: str, anchor: str) -> None:
        self._log = log
        self._group = log.cluster.group(group, anchor)
        self._name = member
        self._mine: frozenset[int] = frozenset()
        self._generation = UNKNOWN_GENERATION
        self._incarnation = log.cluster.enter(self._group, member, log.process)

    def poll(self, timeout_s: float = 0.0) -> frozenset[int]:
        self._log.ask()
        current = self._group.is_current(self._name, self._incarnation)
        if current is False:
            self._log.cluster.coverage.note("a member was fenced")
            raise MembershipLost(f"the group refused {self._name!r}.", "Join again.")
        if current is None:  # its session ended: what it had is another's by now
            self._incarnation = self._log.cluster.enter(self._group, self._name, self._log.process)
            return self._lose()
        if self._group.awaits(self._name):
            self._group.join(self._name)
            if self._mine or self._generation == UNKNOWN_GENERATION:
                return self._lose()
        if self._group.preparing_since_ms is not None:
            self._log.cluster.wait(int(timeout_s * 1000))
            return self._lose()
        if self._generation != self._group.generation:
            if self._mine:
                return self._lose()
            self._generation, self._mine = self._group.generation, self._group.share(self._name)
            self._log.cluster.coverage.note("a generation of a group began for a member")
        return self._mine

    def _lose(self) -> frozenset[int]:
        self._mine, self._generation = frozenset(), UNKNOWN_GENERATION
        return self._mine

    def fence(self) -> Fence | None:
        return SimulatedFence(self._group.name, self._name, self._incarnation, self._generation)

    def close(self) -> None:
        """A static member sends no leave: its place is kept until its session ends."""
        self._mine = frozenset()
