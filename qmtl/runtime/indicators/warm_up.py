"""How long a node is silent at its beginning, where every bar is there: what a strategy has to be given before it can say anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from qmtl.foundation.common.identity import own_params
from qmtl.foundation.contracts.dag import ComputeNode
from qmtl.runtime.sdk.python_node import PYTHON

_AT_ONCE: Final = frozenset(
    {"price", "cross", "position_target", "threshold", "combine", "linear", "tag_query"}
)
_BEHIND_ONE: Final = frozenset({"rsi", "atr", "returns"})
"""Types that look back on changes: the first input brings none."""


def first_value(node_type: str, params: Mapping[str, Any], period: int, interval: int) -> int:
    """The input at which a built-in node can give its first value, counted from 1; docs/indicators.md has the table. Of one that resamples, the
    last at which it does.

    Args:
        params: the functional parameters of the node.
        interval: of its inputs, seconds.
    """
    if node_type in _AT_ONCE:
        return 1
    if node_type == "resample":
        return -(-int(params["every"]) // interval)
    if node_type == "macd" and params.get("output") != "value":
        return period + int(params["signal"]) - 1
    return period + (node_type in _BEHIND_ONE)


def warm_ups(nodes: Sequence[ComputeNode]) -> dict[str, int]:
    """Of each node, by its id, the bucket in which it can give its first value, counted from the first bar on. A node above that is silent for
    other reasons, such as a cross that has not turned, makes it later.

    Args:
        nodes: inputs before the nodes that read them.
    """
    out: dict[str, int] = {}
    for one in nodes:
        params = own_params(json.loads(one.params_canon, parse_float=Decimal))
        reads = [out[node_id] for node_id in one.dependencies if node_id in out]
        ready = max(reads, default=1)
        if one.node_type == PYTHON:
            seen = min(reads, default=1)
            out[one.node_id] = max(ready + one.period - 1, seen + int(params["bars"]) - 1)
        else:
            out[one.node_id] = ready + first_value(one.node_type, params, one.period, one.interval) - 1
    return out
