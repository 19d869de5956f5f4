"""One run of the engine's benchmark on one broker: `python -m bench.engine.run [--parts …]`, kept as JSON.

A part that was not asked for is missing in the result, and one that could not be run stands under `left_out` with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.engine import groups, latency, memory, peers, profile, recovery, throughput
from bench.engine.gauge import Failed
from bench.engine.throughput import Arena, Sizes
from qmtl.testing.broker import any_broker

PARTS: Final = (
    "raw",
    "ours",
    "embedded",
    "quix",
    "faust",
    "restore",
    "latency",
    "memory",
    "profile",
    "groups",
)
RATIOS: Final = ("vs_raw_loop", "vs_quix", "vs_faust", "restore_vs_read")
INDEPENDENT: Final = frozenset({"restore", "latency", "groups", "memory"})
"""Parts that are measured whatever became of the others; a peer that could not be installed is told and is no failure."""

RESULTS: Final = Path(__file__).parents[1] / "results"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    asked = argparse.ArgumentParser(prog="python -m bench.engine.run", description=__doc__)
    asked.add_argument("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    asked.add_argument("--records", type=int, default=300_000, help="fills of a batch")
    asked.add_argument("--faust-rounds", type=int, default=1, help="of several minutes each")
    asked.add_argument("--keys", type=int, default=1000)
    asked.add_argument("--partitions", type=int, default=4)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--commit-ms", type=float, default=50.0, help="how long a transaction collects")
    asked.add_argument("--short-commit-ms", type=float, default=10.0, help="0 leaves this comparison out")
    asked.add_argument("--restore-keys", type=int, default=1_000_000)
    asked.add_argument("--memory-records", type=int, default=10_000_000)
    asked.add_argument("--latency-seconds", type=float, default=15.0)
    asked.add_argument("--latency-rate", type=int, default=200, help="ticks a second")
    asked.add_argument("--latency-hops", default="1,3")
    asked.add_argument("--latency-commit-ms", default="1,5,10,50")
    asked.add_argument("--out", type=Path, default=None)
    return asked.parse_args(arguments)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def measure(place: Path, bootstrap: str, asked: argparse.Namespace) -> dict[str, Any]:
    """All figures of the parts that were asked for; what an independent part could not tell stands under `left_out`.

    Raises:
        Failed: an engine did not do the work, or not right.
    """
    parts = [part for part in asked.parts.split(",") if part]
    if unknown := sorted({*parts} - {*PARTS}):
        raise Failed(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    sizes = Sizes(
        asked.records,
        asked.keys,
        asked.partitions,
        asked.rounds,
        asked.faust_rounds,
        asked.commit_ms,
        asked.short_commit_ms,
    )
    left_out: dict[str, str] = {}
    result: dict[str, Any] = {**surroundings(asked), "left_out": left_out}
    ratios: dict[str, float | None] = dict.fromkeys(RATIOS)
    prefix = f"bench-{uuid.uuid4().hex[:8]}."
    arena = Arena(bootstrap, prefix, place, sizes, say)
    chosen = throughput.contenders(parts, sizes)
    if chosen:
        result["throughput"] = throughput.measure(arena, chosen, left_out)
        ratios.update(throughput.ratios(result["throughput"], sizes))
    if "profile" in parts:
        result["profile"] = profile.measure(arena, sizes)
        for line in profile.table(result["profile"]):
            print(line)
    arena.close()

    def restore() -> None:
        found = recovery.measure(
            bootstrap, prefix, place, asked.restore_keys, asked.rounds, asked.commit_ms, say
        )
        result["recovery"] = found
        ratios["restore_vs_read"] = found["restore"]["median"]["restore_vs_read"]

    def delay() -> None:
        result["latency"] = latency.measure(
            bootstrap,
            prefix,
            place,
            [int(text) for text in asked.latency_hops.split(",")],
            [float(text) for text in asked.latency_commit_ms.split(",")],
            asked.latency_rate,
            asked.latency_seconds,
            say,
        )

    def ownership() -> None:
        result["groups"] = groups.measure(bootstrap, prefix, asked.rounds, say)

    def leak() -> None:
        result["memory"] = memory.measure(
            bootstrap, prefix, place, asked.memory_records, asked.keys, asked.commit_ms, say
        )
        say(f"memory: {result['memory']['rss_slope_mb_per_million']:+.3f} MB per million records")

    for part, run in (("restore", restore), ("latency", delay), ("groups", ownership), ("memory", leak)):
        if part not in parts:
            continue
        try:
            run()
        except Failed as failure:
            left_out[part] = f"{part}: {failure}"
            say(f"LEFT OUT {left_out[part]}")
    result["ratios"] = ratios
    return result


def surroundings(asked: argparse.Namespace) -> dict[str, Any]:
    """When, on what and with which versions and options."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {
            "cpus": os.cpu_count(),
            "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            "processor": processor(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {
            "ours": {name: version(name) for name in ("confluent-kafka", "fastavro", "rocksdict")},
            "quix": peers.versions("quix"),
            "faust": peers.versions("faust"),
            "kafka": "4.3.1",
            "code": code(),
        },
        "options": {name: str(value) for name, value in vars(asked).items() if name != "out"},
    }


def code() -> str:
    """The commit that was measured, with a plus where files differ from it; "unknown" without git."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"],
        cwd=RESULTS.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return told.stdout.strip() or "unknown"


def processor() -> str:
    """The model's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def summary(result: Mapping[str, Any]) -> list[str]:
    """The ratios, and what was left out, as lines for a person."""
    lines = [
        f"{name:<24} {'not measured' if value is None else f'{value:.2f}'}"
        for name, value in result["ratios"].items()
    ]
    return [*lines, *(f"LEFT OUT {reason}" for reason in result["left_out"].values())]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = options(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-engine-") as name, any_broker() as bootstrap:
            result = measure(Path(name), bootstrap, asked)
    except Failed as failure:
        print(f"no figures: {failure}", file=sys.stderr)
        return 1
    out = asked.out or RESULTS / f"engine-{result['date']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    for line in summary(result):
        print(line)
    print(f"kept in {out.name}")
    return 1 if INDEPENDENT & result["left_out"].keys() else 0


if __name__ == "__main__":
    sys.exit(main())
