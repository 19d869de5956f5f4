"""On a real Kafka: what is archived is what a client of Kafka reads, and a topic that is written or made anew gets no manifest."""

from __future__ import annotations

from typing import Final

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as Place

from qmtl.engine.archive.objects import in_memory
from qmtl.engine.archive.reading import load, manifests, restore
from qmtl.engine.archive.writing import require_unchanged
from qmtl.engine.log.kafka import KafkaLog
from qmtl.foundation.common.errors import TopicChanged
from tests.contract.logs import kafka_log
from tests.engine.archive.histories import PARTITIONS, SMALL, SOME, SPEC, TOPIC, Transaction, archived, write
from tests.engine.archive.stores import contents
from tests.engine.driving import delete

__all__ = ["kafka_log"]
PATIENCE_S: Final = 20.0


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


@pytest.mark.broker
def test_an_archive_of_a_real_topic_holds_what_kafkas_client_reads_and_only_while_it_stays(
    kafka_log: KafkaLog,
) -> None:
    kafka_log.ensure_topics([SPEC])
    write(kafka_log, SOME)
    write(kafka_log, [Transaction(((1, b"at the end", b"aborted"),), commits=False)])
    store = in_memory()
    manifest = archived(kafka_log, store, limits=SMALL)
    assert [one[1:] for one in restore(store, manifest)] == by_kafka(kafka_log)
    assert manifest.records == 8
    stored = contents(store)
    assert archived(kafka_log, store, limits=SMALL) == manifest
    assert contents(store) == stored
    require_unchanged(kafka_log, manifest)

    writer = kafka_log.writer("somebody")
    writer.begin()
    writer.append(TOPIC, 2, b"open", b"open")
    with pytest.raises(TopicChanged):
        archived(kafka_log, store)
    writer.abort()
    writer.close()
    with pytest.raises(TopicChanged, match="was archived up to offset"):
        require_unchanged(kafka_log, manifest)

    delete(kafka_log, TOPIC)
    with pytest.raises(TopicChanged, match="is not on the log any more"):
        require_unchanged(kafka_log, manifest)
    kafka_log.ensure_topics([SPEC])
    write(kafka_log, SOME)
    with pytest.raises(TopicChanged, match="when its archive was begun; it is"):
        require_unchanged(kafka_log, manifest)
    second = archived(kafka_log, store, limits=SMALL)
    assert second.topic_id != manifest.topic_id
    assert manifests(store) == sorted([manifest.name, second.name])
    assert list(restore(store, load(store, manifest.name))) == list(restore(store, manifest))
