"""From the input to the output of a pipeline, each hop a process of its own, at an even rate below what it could do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Hop:
    """Who relays, under which name.

    Attributes:
        eager: a transaction ends when nothing more waits. The engine's always do, so that for them the length is a bound; the
            loop collects for its whole length, or is eager too, which is the like for like.
    """

    name: str
    role: str
    eager: bool = False


LOOP: Final = Hop("raw", "relay_loop")
EAGER: Final = Hop("raw-eager", "relay_loop", eager=True)
OURS: Final = Hop("ours", "relay", eager=True)


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

    An eager loop hardly ever meets its length, and is measured with the longest alone.

    Raises:
        Failed: a record was lost or doubled, or a hop ended.
    """
    out = []
    for count in hops:
        for length in commit_ms:
            for hop in (LOOP, EAGER, OURS) if length == max(commit_ms) else (LOOP, OURS):
                run = f"{prefix}lat-{hop.name}-{count}-{length:g}"
                found = _line(bootstrap, place, hop, run, count, length, per_s, seconds)
                out.append({"engine": hop.name, "hops": count, "commit_ms": length, "per_s": per_s, **found})
                through, visible = found["input_to_output_ms"], found["commit_to_visible_ms"]
                say(
                    f"latency: {hop.name:<9} {count} hop(s), {length:>4g} ms: input to output p50 {through['p50']:.1f},"
                    f" p95 {through['p95']:.1f}, p99 {through['p99']:.1f} ms; commit to visible p50"
                    f" {visible['p50']:.1f}, p95 {visible['p95']:.1f}, p99 {visible['p99']:.1f} ms"
                )
    return out


def _line(
    bootstrap: str, place: Path, kind: Hop, run: str, hops: int, commit_ms: float, per_s: int, seconds: float
) -> dict[str, Any]:
    topics = [f"{run}.{number}" for number in range(hops + 1)]
    log = open_log(f"kafka://{bootstrap}")
    log.ensure_topics([DEAD, *(snapshots(name, 1) for name in topics)])
    log.close()
    relays: list[gauge.Child] = []
    with ExitStack() as stack:
        for number in range(hops):
            hop = f"{run}-hop{number}"
            command = gauge.role(
                kind.role,
                eager=kind.eager,
                bootstrap=bootstrap,
                log=f"kafka://{bootstrap}",
                place=str(place / hop),
                run=hop,
                source=topics[number],
                out=topics[number + 1],
                commit_ms=commit_ms,
            )
            relays.append(stack.enter_context(gauge.started(command, hop)))
        sent, seen = _tick(bootstrap, topics[0], topics[-1], per_s, seconds)
        (told,) = relays[-1].stop()
    first = 1 + int(per_s * min(DROPPED_S, seconds / 2))
    commits = [(called, returned, tick) for tick, called, returned in told["commits"] if tick >= first]
    return {
        "ticks": len(sent) - first,
        "commits": len(commits),
        "input_to_output_ms": spread([seen[tick] - sent[tick] for tick in range(first, len(sent))]),
        "commit_to_visible_ms": spread([seen[tick] - called for called, _, tick in commits]),
        "commit_call_ms": spread([returned - called for called, returned, _ in commits]),
    }


def spread(nanoseconds: Sequence[int]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    counted = [one / 1e6 for one in nanoseconds]
    cuts = statistics.quantiles(counted, n=100, method="inclusive")
    return {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(counted)}


def _tick(bootstrap: str, source: str, out: str, per_s: int, seconds: float) -> tuple[list[int], list[int]]:
    """Send ticks and take them at the other end; the nanoseconds at which each was sent and seen, by its number."""
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
    left: list[int] = []
    took: list[int] = []
    sent = received = 0

    def send() -> None:
        nonlocal sent
        left.append(time.perf_counter_ns())
        tick = Snapshot("K", *(Decimal(0),) * 4, sent, left[-1])
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
        took.append(now)

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
    return left, took
