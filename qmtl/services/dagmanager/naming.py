"""Names of node topics: `{asset}_{node_type}_{short_hash}_{version}`, a pure function of the node and what exists."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from qmtl.foundation.contracts.dag import ComputeNode, TopicClass

SHORT_HASH: Final = 8
GROWTH: Final = 2
MAX_NAME: Final = 249
"""Kafka's longest topic name."""

_UNUSABLE: Final = re.compile(r"[^a-z0-9-]+")
_RAW: Final = ("raw", "price", "ohlcv")
_TRADE: Final = ("exec", "trade", "order", "portfolio")


def topic_class(node_type: str) -> TopicClass:
    """The class of a node's topic, by words in its type; indicator where nothing else fits."""
    if any(word in node_type.lower() for word in _RAW):
        return TopicClass.RAW
    if any(word in node_type.lower() for word in _TRADE):
        return TopicClass.TRADE_EXEC
    return TopicClass.INDICATOR


def topic_name(node: ComputeNode, version: str, taken: Callable[[str], bool]) -> str:
    """The name of a node's topic.

    The short hash is the first 8 characters of the digest, 2 more at a time while the name is taken by another node.
    A node whose topic was removed gets another one, with `_v2` and so on behind its name: nobody takes it for the first.
    Only lower case, digits, `-` and `_` are used, so that no two names differ by case or by `.` against `_` alone,
    which brokers fold together.

    Args:
        taken: whether another node's topic has the name.
    """
    digest = node.node_id.removeprefix("blake3:")
    asset = next((word for word in map(_folded, node.tags) if word), "asset")[:60]
    kind = _folded(node.node_type)[:60] or "node"
    release = _folded(version)[:40] or "v1"
    if node.generation > 1:
        release = f"{release}_v{node.generation}"
    length = SHORT_HASH
    while True:
        name = f"{asset}_{kind}_{digest[:length]}_{release}"[:MAX_NAME]
        if not taken(name) or length >= len(digest):
            return name
        length += GROWTH


def release_of(topic: str) -> str:
    """The version in the name of a node's topic. The parts before it have no `_`, and neither has it."""
    return topic.split("_")[3]


def _folded(text: str) -> str:
    return _UNUSABLE.sub("-", text.lower()).strip("-")
