"""The bytes of a DAG message as JSON: bounded before they are parsed, with marks where a number or a key can't be taken as it is."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from qmtl.foundation.common.canonical import MAX_NUMBER_DIGITS
from qmtl.foundation.common.errors import DagTooLarge, InvalidDag
from qmtl.services.dagmanager.faults import Faults

MAX_BYTES: Final = 1 << 20
MAX_DEPTH: Final = 32
FORM: Final = "See the DAG message's form in the README."

_TEXTS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""Texts, the last one perhaps without its end."""

_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))


@dataclass(frozen=True, slots=True)
class Raw:
    """A JSON object, and whether anything in it asks for a second look: an odd number, a key twice, an escaped character."""

    value: dict[str, Any]
    suspicious: bool


class Odd:
    """A number that has no canonical form."""

    def __init__(self, text: str, why: str) -> None:
        self.text = text
        self.why = why


class Doubled(dict[str, Any]):
    """An object with keys that stood in it twice; the last of each is kept."""

    keys_twice: list[str]


class RawReader:
    """Reads one text after another; making what reads JSON takes longer than reading a node with it."""

    def __init__(self) -> None:
        self._odd = False
        self._json = json.JSONDecoder(
            parse_int=lambda found: self._number(found, int),
            parse_float=lambda found: self._number(found, Decimal),
            parse_constant=lambda found: self._number(found, Decimal),
            object_pairs_hook=self._pairs,
        )

    def read(self, data: bytes, faults: Faults, depth: int = 0) -> Raw | None:
        """The object that a text is; `None`, and the reason in `faults`, where it is none.

        Args:
            depth: levels that the text lies deep in its message.
        """
        if len(data) > MAX_BYTES:
            faults.add_told(
                DagTooLarge,
                "",
                f"{len(data)} bytes long",
                f"at most {MAX_BYTES} are allowed",
                "Split the strategy.",
            )
            return None
        if _is_deeper(data, MAX_DEPTH - depth):
            faults.add_told(
                DagTooLarge,
                "",
                f"nested deeper than {MAX_DEPTH} levels",
                f"at most {MAX_DEPTH} are allowed",
                "Flatten its parameters.",
            )
            return None
        self._odd = False
        try:
            text = data.decode("utf-8")
            if text.startswith("\ufeff"):
                raise json.JSONDecodeError("Unexpected UTF-8 BOM (decode using utf-8-sig)", text, 0)
            value = self._json.decode(text)
        except (ValueError, RecursionError) as error:
            faults.add_told(
                InvalidDag, "", f"no JSON ({error})", "UTF-8 JSON is required", "Check it with any JSON tool."
            )
            return None
        if not isinstance(value, dict):
            faults.add(InvalidDag, "", value, "an object is required", FORM)
            return None
        return Raw(value, self._odd or "\\u" in text)

    def _number(self, text: str, kind: type[int] | type[Decimal]) -> int | Decimal | Odd:
        made = _number(text, kind)
        if isinstance(made, Odd):
            self._odd = True
        return made

    def _pairs(self, found: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(found)
        if len(out) == len(found):
            return out
        self._odd = True
        return _doubled(found)


def read_raw(data: bytes, faults: Faults) -> Raw | None:
    """The object that a message is; `None`, and the reason in `faults`, where it is none."""
    return RawReader().read(data, faults)


def _is_deeper(data: bytes, levels: int) -> bool:
    """Brackets are counted where they are no text. One pass without recursion, before anything recursive reads the message."""
    depth = 0
    for mark in _TEXTS.sub(b"", data).translate(None, _NO_BRACKETS):
        if mark in b"[{":
            depth += 1
            if depth > levels:
                return True
        else:
            depth -= 1
    return False


def _number(text: str, kind: type[int] | type[Decimal]) -> int | Decimal | Odd:
    if len(text) > MAX_NUMBER_DIGITS:
        return Odd(text, f"at most {MAX_NUMBER_DIGITS} characters are allowed")
    try:
        made = kind(text)
    except (ValueError, InvalidOperation):
        return Odd(text, "its exponent is out of all bounds")
    if isinstance(made, Decimal) and not made.is_finite():
        return Odd(text, "only finite numbers have an identity")
    return made


def _doubled(found: list[tuple[str, Any]]) -> Doubled:
    out = Doubled(found)
    counts = Counter(key for key, _ in found)
    out.keys_twice = [key for key, count in counts.items() if count > 1]
    return out
