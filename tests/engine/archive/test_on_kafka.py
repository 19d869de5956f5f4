"""On a real Kafka: what is archived is what a client of Kafka reads, and a topic that is written or made anew gets no manifest."""

from __future__ import annotations

from typing import Final

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place

from qmtl.engine.archive.objects import in_memory
from qmtl.engine.archive.reading import load, manifests, restore
from qmtl.engine.archive.writing import archive_topic, require_unchanged
from qmtl.engine.log.kafka import KafkaLog
from qmtl.engine.log.port import partitions_of
from qmtl.foundation.common.errors import TopicChanged
from tests.contract.driving import until
from tests.contract.logs import kafka_log
from tests.engine.archive.histories import (
    BESIDE,
    PARTITIONS,
    SMALL,
    SOME,
    SPEC,
    TOPIC,
    Transaction,
    archived,
    write,
)
from tests.engine.archive.stores import contents
from tests.engine.driving import delete

__all__ = ["kafka_log"]
PATIENCE_S: Final = 60.0


def settled(log: KafkaLog) -> None:
    """Wait until the broker has written the ends of all transactions: it tells a writer of its commit before."""
    wheres = partitions_of(TOPIC, PARTITIONS)
    until(lambda: log.stable_offsets(wheres) == log.end_offsets(wheres))


def by_kafka(log: KafkaLog) -> list[tuple[int, int, bytes, bytes | None, int]]:
    """The committed records as Kafka's own client gives them, without a line of ours."""
    out = []
    for number in range(PARTITIONS):
        consumer = Consumer(
            {
                "bootstrap.servers": log.bootstrap,
                "group.id": "by-kafka",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        consumer.assign([Place(f"{log.namespace}{TOPIC}", number, 0)])
        while (message := consumer.poll(PATIENCE_S)) is not None and message.error() is None:
            offset, key, value = message.offset(), message.key() or b"", message.value()
            assert offset is not None
            out.append((number, offset, key, value, message.timestamp()[1]))
        consumer.close()
    return out


def by_the_broker(log: KafkaLog) -> list[tuple[int, int]]:
    """Where each partition begins and ends, as Kafka's own client says."""
    consumer = Consumer({"bootstrap.servers": log.bootstrap, "group.id": "by-the-broker"})
    try:
        return [
            consumer.get_watermark_offsets(Place(f"{log.namespace}{TOPIC}", number), timeout=PATIENCE_S)
            for number in range(PARTITIONS)
        ]
    finally:
        consumer.close()


@pytest.mark.broker
def test_an_archive_of_a_real_topic_holds_what_kafkas_client_reads_and_only_while_it_stays(
    kafka_log: KafkaLog,
) -> None:
    kafka_log.ensure_topics([SPEC])
    write(kafka_log, SOME)
    write(kafka_log, [Transaction(((1, b"at the end", b"aborted"),), commits=False)])
    settled(kafka_log)
    store = in_memory()
    manifest = archived(kafka_log, store, limits=SMALL)
    restored = list(restore(store, manifest))
    assert [one[1:] for one in restored] == by_kafka(kafka_log)
    assert manifest.records == 8
    of_first = [one.offset for one in restored if one.partition == 0]
    assert of_first != list(range(of_first[0], of_first[0] + len(of_first)))  # what was aborted left gaps
    assert {one.value for one in restored} >= {None, b""}
    assert [(one.begin, one.end) for one in manifest.partitions] == by_the_broker(kafka_log)
    stored = contents(store)
    assert archived(kafka_log, store, limits=SMALL) == manifest
    assert contents(store) == stored
    require_unchanged(kafka_log, manifest)

    writer = kafka_log.writer("somebody")
    writer.begin()
    writer.append(TOPIC, 2, b"open", b"open")
    wheres = partitions_of(TOPIC, PARTITIONS)
    until(lambda: kafka_log.stable_offsets(wheres) != kafka_log.end_offsets(wheres))  # it is there
    with pytest.raises(TopicChanged):
        archived(kafka_log, store)
    writer.abort()
    writer.close()
    settled(kafka_log)
    with pytest.raises(TopicChanged, match="was archived up to offset"):
        require_unchanged(kafka_log, manifest)

    delete(kafka_log, TOPIC)
    with pytest.raises(TopicChanged, match="is not on the log any more"):
        require_unchanged(kafka_log, manifest)
    kafka_log.ensure_topics([SPEC])
    write(kafka_log, SOME)
    with pytest.raises(TopicChanged, match="when its archive was begun; it is"):
        require_unchanged(kafka_log, manifest)
    settled(kafka_log)
    second = archived(kafka_log, store, limits=SMALL)
    assert second.topic_id != manifest.topic_id
    assert manifests(store) == sorted([manifest.name, second.name])
    assert list(restore(store, load(store, manifest.name))) == list(restore(store, manifest))


@pytest.mark.broker
def test_what_others_have_written_is_archived_as_the_logs_port_reads_it(kafka_log: KafkaLog) -> None:
    """Neither an absent key nor a header is a thing of the log's port: what is archived is all that any processor could read."""
    kafka_log.ensure_topics([BESIDE])
    producer = Producer({"bootstrap.servers": kafka_log.bootstrap})
    there = f"{kafka_log.namespace}{BESIDE.name}"
    rows: list[tuple[bytes | None, bytes | None]] = [(None, b"1"), (b"", b"2"), (b"k", None), (b"k", b"")]
    for key, value in rows:
        producer.produce(there, value, key, partition=0, headers=[("name", b"header")])
    assert producer.flush(PATIENCE_S) == 0
    store = in_memory()
    manifest = archive_topic(kafka_log, BESIDE.name, store).manifest
    assert [(one.offset, one.key, one.value) for one in restore(store, manifest)] == [
        (0, b"", b"1"),
        (1, b"", b"2"),
        (2, b"k", None),
        (3, b"k", b""),
    ]
