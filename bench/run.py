"""Runs the benchmark, prints the ratios and keeps them as JSON with machine, versions and date.

`python -m bench.run [--records N] [--rounds N] [--flat N] [--out FILE]`. Each round runs the hand-written loop and the engine one
after the other on the same broker; the ratio is taken round by round, and a speed counts only if all tables agree.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import hand_loop
from bench.workload import HAND_OUTPUT, INPUT, OUTPUT, Bench, make_fill
from qmtl.bootstrap import make_workers, open_log, prepare
from qmtl.engine.log.port import Log
from qmtl.engine.task import TaskSettings
from qmtl.engine.view import TableView
from qmtl.engine.worker import Worker
from qmtl.foundation.contracts.trade import Position
from qmtl.foundation.wire.keys import encode_key
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE
from qmtl.testing.broker import start_broker


def fill_input(log: Log, records: int) -> None:
    """Write the input of the workload."""
    log.ensure_topics([*CATALOGUE, INPUT, OUTPUT, HAND_OUTPUT])
    writer = log.writer("bench.source")
    for start in range(0, records, 20_000):
        writer.begin()
        for number in range(start, min(start + 20_000, records)):
            fill = make_fill(number)
            writer.append(INPUT.name, 0, encode_key(INPUT.key_of(fill)), codec.encode(fill))
        writer.commit({}, "bench", None)
    writer.close()


def run_engine(log: Log, state_dir: Path, records: int, watch: Callable[[int], None] | None = None) -> float:
    """Process the input with a worker; returns seconds from the first batch to the last commit."""
    worker = Worker(log, Bench, codec, TaskSettings(state_dir))
    view = TableView(log, OUTPUT.name, codec)
    started, last, steps = 0.0, 0.0, 0
    while True:
        before = time.perf_counter()
        if worker.step(0.01):
            started, last = started or before, time.perf_counter()
            steps += 1
            if watch is not None:
                watch(steps)
        elif started and sum(row.fills for row in view.refresh().rows()) >= records:
            break
    worker.close()
    return last - started


def positions_of(log: Log) -> dict[str, Position]:
    return {row.symbol: row for row in TableView(log, OUTPUT.name, codec).refresh().rows()}


def codec_cost(rounds: int = 30_000) -> dict[str, float]:
    """Microseconds per record."""
    fills = [make_fill(number) for number in range(rounds)]
    started = time.perf_counter()
    data = [codec.encode(fill) for fill in fills]
    encoded = time.perf_counter()
    for one in data:
        codec.decode(one)
    return {
        "encode_us": (encoded - started) / rounds * 1e6,
        "decode_us": (time.perf_counter() - encoded) / rounds * 1e6,
        "bytes": len(data[0]),
    }


def demo_rate(place: Path, address: str) -> dict[str, float]:
    """Bars per second of the demo flow on a fresh log."""
    from qmtl.interfaces.demo.run import DemoRun, load
    from qmtl.runtime.data.bars import default_sources

    data = load(default_sources())
    log = open_log(address)
    prepare(log)
    workers = make_workers(log, TaskSettings(place / "tasks"))
    started = time.perf_counter()
    DemoRun(log, data, workers, lambda step, done, total: None).run()
    seconds = time.perf_counter() - started
    for one in workers:
        one.close()
    log.close()
    return {"bars": data.bars, "seconds": seconds, "bars_per_s": data.bars / seconds}


def flat_memory(place: Path, records: int) -> dict[str, float]:
    """Peak memory after a fifth of the records and after all of them, in MB."""
    log = open_log(f"embedded:{place / 'flat'}")
    fill_input(log, records)
    peaks: list[float] = []

    def watch(step: int) -> None:
        peaks.append(_resident_mb())

    seconds = run_engine(log, place / "flat-tasks", records, watch)
    log.close()
    return {
        "records": records,
        "records_per_s": records / seconds,
        "mb_at_20_percent": max(peaks[: max(1, len(peaks) // 5)]),
        "mb_at_end": max(peaks[-max(1, len(peaks) // 5) :]),
    }


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    asked = argparse.ArgumentParser(prog="python -m bench.run")
    asked.add_argument("--records", type=int, default=200_000)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--flat", type=int, default=1_000_000)
    asked.add_argument("--out", type=Path, default=None)
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as name, start_broker() as broker:
        result = measure(Path(name), broker.bootstrap, options.records, options.rounds, options.flat)
    out = options.out or Path(__file__).parent / "results" / f"{datetime.now(UTC):%Y-%m-%d}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    print(json.dumps(result, indent=2, sort_keys=True))
    print(f"kept in {out.name}")


def measure(place: Path, bootstrap: str, records: int, rounds: int, flat: int) -> dict[str, Any]:
    """All figures of one run."""
    rows = []
    for number in range(rounds):
        namespace = f"bench{number}"
        log = open_log(f"kafka://{bootstrap}/{namespace}")
        fill_input(log, records)
        by_hand, expected = hand_loop.run(bootstrap, namespace, records)
        on_kafka = run_engine(log, place / f"kafka-{number}", records)
        agree = positions_of(log) == expected
        log.close()
        embedded = open_log(f"embedded:{place / f'log-{number}'}")
        fill_input(embedded, records)
        on_embedded = run_engine(embedded, place / f"embedded-{number}", records)
        agree = agree and positions_of(embedded) == expected
        embedded.close()
        if not agree:
            raise SystemExit("the engines disagree about the positions: no speed counts")
        rows.append(
            {
                "hand_loop_per_s": records / by_hand,
                "engine_kafka_per_s": records / on_kafka,
                "engine_embedded_per_s": records / on_embedded,
                "kafka_ratio": by_hand / on_kafka,
                "embedded_ratio": by_hand / on_embedded,
            }
        )
        print(json.dumps(rows[-1]))
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {
            "cpus": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(),
        },
        "versions": {name: version(name) for name in ("confluent-kafka", "fastavro", "rocksdict")}
        | {"kafka": "4.3.1"},
        "records": records,
        "rounds": rows,
        "median": {key: statistics.median(row[key] for row in rows) for key in rows[0]},
        "codec": codec_cost(),
        "demo_embedded": demo_rate(place / "demo", f"embedded:{place / 'demo' / 'log'}"),
        "demo_kafka": demo_rate(place / "demo-kafka", f"kafka://{bootstrap}/demo"),
        "flat_memory": flat_memory(place, flat) if flat else None,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


if __name__ == "__main__":
    main()
