"""Avro schemas: made from the class alone, agreed to by Apache's implementation, and never of a form that bytes can exploit."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum
from typing import Any

import avro.schema
import pytest

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.wire.avro import avro_schema, fingerprint, parsing_form
from qmtl.foundation.wire.registry import MESSAGES


class Mode(Enum):
    COMPUTE_ONLY = "compute-only"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class Inner:
    mode: Mode
    price: Decimal = Decimal("1.50")


@dataclass(frozen=True, slots=True)
class Every:
    """One field of every kind."""

    text: str
    whole: int
    real: float
    flag: bool
    raw: bytes
    money: Decimal
    mode: Mode
    inner: Inner
    many: tuple[Inner, ...]
    counts: dict[str, int]
    maybe: str | None
    text_or: str = "x"
    raw_or: bytes = b"\xff"
    mode_or: Mode = Mode.COMPUTE_ONLY
    many_or: tuple[str, ...] = ()
    inner_or: Inner = Inner(Mode.LIVE)
    counts_or: dict[str, int] = field(default_factory=dict)
    maybe_or: Inner | None = None


def test_every_kind_of_field_has_its_type_and_default() -> None:
    decimal = {"type": "string", "logicalType": "qmtl-decimal"}
    inner = {
        "type": "record",
        "name": "Inner",
        "fields": [{"name": "mode", "type": "Mode"}, {"name": "price", "type": decimal, "default": "1.5"}],
    }
    assert avro_schema(Every) == {
        "type": "record",
        "name": "Every",
        "namespace": "qmtl",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "whole", "type": "long"},
            {"name": "real", "type": "double"},
            {"name": "flag", "type": "boolean"},
            {"name": "raw", "type": "bytes"},
            {"name": "money", "type": decimal},
            {"name": "mode", "type": {"type": "enum", "name": "Mode", "symbols": ["COMPUTE_ONLY", "LIVE"]}},
            {"name": "inner", "type": inner},
            {"name": "many", "type": {"type": "array", "items": "Inner"}},
            {"name": "counts", "type": {"type": "map", "values": "long"}},
            {"name": "maybe", "type": ["null", "string"], "default": None},
            {"name": "text_or", "type": "string", "default": "x"},
            {"name": "raw_or", "type": "bytes", "default": "\xff"},
            {"name": "mode_or", "type": "Mode", "default": "COMPUTE_ONLY"},
            {"name": "many_or", "type": {"type": "array", "items": "string"}, "default": []},
            {"name": "inner_or", "type": "Inner", "default": {"mode": "LIVE", "price": "1.5"}},
            {"name": "counts_or", "type": {"type": "map", "values": "long"}, "default": {}},
            {"name": "maybe_or", "type": ["null", "Inner"], "default": None},
        ],
    }


def test_the_docstring_is_no_part_of_the_schema() -> None:
    def made(doc: str) -> type:
        made = dataclasses.make_dataclass("Same", [("a", int)], frozen=True)
        made.__doc__ = doc
        return made

    assert avro_schema(made("one")) == avro_schema(made("two"))


def plain(schema: Any) -> Any:
    """The schema without logical types, for Apache's Python package: its canonical form leaves `{"type":"string"}` where one was,
    though the specification ([STRIP], then [PRIMITIVES]; case 025 of its schema-tests.txt) makes that `"string"`."""
    if isinstance(schema, list):
        return [plain(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    if "logicalType" in schema:
        return schema["type"]
    return {
        key: plain(value) if key in ("type", "items", "values", "fields") else value
        for key, value in schema.items()
    }


@pytest.mark.parametrize("message", [*MESSAGES, Every], ids=lambda message: message.__name__)
def test_apache_s_implementation_agrees_on_the_schema_and_its_fingerprint(message: type) -> None:
    schema = avro_schema(message)
    theirs = avro.schema.parse(json.dumps(plain(schema)))
    assert json.loads(theirs.canonical_form) == parsing_form(schema)
    assert theirs.fingerprint() == fingerprint(schema)


# apache/avro, share/test/data/schema-tests.txt, cases 000, 006, 014, 020, 025, 028, 032.
OFFICIAL: list[tuple[Any, int]] = [
    ("null", 7195948357588979594),
    ("long", -3434872931120570953),
    ("string", -8142146995180207161),
    ({"fields": [], "type": "record", "name": "foo", "namespace": "x.y"}, 5916914534497305771),
    (
        {"fields": [{"type": {"type": "boolean"}, "name": "f1"}], "type": "record", "name": "foo"},
        7843277075252814651,
    ),
    (
        {"namespace": "x.y.z", "type": "enum", "name": "foo", "doc": "foo bar", "symbols": ["A1", "A2"]},
        -4448647247586288245,
    ),
    ({"values": "string", "type": "map"}, -8732877298790414990),
]


@pytest.mark.parametrize("schema,published", OFFICIAL)
def test_fingerprints_are_the_published_ones(schema: Any, published: int) -> None:
    assert fingerprint(schema) == published.to_bytes(8, "little", signed=True)


@dataclass(frozen=True, slots=True)
class Endless:
    children: tuple[Endless, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    pong: Pong | None


@dataclass(frozen=True, slots=True)
class Pong:
    ping: Ping | None


@dataclass(frozen=True, slots=True)
class Empty:
    pass


class Numbered(Enum):
    ONE = 1


class Accented(Enum):
    É = "e"


def _one_field(hint: Any, **settings: Any) -> type:
    return dataclasses.make_dataclass("One", [("value", hint, field(**settings))], frozen=True)


@pytest.mark.parametrize(
    "message,reason",
    [
        (Endless, "containing itself"),
        (Ping, "containing itself"),
        (Empty, "no dataclass with fields"),
        (_one_field(tuple[Empty, ...]), "no dataclass with fields"),
        (_one_field(tuple[None, ...]), "of type None"),
        (_one_field(Numbered), "Numbered"),
        (_one_field(Accented), "Accented"),
        (_one_field(list[int]), "list"),
        (_one_field(tuple[int, str]), "tuple"),
        (_one_field(dict[int, int]), "dict"),
        (_one_field(int | str), "no Avro form"),
        (_one_field(object), "no Avro form"),
        (_one_field(int | None, default=1), "must be None"),
        (_one_field(int, default=1, init=False), "constructor"),
        (int, "no dataclass"),
    ],
)
def test_a_class_that_bytes_could_exploit_or_avro_can_not_hold_is_refused(message: type, reason: str) -> None:
    with pytest.raises(InvalidValue, match=reason):
        avro_schema(message)


def test_a_name_means_one_type_within_a_message() -> None:
    other = Enum("Mode", {"A": "a"})  # type: ignore[misc]
    message = dataclasses.make_dataclass("Two", [("a", Mode), ("b", other)], frozen=True)
    with pytest.raises(InvalidValue, match="two types named Mode"):
        avro_schema(message)
