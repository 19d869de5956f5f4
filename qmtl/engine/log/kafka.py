"""The log on Kafka, by confluent-kafka: transactions with group metadata, read-committed, discard on unknown.

A namespace keeps several systems apart on one cluster: it prefixes every topic, group and transactional id, and nothing
above this module sees it.
"""

from __future__ import annotations

import math
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

from qmtl.engine.failpoint import due, entering, passing
from qmtl.engine.log.kafka_admin import KafkaAdmin
from qmtl.engine.log.kafka_caller import Caller
from qmtl.engine.log.kafka_calls import Troubles, asking, classify, common, transactional
from qmtl.engine.log.kafka_membership import KafkaMembership
from qmtl.engine.log.kafka_offsets import AT_THE_END, NEVER_COMMITTED, sure
from qmtl.engine.log.kafka_rights import DENIED, denied
from qmtl.engine.log.kafka_security import OPEN, Security
from qmtl.engine.log.kafka_settings import DEFAULTS, KafkaSettings
from qmtl.engine.log.port import (
    MESSAGE_MAX_BYTES,
    Columns,
    Fence,
    Group,
    Incarnation,
    Positions,
    Record,
    TopicDescription,
    TopicPartition,
    TopicStanding,
)
from qmtl.engine.log.rights import Rights
from qmtl.foundation.common.errors import (
    InvariantBroken,
    LogError,
    LogUnreachable,
    MissingRight,
    OffsetGone,
    OutcomeUnknown,
    TooLarge,
    TransactionAborted,
    UnknownTopic,
    UnstableOffsets,
)
from qmtl.foundation.wire.topics import TopicSpec

_NOWHERE: Final = -1
QUEUED_RECORDS: Final = 200_000
"""So many records wait in a writer's client to be sent; who appends more waits for room."""
_NOTHING: Final[dict[str, Any]] = {}
DAMAGED: Final = frozenset(
    {
        KafkaError._BAD_MSG,
        KafkaError._BAD_COMPRESSION,
        KafkaError._NOT_IMPLEMENTED,
        KafkaError._LOG_TRUNCATION,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.MSG_SIZE_TOO_LARGE,
    }
)
"""What a reader can't get past by waiting."""

SURELY_S: Final = 1.0
"""In so much more time than it has just taken to answer, a coordinator tells stable positions too, if it can."""
PROOF: Final = TopicPartition("dead.letters", 0)
"""Where a writer proves its ownership, with a record that it aborts: every processor may write there, none reads it."""


