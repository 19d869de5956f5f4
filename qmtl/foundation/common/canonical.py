"""The one byte form and the one JSON text of a value: what identities are hashed over."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, TypeAlias

from blake3 import blake3

from qmtl.foundation.common.errors import NoCanonicalForm

MAX_DEPTH = 32
"""Containers that may lie inside each other."""

MAX_NUMBER_DIGITS = 4096
"""Significant digits that a number may have."""

_HEADER = 9
"""Bytes before a payload: its tag and its length."""

PLAIN_POWERS = 40
"""JSON writes a number without an exponent while it needs no more than this many places on either side of the point."""

Number: TypeAlias = int | float | Decimal


def blake3_hex(data: bytes, length: int = 32) -> str:
    """The first `length` bytes of the BLAKE3 output for `data`, as lowercase hex."""
    return blake3(data).hexdigest(length=length)


def derived_hex(data: bytes, context: str, length: int) -> str:
    """The first `length` bytes of BLAKE3's `derive_key` output for `data`, as lowercase hex.

    The context is the domain: outputs of two contexts, or of one and of `blake3_hex`, have nothing to do with each other. Source:
    the BLAKE3 paper, 2.3 and 6.2.
    """
    return blake3(data, derive_key_context=context).hexdigest(length=length)


def canonical_bytes(value: object) -> bytes:
    """The bytes of a value: equal values give equal bytes, different values different ones.

    Every value is a tag byte, the length of its payload (8 bytes, big-endian) and the payload. Payloads: nothing for None, true
    and false; `<digits>e<exponent>` without trailing zeros for a number, so that 1, 1.0 and Decimal("1.00") are one value (a
    float is the decimal of its shortest text, so 0.3 is three tenths); UTF-8 for text; the elements in order for a list or
    tuple; the elements sorted by their bytes, each once, for a set; the pairs sorted by the bytes of their keys for a mapping.
    A truth value is not a number.

    Raises:
        NoCanonicalForm: NaN, infinity, a type that is not listed (subclasses included, save mappings), a mapping key that is
            not text, text with a lone surrogate, more than `MAX_DEPTH` levels; the message names the path of the value.
    """
    return _bytes(value, "$", 0)


def spliced_bytes(*lists: bytes) -> bytes:
    """The canonical bytes of one list, from those of the lists that it is made of, one after the other."""
    return _framed(b"l", b"".join([part[_HEADER:] for part in lists]))


def canonical_json(value: object) -> str:
    """The JSON text of a value: keys sorted, no spaces, one text for each number, text unescaped where JSON allows it.

    `parse_canonical_json` gives a value with the same canonical bytes back.

    Raises:
        NoCanonicalForm: where `canonical_bytes` raises, and for bytes and sets, which no JSON text gives back.
    """
    return _json(value, "$", 0)


def parse_canonical_json(text: str) -> Any:
    """The value of a text that `canonical_json` wrote; whole numbers as int, others as Decimal.

    Raises:
        NoCanonicalForm: any other text, be it JSON or not.
    """
    try:
        value = json.loads(text, parse_int=_whole, parse_float=Decimal)
        if canonical_json(value) == text:
            return value
    except (ValueError, RecursionError, NoCanonicalForm):
        pass
    raise NoCanonicalForm(
        f"a text of {len(text)} characters was not in the canonical JSON form.",
        "Write it with canonical_json.",
    )


# ---- numbers ----------------------------------------------------------------------------------------------


def _parts(value: Number, path: str) -> tuple[str, str, int]:
    """Sign, digits without trailing zeros, and power of ten of a number; `("", "0", 0)` for every zero."""
    if type(value) is float:
        value = Decimal(float.__repr__(value))
    elif type(value) is int:
        if value.bit_length() > 4 * MAX_NUMBER_DIGITS:
            raise _refused(
                path, "an integer with too many digits", f"at most {MAX_NUMBER_DIGITS} digits are allowed"
            )
        value = Decimal(value)
    assert isinstance(value, Decimal)
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise _refused(path, f"the number {value}", "only finite numbers have a canonical form")
    whole = "".join(map(str, digits))
    kept = whole.rstrip("0")
    if not kept:
        return "", "0", 0
    if len(kept) > MAX_NUMBER_DIGITS:
        raise _refused(
            path, f"a number of {len(kept)} digits", f"at most {MAX_NUMBER_DIGITS} digits are allowed"
        )
    return "-" if sign else "", kept, exponent + len(whole) - len(kept)


def _number_text(value: Number, path: str) -> str:
    sign, digits, exponent = _parts(value, path)
    if exponent >= 0 and len(digits) + exponent <= PLAIN_POWERS:
        return sign + digits + "0" * exponent
    if -PLAIN_POWERS <= exponent < 0 and len(digits) + exponent <= PLAIN_POWERS:
        padded = digits.rjust(1 - exponent, "0")
        return f"{sign}{padded[:exponent]}.{padded[exponent:]}"
    return f"{sign}{digits}e{exponent}"


def _whole(text: str) -> int:
    if len(text) > PLAIN_POWERS + 1:
        raise ValueError(text)
    return int(text)


# ---- bytes ------------------------------------------------------------------------------------------------


def _framed(tag: bytes, payload: bytes) -> bytes:
    return tag + len(payload).to_bytes(8, "big") + payload


def _bytes(value: object, path: str, depth: int) -> bytes:
    kind = type(value)
    write = _SCALARS.get(kind)
    if write is not None:
        return write(value, path)
    if kind is list or kind is tuple:
        if texts := _texts(value, path, depth):
            return _framed(b"l", texts)
        return _framed(b"l", b"".join(_bytes(item, at, depth + 1) for at, item in _items(value, path, depth)))
    if kind is set or kind is frozenset:
        return _framed(
            b"S", b"".join(sorted({_bytes(item, at, depth + 1) for at, item in _items(value, path, depth)}))
        )
    if isinstance(value, Mapping):
        pairs = [
            (_text(key, path), _bytes(item, at, depth + 1)) for key, at, item in _pairs(value, path, depth)
        ]
        return _framed(b"m", b"".join(key + item for key, item in sorted(pairs)))
    raise _unknown(value, path)


def _texts(value: Any, path: str, depth: int) -> bytes:
    """The elements of a list that holds nothing but text; nothing where it holds something else. A list of ids is long, and most of
    its time would go into paths that nobody reads."""
    _deeper(path, depth)
    if set(map(type, value)) != {str}:
        return b""
    try:
        texts = list(map(str.encode, value))
    except UnicodeEncodeError:  # which element it is, the long way tells
        return b""
    if len(lengths := set(map(len, texts))) == 1:  # as ids have
        frame = b"s" + lengths.pop().to_bytes(8, "big")
        return frame + frame.join(texts)
    return b"".join([b"s" + len(text).to_bytes(8, "big") + text for text in texts])


def whole_frame(value: int) -> bytes:
    """The canonical bytes of a whole number from 0 on; at once, as an instant is one."""
    if value <= 0:
        return canonical_bytes(value)
    written = str(value)
    kept = written.rstrip("0")
    return _framed(b"n", f"{kept}e{len(written) - len(kept)}".encode())


def _number(value: Number, path: str) -> bytes:
    sign, digits, exponent = _parts(value, path)
    return _framed(b"n", f"{sign}{digits}e{exponent}".encode())


def _text(value: str, path: str) -> bytes:
    try:
        return _framed(b"s", value.encode())
    except UnicodeEncodeError:
        raise _refused(
            path, "a text with a lone surrogate", "only Unicode text has a canonical form"
        ) from None


_SCALARS: dict[type, Callable[[Any, str], bytes]] = {
    type(None): lambda value, path: _framed(b"z", b""),
    bool: lambda value, path: _framed(b"t" if value else b"f", b""),
    int: _number,
    float: _number,
    Decimal: _number,
    str: _text,
    bytes: lambda value, path: _framed(b"b", value),
}


# ---- JSON -------------------------------------------------------------------------------------------------


def _json(value: object, path: str, depth: int) -> str:
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    kind = type(value)
    if isinstance(value, int | float | Decimal) and kind in _SCALARS:
        return _number_text(value, path)
    if isinstance(value, str) and kind is str:
        return _json_text(value, path)
    if kind is list or kind is tuple:
        return "[" + ",".join(_json(item, at, depth + 1) for at, item in _items(value, path, depth)) + "]"
    if isinstance(value, Mapping):
        pairs = sorted(_pairs(value, path, depth), key=lambda pair: pair[0])
        return (
            "{"
            + ",".join(f"{_json_text(key, path)}:{_json(item, at, depth + 1)}" for key, at, item in pairs)
            + "}"
        )
    if kind in (bytes, set, frozenset):
        raise _refused(
            path, f"of type {kind.__name__}", "JSON has no text that gives it back", "Use a list or text."
        )
    raise _unknown(value, path)


def _json_text(value: str, path: str) -> str:
    _text(value, path)
    return json.dumps(value, ensure_ascii=False)


# ---- walking ----------------------------------------------------------------------------------------------


def _deeper(path: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise _refused(
            path, f"more than {MAX_DEPTH} levels deep", "deeper values have no canonical form", "Flatten it."
        )


def _items(value: Any, path: str, depth: int) -> Iterator[tuple[str, Any]]:
    _deeper(path, depth)
    ordered = type(value) in (list, tuple)
    for index, item in enumerate(value):
        yield (f"{path}[{index}]" if ordered else f"{path}{{}}"), item


def _pairs(value: Mapping[Any, Any], path: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    _deeper(path, depth)
    for key, item in value.items():
        if type(key) is not str:
            raise _refused(path, f"a mapping with a key of type {type(key).__name__}", "keys must be text")
        yield key, f"{path}.{key}", item


def _unknown(value: object, path: str) -> NoCanonicalForm:
    return _refused(path, f"of type {type(value).__name__}", "that type has no canonical form")


def _refused(path: str, was: str, rule: str, remedy: str = "Send plain finite values.") -> NoCanonicalForm:
    return NoCanonicalForm(f"{path} was {was}; {rule}.", remedy)
