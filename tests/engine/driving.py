"""How the tests run processors on a log, read what came out, and compare two runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka.admin import AdminClient

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Log, TopicPartition
from qmtl.engine.observer import NOBODY, Observer
from qmtl.engine.processor import Processor
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import all_partitions, read_all
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.control import CloseMarker
from qmtl.foundation.wire.keys import is_marker, is_reserved, is_stamp
from tests.contract.driving import until
from tests.engine.toys import CODEC

IDLE_STEPS = 3


class Bench:
    """Workers on one log, with their stores in one directory.

    Args:
        room: how many records a transaction takes in; as many as one poll where not given.
    """

    def __init__(
        self,
        log: Log,
        state: Path,
        makes: Sequence[Callable[[], Processor]],
        poll: int = 4000,
        room: int | None = None,
        interval_ms: float = 60_000.0,
        observer: Observer = NOBODY,
    ) -> None:
        self.log = log
        self.state = state
        settings = TaskSettings(state, poll, room, interval_ms, observer)
        self.workers = [Worker(log, make, CODEC, settings) for make in makes]

    def step(self) -> bool:
        busy = [worker.step() for worker in self.workers]  # each of them, busy or not
        return any(busy)

    def settle(self) -> None:
        """Steps until nobody finds anything to do; on a log in this process nothing can come later."""
        idle = 0
        while idle < IDLE_STEPS:
            idle = 0 if self.step() else idle + 1

    def settle_patiently(self) -> None:
        """As `settle`, and until nobody waits any more after failures at one place."""
        until(lambda: not self.step() and not any(worker._opening for worker in self.workers), 60.0)
        self.settle()

    def until(self, condition: Callable[[], bool]) -> None:
        """Steps until a condition holds, which is asked whenever nobody finds anything to do."""
        until(lambda: not self.step() and condition(), 60.0)

    def close(self) -> None:
        for worker in self.workers:
            worker.close()


@contextmanager
def bench(
    log: Log,
    state: Path,
    *makes: Callable[[], Processor],
    poll: int = 4000,
    room: int | None = None,
    interval_ms: float = 60_000.0,
    observer: Observer = NOBODY,
) -> Iterator[Bench]:
    one = Bench(log, state, makes, poll, room, interval_ms, observer)
    try:
        yield one
    finally:
        one.close()


def messages(log: Log, topic: str) -> list[Any]:
    """Everything that a topic carries, by partition, without what the engine adds."""
    found = [one for one in read_all(log, all_partitions(log, topic)) if not is_reserved(one.key)]
    return [
        CODEC.decode(one.value or b"") for one in sorted(found, key=lambda one: (one.partition, one.offset))
    ]


def keys(log: Log, topic: str) -> list[bytes]:
    found = [one for one in read_all(log, all_partitions(log, topic)) if not is_reserved(one.key)]
    return [one.key for one in found]


def table(log: Log, topic: str) -> dict[bytes, bytes]:
    """The last value per key."""
    out: dict[bytes, bytes] = {}
    for one in read_all(log, all_partitions(log, topic)):
        if is_reserved(one.key):
            continue
        if one.value is None:
            out.pop(one.key, None)
        else:
            out[one.key] = one.value
    return dict(sorted(out.items()))


def trail(log: Log, topic: str) -> list[tuple[int, bytes, object]]:
    """Every record in its order, markers as what they close; places in the log and stamps stay out."""
    out: list[tuple[int, bytes, object]] = []
    found = read_all(log, all_partitions(log, topic))
    for one in sorted(found, key=lambda one: (one.partition, one.offset)):
        if is_stamp(one.key):
            continue
        value: object = one.value
        if is_marker(one.key) and one.value is not None:
            marker: CloseMarker = CODEC.decode(one.value)
            value = (marker.bucket_ms, marker.count, marker.digest)
        out.append((one.partition, one.key, value))
    return out


def outcome(log: Log, trails: Sequence[str], folds: Sequence[str] = ()) -> Mapping[str, object]:
    """What two runs must have in common: these topics record by record, and these tables row by row."""
    out: dict[str, object] = {name: trail(log, name) for name in trails}
    out.update({f"{name} folded": table(log, name) for name in folds})
    return out


def closed(log: Log, topic: str, partition: int = 0) -> list[int]:
    """The buckets that markers close in a partition, in order."""
    found = read_all(log, [TopicPartition(topic, partition)])
    return [
        CODEC.decode(one.value).bucket_ms for one in found if is_marker(one.key) and one.value is not None
    ]


def takes(log: KafkaLog, topic: str, size: int) -> None:
    """Wait until a broker goes by a new limit of the size of a topic's records: it is told of it before."""

    def known() -> bool:
        found = log.describe(topic)
        return found is not None and found.config["max.message.bytes"] == str(size)

    until(known)


def delete(log: KafkaLog, topic: str) -> None:
    """Delete a topic of a real Kafka, and wait until it is gone."""
    admin = AdminClient({"bootstrap.servers": log.bootstrap})  # its answers end with it
    admin.delete_topics([log.namespace + topic])[log.namespace + topic].result(60)
    until(lambda: topic not in log.topics())  # a topic that is about to go can't be described
