"""Strategies as DAG messages, with everything said that a test doesn't care about."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from qmtl.foundation.contracts.dag import DagSubmission
from qmtl.interfaces.client import submission_id

T0 = 1_522_800_000_000

Node = dict[str, Any]


def price(name: str = "price", symbols: Sequence[str] = ("BTC-USD", "ETH-USD"), **more: Any) -> Node:
    return {
        "name": name,
        "node_type": "price",
        "interval": 60,
        "params": {"symbols": list(symbols)},
        "tags": ["crypto", "price"],
        **more,
    }


def sma(name: str, period: int, source: str = "price", **more: Any) -> Node:
    return {
        "name": name,
        "node_type": "sma",
        "interval": 60,
        "period": period,
        "inputs": [source],
        "tags": ["crypto", "sma"],
        **more,
    }


def cross(name: str = "cross", fast: str = "fast", slow: str = "slow", **more: Any) -> Node:
    return {"name": name, "node_type": "cross", "interval": 60, "inputs": [fast, slow], **more}


def target(name: str = "target", source: str = "cross", share: float = 0.4, **more: Any) -> Node:
    params = {"long_percent": share, "short_percent": -share}
    return {
        "name": name,
        "node_type": "position_target",
        "interval": 60,
        "inputs": [source],
        "params": params,
        **more,
    }


def tag_query(
    name: str = "asked",
    tags: Sequence[str] = ("sma",),
    match_mode: str = "any",
    aggregate: str = "mean",
    own_tags: Sequence[str] = (),
) -> Node:
    return {
        "name": name,
        "node_type": "tag_query",
        "tags": list(own_tags),
        "interval": 60,
        "params": {
            "query_tags": list(tags),
            "match_mode": match_mode,
            "interval": 60,
            "aggregate": aggregate,
        },
    }


def crossing(
    fast: int = 3, slow: int = 8, share: float = 0.4, symbols: Sequence[str] = ("BTC-USD", "ETH-USD")
) -> list[Node]:
    """The nodes of a strategy that follows the crossing of two averages."""
    return [price(symbols=symbols), sma("fast", fast), sma("slow", slow), cross(), target(share=share)]


def strategy(
    nodes: Sequence[Node], strategy_id: str = "s1", signals: Sequence[str] = ("target",), version: str = "v1"
) -> dict[str, Any]:
    return {
        "schema_version": "v1",
        "strategy_id": strategy_id,
        "meta": {"version": version},
        "nodes": list(nodes),
        "signals": list(signals),
    }


def text(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def submission(message: dict[str, Any] | bytes, world_id: str = "w1", at_ms: int = T0) -> DagSubmission:
    data = message if isinstance(message, bytes) else text(message)
    return DagSubmission(submission_id(world_id, data), world_id, data, at_ms, execution_domain="live")
