"""Many strategies in one run, by how many of their nodes they share; beside them one strategy in a peer's run, since there each has its own.

What nodes cost grows with how many different ones there are; each strategy's orders are its own, and so is what they cost.
What a peer takes for many is not measured but multiplied, and said to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bench.backtest import rounds as runs
from bench.backtest import workload
from bench.backtest.count import expected
from bench.backtest.market import market
from bench.backtest.ours import Asked
from bench.engine.gauge import Failed

MANY: Final = (1, 10, 100)


def measure(
    bars: int,
    many: Sequence[int],
    names: Sequence[str],
    rounds: int,
    left_out: dict[str, str],
    say: runs.Say,
) -> dict[str, Any]:
    """Strategies a second, by their number and by the share of their nodes that all of them have.

    Raises:
        Failed: a result is not as it was counted, or a node was computed more than once.
    """
    data = market(bars)
    want = expected("ladder", data)
    ours: dict[str, dict[str, Any]] = {}
    for shared in workload.SHARES:
        for count in many:
            told = runs.ours(Asked("ladder", bars, 0, count, shared, recorded=True), want, rounds)
            unique = workload.unique_nodes(count, shared)
            if told["computed"] != unique:
                raise Failed(
                    f"{count} strategies that share {shared} % have {unique} nodes; {told['computed']} were computed"
                )
            row = {
                "seconds": told["seconds"],
                "strategies_per_s": count / told["seconds"],
                "nodes": unique,
                "nodes_s": told["nodes_s"],
                "ms_per_node": told["nodes_s"] / unique * 1e3,
                "us_per_order": (told["seconds"] - told["nodes_s"]) / told["orders"] * 1e6,
                "peak_mb": told["peak_mb"],
            }
            ours.setdefault(str(shared), {})[str(count)] = row
            say(
                f"{count} strategies, {shared} % shared: {unique} nodes in {row['nodes_s']:.3f} s,"
                f" {row['strategies_per_s']:.1f} strategies/s"
            )
    found = runs.each_peer(names, data, "ladder", rounds, left_out, say)
    return {
        "bars": bars,
        "fills_of_each": want.fills,
        "ours": ours,
        "one_by_one": {
            name: {
                "seconds_of_one": told["seconds"],
                "strategies_per_s": 1 / told["seconds"],
                "many_are_multiplied": True,
                "version": told["version"],
            }
            for name, (told, _) in found.items()
        },
    }
