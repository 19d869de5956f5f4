"""Who is who: the ids that are functions of content alone, equal on every machine and in every run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from qmtl.foundation.common.canonical import blake3_hex, canonical_bytes, canonical_json
from qmtl.foundation.common.errors import InvalidParameter, NodeIdMismatch

NODE_ID_PREFIX = "blake3:"

DISPLAY_METADATA = frozenset(
    {"name", "display_name", "label", "title", "description", "comment", "tags", "metadata", "color", "icon"}
)
"""Parameters, at the top level only, that say how a node is shown and are no part of what it computes."""

REFUSED_PARAMETERS = frozenset({"world", "world_id", "execution_domain", "as_of", "timestamp", "env"})
"""Parameters, at the top level and in any case, that would tie a shared node to one world, run or machine.

`seed` and `domain` are not among them: a generator's seed and a function's domain change what a node computes.
"""

MATCH_MODES = ("any", "all")

_NODE = "qmtl node id v1"
_CODE = "qmtl built-in code hash v1"
_ORDER = "qmtl client order id v1"

_NODE_ID = re.compile(r"blake3:[0-9a-f]{64}")


def node_id(
    node_type: str,
    interval: int,
    period: int,
    params: Mapping[str, Any],
    dependencies: Sequence[str],
    schema_compat_id: str,
    code_hash: str,
) -> str:
    """The content address of a node: `blake3:` and 64 hex digits.

    Two rules meet in the dependencies. Their sorted ids are hashed, so that nothing depends on the order in which the nodes of a
    graph arrive. The id at each input port is hashed too, so that a - b and b - a are two nodes. The caller passes them by port.

    Params are hashed without `DISPLAY_METADATA`; numbers, key order and list-or-tuple make no difference; what can't be written
    as canonical JSON is refused, so that a node rebuilt from its `params_canon` has the same id. What a source reads
    (`query_tags`, a symbol) belongs in params, as tags are only shown.

    No world, no resolved queue and no byte-level schema hash is a part: a node is shared between worlds, a tag query keeps its
    id while queues come and go, and a compatible schema change keeps it too.

    Args:
        interval: seconds; 0 for a node that has none.
        period: intervals of input that the node needs before it emits.
        dependencies: node ids of the inputs, in the order of the ports.
        schema_compat_id: the major-compatibility id of the node's message format.
        code_hash: identity of the code, e.g. from `builtin_code_hash`.

    Raises:
        InvalidParameter: an empty name, a negative or non-integer number, a refused parameter.
        NodeIdMismatch: a dependency that is no node id.
        NoCanonicalForm: a parameter without canonical JSON.
    """
    for field, text in (
        ("node_type", node_type),
        ("schema_compat_id", schema_compat_id),
        ("code_hash", code_hash),
    ):
        if not text:
            raise InvalidParameter(
                f"{field} was empty; a text of at least one character is required.", "Name it."
            )
    for field, number in (("interval", interval), ("period", period)):
        if type(number) is not int or number < 0:
            raise InvalidParameter(
                f"{field} was {number!r}; an integer of at least 0 is required.", "Send whole units."
            )
    ports = [require_node_id(dependency) for dependency in dependencies]
    functional = functional_params(params)
    canonical_json(functional)
    content = [
        _NODE,
        node_type,
        interval,
        period,
        functional,
        sorted(ports),
        ports,
        schema_compat_id,
        code_hash,
    ]
    return NODE_ID_PREFIX + blake3_hex(canonical_bytes(content))


def functional_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say what a node computes: all save `DISPLAY_METADATA`, which is dropped at the top level only.

    Raises:
        InvalidParameter: a name out of `REFUSED_PARAMETERS`.
    """
    for name in params:
        if name.lower() in REFUSED_PARAMETERS:
            raise InvalidParameter(
                f"params had {name!r}; a node is shared by every world and run, so it can't take one as a parameter.",
                "Leave it out: the world, its clock and its environment reach a node through the data that it reads.",
            )
    return {name: value for name, value in params.items() if name not in DISPLAY_METADATA}


def tag_query_params(query_tags: Iterable[str], match_mode: str, interval: int) -> dict[str, Any]:
    """The parameters of a TagQueryNode: its question, never the queues that answer it.

    Returns:
        `query_tags` sorted and without repeats, `match_mode` (`any` or `all`), `interval` in seconds.

    Raises:
        InvalidParameter: no tags or a tag that is empty or no text, another mode, an interval that is no positive integer.
    """
    tags = [] if isinstance(query_tags, str) else list(query_tags)
    if not tags or not all(tags):
        raise InvalidParameter(
            f"query_tags was {query_tags!r}; a list of non-empty texts is required.", "Name a tag."
        )
    if match_mode not in MATCH_MODES:
        raise InvalidParameter(
            f"match_mode was {match_mode!r}; it must be 'any' or 'all'.", "Choose one of them."
        )
    if type(interval) is not int or interval <= 0:
        raise InvalidParameter(
            f"interval was {interval!r}; a positive number of seconds is required.", "Send seconds."
        )
    return {"query_tags": sorted(set(tags)), "match_mode": match_mode, "interval": interval}


def require_node_id(text: str) -> str:
    """`text`, if it has the form of a node id.

    Raises:
        NodeIdMismatch: anything but `blake3:` and 64 lowercase hex digits.
    """
    if _NODE_ID.fullmatch(text) is None:
        raise NodeIdMismatch(
            f"a node id was {text[:80]!r}; it must be 'blake3:' and 64 lowercase hex digits.",
            "Compute it with node_id.",
        )
    return text


def builtin_code_hash(name: str, version: int | str) -> str:
    """The code hash of a built-in node: a function of its name and version, not of source text or formatting."""
    return NODE_ID_PREFIX + blake3_hex(canonical_bytes([_CODE, name, version]))


def client_order_id(
    world_id: str,
    strategy_id: str,
    symbol: str,
    side: str,
    bucket_ms: int,
    target_percent: Decimal,
    intent_index: int,
) -> str:
    """The id of the order that an intent leads to: 32 lowercase hex digits, a function of logged facts only.

    Sent again after a crash, from another process or by another clock, the same intent has the same id; another intent has another.
    """
    content = [_ORDER, world_id, strategy_id, symbol, side, bucket_ms, target_percent, intent_index]
    return blake3_hex(canonical_bytes(content), length=16)
