"""How long somebody waits for a diff who asks through a broker, at an even rate.

It is the time from the instant at which a request was due, whether it could be sent then or not, until its last chunk is readable,
committed. Whoever asks acknowledges what came and compresses what it sends, as the client of this project does; it has its messages
ready before and reads what it was told afterwards, so that it takes little from the processors that it shares with who answers. A
message is sent again after some seconds under another request's id: nobody remembers messages, but only what their nodes say.

The DAG Manager was started on the graph, as one that has run for long, has seen the text of each node since then, and was asked for a
while at the same rate: so long the broker, too, takes to be compiled.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from bench.dag.admission import PIPELINE, spread
from bench.dag.asking import Asking
from bench.dag.diffs import ACKS, REQUESTS
from bench.dag.standing import message
from bench.engine import gauge
from bench.engine.gauge import Failed
from qmtl.bootstrap import open_log
from qmtl.foundation.contracts.dag import CreateTopic, DagSubmission, ReportTopicCreated
from qmtl.foundation.contracts.diff import AckChunk, DiffChunk, DiffRequest, NodeOrigin
from qmtl.foundation.wire.keys import decode_key, encode_key, is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, topic
from qmtl.services.dagmanager.diff_stream import CHUNK_NODES, WINDOW

CHUNKS: Final = "dag.diff.chunks"
OUT: Final = 4
"""Submissions that are out at a time while the graph grows."""

MESSAGES: Final = 400
"""That are ready to be sent."""

LONG_PER_S: Final = 5.0
"""Requests of another length are rare: what one takes is looked at, not how many can be served."""

LINGER_MS: Final = 100
"""How long acknowledgements wait for others to be sent with; nothing waits for them."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How the DAG Manager is asked.

    Attributes:
        warm_up_s: so long before anything is measured.
        texts: bytes of messages that are longer or shorter.
        rounds: how many of each of these.
    """

    per_s: int
    seconds: float
    warm_up_s: float
    texts: Sequence[int] = ()
    rounds: int = 1


def through(bootstrap: str, place: Path, nodes: int, known: int, rate: Rate) -> dict[str, Any]:
    """Times against a DAG Manager in a process of its own.

    Returns: milliseconds of requests of so many nodes, and of those of other lengths; what the DAG Manager, and who asks and reads, take of a
        processor for each; megabytes of the DAG Manager's whole process with its tables and a single request, and in the end, and of the one
        that made the graph.

    Raises:
        Failed: it ended, or was silent for long, or an answer is not that all nodes are there.
    """
    namespace = f"bench-{uuid.uuid4().hex[:12]}"
    log = f"kafka://{bootstrap}/{namespace}"
    opened = open_log(log)
    opened.ensure_topics(CATALOGUE)
    opened.close()
    state = place / "state"
    filling = [sys.executable, "-m", "bench.dag.twofold", log, str(state / "tasks")]
    running = ["-m", "qmtl", "worker", "run", "dagmanager", "--log", log, "--state-dir", str(state)]
    with _client(bootstrap, f"{namespace}.") as client:
        with gauge.started(filling, "the one that makes the graph") as worker:
            pipelines = _fill(client, worker, nodes, known)
            filled_mb = worker.rss_mb()
            worker.stop()
        asking = Asking(pipelines, nodes)
        with gauge.started([sys.executable, *running], "dagmanager") as worker:
            _ask(client, worker, asking.some(1), rate.per_s)
            restored_mb = worker.rss_mb()
            _ask(client, worker, asking.all_once(), 1_000.0)
            warm_up, count = int(rate.per_s * rate.warm_up_s), int(rate.per_s * rate.seconds)
            ready = _again_and_again(asking.some(min(MESSAGES, warm_up + count)))
            gc.collect()
            if warm_up:
                _ask(client, worker, list(islice(ready, warm_up)), rate.per_s, is_read=False)
            cpu_s, own_s = worker.cpu_s(), time.process_time()
            took = _ask(client, worker, list(islice(ready, count)), rate.per_s)
            cpu_s, own_s = worker.cpu_s() - cpu_s, time.process_time() - own_s
            row = {
                "nodes": nodes,
                "known": known,
                "per_s": rate.per_s,
                "warm_up_s": rate.warm_up_s,
                "requests": len(took),
                "ms": spread(took),
                "cpu_ms": cpu_s * 1e3 / len(took),
                "asker_cpu_ms": own_s * 1e3 / len(took),
                "by_length": _by_length(client, worker, asking, rate),
                "restored_mb": restored_mb,
                "process_mb": worker.rss_mb(),
                "filled_mb": filled_mb,
            }
    print(json.dumps({"through the broker": row}), flush=True)
    return row


def _again_and_again(requests: Sequence[DiffRequest]) -> Iterator[DiffRequest]:
    """The same messages, each time under another id."""
    for number, one in enumerate(cycle(requests)):
        yield replace(one, request_id=f"r{number}")


def _by_length(client: _Client, worker: gauge.Child, asking: Asking, rate: Rate) -> dict[str, Any]:
    found = {}
    for length in rate.texts:
        requests = [one for _ in range(rate.rounds) if (one := asking.long(length)) is not None]
        if requests:
            took = _ask(client, worker, requests, LONG_PER_S)
            found[f"{length >> 10}_KiB"] = {
                "message_bytes": len(requests[-1].dag_json),
                "nodes": _nodes_of(requests[-1]),
                "ms": spread(took),
            }
    return found


class _Client:
    """Writes records and waits for those that are committed, by the plain client of Kafka."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._prefix = prefix
        told = {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "message.max.bytes": 4 << 20,
        }
        self._producer: Any = Producer({**told, "linger.ms": 0})
        self._later: Any = Producer({**told, "linger.ms": LINGER_MS})
        self._consumer: Any = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{prefix}asker",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 100,
            }
        )

    def send(self, name: str, value: Any, *, at_once: bool = True) -> None:
        producer = self._producer if at_once else self._later
        key = encode_key(topic(name).key_of(value))
        producer.produce(self._prefix + name, codec.encode(value), key, partition=0)
        producer.poll(0)

    def flush(self) -> None:
        for one in (self._producer, self._later):
            one.flush(30.0)

    def read(self, name: str) -> None:
        """From now on what comes to a topic is taken."""
        place = KafkaPartition(self._prefix + name, 0)
        self._consumer.assign([KafkaPartition(place.topic, 0, self._end(place))])

    def _end(self, place: KafkaPartition) -> int:
        deadline = time.monotonic() + gauge.PATIENCE_S
        while True:
            try:
                return int(self._consumer.get_watermark_offsets(place, timeout=10.0)[1])
            except KafkaException:  # it was made just now
                if time.monotonic() > deadline:
                    raise

    def take(self, worker: gauge.Child, wait_s: float) -> list[tuple[bytes, bytes]]:
        """The rows that have come, with their keys: all that are there as soon as one is."""
        worker.require_alive()
        first = self._consumer.poll(wait_s)
        records = [] if first is None else [first, *self._consumer.consume(500, 0.0)]
        return [
            (one.key(), one.value())
            for one in records
            if not one.error() and one.value() is not None and not is_reserved(one.key())
        ]

    def close(self) -> None:
        self.flush()
        self._consumer.close()


