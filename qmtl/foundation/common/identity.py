"""Who is who: the ids that are functions of content alone, equal on every machine and in every run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from qmtl.foundation.common.canonical import (
    blake3_hex,
    canonical_bytes,
    canonical_json,
    derived_hex,
    spliced_bytes,
    whole_frame,
)
from qmtl.foundation.common.errors import InvalidParameter, InvariantBroken, NodeIdMismatch
from qmtl.foundation.common.names import MAX_TAG, NAME_RULE, is_name

NODE_ID_PREFIX = "blake3:"

DISPLAY_METADATA = frozenset(
    {"name", "display_name", "label", "title", "description", "comment", "tags", "metadata", "color", "icon"}
)
"""Parameters, at the top level only, that say how a node is shown and are no part of what it computes."""

REFUSED_PARAMETERS = frozenset(
    {
        "world",
        "world_id",
        "world_ids",
        "execution_world",
        "execution_domain",
        "as_of",
        "dataset_fingerprint",
        "timestamp",
        "env",
    }
)
"""Parameters, at any depth and in any case, that would tie a shared node to one world, run or machine; `env_…` too.

`seed` and `domain` are not among them: a generator's seed and a function's domain change what a node computes.
"""

NODE_SET = "node_set_version"
"""The functional parameter that names the node set which a node was made by, and its version: the boundary of safe reuse when an
exchange changes its API. Any node may have it; its type never sees it."""

ARTIFACTS = "artifacts"
"""The functional parameter that has the sorted checksums of the files that a node computes with. Any node may have it; its type never
sees it."""

MATCH_MODES = ("any", "all")

MAX_COLLISIONS: Final = 8
"""Ids that may be held by other content before somebody has to look: the second one is already 2^-256 away."""

_NODE = "qmtl node id v1"
_CODE = "qmtl built-in code hash v1"
_ORDER = "qmtl client order id v1"
_LIST_FRAME: Final = 9
"""Bytes before the content of a canonical list: its tag and its length."""
_COLLISION: Final = "qmtl node id after a collision v1"
_COLLISION_BYTES: Final = 64

_COLLIDED_LENGTH: Final = len(NODE_ID_PREFIX) + 2 * _COLLISION_BYTES
"""Characters of an id after a collision."""

NODE_ID_FORM: Final = r"blake3:[0-9a-f]{64}(?:[0-9a-f]{64})?"
"""A pattern: 128 digits after a collision."""

_NODE_ID = re.compile(NODE_ID_FORM)


@dataclass(frozen=True, slots=True)
class Settled:
    """The id that a content has.

    Attributes:
        node_id: the first of its ids that no other content holds.
        collided: the ids before it, which other content holds; something for the audit, as good as never filled.
    """

    node_id: str
    collided: tuple[str, ...] = ()


def node_id(
    node_type: str,
    interval: int,
    period: int,
    params: Mapping[str, Any],
    dependencies: Sequence[str],
    schema_compat_id: str,
    code_hash: str,
) -> str:
    """The content address of a node: `blake3:` and 64 hex digits, a function of its `node_content` alone.

    Raises:
        InvalidParameter, NodeIdMismatch, NoCanonicalForm: as `node_content`.
    """
    return content_id(
        node_content(node_type, interval, period, params, dependencies, schema_compat_id, code_hash)
    )


def node_content(
    node_type: str,
    interval: int,
    period: int,
    params: Mapping[str, Any],
    dependencies: Sequence[str],
    schema_compat_id: str,
    code_hash: str,
) -> bytes:
    """The canonical bytes of all that a node computes: two nodes are one exactly if these are.

    Two rules meet in the dependencies. Their sorted ids are hashed, so that nothing depends on the order in which the nodes of a
    graph arrive. The id at each input port is hashed too, so that a - b and b - a are two nodes. The caller passes them by port.

    Params are hashed without `DISPLAY_METADATA`; numbers, key order and list-or-tuple make no difference; what can't be written
    as canonical JSON is refused, so that a node rebuilt from its `params_canon` has the same id. What a source reads
    (`source_params`, `tag_query_params`) belongs in params, as tags are only shown; so does the version of a node set
    (`with_node_set`).

    No world, no resolved queue and no byte-level schema hash is a part: a node is shared between worlds, a tag query keeps its
    id while queues come and go, and a compatible schema change keeps it too.

    Args:
        interval: seconds; 0 for a node that has none.
        period: intervals of input that the node needs before it emits.
        dependencies: node ids of the inputs, in the order of the ports.
        schema_compat_id: the major-compatibility id of the node's message format, e.g. from `schema_compat_id`.
        code_hash: identity of the code, e.g. from `builtin_code_hash` or `code_identity.function_hash`.

    Raises:
        InvalidParameter: an empty name, a negative or non-integer number, a refused parameter.
        NodeIdMismatch: a dependency that is no node id.
        NoCanonicalForm: a parameter without canonical JSON.
    """
    form = node_form(node_type, interval, period, params, schema_compat_id, code_hash)
    return form.content(dependencies)


@dataclass(frozen=True, slots=True)
class NodeForm:
    """The content of a node as far as it depends on nothing but itself.

    Attributes:
        before: canonical bytes of the list of what is hashed before the inputs.
        after: of what is hashed after them.
    """

    before: bytes
    after: bytes

    def content(self, dependencies: Sequence[str]) -> bytes:
        """The `node_content` with these inputs.

        Raises:
            NodeIdMismatch: a dependency that is no node id.
        """
        ports = [require_node_id(dependency) for dependency in dependencies]
        return spliced_bytes(self.before, canonical_bytes([sorted(ports), ports]), self.after)


def node_form(
    node_type: str,
    interval: int,
    period: int,
    params: Mapping[str, Any],
    schema_compat_id: str,
    code_hash: str,
) -> NodeForm:
    """What `node_content` says of a node before it is known what it reads.

    Raises:
        InvalidParameter, NoCanonicalForm: as `node_content`.
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
    functional = functional_params(params)
    canonical_json(functional)
    return checked_form(node_type, interval, period, functional, schema_compat_id, code_hash)


