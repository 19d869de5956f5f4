"""The DAG Manager's benchmark: `python -m bench.dag.run [--nodes N] [--known N ...] [--rounds N] [--slow N] [--per-s N] [--out FILE]`,
kept as JSON. The last part starts a broker and asks through it.

Above its parts the result has what they are measured for: `diff_p95_ms_at_50k` (1,000 nodes that all exist, decided in the engine, by the size of the
graph), `diff_p95_ms_broker`, `scaling`, `start_s_at_50k`, and megabytes: of the whole process that answers through the broker
(`process_mb`), of one that has just started (`started_mb`), and what of that its tables take (`tables_mb`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.dag import admission, diffs, standing
from bench.dag.admission import Sizes
from bench.dag.through import Rate, through
from bench.engine.run import RESULTS, code, processor
from qmtl.engine.worker import collect_seldom
from qmtl.testing.broker import any_broker

PARTS: Final[Mapping[str, Callable[[Path, Sizes], dict[str, Any]]]] = {
    "admission": admission.measure,
    "standing": standing.measure,
    "diffs": diffs.measure,
}

BROKER_KNOWN: Final = 50_000
"""Nodes that exist when diffs are asked for through the broker."""

FIGURES: Final = ("_broker", "_mb")


def main(arguments: Sequence[str] | None = None) -> None:
    usual = Sizes()
    asked = argparse.ArgumentParser(prog="python -m bench.dag.run", description=__doc__)
    asked.add_argument("--nodes", type=int, default=usual.nodes, help="nodes of a message")
    asked.add_argument("--known", type=int, nargs="+", default=usual.known, help="nodes of the whole graph")
    asked.add_argument("--rounds", type=int, default=usual.rounds, help="messages of each kind")
    asked.add_argument("--slow", type=int, default=usual.slow, help="of them, admitted the slow way too")
    asked.add_argument("--per-s", type=int, default=50, help="diffs asked for through the broker; 0, none")
    asked.add_argument("--seconds", type=float, default=20.0, help="so long")
    asked.add_argument("--warm-up", type=float, default=90.0, help="seconds of the same before them")
    asked.add_argument("--out", type=Path, default=None)
    options = asked.parse_args(arguments)
    sizes = Sizes(options.nodes, options.known, options.rounds, options.slow)
    known = BROKER_KNOWN if BROKER_KNOWN in sizes.known else max(sizes.known)
    result = surroundings() | {
        "nodes": options.nodes,
        "rounds": options.rounds,
        "slow_rounds": options.slow,
    }
    for name, part in PARTS.items():
        with tempfile.TemporaryDirectory(prefix="bench-dag-") as place:
            result[name] = part(Path(place), sizes)
    if options.per_s:
        rate = Rate(options.per_s, options.seconds, options.warm_up, sizes.texts, sizes.rounds)
        with (
            tempfile.TemporaryDirectory(prefix="bench-dag-") as place,
            any_broker(lasting=True) as bootstrap,
        ):
            result["broker"] = through(bootstrap, Path(place), sizes.nodes, known, rate)
    result |= summary(result, sizes.known, str(known))
    out = options.out or RESULTS / f"dag-{result['date']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    for line in lines(result):
        print(line)
    print(f"kept in {out.name}")


def summary(result: Mapping[str, Any], sizes: Sequence[int], at: str) -> dict[str, Any]:
    """What the parts are measured for.

    Args:
        at: the size of the graph of which starts and memory are told.
    """
    told, started, broker = result["diffs"], result["standing"][at], result.get("broker")
    found = {f"diff_p95_ms_at_{short(size)}": told[str(size)]["none"]["decide_ms"]["p95"] for size in sizes}
    found["scaling"] = diffs.scaling(told)
    found[f"start_s_at_{short(int(at))}"] = started["start_s"]
    found["tables_mb"], found["started_mb"] = started["tables_mb"], started["process_mb"]
    if broker is not None:
        found["diff_p95_ms_broker"], found["process_mb"] = broker["ms"]["p95"], broker["process_mb"]
    return found


def short(size: int) -> str:
    """A number of nodes, in thousands where it is some."""
    return f"{size // 1_000}k" if size % 1_000 == 0 else str(size)


def lines(result: Mapping[str, Any]) -> list[str]:
    """The single figures as lines for a person, and how much of a message is new by how large the graph is."""
    figures = {name: value for name, value in result.items() if name.endswith(FIGURES) or "_at_" in name}
    out = [f"{name:<24} {value:9.2f}" for name, value in sorted(figures.items())]
    for share, one in result["scaling"].items():
        times = "  ".join(f"{short(int(size))} {value:.2f}" for size, value in one["p50_ms"].items())
        out.append(f"{'new: ' + share:<24} p50 in ms: {times}  (the last is {one['flat']:.2f} of the first)")
    return out


def surroundings() -> dict[str, Any]:
    """When, on what and with which versions."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": {
            "cpus": os.cpu_count(),
            "processor": processor(),
            "python": platform.python_version(),
            "load_before": os.getloadavg()[0],
        },
        "versions": {name: version(name) for name in ("msgspec", "pydantic", "blake3", "rocksdict")}
        | {"code": code()},
    }


if __name__ == "__main__":
    collect_seldom()  # as whoever runs workers does
    main()
