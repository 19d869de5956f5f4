"""The Avro schema of a message, made from its shape, and the fingerprint by which a record says what wrote it."""

from __future__ import annotations

import json
from decimal import Decimal
from enum import Enum
from typing import Any, TypeAlias, assert_never

from fastavro.schema import fingerprint as fastavro_fingerprint
from fastavro.schema import to_parsing_canonical_form

from qmtl.foundation.common import money
from qmtl.foundation.wire.shape import REQUIRED, Choice, Lookup, Many, Maybe, Record, Scalar, Shape, shape_of

Schema: TypeAlias = dict[str, Any]
"""An Avro schema of a record, as JSON would hold it."""

NAMESPACE = "qmtl"

DECIMAL = "qmtl-decimal"
"""Logical type of a decimal: its normal-form text (`qmtl.foundation.common.money.text`). Avro's own `decimal` fixes one scale for
a field, which prices of different instruments don't share."""

_PRIMITIVES: dict[type, Any] = {str: "string", int: "long", float: "double", bool: "boolean", bytes: "bytes"}


def avro_schema(message: type) -> Schema:
    """The schema of a message class; the same fields, types and defaults give the same schema, whatever the docstrings say.

    The symbols of an enum are the names of its members, because Avro allows no `compute-only`; JSON carries the values. A named
    type is written out where it first appears and named after that.

    Raises:
        InvalidValue: the class has no Avro form (`shape_of` says what is refused and why).
    """
    schema: Schema = _schema(shape_of(message), set())
    return {"type": "record", "name": schema["name"], "namespace": NAMESPACE, "fields": schema["fields"]}


def parsing_form(schema: Schema) -> Schema:
    """The schema without defaults and logical types: all that the layout of the bytes depends on (Avro's canonical form)."""
    form: Schema = json.loads(to_parsing_canonical_form(schema))
    return form


def fingerprint(schema: Schema) -> bytes:
    """CRC-64-AVRO of the parsing canonical form, 8 bytes little-endian as the single-object encoding wants it."""
    return bytes.fromhex(fastavro_fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def _schema(shape: Shape, named: set[str]) -> Any:
    match shape:
        case Scalar(type=kind):
            return {"type": "string", "logicalType": DECIMAL} if kind is Decimal else _PRIMITIVES[kind]
        case Maybe(item):
            return ["null", _schema(item, named)]
        case Many(item):
            return {"type": "array", "items": _schema(item, named)}
        case Lookup(value):
            return {"type": "map", "values": _schema(value, named)}
        case Choice(enum):
            if enum.__name__ in named:
                return enum.__name__
            named.add(enum.__name__)
            return {"type": "enum", "name": enum.__name__, "symbols": [member.name for member in enum]}
        case Record():
            if shape.name in named:
                return shape.name
            named.add(shape.name)
            return {
                "type": "record",
                "name": shape.name,
                "fields": [_field(field, named) for field in shape.fields],
            }
        case _:
            assert_never(shape)


def _field(field: Any, named: set[str]) -> dict[str, Any]:
    out = {"name": field.name, "type": _schema(field.shape, named)}
    if isinstance(field.shape, Maybe):
        out["default"] = None
    elif field.default is not REQUIRED:
        out["default"] = _default(field.shape, field.default)
    return out


def _default(shape: Shape, value: Any) -> Any:
    """A default as Avro's JSON encoding has it: bytes as Latin-1 text, a union as its first branch."""
    match shape:
        case Scalar(type=kind):
            if kind is Decimal:
                return money.text(value)
            return value.decode("latin-1") if kind is bytes else value
        case Maybe():
            return None
        case Many(item):
            return [_default(item, element) for element in value]
        case Lookup(inner):
            return {key: _default(inner, value[key]) for key in sorted(value)}
        case Choice():
            assert isinstance(value, Enum)
            return value.name
        case Record():
            return {field.name: _default(field.shape, getattr(value, field.name)) for field in shape.fields}
        case _:
            assert_never(shape)
