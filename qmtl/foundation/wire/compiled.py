"""A reader and a writer per message class, as generated Python: strict by construction, and the bytes are fastavro's.

The work is done on one text in which each character is a byte (Latin-1): a body is written by one formatted string and encoded
once, and is read by slices of the record decoded once. A text field whose characters are all ASCII is its own UTF-8 there.
What is read can have been written in one way only: every number is the shortest, every array one block, every map in order,
and the body ends where the record does; so nothing has to be written again to be believed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from itertools import groupby
from typing import Any, Final, Never, TypeAlias, assert_never

from qmtl.foundation.common.errors import InvalidValue, TooLarge
from qmtl.foundation.common.evolving import is_plain, opened
from qmtl.foundation.wire.convert import SHORT, decimal_of, decimal_text, finite, normal, wrong
from qmtl.foundation.wire.shape import Choice, Lookup, Many, Maybe, Record, Scalar, Shape, parts_of, shape_of

Write: TypeAlias = Callable[[Any], str]
"""The body of a message, a character per byte."""
Read: TypeAlias = Callable[[bytes, str, int], tuple[Any, int]]
"""Record, the same as a text, and where to begin: the message and where it ended."""

MOST_BYTES: Final = (1 << 20) + (64 << 10)
"""What a value may have at most."""

_DOUBLE: Final = struct.Struct("<d")
_REMEMBERED: Final = 1 << 14
"""Texts of decimals whose values are remembered: prices and fees come again and again."""


class _Numbers(dict[int, str]):
    """A signed number as Avro writes it. The small ones are remembered, and the last others: an instant is a part of many rows.

    They are few, and made of a short table, so that all of it stays in a processor's cache.
    """

    def __missing__(self, value: int) -> str:
        if not -(1 << 63) <= value < 1 << 63:
            wrong(value)
        left = value << 1 if value >= 0 else ~(value << 1)
        if left >= 1 << 28:
            made = (
                f"{_MORE[left & 0x7F]}{_MORE[left >> 7 & 0x7F]}"
                f"{_MORE[left >> 14 & 0x7F]}{_MORE[left >> 21 & 0x7F]}{_TOPS[left >> 28]}"
            )
        else:
            made = _varint(left)
        if len(self) >= _NUMBERS_REMEMBERED:
            self.clear()
            self.update(_SMALL)
        self[value] = made
        return made


class _Tops(dict[int, str]):
    """What a long number ends with: instants in ms of the same three days have it in common."""

    def __missing__(self, left: int) -> str:
        if len(self) >= _NUMBERS_REMEMBERED:
            self.clear()
        made = self[left] = _varint(left)
        return made


_NUMBERS_REMEMBERED: Final = 1 << 12
_MORE: Final = [chr(bits | 0x80) for bits in range(128)]
"""The character of seven bits of a number that goes on behind them."""

_TOPS: Final = _Tops()


class _Decimals(dict[str, Decimal]):
    """The decimal of a text in normal form; as many as `_REMEMBERED` are remembered."""

    def __missing__(self, text: str) -> Decimal:
        if len(self) >= _REMEMBERED:
            self.clear()
        value = self[text] = decimal_of(text)
        return value


def _varint(value: int) -> str:
    out = ""
    while value > 0x7F:
        out += _MORE[value & 0x7F]
        value >>= 7
    return out + chr(value)


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


def unwritten(name: str, cause: Exception) -> InvalidValue:
    """The error that says that a message could not be written."""
    return InvalidValue(f"{name} could not be written: {cause}")


def too_large(name: str, size: int) -> TooLarge:
    return TooLarge(f"a {name} had {size} bytes; at most {MOST_BYTES} are allowed.", "Send less at a time.")


def refuse(rule: str) -> Never:
    raise InvalidValue(f"{rule}.")


_SMALL: Final = {number: _varint(number << 1) for number in range(1024)}
_NUMBERS: Final = _Numbers(_SMALL)
_SCOPE: Final[dict[str, Any]] = {
    "N": _NUMBERS,
    "D": _Decimals(),
    "rest": _rest,
    "text_of": _text,
    "double": _double,
    "double_at": _double_at,
    "decimal_text": decimal_text,
    "normal": normal,
    "Decimal": Decimal,
    "SHORT": SHORT,
    "new": object.__new__,
    "refuse": refuse,
    "unwritten": unwritten,
    "too_large": too_large,
    "MOST_BYTES": MOST_BYTES,
    "wrong": wrong,
}


def compiled(shape: Record) -> tuple[Write, Read]:
    """The functions that write and read the body of a message class.

    Their source is generated, as `dataclasses` does for `__init__`. Both raise on a value that its field doesn't allow; what the
    reader raises on damaged bytes may be any exception, and the caller says that they were damaged.
    """
    scope = _scope(shape.message)
    return scope[f"write_{shape.name}"], scope[f"read_{shape.name}"]


def compiled_series(shape: Record, same: Mapping[str, object], header: bytes) -> Callable[..., bytes]:
    """A function that writes a message of which only some fields differ, without the message.

    Args:
        same: the value of each field that all of them share.
        header: what the bytes begin with.

    Returns:
        It takes the values of the other fields, by place, in the order of the class; what it raises is wrapped.
    """
    write: Callable[..., bytes] = _series(shape.message, frozenset(same))(same, header.decode("latin-1"))
    return write


@lru_cache(maxsize=256)
def _series(message: type, same: frozenset[str]) -> Any:
    """What gives such a function for values of these fields: strategies differ in the values alone."""
    shape = shape_of(message)
    scope = dict(_scope(message))
    exec(compile("\n".join(_Series(shape, same).lines()), f"<codec of {shape.name}>", "exec"), scope)
    return scope[f"series_{shape.name}"]


@lru_cache(maxsize=256)
def _scope(message: type) -> dict[str, Any]:
    """What the generated source of a class defines."""
    return _built(shape_of(message))


def _built(shape: Record) -> dict[str, Any]:
    scope = dict(_SCOPE)
    lines: list[str] = []
    for part in [*parts_of(shape)][::-1]:  # innermost first
        match part:
            case Record() if part.name not in scope:
                scope[part.name] = part.message
                if is_plain(part.message):
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
    return scope


class _Writer:
    """The source of `write_X(m)`."""

    def __init__(self, shape: Record) -> None:
        self._shape = shape

    def lines(self) -> Iterator[str]:
        yield f"def write_{self._shape.name}(m):"
        pieces = []
        for number, field in enumerate(self._shape.fields):
            yield f"    v{number} = m.{field.name}"
            lines, piece = _piece(field.shape, f"v{number}")
            yield from (f"    {line}" for line in lines)
            pieces.append(piece)
        yield f'    return f"{"".join(pieces)}"'


class _Series:
    """The source of `series_X(same, header)`, which gives a function of the fields that are not the same."""

    def __init__(self, shape: Record, same: frozenset[str]) -> None:
        self._shape, self._same = shape, same

    def lines(self) -> Iterator[str]:
        fields = list(enumerate(self._shape.fields))
        yield f"def series_{self._shape.name}(same, header):"
        pieces, inner = ["{header}"], []
        for is_same, run in groupby(fields, key=lambda one: one[1].name in self._same):
            if is_same:
                # What is the same at the beginning is one piece with the header.
                part = [pieces.pop()] if pieces == ["{header}"] else []
                for number, field in run:
                    yield f"    v{number} = same[{field.name!r}]"
                    lines, piece = _piece(field.shape, f"v{number}")
                    yield from (f"    {line}" for line in lines)
                    part.append(piece)
                yield f'    c{number} = f"{"".join(part)}"'
                pieces.append(f"{{c{number}}}")
                continue
            for number, field in run:
                lines, piece = _piece(field.shape, f"v{number}")
                inner += lines
                pieces.append(piece)
        names = [f"v{number}" for number, field in fields if field.name not in self._same]
        yield f"    def write({', '.join(names)}):"
        yield "        try:"
        yield from (f"            {line}" for line in inner)
        yield f'            data = f"{"".join(pieces)}".encode("latin-1")'
        yield "        except Exception as cause:"
        yield f"            raise unwritten({self._shape.name!r}, cause) from cause"
        yield "        if len(data) > MOST_BYTES:"
        yield f"            raise too_large({self._shape.name!r}, len(data))"
        yield "        return data"
        yield "    return write"


def _piece(shape: Shape, name: str) -> tuple[list[str], str]:
    """The lines that make the variable `name` characters, and the piece of a formatted string that has them."""
    match shape:
        case Scalar(type=kind) if kind is str:
            line = f"if type({name}) is not str or not {name}.isascii(): {name} = text_of({name})"
            return [line], f"{{N[len({name})]}}{{{name}}}"
        case Scalar(type=kind) if kind is Decimal:
            return [
                f"if type({name}) is not Decimal: wrong({name})",
                f"t = str({name})",
                # Anything but the plain form is left to the functions that know the others.
                f"{name} = normal({name}, t) if t[-1] in '0y' or 'E' in t or 'N' in t or len(t) > SHORT else t",
            ], f"{{N[len({name})]}}{{{name}}}"
        case _:
            return [f"{name} = {_write(shape, name, 0)}"], f"{{{name}}}"


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
        if not is_plain(self._shape.message):
            yield f"    return {self._shape.name}({', '.join(f'v{number}' for number in range(count))}), i"
            return
        yield f"    m = new({self._shape.name}_open)"
        for number, field in enumerate(self._shape.fields):
            yield f"    m.{field.name} = v{number}"
        yield f"    m.__class__ = {self._shape.name}"
        yield "    return m, i"


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
