"""The baseline: a transactional consume-process-produce loop by hand, as short as it can be, with the same codec and rule."""

from __future__ import annotations

import sys
import time
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from bench.workload import HAND_OUTPUT, INPUT, apply
from qmtl.foundation.contracts.trade import Position
from qmtl.foundation.wire.keys import encode_key, is_reserved
from qmtl.foundation.wire.registry import codec

BATCH = 4000


def run(bootstrap: str, namespace: str, records: int) -> tuple[float, dict[str, Position]]:
    """Process `records` fills; returns seconds from the first batch to the last commit, and the positions."""
    common: dict[str, Any] = {"bootstrap.servers": bootstrap}
    consumer = Consumer(
        {
            **common,
            "group.id": f"{namespace}hand",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    producer = Producer(
        {
            **common,
            "transactional.id": f"{namespace}hand",
            "linger.ms": 5,
            "compression.type": "lz4",
            "retry.backoff.ms": 2,
            "queue.buffering.max.messages": 200000,
        }
    )
    producer.init_transactions(30)
    consumer.subscribe([f"{namespace}.{INPUT.name}"])
    state: dict[str, Position] = {}
    done, started, first = 0, 0.0, True
    while done < records:
        fence: Any = consumer.consumer_group_metadata()
        batch = [one for one in consumer.consume(BATCH, 0.1) if one.error() is None]
        if not batch:
            continue
        if first:
            started, first = time.perf_counter(), False
        producer.begin_transaction()
        changed: dict[str, Position] = {}
        ends: dict[int, int] = {}
        for message in batch:
            key: Any = message.key()
            partition: Any = message.partition()
            offset: Any = message.offset()
            ends[partition] = offset + 1
            if is_reserved(key):
                continue
            fill = codec.decode(message.value())  # type: ignore[arg-type] # the stub allows text; the value is bytes
            state[fill.symbol] = changed[fill.symbol] = apply(state.get(fill.symbol), fill)
            done += 1
        for symbol, position in changed.items():
            producer.produce(
                f"{namespace}.{HAND_OUTPUT.name}", codec.encode(position), encode_key((symbol,)), 0
            )
        offsets = [
            KafkaPartition(f"{namespace}.{INPUT.name}", partition, offset)
            for partition, offset in ends.items()
        ]
        producer.send_offsets_to_transaction(offsets, fence, 30)
        producer.commit_transaction(30)
    seconds = time.perf_counter() - started
    consumer.close()
    return seconds, state


if __name__ == "__main__":
    seconds, _ = run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    print(int(sys.argv[3]) / seconds)
