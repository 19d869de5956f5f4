"""What the engine needs of a log; Kafka and the embedded log both give exactly this, and one contract suite holds them to it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol, runtime_checkable

from qmtl.foundation.common.errors import LogError, TopicMismatch
from qmtl.foundation.common.names import look
from qmtl.foundation.wire.codec import MAX_VALUE_BYTES
from qmtl.foundation.wire.keys import MAX_KEY_BYTES
from qmtl.foundation.wire.topics import TopicSpec


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record as it lies in the log. A value of None is a tombstone."""

    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes | None
    timestamp_ms: int


MESSAGE_MAX_BYTES: Final = MAX_VALUE_BYTES + MAX_KEY_BYTES + 4096
"""No record is larger."""

Positions = Mapping[TopicPartition, int]
"""The next offset to read, per partition."""


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """What the log says of a topic."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicStanding:
    """What the metadata of a log say of a name.

    Attributes:
        found: the topic of this name; None where there is none.
        led: every partition of it has a leader.
        lookalike: another topic, of anybody on the cluster, whose name looks the same (`qmtl.foundation.common.names.look`), as the
            cluster has it; empty where there is none.
    """

    found: TopicDescription | None
    led: bool = False
    lookalike: str = ""


class GroupState(Enum):
    """What the log says of a group."""

    RUNNING = "running"
    """Its members have their tasks."""
    REBALANCING = "rebalancing"
    """Tasks are being given out."""
    EMPTY = "empty"
    """It has no member: nobody runs the processor."""
    UNKNOWN = "unknown"
    """The log doesn't know: on an embedded log one process runs everything, and it tells nobody that it does."""


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a group.

    Attributes:
        member: the name it joined with, empty where it gave none.
        host: where it came from, as the log saw it.
        tasks: the partitions of the anchor topic that it was given.
    """

    member: str
    host: str
    tasks: frozenset[int]


@dataclass(frozen=True, slots=True)
class Group:
    """The members of a group, sorted by name, as of one moment."""

    state: GroupState
    members: tuple[Member, ...] = ()


@dataclass(frozen=True, slots=True)
class Incarnation:
    """One life of a topic: a topic that was deleted and made again under its name has another id."""

    id: str
    partitions: int


class Columns(NamedTuple):
    """Consecutive records of one partition, at least one, as a reader takes them that wants no more of them.

    Attributes:
        first: offset of the first record.
        keys, values: in offset order; a value of None is a tombstone.
    """

    where: TopicPartition
    first: int
    keys: list[bytes]
    values: list[bytes | None]


class Fence(Protocol):
    """Proof of membership, taken when a batch is read and handed in with its commit; the log refuses a stale one."""


class Reader(Protocol):
    """Reads committed records only. Not thread-safe."""

    def assign(self, positions: Positions) -> None:
        """Read these partitions from these offsets, and nothing else.

        Raises:
            UnknownTopic: a partition that the log does not have.
            OffsetGone: at the next poll, if an offset lies outside the log.
        """

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        """Deliver nothing of exactly these partitions until the next call."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Up to `max_records` records, per partition in offset order; an empty list after `timeout_s`."""

    def poll_columns(self, max_records: int, timeout_s: float, ends: Positions) -> list[Columns]:
        """As `poll`, without the records at or past `ends`, and with little work per record.

        Args:
            ends: of every partition that is assigned.
        """

    def positions(self) -> Positions:
        """How far each partition was read, past transaction markers and aborted records too."""

    def close(self) -> None: ...


class Writer(Protocol):
    """One transactional id. A second writer with the same id fences the first. Not thread-safe."""

    def begin(self) -> None: ...

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, *, track: bool = False
    ) -> None:
        """Add a record to the open transaction; with `track`, its offset is in the result of `commit`.

        Raises:
            UnknownTopic, TooLarge: the record can't be written; the transaction stays open.
            TransactionAborted, OutcomeUnknown, Fenced: as `commit`.
        """

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        """Make records and positions visible together.

        Returns: the offset of the last tracked record per partition.

        Raises:
            TransactionAborted: nothing became visible; the same writer may begin again.
            OutcomeUnknown: nobody knows; close this writer and make a new one.
            Fenced: a newer writer owns the id, or the fence is stale beyond repair.
        """

    def abort(self) -> None:
        """Drop what was appended; nothing happens where nothing is open.

        Raises:
            OutcomeUnknown: it was not confirmed; nothing will show, but close this writer and make a new one.
            Fenced: a newer writer owns the id.
        """

    def prove(self) -> None:
        """Make sure that no newer writer owns the id; nothing becomes visible. Only between transactions.

        Raises:
            TransactionAborted, OutcomeUnknown, Fenced: as `commit`.
        """

    def close(self) -> None: ...


class Membership(Protocol):
    """A member's share of the tasks of one processor. Not thread-safe."""

    def poll(self, timeout_s: float = 0.0) -> frozenset[int]:
        """Take part in the group and say which tasks are mine now.

        Raises:
            MembershipLost: this one is of no more use. Whether the slot is another's is for its writer to tell (`prove`): a
                group also gives a place away when a request to join is repeated after a time-out.
        """

    def fence(self) -> Fence | None:
        """The proof to commit with, as of now."""

    def close(self) -> None: ...


