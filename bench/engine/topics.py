"""Writes the input, and reads an output back as a consumer of committed records sees it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from bench.engine.rows import rows
from bench.engine.work import CODEC, make_trade
from qmtl.foundation.wire.keys import encode_key, is_reserved, partition_for


def pour(bootstrap: str, topic: str, partitions: int, count: int, keys: int, times: int = 1) -> None:
    """Write the first `count` fills, `times` over. There is no transaction, so that offsets count records."""
    source = plain_producer(bootstrap)
    ready: list[tuple[bytes, bytes, int]] = []
    for one in rows(count, keys):
        key = encode_key((one.symbol,))
        found = (CODEC.encode(make_trade(one)), key, partition_for(key, partitions))
        if times > 1:
            ready.append(found)
        _put(source, topic, *found)
    for _ in range(times - 1):
        for found in ready:
            _put(source, topic, *found)
    source.flush()


def plain_producer(bootstrap: str) -> Producer:
    """An idempotent producer without transactions; uncompressed, as not every client can unpack every form."""
    return Producer(
        {
            "bootstrap.servers": bootstrap,
            "log_level": 2,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 262144,
            "queue.buffering.max.messages": 500000,
        }
    )


def _put(source: Producer, topic: str, value: bytes, key: bytes, partition: int) -> None:
    while True:
        try:
            source.produce(topic, value, key, partition)
            source.poll(0)
            return
        except BufferError:
            source.poll(0.1)


def committed_records(bootstrap: str, topic: str, partitions: int) -> Iterator[tuple[bytes, bytes]]:
    """Key and value of every committed record, partition by partition, without what our engine adds for itself."""
    for number in range(partitions):
        reader = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench.judge",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 5,
            }
        )
        reader.assign([KafkaPartition(topic, number, 0)])
        ended = False
        while not ended:
            for message in reader.consume(2_000, 0.02):
                if message.error() is not None:
                    ended = True
                    continue
                key: Any = message.key()
                value: Any = message.value()
                if not is_reserved(key) and value is not None:
                    yield key, value
        reader.close()


def last_values(bootstrap: str, topic: str, partitions: int) -> dict[bytes, bytes]:
    """A table as its topic has it: the last value per key."""
    return dict(committed_records(bootstrap, topic, partitions))
