"""How the tests look at a log without the engine, disturb a group, take records away, and run workers as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined] # the package re-exports them without saying so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.processor import Processor
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.wire.keys import encode_key, is_reserved
from tests.contract.driving import until
from tests.engine.program import address_of
from tests.engine.toys import Item
from tests.neighbours.toys import (
    CODEC,
    GROUP,
    INPUT,
    INPUTS,
    OUTPUTS,
    TABLES,
    Counted,
    Tally,
    expected,
    totals,
)

ROOT = Path(__file__).resolve().parents[2]


class Raw(NamedTuple):
    """A record as a plain client sees it."""

    offset: int
    key: bytes
    value: bytes | None


def raw_by_partition(
    log: Log, wheres: Sequence[TopicPartition], isolation: str = "read_committed"
) -> dict[TopicPartition, list[Raw]]:
    """Everything in some partitions; on Kafka read by a plain client, so that nothing of the log under test takes part."""
    out: dict[TopicPartition, list[Raw]] = {where: [] for where in wheres}
    if not isinstance(log, KafkaLog):
        for one in read_all(log, wheres):
            out[TopicPartition(one.topic, one.partition)].append(Raw(one.offset, one.key, one.value))
        return out
    consumer = Consumer(
        {
            "bootstrap.servers": log.bootstrap,
            "group.id": f"{log.namespace}onlooker",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
        }
    )
    waiting = set(wheres)
    try:
        # From 0 and not from "the beginning": to ask where that is takes the client half a second.
        consumer.assign([KafkaPartition(log.namespace + where.topic, where.partition, 0) for where in wheres])
        while waiting:
            message = consumer.poll(60.0)
            assert message is not None, f"a plain client found no end of {waiting}"
            where = TopicPartition(str(message.topic())[len(log.namespace) :], int(message.partition() or 0))
            error = message.error()
            if error is None:
                value = message.value()
                out[where].append(
                    Raw(
                        int(message.offset() or 0),
                        bytes(message.key() or b""),
                        None if value is None else bytes(value),
                    )
                )
            elif error.code() == KafkaError._PARTITION_EOF:
                waiting.discard(where)
            else:
                raise AssertionError(error.str())
    finally:
        consumer.close()
    return out


def raw(log: Log, where: TopicPartition, isolation: str = "read_committed") -> list[Raw]:
    """Everything in one partition."""
    return raw_by_partition(log, [where], isolation)[where]


def told(log: Log) -> dict[int, list[Counted]]:
    """What has come out, by partition."""
    found = raw_by_partition(log, OUTPUTS)
    return {
        where.partition: [CODEC.decode(one.value or b"") for one in records]
        for where, records in found.items()
    }


def told_count(log: Log) -> int:
    """How much has come out so far; quick, for waiting."""
    return sum(1 for _ in read_all(log, OUTPUTS))


def sums_in(log: Log) -> dict[bytes, bytes]:
    """The last value per key of the table, as the log has it."""
    out: dict[bytes, bytes] = {}
    for records in raw_by_partition(log, TABLES).values():
        for one in records:
            if is_reserved(one.key):
                continue
            out.pop(one.key, None)
            if one.value is not None:
                out[one.key] = one.value
    return out


def check(log: Log, given: Sequence[Item]) -> None:
    """Each item was counted once, in its order and from its place, and the table is what is left."""
    wanted = expected(given)
    inputs = raw_by_partition(log, INPUTS)
    for partition, found in told(log).items():
        assert [(one.name, one.seq, one.amount) for one in found] == wanted[partition], partition
        offsets = [one.offset for one in inputs[INPUTS[partition]]]
        assert [one.offset for one in found] == offsets, f"gaps or repetitions in partition {partition}"
    rows = {key: CODEC.decode(value).amount for key, value in sums_in(log).items()}
    assert rows == {encode_key((name,)): amount for name, amount in totals(given).items()}


def check_so_far(log: Log, given: Sequence[Item]) -> int:
    """What has come out has no gap and no repetition, however much is still to come; says how much has come."""
    wanted = expected(given)
    count = 0
    for partition, records in told(log).items():
        found = [(one.name, one.seq, one.amount) for one in records]
        assert found == wanted[partition][: len(found)], partition
        count += len(found)
    return count


# ---- the cluster ------------------------------------------------------------------------------------------------------


_admins: dict[str, Any] = {}


def admin_of(log: KafkaLog) -> Any:
    """A client that asks the cluster itself; kept, as an answer dies with its client."""
    if log.bootstrap not in _admins:
        _admins[log.bootstrap] = AdminClient({"bootstrap.servers": log.bootstrap})
    return _admins[log.bootstrap]


def alter(log: KafkaLog, topic: str, config: Mapping[str, str]) -> None:
    """Set a topic's configuration."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in config.items()
    ]
    resource = ConfigResource(ConfigResource.Type.TOPIC, log.namespace + topic, incremental_configs=entries)
    for future in admin_of(log).incremental_alter_configs([resource]).values():
        future.result(60)


QUICKLY_CLEANED: Mapping[str, str] = {
    "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "1000",
    "min.cleanable.dirty.ratio": "0.01",
    "segment.ms": "1000",
    "delete.retention.ms": "1000",
}
"""A topic whose closed segments the broker's cleaner takes up within seconds."""


