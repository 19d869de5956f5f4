"""Transactions of somebody else on the cluster that stay open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place

from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import Positions, TopicPartition


@contextmanager
def begun(log: KafkaLog) -> Iterator[Producer]:
    """A transaction that lasts as long as the block, and is then aborted."""
    producer = Producer(
        {
            "bootstrap.servers": log.bootstrap,
            "transactional.id": f"{log.namespace}outsider",
            "transaction.timeout.ms": 60_000,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    try:
        yield producer
    finally:
        producer.abort_transaction(60)


@contextmanager
def outsider(log: KafkaLog, where: TopicPartition) -> Iterator[Producer]:
    """One that has a record in a partition."""
    with begun(log) as producer:
        producer.produce(log.namespace + where.topic, b"open", b"outsider", where.partition)
        producer.flush(60)
        yield producer


@contextmanager
def holder(log: KafkaLog, group: str, positions: Positions) -> Iterator[None]:
    """One that has positions of a group, of which it is no member."""
    known = Consumer({"bootstrap.servers": log.bootstrap, "group.id": log.namespace + group})
    try:
        with begun(log) as producer:
            places = [
                Place(log.namespace + where.topic, where.partition, at) for where, at in positions.items()
            ]
            producer.send_offsets_to_transaction(places, known.consumer_group_metadata(), 60)
            yield
    finally:
        known.close()
