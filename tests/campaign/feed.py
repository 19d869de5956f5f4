"""Writes the input of a trial with a plain producer, and tells the oracle what it wrote; aborted decoys lie in between."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from tests.campaign import plain
from tests.campaign.oracle import Loop, Put, Sums

PATIENCE_S: Final = 60.0
BUCKET_MS: Final = 60_000
DECOY: Final = 1_000_000_000
DECOYS: Final = 0.15
NAMES: Final = 12

Records = list[tuple[str, int, bytes, bytes]]
"""Topic, partition, key, value."""


class Feed(threading.Thread):
    """Writes so many items and buckets, spread over `seconds`; then `sums` and `loop` are what must come out.

    Attributes:
        items: per partition of the item topic what was committed, in order.
        failure: why it could not go on; the trial then says nothing.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        rng: random.Random,
        items: int,
        buckets: int,
        seconds: float,
        partitions: int,
    ) -> None:
        super().__init__(name="feed", daemon=True)
        self._address, self._namespace, self._rng = bootstrap, namespace, rng
        self._counts, self._seconds, self._partitions = (items, buckets), seconds, partitions
        self.sums, self.loop = Sums(), Loop()
        self.items: dict[int, list[Put]] = {number: [] for number in range(partitions)}
        self.buckets: list[int] = []
        self.failure = ""
        self._seq = 0
        self._producer: Any = None

    def run(self) -> None:
        try:
            self._feed()
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}"

    def _feed(self) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": self._address,
                "transactional.id": f"{self._namespace}feed",
                "transaction.timeout.ms": 60_000,
                "log_level": 0,
            }
        )
        self._through(self._producer.init_transactions)
        items, buckets = self._counts
        steps = ["bucket"] * buckets + ["items"] * (-(-items // 10))
        self._rng.shuffle(steps)
        begun = time.monotonic()
        for number, step in enumerate(steps):
            if step == "items":
                self._some_items(min(10, items - self._seq_of_items()))
            else:
                self._bucket((len(self.buckets) + 1) * BUCKET_MS)
            time.sleep(max(0.0, begun + self._seconds * (number + 1) / len(steps) - time.monotonic()))

    def _seq_of_items(self) -> int:
        return sum(map(len, self.items.values()))

    def _put(self) -> Put:
        self._seq += 1
        amount = 0 if self._rng.random() < 0.2 else self._rng.randint(1, 99)
        return Put(f"n{self._rng.randrange(NAMES)}", self._seq, amount)

    def _some_items(self, count: int) -> None:
        puts = [self._put() for _ in range(count)]
        if self._rng.random() < DECOYS:
            self._transaction([self._item("c.items", Put(one.name, 0, DECOY)) for one in puts], keep=False)
        self._transaction([self._item("c.items", one) for one in puts])
        for one in puts:
            self.sums.take(one)
            self.items[plain.partition_of(one.name, self._partitions)].append(one)

    def _bucket(self, bucket_ms: int) -> None:
        puts = [self._put() for _ in range(self._rng.choice((0, 0, 1, 2, 5)))]
        if self._rng.random() < DECOYS:
            decoys = [Put(f"n{self._rng.randrange(NAMES)}", 0, DECOY)]
            self._transaction(self._closed(bucket_ms + 1, decoys), keep=False)
        self._transaction(self._closed(bucket_ms, puts))
        self.loop.take(bucket_ms, puts)
        self.buckets.append(bucket_ms)

    def _closed(self, bucket_ms: int, puts: list[Put]) -> Records:
        out = [self._item("c.bars", one) for one in puts]
        for partition in range(self._partitions):
            mine = [(raw, value) for _, number, raw, value in out[: len(puts)] if number == partition]
            marker = {
                "processor": "people",
                "task": 0,
                "tasks": 1,
                "bucket_ms": bucket_ms,
                "count": len(mine),
                "digest": plain.digest(mine),
                "config_epoch": 1,
            }
            raw = plain.marker_key("people", 0, bucket_ms)
            out.append(("c.bars", partition, raw, plain.encode("CloseMarker", marker)))
        return out

    def _item(self, topic: str, one: Put) -> tuple[str, int, bytes, bytes]:
        partition = plain.partition_of(one.name, self._partitions)
        return topic, partition, plain.key(one.name, one.seq), plain.encode("Item", one._asdict())

    def _transaction(self, records: Records, *, keep: bool = True) -> None:
        """Commit the records, or abort them; a transaction that the broker gave up is written again."""
        while True:
            self._through(self._producer.begin_transaction)
            try:
                for topic, partition, raw, value in records:
                    self._producer.produce(f"{self._namespace}{topic}", value, raw, partition)
                if not keep:
                    self._producer.flush(
                        PATIENCE_S
                    )  # so that there is something to be seen by who should not
                    self._through(self._producer.abort_transaction)
                    return
                self._through(self._producer.commit_transaction)
                return
            except KafkaException as error:
                if not error.args[0].txn_requires_abort():
                    raise
                self._through(self._producer.abort_transaction)

    def _through(self, call: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                call()
                return
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
