"""How long a diff of known nodes takes by how large the graph is: in the engine alone, and through a broker at an even rate.

In the engine it is what the DAG Manager does to compare a message with its graph (`decide_ms`), and all that comes of a request on
the embedded log, commits included (`step_ms`). Through the broker it is what somebody waits who asks: from the instant at which a
request was due, whether it could be sent then or not, until its last chunk is readable, committed. Whoever asks acknowledges what
came and compresses what it sends, as the client of this project does. The DAG Manager was started on the graph, as one that has run for
long, and has seen the text of each node once since then.
"""

from __future__ import annotations

import gc
import itertools
import json
import random
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from bench.dag.admission import PIPELINE, Sizes, spread
from bench.dag.standing import Standing, message
from bench.engine import gauge
from bench.engine.gauge import Failed
from qmtl.bootstrap import open_log
from qmtl.foundation.contracts.dag import CreateTopic, DagSubmission, ReportTopicCreated
from qmtl.foundation.contracts.diff import AckChunk, DiffChunk, DiffRequest, NodeOrigin
from qmtl.foundation.wire.keys import decode_key, encode_key, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.services.dagmanager.catalogue import Catalogue
from qmtl.services.dagmanager.diff_stream import CHUNK_NODES
from qmtl.services.dagmanager.diffing import difference
from qmtl.services.dagmanager.prescan import Prescan

REQUESTS: Final = "dag.diff.requests"
CHUNKS: Final = "dag.diff.chunks"
ACKS: Final = "dag.diff.acks"
OUT: Final = 4
"""Submissions that are out at a time while the graph grows."""


class Asking:
    """Requests that nobody made before, each of nodes that all exist."""

    def __init__(self, pipelines: int, nodes: int) -> None:
        self._draw = random.Random(f"{pipelines} {nodes}")
        self._pipelines = pipelines
        self._count = nodes // PIPELINE
        self._numbers = itertools.count()

    def request(self) -> DiffRequest:
        return self._of(self._draw.sample(range(self._pipelines), self._count))

    def some(self, count: int) -> list[DiffRequest]:
        return [self.request() for _ in range(count)]

    def all_once(self) -> list[DiffRequest]:
        """Requests that together name all nodes."""
        places = range(0, self._pipelines, self._count)
        begins = (min(one, self._pipelines - self._count) for one in places)
        return [self._of(range(one, one + self._count)) for one in begins]

    def _of(self, numbers: Sequence[int]) -> DiffRequest:
        name = f"d{self._pipelines}-{next(self._numbers)}"
        return DiffRequest(name, name, message(name, numbers), 0, "w", "live")


# ---- in the engine -------------------------------------------------------------------------------------------------


def measure(place: Path, sizes: Sizes) -> dict[str, Any]:
    """Times by how many nodes exist; each row is printed.

    Raises:
        Failed: an answer is not that all nodes are there.
    """
    found: dict[str, Any] = {}
    pipelines = 0
    for known in sorted(sizes.known):
        standing = Standing(place, pipelines)
        standing.grow(known, sizes.nodes)
        pipelines = standing.pipelines
        asking = Asking(pipelines, sizes.nodes)
        catalogue, prescan = Catalogue(standing.tables), Prescan()
        for request in asking.all_once():  # who has run for long has seen each text
            difference(catalogue, request, prescan)
            _answered(standing, request, sizes.nodes)
        decide, step = [], []
        gc.collect()
        for _ in range(sizes.rounds):
            request = asking.request()
            began = time.perf_counter()
            told = difference(catalogue, request, prescan)
            decide.append((time.perf_counter() - began) * 1e3)
            if {one.origin for one in told.nodes} != {NodeOrigin.REUSED} or len(told.nodes) != sizes.nodes:
                raise Failed(f"{request.request_id}: not all nodes were found")
            step.append(_answered(standing, asking.request(), sizes.nodes))
        standing.close()
        row = found[str(known)] = {"decide_ms": spread(decide), "step_ms": spread(step)}
        print(json.dumps({str(known): row}), flush=True)
    least, most = (found[str(known)]["decide_ms"] for known in (min(sizes.known), max(sizes.known)))
    found["flat"] = most["p50"] / least["p50"]
    return found


