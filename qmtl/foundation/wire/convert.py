"""Functions that turn a message into the record that fastavro writes, and back: compiled once per class, strict about every value."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, Never, TypeAlias, assert_never

from qmtl.foundation.common import money
from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.wire.shape import Choice, Lookup, Many, Maybe, Record, Scalar, Shape, parts_of

Writer: TypeAlias = Callable[[Any], dict[str, Any]]
Reader: TypeAlias = Callable[[dict[str, Any]], Any]

SHORT = money.MAX_POINT + 1
"""A plain text of at most this many characters is within the bounds of money, whatever its digits are."""


def converters(shape: Record) -> tuple[Writer, Reader]:
    """The functions `message → record` and `record → message` of a class.

    Their source is generated, as `dataclasses` does for `__init__`: one flat function per class is several times as fast as a
    walk over the shape, and this is run for every record that is read or written.

    Both raise on a value that its field doesn't allow; the caller names the field.
    """
    scope: dict[str, Any] = {
        "wrong": wrong, "decimal_text": decimal_text, "decimal_of": decimal_of, "finite": finite, "ordered": _ordered,
    }  # fmt: skip
    lines: list[str] = []
    for part in [*parts_of(shape)][::-1]:  # innermost first
        match part:
            case Record() if part.name not in scope:
                scope[part.name] = part.message
                lines += _functions(part)
            case Choice(enum):
                scope[enum.__name__] = enum
                scope[f"{enum.__name__}_named"] = {member.name: member for member in enum}
            case _:
                pass
    exec(compile("\n".join(lines), f"<converters of {shape.name}>", "exec"), scope)
    return scope[f"put_{shape.name}"], scope[f"take_{shape.name}"]


def _functions(shape: Record) -> Iterator[str]:
    yield f"def put_{shape.name}(message):"
    yield from (f"    v_{field.name} = message.{field.name}" for field in shape.fields)
    pairs = ", ".join(f"{field.name!r}: {_put(field.shape, f'v_{field.name}', 0)}" for field in shape.fields)
    yield f"    return {{{pairs}}}"
    yield f"def take_{shape.name}(record):"
    values = ", ".join(_take(field.shape, f"record[{field.name!r}]", 0) for field in shape.fields)
    yield f"    return {shape.name}({values})"


def _put(shape: Shape, value: str, depth: int) -> str:
    """The expression that gives what fastavro writes for the variable `value`."""
    inner = f"x{depth}"
    match shape:
        case Scalar(type=kind):
            if kind is Decimal:
                return f"decimal_text({value})"
            if kind is float:
                return f"finite({value})"
            return f"({value} if type({value}) is {kind.__name__} else wrong({value}))"
        case Choice(enum):
            return f"({value}._name_ if type({value}) is {enum.__name__} else wrong({value}))"
        case Record():
            return f"(put_{shape.name}({value}) if type({value}) is {shape.name} else wrong({value}))"
        case Maybe(item):
            return f"(None if {value} is None else {_put(item, value, depth)})"
        case Many(item):
            return f"([{_put(item, inner, depth + 1)} for {inner} in {value}] if type({value}) is tuple else wrong({value}))"
        case Lookup(item):
            pairs = f"{{k{depth}: {_put(item, inner, depth + 1)} for k{depth}, {inner} in sorted({value}.items())}}"
            return f"({pairs} if type({value}) is dict else wrong({value}))"
        case _:
            assert_never(shape)


def _take(shape: Shape, value: str, depth: int) -> str:
    """The expression that gives what the message holds for the expression `value`."""
    inner = f"x{depth}"
    match shape:
        case Scalar(type=kind):
            if kind is Decimal:
                return f"decimal_of({value})"
            return f"finite({value})" if kind is float else value
        case Choice(enum):
            return f"{enum.__name__}_named[{value}]"
        case Record():
            return f"take_{shape.name}({value})"
        case Maybe(item):
            taken = _take(item, inner, depth + 1)
            return value if taken == inner else f"(None if ({inner} := {value}) is None else {taken})"
        case Many(item):
            taken = _take(item, inner, depth + 1)
            return f"tuple({value})" if taken == inner else f"tuple([{taken} for {inner} in {value}])"
        case Lookup(item):
            taken = _take(item, inner, depth + 1)
            return f"{{k{depth}: {taken} for k{depth}, {inner} in ordered({value}).items()}}"
        case _:
            assert_never(shape)


def decimal_text(value: Decimal) -> str:
    """`money.text` of a decimal that `money.checked` allows.

    Raises:
        InvalidValue: no decimal, not finite, too many digits.
    """
    if type(value) is not Decimal:
        wrong(value)
    return normal(value, str(value))


def normal(value: Decimal, shown: str) -> str:
    """`decimal_text` of a decimal, given what `str` says of it: its plain form is cut, any other is looked at.

    Raises:
        InvalidValue: not finite, too many digits.
    """
    if shown == "0":
        return shown
    if "E" in shown or "N" in shown or "y" in shown or len(shown) > SHORT:
        return money.text(money.checked(value, "a decimal"))
    if "." in shown:
        shown = shown.rstrip("0").rstrip(".")
    return "0" if shown == "-0" else shown


def decimal_of(text: str) -> Decimal:
    """`money.parse_decimal` of a text in normal form.

    Raises:
        InvalidValue: no number, not finite, too many digits, or a number in another form than `money.text` gives it.
    """
    if text == "0":
        return money.ZERO
    if len(text) <= SHORT and text[-1:] != "0" and "E" not in text:
        value = Decimal(text)
        if str(value) == text and value.is_finite():
            return value
    value = money.parse_decimal(text, "a decimal")
    if money.text(value) != text:
        raise InvalidValue(
            f"a decimal was the text {text!r}, which is not its normal form.", "Write it with money.text."
        )
    return value


def finite(value: float) -> float:
    if type(value) is not float:
        exact = type(value) is int and abs(value) <= 2**53
        value = float(value) if exact else wrong(value)
    if not math.isfinite(value):
        wrong(value)
    return value


def _ordered(pairs: dict[str, Any]) -> dict[str, Any]:
    keys = list(pairs)
    if keys != sorted(keys):
        raise InvalidValue("a map's keys were not in order.", "Sort them.")
    return pairs


def wrong(value: object) -> Never:
    raise InvalidValue(f"a value was of type {type(value).__name__}, which its field doesn't take.")
