"""Names of node topics: `{asset}_{node_type}_{short_hash}_{version}`, a pure function of the node and what exists; and the namespace
that keeps the topics of one world and domain apart on a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from qmtl.foundation.common.canonical import canonical_bytes, derived_hex
from qmtl.foundation.common.compute_context import ExecutionDomain
from qmtl.foundation.contracts.dag import ComputeNode, TopicClass
from qmtl.runtime.indicators.registry import SOURCE

SHORT_HASH: Final = 8
GROWTH: Final = 2
LIFE_PREFIX: Final = 3
"""Hex digits of a node's id under which it is kept how far the names of its topics went: not more than `SHORT_HASH`, as nodes whose
topics may have the same name have to share it. With three there are 4,096 rows at most."""
MAX_NAME: Final = 249
"""Kafka's longest topic name."""

MAX_WORLD: Final = 48
"""Characters of a world in a namespace: with the domain, and the two points, 58, which leaves room for any name of a node's topic."""

_NAMESPACE: Final = re.compile(
    rf"[A-Za-z0-9_-]{{1,40}}|[a-z0-9][a-z0-9-]{{0,{MAX_WORLD - 1}}}\.(?:{'|'.join(one.value for one in ExecutionDomain)})"
)
_WORLD: Final = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_WORLD_DIGEST: Final = 16
_CONTEXT: Final = "qmtl world in a topic namespace v1"
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


def asset_of(
    node: ComputeNode, held: Callable[[str], ComputeNode | None], known: dict[str, str] | None = None
) -> str:
    """What the name of a node's topic begins with, of what its sources read: the first of all their symbols, as names have them. Empty where
    no source is above the node, as above a tag query.

    Args:
        held: the row of a node above it.
        known: what was found before, by id; grows, so that the nodes of a graph are each looked at once.
    """
    known = {} if known is None else known
    left = [node]
    while left:
        one = left[-1]
        if one.node_type == SOURCE:
            above = list(map(_folded, json.loads(one.params_canon).get("symbols", ())))
        else:
            more = [
                row
                for other in dict.fromkeys(one.dependencies)
                if other not in known and (row := held(other)) is not None
            ]
            if more:
                left += more
                continue
            above = [known.get(other, "") for other in one.dependencies]
        known[one.node_id] = min(filter(None, above), default="")
        left.pop()
    return known[node.node_id]


def topic_name(node: ComputeNode, version: str, taken: Callable[[str], bool], asset: str = "") -> str:
    """The name of a node's topic.

    The short hash is the first 8 characters of the digest, 2 more at a time while the name is taken by another node.
    A node whose topic was removed gets another one, with `_v2` and so on behind its name: nobody takes it for the first. So does one
    whose name looks like that of somebody else's topic. Only lower case, digits, `-` and `_` are used, so that no two names differ by case or by `.` against `_` alone,
    which brokers fold together.

    Args:
        taken: whether another node's topic has the name.
        asset: see `asset_of`; where there is none, the first tag stands for it.
    """
    digest = node.node_id.removeprefix("blake3:")
    asset = (asset or next((word for word in map(_folded, node.tags) if word), "asset"))[:60]
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


def life_prefix(node_id: str) -> str:
    """Under what it is kept how far the names of a node's topics went."""
    return node_id.removeprefix("blake3:")[:LIFE_PREFIX]


def release_of(topic: str) -> str:
    """The version in the name of a node's topic. The parts before it have no `_`, and neither has it."""
    return topic.split("_")[3]


def namespace_of(world_id: str, domain: ExecutionDomain) -> str:
    """The namespace of a world's topics in an execution domain, `{world_id}.{execution_domain}`, as a log's address takes it: then every
    topic there is `{world_id}.{execution_domain}.<topic>`. Neither a node's id nor its compute key knows of it.

    A world's id stands there as it is if it has lower case letters, digits and single inner hyphens only, and up to `MAX_WORLD` of
    them. Any other one is folded, cut, and told by its digest: `{folded}--{32 hex digits}`. So no two worlds have namespaces that
    differ by case, or by `.`, `_` and `-`, alone; and none, with the point behind it, is the beginning of another: it can be the
    prefix of an ACL.

    Raises:
        NoCanonicalForm: an id that is no Unicode text.
    """
    world = world_id
    if len(world_id) > MAX_WORLD or _WORLD.fullmatch(world_id) is None:
        digest = derived_hex(canonical_bytes(world_id), _CONTEXT, _WORLD_DIGEST)
        room = MAX_WORLD - len(digest) - 2
        world = f"{_folded(world_id)[:room].strip('-') or 'w'}--{digest}"
    return f"{world}.{domain.value}"


def is_namespace(text: str) -> bool:
    """Whether a log's address may end so: a name without a point, or a world and an execution domain."""
    return _NAMESPACE.fullmatch(text) is not None


def _folded(text: str) -> str:
    return _UNUSABLE.sub("-", text.lower()).strip("-")