def checked_form(
    node_type: str,
    interval: int,
    period: int,
    functional: Mapping[str, Any],
    schema_compat_id: str,
    code_hash: str,
) -> NodeForm:
    """As `node_form`, for what was checked as it checks: `functional_params`, and canonical JSON of them."""
    return NodeForm(
        canonical_bytes([_NODE, node_type, interval, period, functional]),
        _format_and_code(schema_compat_id, code_hash),
    )


@lru_cache(maxsize=256)
def _format_and_code(schema_compat_id: str, code_hash: str) -> bytes:
    """The same few for all nodes."""
    return canonical_bytes([schema_compat_id, code_hash])


def content_id(content: bytes, collisions: int = 0) -> str:
    """The id of a `node_content` of which so many ids are held by other content.

    The first is the plain BLAKE3 hash. The others are 64 bytes of the extended output in a domain of their own, over the content
    and its count, so that whatever made two plain hashes meet has no say in them.
    """
    if collisions == 0:
        return NODE_ID_PREFIX + blake3_hex(content)
    return NODE_ID_PREFIX + derived_hex(canonical_bytes([content, collisions]), _COLLISION, _COLLISION_BYTES)


def settle(content: bytes, held: Callable[[str], bytes | None]) -> Settled:
    """The id of a content among those that exist: its own if it is there already, else the first that is free.

    Equal content is reuse and never a collision. The answer follows from what is held alone, so a replay of the log gives it again.
    An id that was given up could be taken by content that has another one already, so whoever gives ids up asks `passed_over`.

    Args:
        held: the content that an id stands for; `None` if it is free.

    Raises:
        InvariantBroken: `MAX_COLLISIONS` ids are held by other content, which is no chance.
    """
    collided: list[str] = []
    while len(collided) < MAX_COLLISIONS:
        candidate = content_id(content, len(collided))
        holder = held(candidate)
        if holder is None or holder == content:
            return Settled(candidate, tuple(collided))
        collided.append(candidate)
    raise InvariantBroken(
        f"{MAX_COLLISIONS} ids of one content are held by others, the first is {collided[0]}.",
        "The table of nodes is damaged, or the hash is broken: restore it from the log.",
    )


