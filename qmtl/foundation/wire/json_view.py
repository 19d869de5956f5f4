"""Messages as JSON for people, HTTP and SQL: decimals as text, enums as their values, bytes as base64."""

from __future__ import annotations

import base64
import math
import re
from decimal import Decimal
from typing import Any, TypeVar, assert_never

from qmtl.foundation.common import money
from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.wire.shape import REQUIRED, Choice, Lookup, Many, Maybe, Record, Scalar, Shape, shape_of

M = TypeVar("M")

DECIMAL_TEXT = r"-?[0-9]+(\.[0-9]+)?"
"""What may be sent as a decimal; `to_json` writes the normal form of it."""

DECIMAL_CHARACTERS = 2 * money.MAX_DIGITS

MIN_INTEGER, MAX_INTEGER = -(2**63), 2**63 - 1

_DECIMAL = re.compile(DECIMAL_TEXT)


def to_json(message: object) -> dict[str, Any]:
    """The JSON object of a message: every field by its name, nested messages as objects, tuples as lists.

    Raises:
        InvalidValue: a value that its field doesn't take; the field is named.
    """
    out: dict[str, Any] = to_json_value(shape_of(type(message)), message, type(message).__name__)
    return out


def from_json(cls: type[M], obj: object) -> M:
    """The message of a JSON object. A field that has a default may be left out; no other may, and none may be unknown.

    Raises:
        InvalidValue: names the field, what it was and what is required.
    """
    message = _read(shape_of(cls), obj, cls.__name__)
    assert isinstance(message, cls)
    return message


def to_json_value(shape: Shape, value: Any, path: str) -> Any:
    """The JSON of a value of any shape; `path` is what errors call it."""
    match shape:
        case Scalar(type=kind):
            if kind is Decimal:
                return money.text(money.checked(_typed(value, Decimal, path), path))
            if kind is bytes:
                return base64.b64encode(_typed(value, bytes, path)).decode()
            return _scalar(kind, value, path)
        case Choice(enum):
            return _typed(value, enum, path).value
        case Maybe(item):
            return None if value is None else to_json_value(item, value, path)
        case Many(item):
            return [
                to_json_value(item, element, f"{path}[{i}]")
                for i, element in enumerate(_typed(value, tuple, path))
            ]
        case Lookup(item):
            pairs = sorted(_keys(_typed(value, dict, path), path).items())
            return {key: to_json_value(item, element, f"{path}.{key}") for key, element in pairs}
        case Record():
            _typed(value, shape.message, path)
            return {
                field.name: to_json_value(field.shape, getattr(value, field.name), f"{path}.{field.name}")
                for field in shape.fields
            }
        case _:
            assert_never(shape)


def _read(shape: Shape, value: Any, path: str) -> Any:
    match shape:
        case Scalar(type=kind):
            if kind is Decimal:
                return _decimal(_typed(value, str, path), path)
            if kind is bytes:
                return _bytes(_typed(value, str, path), path)
            return _scalar(kind, value, path)
        case Choice(enum):
            text = _typed(value, str, path)
            for member in enum:
                if member.value == text:
                    return member
            raise _refused(
                path,
                repr(text[:80]),
                "one of " + ", ".join(repr(member.value) for member in enum) + " is required",
            )
        case Maybe(item):
            return None if value is None else _read(item, value, path)
        case Many(item):
            return tuple(
                _read(item, element, f"{path}[{i}]") for i, element in enumerate(_typed(value, list, path))
            )
        case Lookup(item):
            return {
                key: _read(item, element, f"{path}.{key}")
                for key, element in sorted(_keys(value, path).items())
            }
        case Record():
            return _message(shape, _keys(value, path), path)
        case _:
            assert_never(shape)


def _message(shape: Record, pairs: dict[str, Any], path: str) -> Any:
    names = [field.name for field in shape.fields]
    unknown = sorted(set(pairs) - set(names))
    if unknown:
        raise _refused(f"{path}.{unknown[0]}", "an unknown field", "the fields are " + ", ".join(names))
    values = {}
    for field in shape.fields:
        if field.name in pairs:
            values[field.name] = _read(field.shape, pairs[field.name], f"{path}.{field.name}")
        elif field.default is REQUIRED:
            raise _refused(f"{path}.{field.name}", "missing", "it has no default")
    return shape.message(**values)


def _scalar(kind: type, value: Any, path: str) -> Any:
    if kind is float and type(value) is int and abs(value) <= 2**53:
        value = float(value)
    if kind is str:
        return _unicode(_typed(value, str, path), path)
    _typed(value, kind, path)
    if kind is int and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise _refused(path, str(value)[:80], "a signed 64-bit integer is required")
    if kind is float and not math.isfinite(value):
        raise _refused(path, str(value), "only finite numbers are allowed")
    return value


def _decimal(text: str, path: str) -> Decimal:
    if len(text) > DECIMAL_CHARACTERS or _DECIMAL.fullmatch(text) is None:
        raise _refused(path, repr(text[:80]), "a decimal as plain digits in a text is required")
    return money.parse_decimal(text, path)


def _bytes(text: str, path: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raise _refused(path, f"a text of {len(text)} characters", "base64 is required") from None
    if base64.b64encode(raw).decode() != text:
        raise _refused(path, f"a text of {len(text)} characters", "canonical base64 is required")
    return raw


def _keys(value: Any, path: str) -> dict[str, Any]:
    for key in _typed(value, dict, path):
        _unicode(_typed(key, str, f"a key of {path}"), f"a key of {path}")
    out: dict[str, Any] = value
    return out


def _unicode(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _refused(path, "a text with a lone surrogate", "only Unicode text is allowed") from None
    return text


def _typed(value: Any, kind: type, path: str) -> Any:
    if type(value) is not kind:
        raise _refused(path, f"of type {type(value).__name__}", f"{kind.__name__} is required")
    return value


def _refused(path: str, was: str, rule: str) -> InvalidValue:
    return InvalidValue(f"{path} was {was}; {rule}.", "Correct the field.")
