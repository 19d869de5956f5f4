"""What an order costs, and how much memory a run takes, by how many orders there are: the cost of one must not grow with their number.

The averages are so short that there is an order at every second bar or so, over the same prices again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from bench.backtest import rounds as runs
from bench.backtest.count import expected
from bench.backtest.market import market
from bench.backtest.ours import Asked

OF: Final = 100_000
"""Bars before the prices begin again."""

BARS_PER_ORDER: Final = 2.5
"""More than there are."""


def bars_of(orders: int, of: int = OF) -> int:
    """The fewest bars in which so many orders are filled."""
    most = int(orders * BARS_PER_ORDER) + 100
    return int(expected("dense", market(of).repeated(most)).at[orders - 1]) + 2


def measure(counts: Sequence[int], rounds: int, say: runs.Say, of: int = OF) -> dict[str, Any]:
    """Microseconds an order, and megabytes, for each number of orders; and the last as a multiple of the first, and of the one before.

    Raises:
        Failed: a result is not as it was counted.
    """
    rows: dict[str, dict[str, float]] = {}
    for count in counts:
        bars = bars_of(count, of)
        want = expected("dense", market(of).repeated(bars))
        told = runs.ours(Asked("dense", bars, of, recorded=True), want, rounds)
        rows[str(count)] = {
            "us_per_order": told["seconds"] / count * 1e6,
            "cpu_us_per_order": told["cpu_s"] / count * 1e6,
            "seconds": told["seconds"],
            "bars": bars,
            "peak_mb": told["peak_mb"],
            "grown_mb": told["grown_mb"],
            "columns_mb": told["columns_mb"],
            "kb_per_order": told["grown_mb"] * 1e3 / count,
        }
        say(
            f"{count:,} orders: {rows[str(count)]['us_per_order']:.1f} µs each, {told['grown_mb']:.1f} MB, of which columns {told['columns_mb']:.1f}"
        )
    first, last = rows[str(counts[0])], rows[str(counts[-1])]
    before = rows[str(counts[-2])] if len(counts) > 1 else last
    return {
        "by_orders": rows,
        "cpu_us_last_to_first": _ratio(last["cpu_us_per_order"], first["cpu_us_per_order"]),
        "cpu_us_last_to_before": _ratio(last["cpu_us_per_order"], before["cpu_us_per_order"]),
        "kb_last_to_first": _ratio(last["kb_per_order"], first["kb_per_order"]),
        "kb_last_to_before": _ratio(last["kb_per_order"], before["kb_per_order"]),
    }


def _ratio(one: float, other: float) -> float | None:
    """None where a run took no memory that it did not have before."""
    return one / other if other else None