def passed_over(node_id: str, content: Callable[[], bytes]) -> Iterator[str]:
    """The ids of a content before the one that it has: other content held them. While it is there they are not free.

    Args:
        content: asked for only where an id has the form of one after a collision.
    """
    if len(node_id) != _COLLIDED_LENGTH:
        return
    mine = content()
    for collisions in range(MAX_COLLISIONS):
        if (candidate := content_id(mine, collisions)) == node_id:
            return
        yield candidate


def functional_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that say what a node computes: all save `DISPLAY_METADATA`, which is dropped at the top level only.

    Raises:
        InvalidParameter: a name out of `REFUSED_PARAMETERS`, or a `NODE_SET` that is no `name@version`.
    """
    _refuse_tied(params)
    functional = {name: value for name, value in params.items() if name not in DISPLAY_METADATA}
    _refuse_tied_within(list(functional.values()))
    if NODE_SET in functional:
        _require_node_set(functional[NODE_SET])
    return functional


def own_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The functional parameters that a node's type is asked about: without the version of the node set that made it, and without its
    artifacts."""
    return {name: value for name, value in params.items() if name not in (NODE_SET, ARTIFACTS)}


def with_node_set(params: Mapping[str, Any], name: str, version: str) -> dict[str, Any]:
    """The parameters of a node that a node set makes: another version of it is another node.

    Raises:
        InvalidParameter: a name or version that is no name, or parameters that name another node set.
    """
    made = _require_node_set(f"{name}@{version}")
    if params.get(NODE_SET, made) != made:
        raise InvalidParameter(
            f"{NODE_SET} was there already; a node is made by one node set.",
            "Take the parameters without it.",
        )
    return {**params, NODE_SET: made}


def source_params(reads: Mapping[str, Any], tags: Iterable[str] = (), preset: str = "") -> dict[str, Any]:
    """The parameters of a source: all that chooses what it reads, tags and preset included.

    Args:
        reads: further parameters, a list of symbols for instance.
        tags: those that choose the data, in any order; tags that are only shown belong to the node.
        preset: the prepared choice that the source stands for; empty for none.

    Raises:
        InvalidParameter: a tag or preset that is no name, or one that `reads` has already.
    """
    chosen: dict[str, Any] = {}
    if found := _tags("source_tags", tags):
        chosen["source_tags"] = found
    if preset:
        if not is_name(preset):
            raise InvalidParameter(f"source_preset was {preset!a:.80}; {NAME_RULE}.", "Rename it.")
        chosen["source_preset"] = preset
    for name in chosen:
        if name in reads:
            raise InvalidParameter(f"{name} was given twice; a source has one.", "Give it in one place.")
    return {**reads, **chosen}


def tag_query_params(query_tags: Iterable[str], match_mode: str, interval: int) -> dict[str, Any]:
    """The parameters of a TagQueryNode: its question, never the queues that answer it.

    Returns:
        `query_tags` sorted and without repeats, `match_mode` (`any` or `all`), `interval` in seconds.

    Raises:
        InvalidParameter: no tags or one that is no name, another mode, an interval that is no positive integer.
    """
    tags = _tags("query_tags", query_tags)
    if not tags:
        raise InvalidParameter("query_tags was empty; a list of texts is required.", "Name a tag.")
    if match_mode not in MATCH_MODES:
        raise InvalidParameter(
            f"match_mode was {match_mode!r}; it must be 'any' or 'all'.", "Choose one of them."
        )
    if type(interval) is not int or interval <= 0:
        raise InvalidParameter(
            f"interval was {interval!r}; a positive number of seconds is required.", "Send seconds."
        )
    return {"query_tags": tags, "match_mode": match_mode, "interval": interval}


