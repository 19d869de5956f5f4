"""A reader and a writer per message class, as generated Python: strict by construction, and the bytes are fastavro's.

The work is done on one text in which each character is a byte (Latin-1): a body is written by one formatted string and encoded
once, and is read by slices of the record decoded once. A text field whose characters are all ASCII is its own UTF-8 there.
What is read can have been written in one way only: every number is the shortest, every array one block, every map in order,
and the body ends where the record does; so nothing has to be written again to be believed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import fields
from decimal import Decimal
from typing import Any, Final, Never, TypeAlias, assert_never

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.wire.convert import SHORT, decimal_of, decimal_text, finite, wrong
from qmtl.foundation.wire.shape import Choice, Lookup, Many, Maybe, Record, Scalar, Shape, parts_of

Write: TypeAlias = Callable[[Any], str]
"""The body of a message, a character per byte."""
Read: TypeAlias = Callable[[bytes, str, int], tuple[Any, int]]
"""Record, the same as a text, and where to begin: the message and where it ended."""

_DOUBLE: Final = struct.Struct("<d")
_REMEMBERED: Final = 1 << 14
"""Texts of decimals whose values are remembered: prices and fees come again and again."""


class _Numbers(dict[int, str]):
    """A signed number as Avro writes it; the small ones are remembered."""

    def __missing__(self, value: int) -> str:
        if not -(1 << 63) <= value < 1 << 63:
            wrong(value)
        left = value << 1 if value >= 0 else ~(value << 1)
        if left < 1 << 14:
            return _varint(left)
        out = ""
        while left >= 1 << 14:
            out += _PAIRS[left & 0x3FFF]
            left >>= 14
        return out + _varint(left)


_PAIRS: Final = [chr(pair & 0x7F | 0x80) + chr(pair >> 7 | 0x80) for pair in range(1 << 14)]
"""The characters of 14 bits of a number that goes on behind them."""


class _Decimals(dict[str, Decimal]):
    """The decimal of a text in normal form; as many as `_REMEMBERED` are remembered."""

    def __missing__(self, text: str) -> Decimal:
        if len(self) >= _REMEMBERED:
            self.clear()
        value = self[text] = decimal_of(text)
        return value


def _varint(value: int) -> str:
    out = []
    while value > 0x7F:
        out.append(chr(value & 0x7F | 0x80))
        value >>= 7
    out.append(chr(value))
    return "".join(out)


def _rest(data: bytes, at: int, first: int) -> tuple[int, int]:
    """The rest of a number of more than one byte: its value and where it ended."""
    value, shift = first & 0x7F, 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if not byte or value >> 64:
                refuse("a number was not in its shortest form")
            return value, at
        shift += 7
        if shift > 63:
            refuse("a number was longer than 64 bits")


def _text(value: object) -> str:
    if type(value) is not str:
        wrong(value)
    return value.encode().decode("latin-1")


def _double(value: float) -> str:
    return _DOUBLE.pack(finite(value)).decode("latin-1")


def _double_at(data: bytes, at: int) -> float:
    value: float = _DOUBLE.unpack_from(data, at)[0]
    return finite(value)


def refuse(rule: str) -> Never:
    raise InvalidValue(f"{rule}.")


_NUMBERS: Final = _Numbers({number: _varint(number << 1) for number in range(1024)})
_SCOPE: Final[dict[str, Any]] = {
    "N": _NUMBERS,
    "D": _Decimals(),
    "rest": _rest,
    "text_of": _text,
    "double": _double,
    "double_at": _double_at,
    "decimal_text": decimal_text,
    "Decimal": Decimal,
    "SHORT": SHORT,
    "new": object.__new__,
    "refuse": refuse,
    "wrong": wrong,
}


def compiled(shape: Record) -> tuple[Write, Read]:
    """The functions that write and read the body of a message class.

    Their source is generated, as `dataclasses` does for `__init__`. Both raise on a value that its field doesn't allow; what the
    reader raises on damaged bytes may be any exception, and the caller says that they were damaged.
    """
    scope = dict(_SCOPE)
    lines: list[str] = []
    for part in [*parts_of(shape)][::-1]:  # innermost first
        match part:
            case Record() if part.name not in scope:
                scope[part.name] = part.message
                if _is_plain(part.message):
                    scope[f"{part.name}_open"] = opened(part.message)
                lines += _Writer(part).lines()
                lines += _Reader(part).lines()
            case Choice(enum):
                scope[enum.__name__] = enum
                scope[f"{enum.__name__}_coded"] = {
                    # A member's own hash is computed in Python, that of its value is not.
                    member._value_: _varint(number << 1)
                    for number, member in enumerate(enum)
                }
                scope[f"{enum.__name__}_members"] = tuple(enum)
            case _:
                pass
    exec(compile("\n".join(lines), f"<codec of {shape.name}>", "exec"), scope)
    return scope[f"write_{shape.name}"], scope[f"read_{shape.name}"]


class _Writer:
    """The source of `write_X(m)`."""

    def __init__(self, shape: Record) -> None:
        self._shape = shape

    def lines(self) -> Iterator[str]:
        yield f"def write_{self._shape.name}(m):"
        pieces = []
        for number, field in enumerate(self._shape.fields):
            name = f"v{number}"
            yield f"    {name} = m.{field.name}"
            match field.shape:
                case Scalar(type=kind) if kind is str:
                    yield f"    if type({name}) is not str or not {name}.isascii(): {name} = text_of({name})"
                    pieces.append(f"{{N[len({name})]}}{{{name}}}")
                case Scalar(type=kind) if kind is Decimal:
                    yield f"    if type({name}) is not Decimal: wrong({name})"
                    yield f"    t = str({name})"
                    # Anything but the plain form is left to the one function that knows all forms.
                    yield f"    {name} = decimal_text({name}) if t[-1] in '0y' or 'E' in t or 'N' in t or len(t) > SHORT else t"
                    pieces.append(f"{{N[len({name})]}}{{{name}}}")
                case _:
                    yield f"    {name} = {_write(field.shape, name, 0)}"
                    pieces.append(f"{{{name}}}")
        yield f'    return f"{"".join(pieces)}"'


def _write(shape: Shape, value: str, depth: int) -> str:
    """The expression that gives the characters of the variable `value`."""
    inner = f"x{depth}"
    match shape:
        case Scalar(type=kind):
            if kind is Decimal:
                return f"(N[len({inner} := decimal_text({value}))] + {inner})"
            if kind is str:
                taken = f"({value} if type({value}) is str and {value}.isascii() else text_of({value}))"
                return f"(N[len({inner} := {taken})] + {inner})"
            if kind is float:
                return f"double({value})"
            checked = f"if type({value}) is {kind.__name__} else wrong({value})"
            if kind is bool:
                return f"(('\\x01' if {value} else '\\x00') {checked})"
            if kind is bytes:
                return f"(N[len({value})] + {value}.decode('latin-1') {checked})"
            return f"(N[{value}] {checked})"
        case Choice(enum):
            return f"({enum.__name__}_coded[{value}._value_] if type({value}) is {enum.__name__} else wrong({value}))"
        case Record():
            return f"(write_{shape.name}({value}) if type({value}) is {shape.name} else wrong({value}))"
        case Maybe(item):
            return f"('\\x00' if {value} is None else '\\x02' + {_write(item, value, depth + 1)})"
        case Many(item):
            items = f"''.join([{_write(item, inner, depth + 1)} for {inner} in {value}])"
            some = f"(N[len({value})] + {items} + '\\x00' if {value} else '\\x00')"
            return f"({some} if type({value}) is tuple else wrong({value}))"
        case Lookup(item):
            key = _write(Scalar(str), f"k{depth}", depth + 1)
            pair = f"{key} + {_write(item, inner, depth + 1)}"
            pairs = f"''.join([{pair} for k{depth}, {inner} in sorted({value}.items())])"
            some = f"(N[len({value})] + {pairs} + '\\x00' if {value} else '\\x00')"
            return f"({some} if type({value}) is dict else wrong({value}))"
        case _:
            assert_never(shape)


class _Reader:
    """The source of `read_X(data, text, i)`."""

    def __init__(self, shape: Record) -> None:
        self._shape = shape

    def lines(self) -> Iterator[str]:
        yield f"def read_{self._shape.name}(data, text, i):"
        for number, field in enumerate(self._shape.fields):
            yield from _read(field.shape, f"v{number}", 1, 0)
        count = len(self._shape.fields)
        if not _is_plain(self._shape.message):
            yield f"    return {self._shape.name}({', '.join(f'v{number}' for number in range(count))}), i"
            return
        yield f"    m = new({self._shape.name}_open)"
        for number, field in enumerate(self._shape.fields):
            yield f"    m.{field.name} = v{number}"
        yield f"    m.__class__ = {self._shape.name}"
        yield "    return m, i"


def _is_plain(message: type) -> bool:
    """Whether an instance is its slots and nothing more."""
    names = tuple(field.name for field in fields(message))
    own = vars(message)
    made = {"__post_init__", "__new__"} & own.keys()
    return message.__bases__ == (object,) and own.get("__slots__") == names and not made


def opened(message: type) -> type:
    """A class with the same slots that may be set one by one.

    A frozen dataclass sets its fields through `object.__setattr__`, which takes most of the time of decoding it. An instance of
    this class is filled, and then becomes one of the message: Python allows it between classes of one layout.
    """
    return type(f"{message.__name__}_open", (), {"__slots__": vars(message)["__slots__"]})


def _read(shape: Shape, into: str, indent: int, depth: int) -> Iterator[str]:
    """The lines that set the variable `into` from what begins at `i`, and `i` to where it ended."""
    for line in _reading(shape, into, depth):
        yield "    " * indent + line


def _number(into: str) -> Iterator[str]:
    yield f"{into} = data[i]; i += 1"
    yield f"if {into} > 127: {into}, i = rest(data, i, {into})"


def _slice(into: str) -> Iterator[str]:
    """Lines after which the slice `i` to `j` is what `into` holds."""
    yield from _number(into)
    yield f"if {into} & 1: refuse('a length was negative')"
    yield f"j = i + ({into} >> 1)"


def _reading(shape: Shape, into: str, depth: int) -> Iterator[str]:
    match shape:
        case Scalar(type=kind):
            if kind is str:
                yield from _slice(into)
                yield f"{into} = text[i:j]"
                yield f"if not {into}.isascii(): {into} = data[i:j].decode()"
                yield "i = j"
            elif kind is Decimal:
                yield from _slice(into)
                yield f"{into} = D[text[i:j]]; i = j"
            elif kind is bytes:
                yield from _slice(into)
                yield f"{into} = data[i:j]; i = j"
            elif kind is float:
                yield f"{into} = double_at(data, i); i += 8"
            elif kind is bool:
                yield f"{into} = data[i]; i += 1"
                yield f"if {into} > 1: refuse('a truth value was neither 0 nor 1')"
                yield f"{into} = {into} == 1"
            else:
                yield from _number(into)
                yield f"{into} = ({into} >> 1) ^ -({into} & 1)"
        case Choice(enum):
            yield from _number(into)
            yield f"if {into} & 1: refuse('an index was negative')"
            yield f"{into} = {enum.__name__}_members[{into} >> 1]"
        case Record():
            yield f"{into}, i = read_{shape.name}(data, text, i)"
        case Maybe(item):
            yield f"{into} = data[i]; i += 1"
            yield f"if {into} == 2:"
            yield from _read(item, into, 1, depth)
            yield f"elif {into}: refuse('a union had a branch that it does not have')"
            yield f"else: {into} = None"
        case Many(item):
            yield from _number(f"c{depth}")
            yield f"{into} = []"
            yield f"if c{depth}:"
            yield f"    if c{depth} & 1: refuse('a block told its size')"
            yield f"    for _ in range(c{depth} >> 1):"
            yield from _read(item, f"e{depth}", 2, depth + 1)
            yield f"        {into}.append(e{depth})"
            yield "    if data[i]: refuse('an array had more than one block')"
            yield "    i += 1"
            yield f"{into} = tuple({into})"
        case Lookup(item):
            yield from _number(f"c{depth}")
            yield f"{into} = {{}}; k{depth} = None"
            yield f"if c{depth}:"
            yield f"    if c{depth} & 1: refuse('a block told its size')"
            yield f"    for _ in range(c{depth} >> 1):"
            yield from _read(Scalar(str), f"e{depth}", 2, depth + 1)
            yield f"        if k{depth} is not None and e{depth} <= k{depth}: refuse('a map was not in order')"
            yield f"        k{depth} = e{depth}"
            yield from _read(item, f"e{depth}", 2, depth + 1)
            yield f"        {into}[k{depth}] = e{depth}"
            yield "    if data[i]: refuse('a map had more than one block')"
            yield "    i += 1"
        case _:
            assert_never(shape)