class KafkaLog:
    """A log on a Kafka cluster.

    Args:
        bootstrap: `host:port[,host:port…]`.
        namespace: prefix of every name on the cluster, with its separator; empty for none.
        security: how this client proves who it is.

        settings: time-outs and the group protocol.

    Raises:
        LogUnreachable: no broker answered, or it did not let this client in.
        UsageError: security settings that the client does not take.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str = "",
        settings: KafkaSettings = DEFAULTS,
        security: Security = OPEN,
    ) -> None:
        self.bootstrap = bootstrap
        self.namespace = namespace
        self.settings = settings
        self.security = security
        self.troubles = Troubles()
        self.admin = KafkaAdmin(bootstrap, namespace, settings.call_timeout_s, security)
        self.log_id = self.admin.identity()
        self._offsets_client: Any = None

    def _client(self) -> Any:
        """A consumer that never joins a group: it answers questions about offsets."""
        if self._offsets_client is None:
            self._offsets_client = Consumer({**common(self), "group.id": f"{self.namespace}qmtl.questions"})
        return self._offsets_client

    def now_ms(self) -> int:
        return int(time.time() * 1000)

    def ensure_topics(self, specs: Sequence[TopicSpec]) -> None:
        self.admin.ensure_topics(specs)

    def look_up(self, names: Collection[str]) -> Mapping[str, TopicStanding]:
        return self.admin.look_up(names)

    def create_topics(self, wanted: Sequence[TopicDescription]) -> Mapping[str, LogError]:
        return self.admin.create_topics(wanted)

    def delete_topics(self, names: Collection[str]) -> Mapping[str, LogError]:
        return self.admin.delete_topics(names)

    def require_version(self) -> None:
        self.admin.require_version()

    def require_rights(self, rights: Rights) -> None:
        self.admin.require_rights(rights)

    def describe(self, topic: str) -> TopicDescription | None:
        return self.admin.describe(topic)

    def incarnations(self, topics: Collection[str]) -> Mapping[str, Incarnation]:
        return self.admin.incarnations(topics)

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
        wait_s = self.settings.call_timeout_s
        answers = asking(
            lambda: self._told(self._client().offsets_for_times(asked, timeout=wait_s), AT_THE_END), wait_s
        )
        return {where: answers[where] if answers[where] >= 0 else ends[where] for where in partitions}

    def committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float | None = None
    ) -> Positions:
        if not partitions:
            return {}
        patience_s = self.settings.call_timeout_s
        try:
            return self._committed(group, partitions, patience_s if wait_s is None else wait_s)
        except LogUnreachable:
            # The client waits by itself for the end of a transaction, and says only that its time was over. So the same is asked
            # without that condition: who answers now could have answered before.
            began = time.monotonic()
            self._committed(group, partitions, patience_s, stable=False)
            took_s = time.monotonic() - began
        try:
            return self._committed(group, partitions, took_s + SURELY_S)
        except LogUnreachable:
            names = ", ".join(f"{where.topic}[{where.partition}]" for where in sorted(partitions))
            raise UnstableOffsets(
                f"what {group} has committed of {names} is not told: a transaction that holds new positions has not ended.",
                "It ends with its producer, or by its time-out: wait; one that hangs is found with `kafka-transactions.sh"
                " find-hanging --topic __consumer_offsets` and ended with its `abort`.",
            ) from None

    def _committed(
        self, group: str, partitions: Collection[TopicPartition], wait_s: float, *, stable: bool = True
    ) -> Positions:
        """
        Args:
            stable: whether an answer has to wait for the end of transactions that hold new positions.
        """
        level = "read_committed" if stable else "read_uncommitted"
        asker = Consumer({**common(self), "group.id": self.namespace + group, "isolation.level": level})
        try:
            asked = [self._place(where) for where in partitions]
            # A position that is left out means "never committed": of none may anything less than that be known.
            answers = asking(
                lambda: self._told(asker.committed(asked, timeout=wait_s), NEVER_COMMITTED), wait_s
            )
            return {where: offset for where, offset in answers.items() if offset >= 0}
        finally:
            asker.close()

    def client_errors(self) -> Mapping[str, int]:
        return self.troubles.counts()

    def members(self, group: str) -> Group:
        return self.admin.members(group)

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

    def _told(self, places: Any, also: int) -> dict[TopicPartition, int]:
        return {self._where(place): sure(place, place.offset, place.error, also=also) for place in places}

    def _where(self, place: Any) -> TopicPartition:
        return TopicPartition(place.topic[len(self.namespace) :], place.partition)


class KafkaReader:
    """A consumer without a group: it is told what to read, and reads only what is committed."""

    def __init__(self, log: KafkaLog) -> None:
        self._log = log
        self._consumer = Consumer(
            {
                **common(log),
                "group.id": f"{log.namespace}qmtl.readers",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "check.crcs": True,
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
        self._log.admin.require_all(positions.keys())
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
        positions, make = self._positions, tuple.__new__
        message: Any
        for message in self._consume(max_records, timeout_s):
            error = message.error()
            if error is not None:
                self._hint(message, error)
                continue
            where = self._place_of(message)
            offset = message.offset()
            positions[where] = offset + 1
            row = (where[0], where[1], offset, message.key() or b"", message.value(), message.timestamp()[1])
            out.append(make(Record, row))
        return out

    def _consume(self, max_records: int, timeout_s: float) -> list[Message]:
        # The client waits out the time-out unless the batch is full: so one wait for the first, none for the others.
        found = self._consumer.consume(1, timeout_s) if timeout_s > 0 else []
        if len(found) < max_records:
            found += self._consumer.consume(max_records - len(found), 0.0)
        return found

    def poll_columns(self, max_records: int, timeout_s: float, ends: Positions) -> list[Columns]:
        found = good = self._consume(max_records, timeout_s)
        if any(map(Message.error, found)):
            good = [message for message in found if message.error() is None]
        out = []
        if good:
            only = next(iter(self._positions)) if len(self._positions) == 1 else None
            groups = self._grouped(good) if only is None else {only: good}
            for where, group in groups.items():
                self._positions[where] = _offset(group[-1]) + 1
                if self._positions[where] > ends[where]:
                    group = [message for message in group if _offset(message) < ends[where]]
                if group:
                    keys: list[Any] = list(map(Message.key, group))
                    if not all(keys):
                        keys = [key or b"" for key in keys]
                    out.append(Columns(where, _offset(group[0]), keys, list(map(Message.value, group))))
        if len(good) < len(found):
            for message in found:
                if (error := message.error()) is not None:
                    self._hint(message, error)
        return out

    def _grouped(self, messages: Sequence[Message]) -> dict[TopicPartition, list[Message]]:
        out: dict[TopicPartition, list[Message]] = {}
        for message in messages:
            out.setdefault(self._place_of(message), []).append(message)
        return out

    def _place_of(self, message: Message) -> TopicPartition:
        place: Any = (message.topic(), message.partition())
        where = self._wheres.get(place)
        if where is None:
            where = self._wheres[place] = TopicPartition(place[0][len(self._log.namespace) :], place[1])
        return where

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
        elif error.code() in DENIED:
            raise denied(f"READ on topic {message.topic()}", error)
        elif error.code() in DAMAGED:
            raise LogError(
                f"{message.topic()}[{message.partition()}] can't be read at offset {message.offset()}: {error.str()}",
                "A batch of it is damaged on the broker's disk or on the way: look into the broker's log, and restore it from a replica.",
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
        self._wait_s = log.settings.call_timeout_s
        self._within_s = log.settings.transaction_s
        self._least_s = log.settings.least_s
        self._until = math.inf
        self._tracked: dict[TopicPartition, int] = {}
        self._open = False
        self._caller = Caller()
        self._names: dict[tuple[str, int], str] = {}
        self._producer = Producer(
            {
                **common(log),
                "transactional.id": log.namespace + transactional_id,
                "transaction.timeout.ms": log.settings.transaction_timeout_ms,
                "linger.ms": 5,
                "batch.size": 262144,
                "compression.type": "lz4",
                # A new transaction right after a commit meets its markers still being written and waits one back-off.
                "retry.backoff.ms": 2,
                "queue.buffering.max.messages": QUEUED_RECORDS,
                "message.max.bytes": MESSAGE_MAX_BYTES,
            }
        )
        self._produce: Any = self._producer.produce
        # With a connection up, the coordinator is found at once; without one, the client may wait half a second first.
        asking(lambda: self._producer.list_topics(timeout=self._wait_s), self._wait_s)
        try:
            transactional(self._producer.init_transactions, time.monotonic(), self._wait_s, self._id)
        except MissingRight as error:
            raise MissingRight(
                f"this client may not DESCRIBE and WRITE on transactional id {log.namespace}{transactional_id}.",
                error.remedy,
            ) from None

    def begin(self) -> None:
        self._tracked = {}
        now = time.monotonic()
        self._until = now + self._within_s
        transactional(lambda _: self._producer.begin_transaction(), now, self._left_s(now), self._id)
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
                if time.monotonic() >= self._until:
                    self.abort()
                    raise self._late() from None
                self._producer.poll(0.1)
            except KafkaException as error:
                self._refused(topic, error)

    def _name(self, topic: str, partition: int) -> str:
        """The name of a topic on the cluster, once it is known that it has the partition."""
        self._log.admin.require(TopicPartition(topic, partition), self._left_s(time.monotonic()))
        name = self._names[topic, partition] = self._log.namespace + topic
        return name

    def _tracker(self, where: TopicPartition) -> Callable[[KafkaError | None, Message], None]:
        tracked = self._tracked
        tracked[where] = _NOWHERE

        def delivered(error: KafkaError | None, message: Message) -> None:
            offset = message.offset()
            # A record that a repeated request found on the log already may be reported without its offset.
            if error is None and offset is not None:
                tracked[where] = max(offset, _NOWHERE)

        return delivered

    def _refused(self, topic: str, error: KafkaException) -> NoReturn:
        """Say why a record was not taken. The client says only that the transaction has failed; the abort tells of a fence, and
        whoever asks for another transaction before it is told why this one has failed."""
        if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
            raise TooLarge(
                f"a record for {topic} was larger than {MESSAGE_MAX_BYTES} bytes.", "Send less at a time."
            )
        why = error
        if error.args[0].code() == KafkaError._STATE and self._open:
            try:
                self._producer.begin_transaction()
            except KafkaException as told:
                why = told
        try:
            classify(why, self._id)
        except MissingRight:
            # Nothing may be on the broker that could be ended; what is told is the right that lacks.
            with suppress(LogError):
                self.abort()
            raise
        except LogError:  # what the abort raises knows of it
            self.abort()
            raise

    def commit(self, positions: Positions, group: str, fence: Fence | None) -> Mapping[TopicPartition, int]:
        if not self._open:
            raise InvariantBroken(f"transaction {self._id!r} is not open.")
        try:
            if due("after_flush") or due("commit_sent"):
                self._producer.flush(self._left_s(time.monotonic()))
            passing("after_flush")
            if positions and fence is not None:
                places = [self._log._place(where, offset) for where, offset in sorted(positions.items())]
                producer = self._producer
                self._within(
                    lambda left_s: self._caller.call(
                        lambda: producer.send_offsets_to_transaction(places, fence, left_s), left_s
                    )
                )
            elif positions:
                raise InvariantBroken("positions are committed without proof of membership.")
            passing("inside_commit")
            entering("commit_sent", 0.001)
            self._within(self._producer.commit_transaction)
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
            self._within(self._producer.abort_transaction, late=True)
        except TransactionAborted as error:  # asked for again, and again not done
            raise OutcomeUnknown(f"the abort of {self._id!r} was not confirmed: {error.what}") from None

    def _within(self, call: Callable[[float], Any], *, late: bool = False) -> None:
        """Make a call in what is left of the transaction's time; where that is over, only one that may be late."""
        now = time.monotonic()
        if now >= self._until and not late:
            raise self._late()
        transactional(call, now, self._left_s(now), self._id)

    def _left_s(self, now: float) -> float:
        return min(self._wait_s, max(self._least_s, self._until - now))

    def _late(self) -> TransactionAborted:
        return TransactionAborted(
            f"a transaction of {self._id!r} was not ready for its commit within {self._within_s:g} s.",
            "Look for what holds the cluster or this process up, or let a transaction take in less.",
        )

    def prove(self) -> None:
        self.begin()
        self.append(PROOF.topic, PROOF.partition, b"", None)
        with suppress(KafkaException):  # the abort says what it means
            self._producer.flush(
                self._left_s(time.monotonic())
            )  # an abort of nothing that was sent asks nobody
        self.abort()

    def close(self) -> None:
        """Let go of the producer without ending anything: whoever opens the id next does that."""
        self._open = False
        self._log.admin.forget()  # it may be that a topic is not what it was
        self._caller.close()
        with suppress(KafkaException):
            self._producer.purge()
        with suppress(KafkaException):
            self._producer.flush(0)


def _offset(message: Message) -> int:
    offset: Any = message.offset()
    return int(offset)
