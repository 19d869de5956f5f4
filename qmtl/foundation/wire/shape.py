"""The shape of a message, read once from its type hints: what the Avro schema, the codec and the JSON view are all made from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass
from decimal import Decimal
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Final, TypeAlias, Union, get_args, get_origin, get_type_hints

from qmtl.foundation.common.errors import InvalidValue

REQUIRED: Final = MISSING
"""The default of a field that has none."""

_KNOWN: dict[type, Record] = {}

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""What Avro allows as a name."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """`str`, `int` (64 bits, signed), `float` (finite), `bool`, `bytes` or `Decimal`."""

    type: type


@dataclass(frozen=True, slots=True)
class Choice:
    enum: type[Enum]


@dataclass(frozen=True, slots=True)
class Many:
    """A tuple of any length."""

    item: Shape


@dataclass(frozen=True, slots=True)
class Lookup:
    """A dict with text keys."""

    value: Shape


@dataclass(frozen=True, slots=True)
class Maybe:
    item: Shape


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    shape: Shape
    default: object


@dataclass(frozen=True, slots=True)
class Record:
    message: type
    fields: tuple[Field, ...]

    @property
    def name(self) -> str:
        return self.message.__name__


Shape: TypeAlias = Scalar | Choice | Many | Lookup | Maybe | Record

_SCALARS = (str, int, float, bool, bytes, Decimal)


def shape_of(message: type) -> Record:
    """The shape of a message class.

    Refused besides types without an Avro form, because a few bytes of input could then cost a worker its life: messages that
    contain themselves (the decoder's stack is as deep as the input says), and items that take no bytes (the input may say that
    there are any number of them; a message without fields is the one item of that kind that could be written).

    Raises:
        InvalidValue: names the message, the field and the rule.
    """
    known = _KNOWN.get(message)
    if known is not None:
        return known
    shape = _record(message, ())
    named: dict[str, type] = {}
    for part in parts_of(shape):
        if isinstance(part, Record | Choice):
            cls = part.message if isinstance(part, Record) else part.enum
            if named.setdefault(cls.__name__, cls) is not cls:
                raise _refused(
                    message.__name__, f"holding two types named {cls.__name__}", "a name must mean one type"
                )
    _KNOWN[message] = shape
    return shape


def parts_of(shape: Shape) -> Iterator[Shape]:
    """The shape and every shape inside it, outermost first."""
    yield shape
    match shape:
        case Record():
            for field in shape.fields:
                yield from parts_of(field.shape)
        case Many(item) | Maybe(item):
            yield from parts_of(item)
        case Lookup(value):
            yield from parts_of(value)
        case Scalar() | Choice():
            pass


def _record(message: type, above: tuple[type, ...]) -> Record:
    where = message.__name__
    if message in above:
        raise _refused(where, "containing itself", "a message must have a fixed depth")
    if not is_dataclass(message) or not fields(message):
        raise _refused(
            where, "no dataclass with fields", "a message is a frozen dataclass with at least one field"
        )
    hints = get_type_hints(message)
    out = []
    for field in fields(message):
        path = f"{where}.{field.name}"
        if not field.init:
            raise _refused(path, "left out of the constructor", "every field must be settable")
        shape = _shape(hints[field.name], path, (*above, message))
        default = field.default if field.default_factory is MISSING else field.default_factory()
        if isinstance(shape, Maybe) and default not in (MISSING, None):
            raise _refused(
                path, f"optional with the default {default!r}", "an optional field's default must be None"
            )
        out.append(Field(field.name, shape, default))
    return Record(message, tuple(out))


def _shape(hint: Any, path: str, above: tuple[type, ...]) -> Shape:
    arguments = get_args(hint)
    origin = get_origin(hint)
    if hint in _SCALARS:
        return Scalar(hint)
    if origin in (Union, UnionType) and len(arguments) == 2 and NoneType in arguments:
        inner = next(argument for argument in arguments if argument is not NoneType)
        return Maybe(_shape(inner, path, above))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return Many(_shape(arguments[0], path, above))
    if origin is dict and arguments[0] is str:
        return Lookup(_shape(arguments[1], path, above))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _choice(hint, path)
    if isinstance(hint, type) and is_dataclass(hint):
        return _record(hint, above)
    raise _refused(path, f"of type {hint}", "that type has no Avro form (see qmtl.foundation.contracts)")


def _choice(enum: type[Enum], path: str) -> Choice:
    members = list(enum)
    if not members or not all(
        isinstance(member.value, str) and _NAME.fullmatch(member.name) for member in members
    ):
        raise _refused(
            path, f"of type {enum.__name__}", "an enum has members with ASCII names and text values"
        )
    return Choice(enum)


def _refused(path: str, was: str, rule: str) -> InvalidValue:
    return InvalidValue(f"{path} was {was}; {rule}.", "Change the message class.")
