"""The limit: a consume-process-produce loop by hand, exactly once, with the same codec, rule and store as the engine.

It is written for speed and for this workload alone: it knows that an output goes to the partition and under the key of its
input, that an output and a row of the changelog have the same bytes, and keeps all positions in a dict. The marks at the
ends of its lines say to which step their time belongs (`bench.engine.sampling`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from rocksdict import Rdict, WriteBatch

from bench.engine.work import CODEC, Names, Snapshot, Trade, apply
from qmtl.engine.log.rocks import options

BATCH: Final = 4000
TIMEOUT_S: Final = 30.0


@dataclass(slots=True)
class Commits:
    """When transactions of ticks were committed: the number of each one's last tick, and the nanoseconds of call and return."""

    last: int = -1
    rows: list[tuple[int, int, int]] = field(default_factory=list)

    def took(self, called_ns: int) -> None:
        """The commit that was called for then has returned."""
        self.rows.append((self.last, called_ns, time.perf_counter_ns()))


def clients(bootstrap: str, group: str, linger_ms: int) -> tuple[Consumer, Producer]:
    """A consumer of committed records and a transactional producer, with what a fast loop needs of settings."""
    common: dict[str, Any] = {"bootstrap.servers": bootstrap, "log_level": 2}
    consumer = Consumer(
        {
            **common,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "fetch.queue.backoff.ms": 5,
        }
    )
    producer = Producer(
        {
            **common,
            "transactional.id": group,
            "linger.ms": linger_ms,
            "batch.size": 262144,
            "compression.type": "lz4",
            "retry.backoff.ms": 2,
            "queue.buffering.max.messages": 500000,
        }
    )
    producer.list_topics(timeout=TIMEOUT_S)
    producer.init_transactions(TIMEOUT_S)
    return consumer, producer


def run(bootstrap: str, names: Names, place: Path, commit_ms: float, stopped: Callable[[], bool]) -> None:
    """Process until stopped.

    Args:
        commit_ms: how long a transaction collects after its first record.
    """
    consumer, producer = clients(bootstrap, names.group, linger_ms=5)
    consumer.subscribe([names.source])
    store: Any = Rdict(str(place / "hand"), options(write_buffer_mb=8))
    state: dict[bytes, Snapshot] = {}
    source, out, table = names.source, names.out, names.table
    decode, encode, produce = CODEC.decode, CODEC.encode, producer.produce
    while not stopped():
        batch = consumer.consume(1, 0.05)  # [poll]
        if not batch:
            continue
        fence: Any = consumer.consumer_group_metadata()  # [poll]
        producer.begin_transaction()  # [commit]
        until = time.perf_counter() + commit_ms / 1e3
        changed: dict[bytes, tuple[int, bytes]] = {}
        ends: dict[int, int] = {}
        while True:
            for message in batch:
                if message.error() is not None:  # [poll]
                    continue
                key: Any = message.key()  # [poll]
                value: Any = message.value()  # [poll]
                partition: Any = message.partition()  # [poll]
                offset: Any = message.offset()  # [poll]
                ends[partition] = offset + 1  # [poll]
                trade: Trade = decode(value)  # [decode]
                now = state[key] = apply(state.get(key), trade)  # [apply]
                data = encode(now)  # [encode]
                changed[key] = (partition, data)  # [table]
                while True:
                    try:
                        produce(out, data, key, partition)  # [produce]
                        break
                    except BufferError:
                        producer.poll(0.1)  # [produce]
            if time.perf_counter() >= until:
                break
            batch = consumer.consume(BATCH, max(0.0, min(0.001, until - time.perf_counter())))  # [poll]
        for key, (partition, data) in changed.items():
            produce(table, data, key, partition)  # [produce]
        offsets = [
            KafkaPartition(source, partition, offset) for partition, offset in ends.items()
        ]  # [commit]
        producer.send_offsets_to_transaction(offsets, fence, TIMEOUT_S)  # [commit]
        producer.commit_transaction(TIMEOUT_S)  # [commit]
        rows = WriteBatch(raw_mode=True)  # [store]
        for key, (_, data) in changed.items():
            rows.put(key, data)  # [store]
        rows.put(b"\x00ends", json.dumps(ends).encode())  # [store]
        store.write(rows)  # [store]
    consumer.close()
    store.close()


def relay(
    bootstrap: str,
    group: str,
    source: str,
    out: str,
    commit_ms: float,
    stopped: Callable[[], bool],
    *,
    eager: bool,
) -> Commits:
    """One hop of the latency part: read, write, commit, with nothing kept.

    Args:
        eager: a transaction ends when nothing more waits, as the engine's do, and not only when its time is over.
    """
    commits = Commits()
    consumer, producer = clients(bootstrap, group, linger_ms=0)
    consumer.subscribe([source])
    while not stopped():
        batch = consumer.consume(1, 0.05)
        if not batch:
            continue
        fence: Any = consumer.consumer_group_metadata()
        producer.begin_transaction()
        until = time.perf_counter() + commit_ms / 1e3
        ends: dict[int, int] = {}
        while True:
            for message in batch:
                if message.error() is not None:
                    continue
                partition: Any = message.partition()
                offset: Any = message.offset()
                ends[partition] = offset + 1
                value: Any = message.value()
                tick: Snapshot = CODEC.decode(value)
                commits.last = tick.fills
                producer.produce(out, CODEC.encode(tick), message.key(), partition)
            left = until - time.perf_counter()
            if left <= 0:
                break
            batch = consumer.consume(1, 0.0 if eager else left)
            if eager and not batch:
                break
        called = time.perf_counter_ns()
        offsets = [KafkaPartition(source, partition, offset) for partition, offset in ends.items()]
        producer.send_offsets_to_transaction(offsets, fence, TIMEOUT_S)
        producer.commit_transaction(TIMEOUT_S)
        commits.took(called)
    consumer.close()
    return commits