@contextmanager
def _client(bootstrap: str, prefix: str) -> Iterator[_Client]:
    client = _Client(bootstrap, prefix)
    try:
        yield client
    finally:
        client.close()


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
            client.send(
                "dag.submissions",
                DagSubmission(name, "w", message(name, numbers), pipelines, execution_domain="live"),
            )
            pipelines = numbers.stop
        if time.monotonic() > heard + gauge.PATIENCE_S:
            raise Failed(f"only {asked} topics were asked for: {worker.last_words()}")
        for _, value in client.take(worker, 0.1):
            task = codec.decode(value)
            if isinstance(task, CreateTopic):
                heard = time.monotonic()
                asked += 1
                client.send("dag.reports", ReportTopicCreated(task.topic, True, "", ""))
    client.flush()
    return pipelines


def _ask(
    client: _Client,
    worker: gauge.Child,
    requests: Sequence[DiffRequest],
    per_s: float,
    *,
    is_read: bool = True,
) -> list[float]:
    """Milliseconds of each request, in the order of the requests.

    Args:
        is_read: the answers are kept, and looked at when all are there, so that this takes no time from whoever answers.

    Raises:
        Failed: nothing came for long, or an answer is not that all nodes are there.
    """
    client.read(CHUNKS)
    ends = {one.request_id: -(-_nodes_of(one) // CHUNK_NODES) - 1 for one in requests}
    began = time.perf_counter() + 0.1
    due = {one.request_id: began + number / per_s for number, one in enumerate(requests)}
    chunks: dict[str, list[bytes]] = {one: [] for one in due}
    done: dict[str, float] = {}
    waiting: set[tuple[str, int]] = set()
    sent, heard = 0, began
    while len(done) < len(requests):
        now = time.perf_counter()
        next_due = due[requests[sent].request_id] if sent < len(requests) else now + 0.05
        if now >= next_due:
            client.send(REQUESTS, requests[sent])
            sent += 1
            continue
        for key, value in client.take(worker, min(0.05, next_due - now)):
            heard = time.perf_counter()
            request_id, seq = decode_key(key)
            one, place = str(request_id), int(seq)
            if one not in ends:
                continue
            if place >= WINDOW and (one, place) not in waiting:  # it is not let out yet, and comes again
                waiting.add((one, place))
                continue
            if is_read:
                chunks[one].append(value)
            if place == ends[one]:
                done[one] = heard
                client.send(ACKS, AckChunk(one, place), at_once=False)
            elif (place + 1) % WINDOW == 0:  # what comes behind waits for it
                client.send(ACKS, AckChunk(one, place))
        if time.perf_counter() - heard > gauge.PATIENCE_S:
            raise Failed(f"no answer to {len(requests) - len(done)} requests: {worker.last_words()}")
    if is_read:
        for request in requests:
            _check(request, [codec.decode(one) for one in chunks[request.request_id]])
    return [(done[one.request_id] - due[one.request_id]) * 1e3 for one in requests]


def _nodes_of(request: DiffRequest) -> int:
    return request.dag_json.count(b'"node_type"')


def _check(request: DiffRequest, chunks: Sequence[DiffChunk]) -> None:
    told = [node.origin for one in chunks for node in one.queue_map]
    is_whole = [one.last for one in chunks].index(True) == len(chunks) - 1 and all(
        one.released for one in chunks
    )
    if told != [NodeOrigin.REUSED] * _nodes_of(request) or not is_whole:
        raise Failed(f"{request.request_id}: not all nodes were found: {chunks[0].detail}")
