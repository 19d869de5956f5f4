"""Orders a second through a broker, and how long one intent takes to become an order that everybody sees.

Trading is the worker as it is deployed, a process of its own. For the rate, all intents lie on the log before it starts, and it is timed
from the first order that is visible to the last. For the delay, a bucket is closed some hundred times a second, with an intent or two in each, and
each intent is timed from when its transaction is visible to when its order is.
"""

from __future__ import annotations

import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition

from bench.engine import gauge
from bench.engine.gauge import Failed
from bench.engine.latency import spread
from bench.trading import workload
from bench.trading.workload import WORLD, Size, Source
from qmtl.bootstrap import open_log, prepare
from qmtl.engine.log.port import Log
from qmtl.foundation.contracts.trade import Order
from qmtl.foundation.wire.keys import encode_key, is_reserved, partition_for
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import topic

PATIENCE_S: Final = 90.0
WARM_UP_S: Final = 5.0
"""So long the delay is not counted: the worker and the broker are being compiled and connected."""


class Orders:
    """Sees orders when they become visible: the ids of those that were not seen before."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        partition = partition_for(encode_key((WORLD,)), topic("trade.orders").partitions)
        self._taker: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "bench.trading",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.queue.backoff.ms": 1,
                "fetch.wait.max.ms": 5,
                "log_level": 0,
            }
        )
        self._taker.assign([KafkaPartition(f"{prefix}trade.orders", partition, 0)])
        self._seen: set[bytes] = set()

    def take(self, timeout_s: float, most: int = 500) -> list[bytes]:
        """The values of orders that are new."""
        out = []
        for message in self._taker.consume(most, timeout_s):
            if message.error() is not None or message.value() is None or is_reserved(message.key()):
                continue
            if message.key() not in self._seen:
                self._seen.add(message.key())
                out.append(message.value())
        return out

    def close(self) -> None:
        self._taker.close()


@contextmanager
def _stage(bootstrap: str) -> Iterator[tuple[Log, str, str]]:
    """A log of its own, its address and the prefix of its topics."""
    namespace = f"bench-{uuid.uuid4().hex[:12]}"
    address = f"kafka://{bootstrap}/{namespace}"
    log = open_log(address)
    prepare(log)
    try:
        yield log, address, f"{namespace}."
    finally:
        log.close()


def _worker(address: str, place: Path) -> list[str]:
    state = str(place / uuid.uuid4().hex)
    return [sys.executable, "-m", "qmtl", "worker", "run", "trading", "--log", address, "--state-dir", state]


def rate(bootstrap: str, place: Path, size: Size) -> dict[str, Any]:
    """Orders a second end to end.

    Raises:
        Failed: the worker ended or stood still.
    """
    with _stage(bootstrap) as (log, address, prefix):
        source = Source(log.writer("bench"))
        source.write(0, workload.first(size))
        for number in range(1, size.buckets + 1):
            source.write(number, list(workload.bucket(size, number)))
        orders = Orders(bootstrap, prefix)
        seen, first_s, last_s, first = 0, 0.0, 0.0, 0
        with gauge.started(_worker(address, place), "trading") as worker:
            heard = time.monotonic()
            while seen < size.orders:
                found = orders.take(0.05, 5000)
                if found:
                    heard, last_s = time.monotonic(), time.perf_counter()
                    seen += len(found)
                    if not first_s:
                        first_s, first = last_s, seen
                worker.require_alive()
                if time.monotonic() > heard + PATIENCE_S:
                    raise Failed(f"{seen} of {size.orders} orders came: {worker.last_words()}")
            cpu_s = worker.cpu_s()
        orders.close()
    return {
        "orders": size.orders,
        "orders_per_s": (seen - first) / (last_s - first_s),
        "cpu_us_per_order": cpu_s / seen * 1e6,
    }


def delay(bootstrap: str, place: Path, per_s: int, seconds: float, together: int = 2) -> dict[str, Any]:
    """Milliseconds from an intent that is visible to its order that is.

    Args:
        together: intents of one bucket.

    Raises:
        Failed: an order did not come.
    """
    size = Size(1, together, 0)
    with _stage(bootstrap) as (log, address, prefix):
        source = Source(log.writer("bench"))
        source.write(0, workload.first(size))
        orders = Orders(bootstrap, prefix)
        sent: dict[int, float] = {}
        took: list[int] = []
        seen = 0
        with gauge.started(_worker(address, place), "trading") as worker:
            step_s, number, begun = together / per_s, 0, time.perf_counter()
            counted_from = begun
            last = int(per_s / together * (seconds + WARM_UP_S))
            heard = time.monotonic()
            while seen < last * together:
                now = time.perf_counter()
                due = begun + number * step_s
                if number < last and now >= due and (number < 2 or seen):
                    if number == 2:  # it is up: from here on at an even rate
                        begun = counted_from = now
                        begun -= 2 * step_s
                    number += 1
                    source.write(number, list(workload.bucket(size, number)))
                    sent[number] = time.perf_counter()
                found = orders.take(0.001)
                now = time.perf_counter()
                for value in found:
                    order: Order = codec.decode(value)
                    of = (order.created_at_ms - workload.START_MS) // workload.STEP_MS
                    if sent[of] > counted_from + WARM_UP_S:
                        took.append(int((now - sent[of]) * 1e9))
                seen += len(found)
                heard = time.monotonic() if found else heard
                worker.require_alive()
                if time.monotonic() > heard + PATIENCE_S:
                    raise Failed(f"{seen} of {last * together} orders came: {worker.last_words()}")
        orders.close()
    return {"intents_per_s": per_s, "counted": len(took), "ms": spread(took)}