def delete_before(log: KafkaLog, where: TopicPartition, offset: int) -> None:
    """Take the records below an offset away, as retention does; -1 takes all. A table is opened to that first."""
    config = log.describe(where.topic)
    assert config is not None
    if config.config["cleanup.policy"] == "compact":
        alter(log, where.topic, {"cleanup.policy": "compact,delete", "retention.ms": "-1"})
    place = KafkaPartition(log.namespace + where.topic, where.partition, offset)

    def taken() -> bool:
        (future,) = admin_of(log).delete_records([place]).values()
        try:
            future.result(60)
        except (
            KafkaException
        ) as error:  # the broker's log learns of a new policy a little later than it is set
            if error.args[0].code() != KafkaError.POLICY_VIOLATION:
                raise
            return False
        return True

    until(taken)
    if config.config["cleanup.policy"] == "compact":
        alter(log, where.topic, {"cleanup.policy": "compact"})


@contextmanager
def stranger(log: KafkaLog, name: str = "stranger") -> Iterator[Producer]:
    """A transactional producer that is nobody of ours."""
    producer = Producer(
        {
            "bootstrap.servers": log.bootstrap,
            "transactional.id": f"{log.namespace}{name}",
            "transaction.timeout.ms": 60_000,
        }
    )
    producer.init_transactions(60)
    yield producer


def aborted(log: KafkaLog, producer: Producer, where: TopicPartition) -> None:
    """A transaction that shows nothing, and spends offsets."""
    producer.begin_transaction()
    producer.produce(log.namespace + where.topic, b"never", b"stranger", where.partition)
    producer.flush(60)
    producer.abort_transaction(60)


def plain(log: KafkaLog, where: TopicPartition, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
    """Records outside of any transaction: no marker follows them."""
    producer = Producer({"bootstrap.servers": log.bootstrap, "acks": "all"})
    for key, value in rows:
        producer.produce(log.namespace + where.topic, value, key, where.partition)
    assert producer.flush(60) == 0


# ---- the group --------------------------------------------------------------------------------------------------------


class Disturber:
    """A member of the counter's group that comes, takes its share of the tasks, does nothing with them, and goes."""

    def __init__(self, log: KafkaLog) -> None:
        self._topic = log.namespace + INPUT.name
        self.mine: set[int] = set()
        self._consumer = Consumer(
            {
                "bootstrap.servers": log.bootstrap,
                "group.id": log.namespace + GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "partition.assignment.strategy": "range",
            }
        )
        self._consumer.list_topics(timeout=60)

    def come(self) -> None:
        def assigned(consumer: Any, places: Any) -> None:
            self.mine = {place.partition for place in places}
            consumer.assign(places)
            consumer.pause(places)

        self._consumer.subscribe([self._topic], on_assign=assigned)

    def poll(self) -> None:
        self._consumer.poll(0.0)

    def go(self) -> None:
        self._consumer.close()


def group_state(log: KafkaLog) -> str:
    """What the coordinator says of the counter's group."""
    found = admin_of(log).describe_consumer_groups([log.namespace + GROUP])
    (future,) = found.values()
    return str(future.result(60).state.name)


@contextmanager
def serving(
    log: Log, state: Path, make: Callable[[], Processor] = Tally, slot: str = "0", poll: int = 4000
) -> Iterator[Worker]:
    """One worker in this process, which leaves at the end."""
    worker = Worker(log, make, CODEC, TaskSettings(state, poll), slot)
    try:
        yield worker
    finally:
        worker.close()


def tasks_of(worker: Worker) -> frozenset[int]:
    return frozenset(worker._tasks)


def serve(workers: Sequence[Worker], condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Steps until a condition holds, asked whenever nobody finds anything to do."""

    def done() -> bool:
        busy = [worker.step() for worker in workers]
        return not any(busy) and condition()

    until(done, seconds)


# ---- processes --------------------------------------------------------------------------------------------------------


class Process:
    """A worker of the counter as a process of its own (`tests.neighbours.program`)."""

    def __init__(
        self, log: KafkaLog, state: Path, slot: str, *, poll: int = 4000, failpoint: str = ""
    ) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._said = state / f"said-{slot}.txt"
        with self._said.open("wb") as said:
            self._popen = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tests.neighbours.program"),
                    *(address_of(log), str(state / slot), slot, str(poll)),
                ],
                cwd=ROOT,
                env={**os.environ, "QMTL_FAILPOINT": failpoint},
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> list[str]:
        return self._said.read_text(encoding="utf-8").splitlines()

    def opened(self) -> int:
        """How many tasks it has opened completely."""
        return sum(line.startswith("opened") for line in self.said())

    def ended(self) -> int | None:
        return self._popen.poll()

    def alive(self) -> bool:
        """Asserts that it runs, with what it said where it doesn't."""
        assert self.ended() is None, "\n".join(self.said()[-20:])
        return True

    def stop(self) -> None:
        """Lets it end by itself, in order."""
        if self.ended() is None:
            self._popen.terminate()
        assert self._popen.wait(120) == 0, "\n".join(self.said()[-20:])

    def kill(self) -> None:
        if self.ended() is None:
            self._popen.kill()
        self._popen.wait(30)

    def killed(self) -> bool:
        """Waits for its death at a failpoint; False where it ended in another way."""
        return self._popen.wait(120) == -signal.SIGKILL
