"""From the input to the output of a pipeline, each hop a process of its own, at an even rate below what it could do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from bench.engine import gauge
from bench.engine.gauge import Failed
from bench.engine.work import CODEC, DEAD, Snapshot, snapshots
from qmtl.bootstrap import open_log
from qmtl.foundation.wire.keys import encode_key

Say = Callable[[str], None]
KEY: Final = encode_key(("K",))
DROPPED_S: Final = 1.0
"""The first second warms everything up and is not counted."""


def measure(
    bootstrap: str,
    prefix: str,
    place: Path,
    hops: Sequence[int],
    commit_ms: Sequence[float],
    per_s: int,
    seconds: float,
    say: Say,
) -> list[dict[str, Any]]:
    """Every number of hops with every length of transaction, the engine and the hand-written loop in turns.

    Raises:
        Failed: a record was lost or doubled, or a hop ended.
    """
    out = []
    for count in hops:
        for length in commit_ms:
            for kind in ("relay_loop", "relay"):
                run = f"{prefix}lat-{kind}-{count}-{length:g}".replace("_", "-")
                found = _line(bootstrap, place, kind, run, count, length, per_s, seconds)
                named = "raw" if kind == "relay_loop" else "ours"
                out.append({"engine": named, "hops": count, "commit_ms": length, "per_s": per_s, **found})
                say(
                    f"latency: {named:<4} {count} hop(s), {length:>4g} ms: p50 {found['p50_ms']:.1f},"
                    f" p95 {found['p95_ms']:.1f}, p99 {found['p99_ms']:.1f} ms"
                )
    return out


def _line(
    bootstrap: str, place: Path, kind: str, run: str, hops: int, commit_ms: float, per_s: int, seconds: float
) -> dict[str, Any]:
    topics = [f"{run}.{number}" for number in range(hops + 1)]
    log = open_log(f"kafka://{bootstrap}")
    log.ensure_topics([DEAD, *(snapshots(name, 1) for name in topics)])
    log.close()
    with ExitStack() as stack:
        for number in range(hops):
            hop = f"{run}-hop{number}"
            command = gauge.role(
                kind,
                bootstrap=bootstrap,
                log=f"kafka://{bootstrap}",
                place=str(place / hop),
                run=hop,
                source=topics[number],
                out=topics[number + 1],
                commit_ms=commit_ms,
            )
            stack.enter_context(gauge.started(command, hop))
        return _tick(bootstrap, topics[0], topics[-1], per_s, seconds)


def _tick(bootstrap: str, source: str, out: str, per_s: int, seconds: float) -> dict[str, Any]:
    """Send ticks, take them at the other end, each with the nanosecond at which it was sent inside."""
    sender = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "enable.idempotence": True})
    taker = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench.latency",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 1,
        }
    )
    taker.assign([KafkaPartition(out, 0, 0)])
    took: list[float] = []
    sent = received = 0

    def send() -> None:
        nonlocal sent
        tick = Snapshot("K", *(Decimal(0),) * 4, sent, time.perf_counter_ns())
        sender.produce(source, CODEC.encode(tick), KEY, 0)
        sender.poll(0)
        sent += 1

    def take(timeout_s: float) -> None:
        nonlocal received
        message = taker.poll(timeout_s)
        if message is None or message.error() is not None:
            return
        now = time.perf_counter_ns()
        value: Any = message.value()
        tick: Snapshot = CODEC.decode(value)
        if tick.fills != received:
            raise Failed(f"tick {tick.fills} came where {received} had to come")
        received += 1
        took.append((now - tick.as_of_ms) / 1e6)

    send()
    deadline = time.monotonic() + gauge.PATIENCE_S
    while (
        received < sent and time.monotonic() < deadline
    ):  # the line is up when its first tick has come through
        take(0.05)
    started, goal = time.perf_counter(), 1 + int(per_s * seconds)
    while received < goal and time.monotonic() < deadline + seconds:
        due = started + (sent - 1) / per_s
        if sent < goal and time.perf_counter() >= due:
            send()
        else:
            take(min(0.05, max(0.0, due - time.perf_counter())) if sent < goal else 0.05)
    if received != goal:
        raise Failed(f"{received} of {goal} ticks came")
    sender.flush()
    take(0.2)  # nothing may come twice
    taker.close()
    counted = took[1 + int(per_s * min(DROPPED_S, seconds / 2)) :]
    cuts = statistics.quantiles(counted, n=100, method="inclusive")
    return {
        "ticks": len(counted),
        "p50_ms": cuts[49],
        "p95_ms": cuts[94],
        "p99_ms": cuts[98],
        "max_ms": max(counted),
    }
