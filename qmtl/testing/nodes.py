"""Tests of one node by itself: its inputs bucket by bucket, and what it gives for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.identity import functional_params
from qmtl.foundation.contracts.market import Bar
from qmtl.foundation.contracts.node import NodeValue
from qmtl.runtime.indicators.builtin import Output, PositionTargetValue
from qmtl.runtime.sdk.nodes import ProcessingNode
from qmtl.runtime.sdk.python_node import PythonNode, PythonRunning, Target

Values = Sequence[float | None]
"""What an input says in each bucket; None where it says nothing."""

INTERVAL_S: Final = 60
_PRICE: Final = 100.0


def outputs_of(
    node: ProcessingNode,
    inputs: Values | Mapping[str, Values],
    *,
    closes: Sequence[float] | None = None,
    symbol: str = "TEST",
) -> list[float | Target | None]:
    """What a node gives for these inputs, as a worker computes it: its warm-up, its `when` and the checks of what its function gave included.

    Args:
        inputs: of its only input; of several, by the names that its function calls them. All are as long.
        closes: of the bars, one per bucket; without them every bar is at 100. A bucket in which no input says anything has none.

    Returns:
        One per bucket: a float, a `Target` with its exact share and price, or None for nothing.

    Raises:
        ComputeFailed: the function raised, or gave what no node may give; it names the bucket.
        InvalidValue: inputs of other names than the node's, or of several lengths.
    """
    names = node.labels or tuple([one.called for one in node.inputs])
    by_name = inputs if isinstance(inputs, Mapping) else {names[0]: inputs}
    if sorted(by_name) != sorted(names):
        raise InvalidValue(
            f"inputs of the node {node.called!r} were {', '.join(map(repr, by_name))}; it reads {', '.join(map(repr, names))}.",
            "Give one list for each of them.",
        )
    ports = [by_name[name] for name in names]
    count = len(ports[0])
    prices = [_PRICE] * count if closes is None else closes
    if any(len(one) != count for one in (*ports, prices)):
        raise InvalidValue(
            f"inputs of the node {node.called!r} had {', '.join(str(len(one)) for one in (*ports, prices))} buckets; all have as many.",
            "Write None where an input says nothing.",
        )
    interval = node.interval or INTERVAL_S
    params = PythonNode(NodeValue).parse(functional_params(node.params_with(names)), node.period or 1)
    running = PythonRunning(params, interval, node.compute_fn, None)
    found: list[float | Target | None] = []
    for at, price in enumerate(prices):
        values = tuple([port[at] for port in ports])
        if all(value is None for value in values):
            found.append(None)  # a worker asks a node about buckets alone in which an input says something
            continue
        close = Decimal(repr(float(price)))
        bar = Bar(symbol, at * interval * 1000, interval, close, close, close, close, Decimal(1))
        found.append(_given(running.step(values, bar)))
    return found


def _given(output: Output | None) -> float | Target | None:
    if isinstance(output, PositionTargetValue):
        return Target(output.target_percent, output.reference_price)
    return output
