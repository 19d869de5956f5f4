"""The log on Kafka, by confluent-kafka: transactions with group metadata, read-committed, discard on unknown.

A namespace keeps several systems apart on one cluster: it prefixes every topic, group and transactional id, and nothing
above this module sees it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
)
from confluent_kafka import TopicPartition as KafkaPartition

from qmtl.engine.failpoint import passing
from qmtl.engine.log.kafka_admin import MESSAGE_MAX_BYTES, MOVING, KafkaAdmin
from qmtl.engine.log.port import Fence, Positions, Record, TopicDescription, TopicPartition
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

CALL_TIMEOUT_S: Final = 30.0
TRANSACTION_TIMEOUT_MS: Final = 15_000
SESSION_TIMEOUT_MS: Final = 10_000

_NOWHERE: Final = -1
_NOTHING: Final[dict[str, Any]] = {}
_FENCED: Final = frozenset({KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH})
PROOF: Final = TopicPartition("dead.letters", 0)
"""Where a writer proves its ownership, with a record that it aborts: every processor may write there, none reads it."""


class KafkaLog:
    """A log on a Kafka cluster.

    Args:
        bootstrap: `host:port[,host:port…]`.
        namespace: prefix of every name on the cluster, with its separator; empty for none.

    Raises:
        LogUnreachable: no broker answered.
    """

    def __init__(self, bootstrap: str, namespace: str = "") -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.admin = KafkaAdmin(bootstrap, namespace)
        self.log_id = self.admin.identity()
        self._offsets_client: Any = None

    def _client(self) -> Any:
        """A consumer that never joins a group: it answers questions about offsets."""
        if self._offsets_client is None:
            self._offsets_client = Consumer(
                {**_common(self.bootstrap), "group.id": f"{self.namespace}qmtl.questions"}
            )
        return self._offsets_client

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        self.admin.ensure_topics(specs)

    def describe(self, topic: str) -> TopicDescription | None:
        return self.admin.describe(topic)

    def topics(self) -> list[str]:
        return self.admin.topics()

    def begin_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return self.admin.begin_offsets(partitions)

    def end_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return self.admin.end_offsets(partitions)

    def stable_offsets(self, partitions: Collection[TopicPartition]) -> Positions:
        return self.admin.stable_offsets(partitions)

    def offsets_at_time(self, partitions: Collection[TopicPartition], timestamp_ms: int) -> Positions:
        ends = self.end_offsets(partitions)
        asked = [self._place(where, timestamp_ms) for where in partitions]
        found = _asking(lambda: self._client().offsets_for_times(asked, timeout=CALL_TIMEOUT_S))
        answers = {self._where(place): place.offset for place in found}
        return {where: answers[where] if answers[where] >= 0 else ends[where] for where in partitions}

    def committed(self, group: str, partitions: Collection[TopicPartition]) -> Positions:
        if not partitions:
            return {}
        asker = Consumer({**_common(self.bootstrap), "group.id": self.namespace + group})
        try:
            asked = [self._place(where) for where in partitions]
            found = _asking(lambda: asker.committed(asked, timeout=CALL_TIMEOUT_S))
            for place in found:
                if place.error is not None:  # a position that is left out would mean "never committed"
                    raise LogError(
                        f"the positions of {group!r} are unknown: {place.error.str()}", "Start again."
                    )
            return {self._where(place): place.offset for place in found if place.offset >= 0}
        finally:
            asker.close()

    def reader(self) -> KafkaReader:
        return KafkaReader(self)

    def writer(self, transactional_id: str) -> KafkaWriter:
        return KafkaWriter(self, transactional_id)

    def membership(self, group: str, member: str, anchor: str) -> KafkaMembership:
        if self.describe(anchor) is None:
            raise UnknownTopic(f"the log has no topic {anchor!r}.", "Create the topics first.")
        return KafkaMembership(self, group, member, anchor)

    def close(self) -> None:
        if self._offsets_client is not None:
            self._offsets_client.close()

    def _place(self, where: TopicPartition, offset: int | None = None) -> KafkaPartition:
        name = self.namespace + where.topic
        return (
            KafkaPartition(name, where.partition)
            if offset is None
            else KafkaPartition(name, where.partition, offset)
        )

    def _where(self, place: Any) -> TopicPartition:
        return TopicPartition(place.topic[len(self.namespace) :], place.partition)


class KafkaReader:
    """A consumer without a group: it is told what to read, and reads only what is committed."""

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self._consumer = Consumer(
            {
                **_common(log.bootstrap),
                "group.id": f"{log.namespace}qmtl.readers",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
                "queued.max.messages.kbytes": 16384,
                "queued.min.messages": 20000,
                # A full queue is looked at again soon: by default the next fetch would wait a whole second.
                "fetch.queue.backoff.ms": 5,
            }
        )
        self._positions: dict[TopicPartition, int] = {}
        self._paused: frozenset[TopicPartition] = frozenset()
        self._wheres: dict[tuple[str, int], TopicPartition] = {}

    def assign(self, positions: Positions) -> None:
        for where in positions:
            self._log.admin.require(where)
        self.pause([])  # a partition stays paused over an assignment, and nobody would know of it
        self._positions = dict(positions)
        self._consumer.assign(
            [self._log._place(where, offset) for where, offset in sorted(positions.items())]
        )

    def pause(self, partitions: Collection[TopicPartition]) -> None:
        wanted = frozenset(partitions)
        if stop := wanted - self._paused:
            self._consumer.pause([self._log._place(where) for where in sorted(stop)])
        if go := self._paused - wanted:
            self._consumer.resume([self._log._place(where) for where in sorted(go)])
        self._paused = wanted

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        out: list[Record] = []
        # The client waits out the time-out unless the batch is full: so one wait for the first, none for the others.
        found = self._consumer.consume(1, timeout_s) if timeout_s > 0 else []
        if len(found) < max_records:
            found += self._consumer.consume(max_records - len(found), 0.0)
        wheres, positions, make = self._wheres, self._positions, tuple.__new__
        message: Any
        for message in found:
            error = message.error()
            if error is not None:
                self._hint(message, error)
                continue
            place = (message.topic(), message.partition())
            where = wheres.get(place)
            if where is None:
                where = wheres[place] = TopicPartition(place[0][len(self._log.namespace) :], place[1])
            offset = message.offset()
            positions[where] = offset + 1
            row = (where[0], where[1], offset, message.key() or b"", message.value(), message.timestamp()[1])
            out.append(make(Record, row))
        return out

    def _hint(self, message: Message, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            where = TopicPartition(
                str(message.topic())[len(self._log.namespace) :], int(message.partition() or 0)
            )
            # The position at the end lies past markers and aborted records; a record's offset alone never shows that.
            self._positions[where] = max(self._positions.get(where, 0), int(message.offset() or 0))
        elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise OffsetGone(
                f"{message.topic()}[{message.partition()}]: {error.str()}",
                "Decide before going on: the log has changed.",
            )
        elif error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION):
            raise UnknownTopic(
                f"{message.topic()}[{message.partition()}] is not on the log.", "Create the topics first."
            )
        elif error.code() == KafkaError._FATAL:
            raise LogError(f"the consumer failed: {error.str()}", "Start again.")
        # Anything else is librdkafka telling that it retries by itself.

    def positions(self) -> Positions:
        return dict(self._positions)

    def close(self) -> None:
        self._consumer.close()


class KafkaWriter:
    """A transactional producer; thrown away whenever an outcome is unknown."""

    def __init__(self, log: KafkaLog, transactional_id: str) -> None:
        self._log = log
        self._id = transactional_id
        self._tracked: dict[TopicPartition, int] = {}
        self._open = False
        self._names: dict[tuple[str, int], str] = {}
        self._producer = Producer(
            {
                **_common(log.bootstrap),
                "transactional.id": log.namespace + transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "linger.ms": 5,
                "batch.size": 262144,
                "compression.type": "lz4",
                # A new transaction right after a commit meets its markers still being written and waits one back-off.
                "retry.backoff.ms": 2,
                "queue.buffering.max.messages": 200000,
                "message.max.bytes": MESSAGE_MAX_BYTES,
            }
        )
        self._produce: Any = self._producer.produce
        # With a connection up, the coordinator is found at once; without one, the client may wait half a second first.
        _asking(lambda: self._producer.list_topics(timeout=CALL_TIMEOUT_S))
        _transactional(lambda: self._producer.init_transactions(CALL_TIMEOUT_S))

    def begin(self) -> None:
        self._tracked = {}
        _transactional(self._producer.begin_transaction)
        self._open = True

    def append(
        self, topic: str, partition: int, key: bytes, value: bytes | None, *, track: bool = False
    ) -> None:
        name = self._names.get((topic, partition)) or self._name(topic, partition)
        told = {"on_delivery": self._tracker(TopicPartition(topic, partition))} if track else _NOTHING
        while True:
            try:
                self._produce(name, value, key, partition, **told)
                return
            except BufferError:  # the local queue is full; serving deliveries makes room
                self._producer.poll(0.1)
            except KafkaException as error:
                self._refused(topic, error.args[0])

    def _name(self, topic: str, partition: int) -> str:
        """The name of a topic on the cluster, once it is known that it has the partition."""
        self._log.admin.require(TopicPartition(topic, partition))
        name = self._names[topic, partition] = self._log.namespace + topic
        return name

    def _tracker(self, where: TopicPartition) -> Callable[[KafkaError | None, Message], None]:
        tracked = self._tracked
        tracked[where] = _NOWHERE

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is None:
                tracked[where] = int(message.offset() or 0)

        return delivered

    def _refused(self, topic: str, problem: KafkaError) -> NoReturn:
        """Say why a record was not taken. The client says only that the transaction has failed; the abort tells how."""
        if problem.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise TooLarge(
                f"a record for {topic} was larger than {MESSAGE_MAX_BYTES} bytes.", "Send less at a time."
            )
        self.abort()
        raise TransactionAborted(f"the open transaction took no more records: {problem.str()}")

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        if not self._open:
            raise InvariantBroken(f"transaction {self._id!r} is not open.")
        try:
            if positions and fence is not None:
                places = [self._log._place(where, offset) for where, offset in sorted(positions.items())]
                _transactional(
                    lambda: self._producer.send_offsets_to_transaction(places, fence, CALL_TIMEOUT_S)
                )
            elif positions:
                raise InvariantBroken("positions are committed without proof of membership.")
            passing("inside_commit")
            _transactional(lambda: self._producer.commit_transaction(CALL_TIMEOUT_S))
        except TransactionAborted:
            self.abort()
            raise
        self._open = False
        if _NOWHERE in self._tracked.values():
            raise OutcomeUnknown(
                "a transaction was committed, but the offset of one of its records is unknown."
            )
        return dict(self._tracked)

    def abort(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            self._producer.abort_transaction(CALL_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() in _FENCED:
                raise Fenced(
                    f"transactional id {self._id!r} belongs to a newer writer.", "This one stops."
                ) from None
            raise OutcomeUnknown(
                f"the abort of {self._id!r} was not confirmed: {error.args[0].str()}"
            ) from None

    def prove(self) -> None:
        self.begin()
        self.append(PROOF.topic, PROOF.partition, b"", None)
        with suppress(KafkaException):  # the abort says what it means
            self._producer.flush(CALL_TIMEOUT_S)  # an abort of nothing that was sent asks nobody
        self.abort()

    def close(self) -> None:
        """Let go of the producer without ending anything: whoever opens the id next does that."""
        self._open = False
        with suppress(KafkaException):
            self._producer.purge()
        with suppress(KafkaException):
            self._producer.flush(0)


class KafkaMembership:
    """Takes part in the group of a processor on its anchor topic, and reads nothing from it.

    Partitions are paused at once: which task is whose comes from the group, what a task reads is its own business
    (`Task`), so tasks may read topics that come and go at run time. Static membership lets a killed worker have its
    tasks back at once.
    """

    def __init__(self, log: KafkaLog, group: str, member: str, anchor: str) -> None:
        self._mine: frozenset[int] = frozenset()
        self._revoked = False
        self._consumer = Consumer(
            {
                **_common(log.bootstrap),
                "group.id": log.namespace + group,
                "group.instance.id": log.namespace + member,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": SESSION_TIMEOUT_MS,
                "heartbeat.interval.ms": 1000,
                "partition.assignment.strategy": "range",
                "fetch.wait.max.ms": 500,
                "fetch.message.max.bytes": 1024,
                "queued.max.messages.kbytes": 64,
            }
        )

        def assigned(consumer: Any, places: Any) -> None:
            consumer.assign(places)
            consumer.pause(places)
            self._mine = frozenset(place.partition for place in places)

        def revoked(consumer: Any, places: Any) -> None:
            # Nothing is in flight here: the worker polls its membership only between transactions.
            consumer.unassign()
            self._mine, self._revoked = frozenset(), True

        self._consumer.subscribe(
            [log.namespace + anchor], on_assign=assigned, on_revoke=revoked, on_lost=revoked
        )

    def poll(self, timeout_s: float = 0.0) -> frozenset[int]:
        self._revoked = False
        message = self._consumer.poll(timeout_s)
        # The client marks no error of a message as fatal: its code says so.
        if (
            message is not None
            and (error := message.error()) is not None
            and error.code() == KafkaError._FATAL
        ):
            raise MembershipLost(f"the group refused this member: {error.str()}", "Join again.")
        # Tasks that went and came back within one poll were another's meanwhile: they are seen to go.
        return frozenset() if self._revoked else self._mine

    def fence(self) -> Fence | None:
        metadata: Any = self._consumer.consumer_group_metadata()
        return metadata  # type: ignore[no-any-return] # an opaque object that only the producer reads

    def close(self) -> None:
        # An assignment that arrives during the close is never taken: its callback waits for ever. So first none may come
        # any more, then the one that has come already is served.
        with suppress(KafkaException):  # a member that was fenced has nothing to leave
            self._consumer.unsubscribe()
            self._consumer.poll(0.0)
        self._consumer.close()


def _common(bootstrap: str) -> dict[str, Any]:
    return {
        "bootstrap.servers": bootstrap,
        "client.id": "qmtl",
        "log_level": 2,
        "error_cb": lambda error: (
            None
        ),  # librdkafka retries by itself; what it can't mend comes back from the calls
        "socket.connection.setup.timeout.ms": 5000,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "topic.metadata.refresh.interval.ms": 30000,
    }


def _transactional(call: Callable[[], Any]) -> None:
    """Run one transactional call; the same call again while the client says that this is safe."""
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while True:
        try:
            call()
            return
        except KafkaException as error:
            problem = error.args[0]
            if problem.retriable() and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            _classify(error)


def _classify(error: KafkaException) -> None:
    """The one place that says what an error of a transactional call means."""
    problem = error.args[0]
    if problem.code() in _FENCED:
        raise Fenced(
            f"a newer writer owns the transactional id, or the broker ended the transaction for its age: {problem.str()}",
            "This one stops.",
        ) from None
    if problem.txn_requires_abort() or problem.code() == KafkaError.FENCED_INSTANCE_ID:
        raise TransactionAborted(problem.str()) from None
    raise OutcomeUnknown(problem.str()) from None


def _asking(call: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + CALL_TIMEOUT_S
    while True:
        try:
            return call()
        except KafkaException as error:
            problem = error.args[0]
            if problem.code() in MOVING and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            raise LogError(f"the broker did not answer: {problem.str()}", "Check that it runs.") from None
