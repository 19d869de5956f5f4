"""The JSON Schema (2020-12) of a message: whatever `from_json` takes is valid under it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, assert_never

from qmtl.foundation.wire.json_view import (
    DECIMAL_CHARACTERS,
    DECIMAL_TEXT,
    MAX_INTEGER,
    MIN_INTEGER,
    to_json_value,
)
from qmtl.foundation.wire.shape import REQUIRED, Choice, Lookup, Many, Maybe, Record, Scalar, Shape, shape_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_SCALARS: dict[type, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer", "minimum": MIN_INTEGER, "maximum": MAX_INTEGER},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    Decimal: {"type": "string", "pattern": f"^{DECIMAL_TEXT}$", "maxLength": DECIMAL_CHARACTERS},
}


def json_schema(message: type) -> dict[str, Any]:
    """The schema of the object that `to_json` gives; the fields without a default are required, no others are allowed."""
    return {"$schema": DIALECT, "title": message.__name__, **_schema(shape_of(message))}


def _schema(shape: Shape) -> dict[str, Any]:
    match shape:
        case Scalar(type=kind):
            return dict(_SCALARS[kind])
        case Choice(enum):
            return {"enum": [member.value for member in enum]}
        case Maybe(item):
            return {"anyOf": [{"type": "null"}, _schema(item)]}
        case Many(item):
            return {"type": "array", "items": _schema(item)}
        case Lookup(value):
            return {"type": "object", "additionalProperties": _schema(value)}
        case Record():
            properties = {}
            for field in shape.fields:
                properties[field.name] = _schema(field.shape)
                if field.default is not REQUIRED:
                    properties[field.name]["default"] = to_json_value(field.shape, field.default, field.name)
            return {
                "type": "object",
                "properties": properties,
                "required": [field.name for field in shape.fields if field.default is REQUIRED],
                "additionalProperties": False,
            }
        case _:
            assert_never(shape)
