"""Three nodes are a cluster: what they have acknowledged survives the death of the node that led it."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from qmtl.testing.cluster import NODES, start_cluster


@pytest.mark.broker
def test_what_is_acknowledged_survives_the_death_of_its_leader() -> None:
    with start_cluster() as cluster:
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
        assert len(admin.list_topics(timeout=60).brokers) == NODES
        topic = NewTopic("kept", num_partitions=1, replication_factor=3)
        admin.create_topics([topic])["kept"].result()
        producer = Producer(
            {"bootstrap.servers": cluster.bootstrap, "enable.idempotence": True, "log_level": 0}
        )
        leader = cluster.leader("kept", 0)
        for number in range(200):
            if number == 100:
                producer.flush(30)
                leader.kill()
            producer.produce("kept", b"%d" % number)
            producer.poll(0)
        assert producer.flush(60) == 0
        assert cluster.leader("kept", 0) is not leader
        leader.start()
        cluster.wait_in_sync("kept")
        consumer = Consumer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "group.id": "g",
                "enable.partition.eof": True,
                "log_level": 0,
            }
        )
        consumer.assign([Place("kept", 0, 0)])
        found: list[bytes | None] = []
        while (message := consumer.poll(10)) is not None and message.error() is None:
            found.append(message.value())
        consumer.close()
        assert found == [b"%d" % number for number in range(200)]
