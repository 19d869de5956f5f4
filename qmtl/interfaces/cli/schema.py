"""What a topic's messages look like, for people: one sentence about them, and each field with its type."""

from __future__ import annotations

import re
from dataclasses import fields
from decimal import Decimal
from typing import Any, Final, assert_never

from qmtl.foundation.wire.shape import Choice, Lookup, Many, Maybe, Record, Scalar, Shape, parts_of, shape_of
from qmtl.foundation.wire.topics import TopicSpec

_NAMES: Final = {
    str: "text",
    int: "integer",
    float: "float",
    bool: "boolean",
    bytes: "bytes",
    Decimal: "decimal",
}


def about(spec: TopicSpec) -> str:
    """The names of the messages, and what the first of them says of itself."""
    names = ", ".join(message.__name__ for message in spec.messages)
    doc = (spec.messages[0].__doc__ or "").strip()
    if doc.startswith(f"{spec.messages[0].__name__}("):
        return names  # what `dataclass` writes where nobody wrote anything
    first = re.split(r"[.:;](?:\s|$)", doc, maxsplit=1)[0].replace("`", "")
    return f"{names}: {' '.join(first.split())}" if first else names


def messages_of(spec: TopicSpec) -> list[type]:
    """The messages of a topic, and every message inside them, each once."""
    found: dict[type, None] = {}
    for message in spec.messages:
        for part in parts_of(shape_of(message)):
            if isinstance(part, Record):
                found[part.message] = None
    return list(found)


def fields_of(message: type) -> dict[str, Any]:
    """The name of a message and its fields in order, each with its type."""
    shapes = shape_of(message).fields
    coordinates = {one.name for one in fields(message) if one.metadata.get("coordinate")}
    rows = [
        {
            "field": one.name,
            "type": type_text(one.shape) + (", out of digests" if one.name in coordinates else ""),
        }
        for one in shapes
    ]
    return {"message": message.__name__, "fields": rows}


def type_text(shape: Shape) -> str:
    """A type in words."""
    match shape:
        case Scalar(type=kind):
            return _NAMES[kind]
        case Choice(enum):
            return " | ".join(str(member.value) for member in enum)
        case Maybe(item):
            return f"{type_text(item)}, or null"
        case Many(item):
            return f"list of {type_text(item)}"
        case Lookup(item):
            return f"map of {type_text(item)}"
        case Record():
            return shape.name
        case _:
            assert_never(shape)
