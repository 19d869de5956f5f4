"""The DAG message as people publish it: bounded before it is parsed, strict when it is, clear about what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from qmtl.foundation.common.errors import DagTooLarge, InvalidDag, InvalidParameter

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
MAX_NODES: Final = 10_000
MAX_INTERVAL_S: Final = 86_400
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _seconds(value: object) -> object:
    """`60`, `"60s"`, `"1m"`, `"1h"` and `"1d"` are seconds."""
    if isinstance(value, str) and value.isascii() and value[:-1].isdecimal() and value[-1:] in _UNITS:
        return int(value[:-1]) * _UNITS[value[-1]]
    return value


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200)]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=100)]
Interval = Annotated[int, BeforeValidator(_seconds), Field(ge=1, le=MAX_INTERVAL_S)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DagNode(_Strict):
    """One node as it was published; `inputs` are names of nodes of the same message, by port."""

    name: Name
    node_type: Annotated[str, Field(min_length=1, max_length=100)]
    interval: Interval
    period: Annotated[int, Field(ge=1, le=10_000)] = 1
    params: dict[str, Any] = {}
    inputs: list[Name] = []
    tags: list[Tag] = []
    code_hash: str | None = None
    schema_compat_id: str | None = None
    node_id: str | None = None
    metadata: dict[str, Any] = {}


class DagMeta(_Strict):
    version: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=50)] = "v1"
    description: str = ""


class DagMessage(_Strict):
    """A strategy as it was published."""

    schema_version: Literal["v1"]
    strategy_id: Name
    meta: DagMeta = DagMeta()
    nodes: Annotated[list[DagNode], Field(min_length=1, max_length=MAX_NODES)]
    signals: Annotated[list[Name], Field(min_length=1)]


def parse_message(data: bytes) -> DagMessage:
    """Read a DAG message.

    Raises:
        DagTooLarge: over 1 MiB, deeper than 32 levels, more than 10,000 nodes.
        InvalidParameter: NaN or an infinity anywhere.
        InvalidDag: not JSON, a repeated key, a field that is missing, unknown, or breaks its rule.
    """
    if len(data) > MAX_BYTES:
        raise DagTooLarge(
            f"the DAG message has {len(data)} bytes; at most {MAX_BYTES} are allowed.", "Split the strategy."
        )
    _bound_depth(data)
    try:
        raw = json.loads(data, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidDag(f"the DAG message is not JSON: {error}.", "Check it with any JSON tool.") from None
    try:
        return DagMessage.model_validate(raw)
    except ValidationError as error:
        raise _named(error) from None


def _bound_depth(data: bytes) -> None:
    depth = 0
    in_text = escaped = False
    for byte in data:
        if in_text:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_text = False
        elif byte == 0x22:
            in_text = True
        elif byte in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise DagTooLarge(
                    f"the DAG message nests deeper than {MAX_DEPTH} levels.", "Flatten its parameters."
                )
        elif byte in b"]}":
            depth -= 1


def _no_constant(name: str) -> Any:
    raise InvalidParameter(
        f"the DAG message has the number {name}; only finite numbers have an identity.", "Remove it."
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise InvalidDag(f"the DAG message has the key {key!r} twice in one object.", "Keep one.")
        out[key] = value
    return out


def _named(error: ValidationError) -> InvalidDag:
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the message"
    found = first["input"]
    kind = (
        "an object"
        if isinstance(found, Mapping)
        else "a list"
        if isinstance(found, list)
        else repr(found)[:80]
    )
    more = error.error_count() - 1
    others = f" ({more} more)" if more else ""
    if first["type"] == "too_long" and first["loc"] == ("nodes",):
        return DagTooLarge(f"nodes: at most {MAX_NODES} are allowed.", "Split the strategy.")
    return InvalidDag(
        f"{where} was {kind}: {first['msg']}{others}.", "See the DAG message's form in the README."
    )
