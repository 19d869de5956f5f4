"""The DAG Manager's benchmark: `python -m bench.dag.run [--nodes N] [--known N ...] [--rounds N] [--slow N] [--per-s N] [--out FILE]`,
kept as JSON. The last part starts a broker and asks through it."""

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


def main(arguments: Sequence[str] | None = None) -> None:
    usual = Sizes()
    asked = argparse.ArgumentParser(prog="python -m bench.dag.run", description=__doc__)
    asked.add_argument("--nodes", type=int, default=usual.nodes, help="nodes of a message")
    asked.add_argument("--known", type=int, nargs="+", default=usual.known, help="nodes of the whole graph")
    asked.add_argument("--rounds", type=int, default=usual.rounds, help="messages of each kind")
    asked.add_argument("--slow", type=int, default=usual.slow, help="of them, admitted the slow way too")
    asked.add_argument("--per-s", type=int, default=50, help="diffs asked for through the broker; 0, none")
    asked.add_argument("--seconds", type=float, default=20.0, help="so long")
    asked.add_argument("--out", type=Path, default=None)
    options = asked.parse_args(arguments)
    result = surroundings() | {
        "nodes": options.nodes,
        "rounds": options.rounds,
        "slow_rounds": options.slow,
    }
    for name, part in PARTS.items():
        with tempfile.TemporaryDirectory(prefix="bench-dag-") as place:
            result[name] = part(
                Path(place), Sizes(options.nodes, options.known, options.rounds, options.slow)
            )
    told = result["diffs"]
    result |= {f"diff_p95_ms_at_{size}": told[str(size)]["decide_ms"]["p95"] for size in options.known}
    if options.per_s:
        with tempfile.TemporaryDirectory(prefix="bench-dag-") as place, any_broker() as bootstrap:
            known = BROKER_KNOWN if BROKER_KNOWN in options.known else max(options.known)
            result["broker"] = diffs.through(
                bootstrap, Path(place), options.nodes, known, options.per_s, options.seconds
            )
        result["diff_p95_ms_broker"] = result["broker"]["ms"]["p95"]
    out = options.out or RESULTS / f"dag-{result['date']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    print(f"kept in {out.name}")


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