def schema_compat_id(name: str, major: int) -> str:
    """The id that a message format keeps through all its compatible changes: `<name>.v<major>`.

    Args:
        major: counted from 1 by incompatible changes, e.g. `qmtl.foundation.wire.compat.major`.

    Raises:
        InvalidParameter: no name, or a number below 1.
    """
    if not is_name(name):
        raise InvalidParameter(f"the name of a message format was {name!a:.80}; {NAME_RULE}.", "Rename it.")
    if type(major) is not int or major < 1:
        raise InvalidParameter(
            f"the major version of {name} was {major!r}; an integer of at least 1 is required.",
            "Count from 1.",
        )
    return f"{name}.v{major}"


def schema_hash(schema: Mapping[str, Any]) -> str:
    """The identity of the very bytes of a schema, which every change of it changes, compatible or not.

    Raises:
        NoCanonicalForm: the schema is no JSON.
    """
    return NODE_ID_PREFIX + blake3_hex(canonical_json(schema).encode())


def require_node_id(text: str) -> str:
    """`text`, if it has the form of a node id.

    Raises:
        NodeIdMismatch: anything but `blake3:` and 64 lowercase hex digits, or 128 of them after a collision.
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
    session: int = 1,
) -> str:
    """The id of the order that an intent leads to: 32 lowercase hex digits, a function of logged facts only.

    Sent again after a crash, from another process or by another clock, the same intent has the same id; another intent has another, and
    so has the same intent in another order session, from the second one on.
    """
    head = _order_head(world_id, strategy_id, symbol, side)
    tail = _number_frame(target_percent), _number_frame(intent_index)
    content = b"".join((head, whole_frame(bucket_ms), *tail))
    if session != 1:
        content += _number_frame(session)
    return blake3_hex(b"l" + len(content).to_bytes(8, "big") + content, length=16)


@lru_cache(maxsize=1024)
def _order_head(*texts: str) -> bytes:
    """The frames of the texts that a list of them begins with: an order's holding has many orders."""
    return canonical_bytes([_ORDER, *texts])[_LIST_FRAME:]


@lru_cache(maxsize=1024, typed=True)
def _number_frame(value: Decimal | int) -> bytes:
    return canonical_bytes(value)


def _tied(name: str) -> InvalidParameter:
    return InvalidParameter(
        f"params had {name!a:.80}; a node is shared by every world and run, so it can't take one as a parameter.",
        "Leave it out: the world, its clock and its environment reach a node through the data that it reads.",
    )


def _refuse_tied(names: Iterable[object]) -> None:
    for name in names:
        if isinstance(name, str) and (
            (folded := name.lower()) in REFUSED_PARAMETERS or folded.startswith("env_")
        ):
            raise _tied(name)


def _refuse_tied_within(values: list[Any]) -> None:
    """Walks without recursion: how deep a value may be is for its canonical form to say, which comes after. A value that holds
    itself is walked once."""
    seen: set[int] = set()
    while values:
        value = values.pop()
        if not isinstance(value, Mapping | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Mapping):
            _refuse_tied(value)
        values.extend(value.values() if isinstance(value, Mapping) else value)


def _require_node_set(value: object) -> str:
    if isinstance(value, str) and value.count("@") == 1 and all(map(is_name, value.split("@"))):
        return value
    raise InvalidParameter(
        f"{NODE_SET} was {value!a:.80}; a text `name@version` is required, where {NAME_RULE}.",
        "Take the parameters from with_node_set.",
    )


def _tags(field: str, tags: Iterable[str]) -> list[str]:
    found = [tags] if isinstance(tags, str) else list(tags)
    for tag in found:
        if isinstance(tags, str) or not is_name(tag, MAX_TAG):
            raise InvalidParameter(
                f"{field} was or held {tag!a:.80}; it is a list of texts of up to {MAX_TAG} characters, where {NAME_RULE}.",
                "Send a list of tags.",
            )
    return sorted(set(found))
