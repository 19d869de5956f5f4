"""Restore of a large table against reading and discarding it, and restart after kill -9 with its state on disk."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.engine import gauge
from bench.engine.gauge import Committed, Failed
from bench.engine.rows import row
from bench.engine.topics import last_values, plain_producer, pour
from bench.engine.work import CODEC, Names, make_trade, trades
from qmtl.bootstrap import open_log
from qmtl.foundation.wire.keys import encode_key

Say = Callable[[str], None]
FEED_PER_S: Final = 2000


def measure(
    bootstrap: str, prefix: str, place: Path, keys: int, rounds: int, commit_ms: float, say: Say
) -> dict[str, Any]:
    """A table of so many keys, made by the engine itself from one fill of each; then restores and restarts in turns.

    Raises:
        Failed: a process ended or stood still, or the table has not every key.
    """
    names = Names(f"{prefix}many", f"{prefix}fills.many", 1)
    log = open_log(f"kafka://{bootstrap}")
    log.ensure_topics([trades(names.source, 1), *names.specs()])
    log.close()
    say(f"restore: making a table of {keys} keys")
    pour(bootstrap, names.source, 1, keys, keys)
    kept = place / "many"
    common: dict[str, Any] = {
        "log": f"kafka://{bootstrap}",
        "names": {"run": names.run, "source": names.source, "partitions": 1},
        "commit_ms": commit_ms,
    }
    committed = Committed(bootstrap, names.group, names.source, 1)
    with gauge.started(gauge.role("engine", place=str(kept), **common), "table") as child:
        gauge.follow(child, committed, keys)
        child.stop()
    found = len(last_values(bootstrap, names.table, 1))
    if found != keys:
        raise Failed(f"the table has {found} keys, must have {keys}")
    restores = []
    for number in range(rounds):
        fresh = place / f"restore-{number}"
        read = _told(gauge.role("read", bootstrap=bootstrap, topic=names.table))
        full = _told(gauge.role("restore", place=str(fresh), **common))
        shutil.rmtree(fresh, ignore_errors=True)
        restores.append(
            {
                "read_s": read["seconds"],
                "records": read["records"],
                "restore_s": full["seconds"],
                "restore_per_s": read["records"] / full["seconds"],
                "peak_rss_mb": full["peak_mb"],
                "read_cpu_s": read["cpu_s"],
                "restore_cpu_s": full["cpu_s"],
                "restore_vs_read": full["seconds"] / read["seconds"],
            }
        )
        say(f"restore: {full['seconds']:.2f} s, reading alone {read['seconds']:.2f} s")
    restarts = []
    with _feeding(bootstrap, names.source, keys):
        for _ in range(rounds):
            restarts.append(_restart(committed, kept, common, say))
    committed.close()
    return {
        "keys": keys,
        "restore": {"rounds": restores, "median": _median(restores)},
        "restart": {"rounds": restarts, "median": _median(restarts), "fed_per_s": FEED_PER_S},
    }


def _told(command: list[str]) -> dict[str, Any]:
    with gauge.started(command, "restore") as child:
        return child.finish(600.0)[-1]


def _median(found: list[dict[str, Any]]) -> dict[str, float]:
    return {key: statistics.median(one[key] for one in found) for key in found[0]}


def _restart(committed: Committed, kept: Path, common: dict[str, Any], say: Say) -> dict[str, Any]:
    """Run, kill with SIGKILL between two commits as they come, and start again on the same directory."""
    command = gauge.role("restart", place=str(kept), **common)
    with gauge.started(command, "before the kill") as child:
        for _ in range(5):
            _next_commit(committed, child)
        child.kill()
    with gauge.started(command, "after the kill") as child:
        _next_commit(committed, child)
        seconds = time.perf_counter() - child.started
        told = child.facts()[-1]
        child.stop()
    say(
        f"restart: next commit after {seconds:.2f} s, own work {told['own_s']:.2f} s, {told['read']} rows read again"
    )
    return {"to_next_commit_s": seconds, **told}


def _next_commit(committed: Committed, child: gauge.Child) -> None:
    before, deadline = committed.total(), time.monotonic() + gauge.PATIENCE_S
    while committed.total() == before:
        child.require_alive()
        if time.monotonic() > deadline:
            raise Failed(f"{child.name}: no commit came: {child.last_words()}")
        time.sleep(0.005)


@contextmanager
def _feeding(bootstrap: str, topic: str, keys: int) -> Iterator[None]:
    """More fills, evenly in time, while the context lasts."""
    stop = threading.Event()

    def feed() -> None:
        source, number, started = plain_producer(bootstrap), 0, time.perf_counter()
        while not stop.is_set():
            while number < (time.perf_counter() - started) * FEED_PER_S:
                trade = make_trade(row(number, keys))
                source.produce(topic, CODEC.encode(trade), encode_key((trade.symbol,)), 0)
                number += 1
            source.poll(0)
            stop.wait(0.005)
        source.flush()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    try:
        yield
    finally:
        stop.set()
        feeder.join()
