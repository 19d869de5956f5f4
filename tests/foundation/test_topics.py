"""What a class of node topics gets at creation, as seed 003 (part 3.2) has it, number by number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qmtl.foundation.contracts.dag import QueueCollected, QueueUpdated, TopicClass
from qmtl.foundation.wire.topics import get_config, node_topic, topic

SEVEN_DAYS_MS, THIRTY_DAYS_MS, NINETY_DAYS_MS = 604_800_000, 2_592_000_000, 7_776_000_000


@pytest.mark.parametrize(
    "topic_type, partitions, replication, retention_ms",
    [
        ("raw", 3, 3, SEVEN_DAYS_MS),
        ("indicator", 1, 2, THIRTY_DAYS_MS),
        ("trade_exec", 1, 3, NINETY_DAYS_MS),
    ],
)
def test_a_class_of_topics_gets_what_the_table_says(
    topic_type: str, partitions: int, replication: int, retention_ms: int
) -> None:
    """None is compacted: what is older than its retention is deleted, and nothing else."""
    kind = TopicClass(topic_type)
    config = get_config(kind)
    assert (config.partitions, config.replication, config.retention_ms) == (
        partitions,
        replication,
        retention_ms,
    )
    spec = node_topic("asset_sma_01234567_v1", kind)
    assert (spec.partitions, spec.replication, spec.compacted) == (partitions, replication, False)
    assert spec.config() == {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}


def test_there_are_these_classes_and_no_other() -> None:
    assert {one.value for one in TopicClass} == {"raw", "indicator", "trade_exec"}


def test_events_of_a_queue_lie_by_its_tags_and_interval_however_many_partitions_there_are() -> None:
    spec = replace(topic("queue"), partitions=8)
    keys = [((f"tag{number}", "b"), interval) for number in range(20) for interval in (60, 300)]
    updated = [
        spec.partition_of(QueueUpdated("QueueUpdated", *key, (f"q{at}",), f"e{at}", ""))
        for at, key in enumerate(keys)
    ]
    collected = [
        spec.partition_of(QueueCollected("QueueCollected", "t", *key, "delete", "e", "")) for key in keys
    ]
    assert updated == collected
    assert len(set(updated)) == 8
