"""The benchmark of trading: `python -m bench.trading.run [--orders N] [--long] [--kafka N] [--seconds N] [--out FILE]`, kept as JSON.

Above its parts the result has what they are measured for: `embedded_orders_per_s` and `log_alone_orders_per_s` (of one task, one strategy),
`kafka_orders_per_s`, `kafka_p99_ms` (from the intent to the order, at 200 intents a second), `flat` (the cost of an order among the last beside the
first 10,000), and `many_strategies` (the cost of one of 100 strategies beside one's).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.dag.run import surroundings
from bench.engine.run import RESULTS
from bench.trading import embedded, through
from bench.trading.workload import Size
from qmtl.engine.worker import collect_seldom
from qmtl.testing.broker import any_broker

PER_BUCKET = 100
LONG = 1_000_000


def main(arguments: Sequence[str] | None = None) -> None:
    asked = argparse.ArgumentParser(prog="python -m bench.trading.run", description=__doc__)
    asked.add_argument("--orders", type=int, default=40_000, help="orders on the embedded log")
    asked.add_argument("--long", action="store_true", help=f"and {LONG:,} of them")
    asked.add_argument("--kafka", type=int, default=40_000, help="orders through a broker; 0, none")
    asked.add_argument("--per-s", type=int, default=200, help="intents a second, for the delay")
    asked.add_argument("--seconds", type=float, default=20.0, help="so long")
    asked.add_argument("--out", type=Path, default=None)
    options = asked.parse_args(arguments)
    result = surroundings() | {"embedded": {}}
    sizes = {
        "one strategy": Size(1, PER_BUCKET, options.orders // PER_BUCKET),
        "100 strategies": Size(100, 1, options.orders // PER_BUCKET),
    }
    if options.long:
        sizes["long"] = Size(1, PER_BUCKET, LONG // PER_BUCKET)
    for name, size in sizes.items():
        with tempfile.TemporaryDirectory(prefix="bench-trading-") as place:
            result["embedded"][name] = embedded.run(Path(place), size)
        print(json.dumps({name: result["embedded"][name]}), flush=True)
    if options.kafka:
        size = Size(1, PER_BUCKET, options.kafka // PER_BUCKET)
        with (
            tempfile.TemporaryDirectory(prefix="bench-trading-") as place,
            any_broker(lasting=True) as bootstrap,
        ):
            result["kafka"] = {
                "rate": through.rate(bootstrap, Path(place), size),
                "delay": through.delay(bootstrap, Path(place), options.per_s, options.seconds),
            }
        print(json.dumps({"kafka": result["kafka"]}), flush=True)
    result |= summary(result)
    out = options.out or RESULTS / f"trading-{result['date']}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2, sort_keys=True) + "\n")
    for name, value in summary(result).items():
        print(f"{name:<24} {value:,.2f}")
    print(f"kept in {out.name}")


def summary(result: Mapping[str, Any]) -> dict[str, float]:
    """What the parts are measured for."""
    parts = result["embedded"]
    one, many = parts["one strategy"], parts["100 strategies"]
    out = {
        "embedded_orders_per_s": one["orders_per_s"],
        "log_alone_orders_per_s": one["log_alone_orders_per_s"],
        "many_strategies": many["us_per_order"] / one["us_per_order"],
    }
    if "long" in parts:
        costs = list(parts["long"]["cost_us_by_orders"].values())
        out["flat"] = costs[-1] / costs[0]
    if "kafka" in result:
        out["kafka_orders_per_s"] = result["kafka"]["rate"]["orders_per_s"]
        out["kafka_p99_ms"] = result["kafka"]["delay"]["ms"]["p99"]
    return out


if __name__ == "__main__":
    collect_seldom()  # as whoever runs workers does
    main()