class Topics(Protocol):
    """The topics of a log, to make and to delete while it runs. Whoever asks looks afterwards what has come of it."""

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        """What is there now, of each name.

        Raises:
            LogUnreachable: nobody answered.
        """

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        """Ask for these topics in one request; one that is there already stays as it is.

        Returns: those that the log does not make, whoever asks again, and why.

        Raises:
            LogUnreachable: nobody answered; some may have been made.
            MissingRight: this client may not.
        """

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        """Ask that these topics go, in one request, with their records and with what groups have committed of them; one that is not
        there is gone already. A topic that is made again under its name is another one: see `Incarnation`. Who reads or writes one that
        went gets `UnknownTopic`; but a reader of Kafka that had it already waits without a word, and would go on at its old place
        in one that is made again. So nobody deletes what is read, nor gives a name twice.

        Returns: those that the log does not delete, whoever asks again, and why.

        Raises:
            LogUnreachable: nobody answered; some may have gone.
            MissingRight: this client may not.
        """


class Log(Topics, Protocol):
    """A log of topics with transactions."""

    @property
    def log_id(self) -> str:
        """The identity of this log; a store that was built from another one is thrown away."""

    def now_ms(self) -> int:
        """The log's clock: it ages stores and records, and decides nothing else."""

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create what is missing, compare what exists; safe to repeat.

        Raises:
            TopicMismatch: a topic exists with another configuration.
        """

    def describe(self, topic: str) -> TopicDescription | None:
        """What the log says of a topic; None where there is none."""

    def incarnations(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        """Which life of each topic this is.

        Raises:
            UnknownTopic: one of them is not there.
        """

    def topics(self) -> list[str]:
        """Names of all topics, sorted."""

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        """The first offset that is still kept."""

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        """The high watermark: one past the last record of any kind, committed or not."""

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        """The last stable offset: how far a reader of committed records can come now."""

    def offsets_at_time(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Positions:
        """The first offset whose record was written at or after the time; the end where there is none."""

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        """The committed positions; partitions without one are left out.

        Args:
            wait_s: how long to wait for the end of a transaction that holds new positions; None, as long as any call may take.

        Raises:
            UnstableOffsets: it has not ended by then.
            LogError: the log did not answer.
        """

    def members(self, group: str) -> Group:
        """Who takes part in a group now, seen from outside.

        Raises:
            LogError: the log did not answer.
        """

    def reader(self) -> Reader: ...

    def writer(self, transactional_id: str) -> Writer:
        """A writer, after everything that an earlier one of this id left open was ended."""

    def membership(self, group: str, member: str, anchor: str) -> Membership:
        """Join: the partitions of the anchor topic are the tasks."""

    def close(self) -> None: ...


@runtime_checkable
class Connected(Protocol):
    """A log that is reached over connections, which may be lost."""

    def client_errors(self) -> Mapping[str, int]:
        """How often its clients have told of each error that they mend by themselves, by the client's name for it. Thread-safe."""


def columns_of(records: Sequence[Record], ends: Positions) -> list[Columns]:
    """Records as `Reader.poll_columns` gives them."""
    out: dict[TopicPartition, Columns] = {}
    for record in records:
        where = TopicPartition(record.topic, record.partition)
        if record.offset < ends[where]:
            known = out.get(where)
            if known is None:
                known = out[where] = Columns(where, record.offset, [], [])
            known.keys.append(record.key)
            known.values.append(record.value)
    return list(out.values())


def partitions_of(topic: str, count: int) -> list[TopicPartition]:
    """Every partition of a topic, in order."""
    return [TopicPartition(topic, number) for number in range(count)]


def described(spec: TopicSpec) -> TopicDescription:
    """A topic as the catalogue wants it."""
    return TopicDescription(spec.name, spec.partitions, spec.replication, spec.config())


def lookalikes(names: Collection[str], there: Collection[str]) -> Mapping[str, str]:
    """To each of these names another one that is there and looks the same, the first by the alphabet; without those that have none."""
    by_look: dict[str, list[str]] = {}
    for other in sorted(there):
        by_look.setdefault(look(other), []).append(other)
    found = {name: [other for other in by_look.get(look(name), ()) if other != name] for name in names}
    return {name: others[0] for name, others in found.items() if others}


def standings(names: Collection[str], there: Mapping[str, TopicDescription]) -> Mapping[str, TopicStanding]:
    """What there is of each name on a log whose topics are all led."""
    others = lookalikes(names, there)
    return {name: TopicStanding(there.get(name), name in there, others.get(name, "")) for name in names}


def require_same(wanted: TopicDescription, partitions: int, config: Mapping[str, str]) -> None:
    """Hold a topic that exists to what is wanted, and to the largest record that may come; replicas are the cluster's affair.

    Raises:
        TopicMismatch: naming each setting that differs, with what it is and what it should be.
    """
    asked: dict[str, object] = {"partitions": wanted.partitions, **wanted.config}
    found: dict[str, object] = {"partitions": partitions, **config}
    wrong = [
        f"{name} is {found.get(name)!r}, wanted {asked[name]!r}"
        for name in sorted(asked)
        if found.get(name) != asked[name]
    ]
    room = config.get("max.message.bytes")
    if room is not None and int(room) < MESSAGE_MAX_BYTES:
        wrong.append(f"max.message.bytes is {room}, wanted are {MESSAGE_MAX_BYTES} at least")
    if wrong:
        raise TopicMismatch(
            f"topic {wanted.name!r} has another configuration: {'; '.join(wrong)}.",
            "Alter it, or migrate by a new topic; partitions are never changed in place.",
        )