def _answered(standing: Standing, request: DiffRequest, nodes: int) -> float:
    """Have a request answered, and the answer taken; returns how long the first took, in milliseconds."""
    standing.send(REQUESTS, [request])
    began = time.perf_counter()
    standing.run()
    took = (time.perf_counter() - began) * 1e3
    standing.send(ACKS, [AckChunk(request.request_id, -(-nodes // CHUNK_NODES) - 1)])
    standing.run()
    return took


# ---- through a broker ------------------------------------------------------------------------------------------------


def through(
    bootstrap: str, place: Path, nodes: int, known: int, per_s: int, seconds: float
) -> dict[str, Any]:
    """Times at an even rate, against a DAG Manager in a process of its own.

    Raises:
        Failed: it ended, or was silent for long, or an answer is not that all nodes are there.
    """
    namespace = f"bench-{uuid.uuid4().hex[:12]}"
    log = f"kafka://{bootstrap}/{namespace}"
    opened = open_log(log)
    opened.ensure_topics(CATALOGUE)
    opened.close()
    line = ["-m", "qmtl", "worker", "run", "dagmanager", "--log", log, "--state-dir", str(place / "state")]
    with _client(bootstrap, f"{namespace}.") as client:
        with gauge.started([sys.executable, *line], "dagmanager") as worker:
            pipelines = _fill(client, worker, nodes, known)
            filled_mb = worker.rss_mb()
            worker.stop()
        asking = Asking(pipelines, nodes)
        with gauge.started([sys.executable, *line], "dagmanager") as worker:
            _ask(client, worker, asking.all_once(), nodes, 1_000.0)
            _ask(client, worker, asking.some(per_s * 2), nodes, per_s)  # it is warm
            before = worker.cpu_s()
            took = _ask(client, worker, asking.some(int(per_s * seconds)), nodes, per_s)
            cpu_ms = (worker.cpu_s() - before) * 1e3 / len(took)
            row = {
                "nodes": nodes,
                "known": known,
                "per_s": per_s,
                "requests": len(took),
                "ms": spread(took),
                "cpu_ms": cpu_ms,
                "process_mb": worker.rss_mb(),
                "filled_mb": filled_mb,
            }
    print(json.dumps({"through the broker": row}), flush=True)
    return row


class _Client:
    """Writes records and waits for those that are committed, by the plain client of Kafka."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._prefix = prefix
        self.producer: Any = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 0,
                "compression.type": "lz4",
                "message.max.bytes": 4 << 20,
            }
        )
        self.consumer: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{prefix}asker",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 100,
            }
        )

    def send(self, name: str, value: Any) -> None:
        key = encode_key(topic(name).key_of(value))
        self.producer.produce(self._prefix + name, codec.encode(value), key, partition=0)
        self.producer.poll(0)

    def read(self, name: str) -> None:
        """From now on what comes to a topic is taken."""
        place = KafkaPartition(self._prefix + name, 0)
        self.consumer.assign([KafkaPartition(place.topic, 0, self._end(place))])

    def _end(self, place: KafkaPartition) -> int:
        deadline = time.monotonic() + gauge.PATIENCE_S
        while True:
            try:
                return int(self.consumer.get_watermark_offsets(place, timeout=10.0)[1])
            except KafkaException:  # it was made just now
                if time.monotonic() > deadline:
                    raise

    def take(self, worker: gauge.Child, wait_s: float) -> list[tuple[bytes, bytes]]:
        """The rows that have come, with their keys."""
        worker.require_alive()
        records = self.consumer.consume(500, wait_s)
        return [
            (one.key(), one.value())
            for one in records
            if not one.error() and one.value() is not None and not is_reserved(one.key())
        ]


@contextmanager
def _client(bootstrap: str, prefix: str) -> Iterator[_Client]:
    client = _Client(bootstrap, prefix)
    try:
        yield client
    finally:
        client.producer.flush(10.0)
        client.consumer.close()


def _fill(client: _Client, worker: gauge.Child, nodes: int, known: int) -> int:
    """Publish strategies until so many nodes exist, all with their topics, of which none is really made; returns how many pipelines.

    A few at a time: a transaction in which too many are decided isn't ready within its time.
    """
    client.read("dag.tasks")
    pipelines, asked = 0, 0
    heard = time.monotonic()
    while asked < max(known, pipelines * PIPELINE):
        while pipelines * PIPELINE < min(known, asked + OUT * nodes):
            numbers = range(pipelines, pipelines + nodes // PIPELINE)
            name = f"s{pipelines}"
            client.send("dag.submissions", DagSubmission(name, "w", message(name, numbers), pipelines))
            pipelines = numbers.stop
        if time.monotonic() > heard + gauge.PATIENCE_S:
            raise Failed(f"only {asked} topics were asked for: {worker.last_words()}")
        for _, value in client.take(worker, 0.1):
            task = codec.decode(value)
            if isinstance(task, CreateTopic):
                heard = time.monotonic()
                asked += 1
                client.send("dag.reports", ReportTopicCreated(task.topic, True, "", ""))
    client.producer.flush(30.0)
    return pipelines


def _ask(
    client: _Client, worker: gauge.Child, requests: Sequence[DiffRequest], nodes: int, per_s: float
) -> list[float]:
    """Milliseconds of each request, in the order of the requests. What was answered is read when all is there, so that the reading
    takes no time from whoever answers.

    Raises:
        Failed: nothing came for long, or an answer is not that all nodes are there.
    """
    client.read(CHUNKS)
    began = time.perf_counter() + 0.1
    due = {one.request_id: began + place / per_s for place, one in enumerate(requests)}
    chunks: dict[str, list[bytes]] = {one: [] for one in due}
    done: dict[str, float] = {}
    sent, heard, wanted = 0, began, -(-nodes // CHUNK_NODES)
    while len(done) < len(requests):
        now = time.perf_counter()
        if sent < len(requests) and now >= due[requests[sent].request_id]:
            client.send(REQUESTS, requests[sent])
            sent += 1
            continue
        next_due = due[requests[sent].request_id] if sent < len(requests) else now + 0.05
        for key, value in client.take(worker, max(0.0, min(0.005, next_due - now))):
            heard = time.perf_counter()
            request_id, seq = decode_key(key)
            came = chunks.get(str(request_id), [])
            came.append(value)
            if len(came) == wanted:
                done[str(request_id)] = heard
                client.send(ACKS, AckChunk(str(request_id), int(seq)))
        if time.perf_counter() - heard > gauge.PATIENCE_S:
            raise Failed(f"no answer to {len(requests) - len(done)} requests: {worker.last_words()}")
    for request_id, came in chunks.items():
        _check(request_id, [codec.decode(one) for one in came], nodes)
    return [(done[one.request_id] - due[one.request_id]) * 1e3 for one in requests]


def _check(request_id: str, chunks: Sequence[DiffChunk], nodes: int) -> None:
    told = [node.origin for one in chunks for node in one.queue_map]
    if told != [NodeOrigin.REUSED] * nodes or [one.last for one in chunks].index(True) != len(chunks) - 1:
        raise Failed(f"{request_id}: not all nodes were found: {chunks[0].detail}")
