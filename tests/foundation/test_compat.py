"""Which schema may follow which: our check against Apache's, the library that reads, and a table fixed beforehand."""

from __future__ import annotations

import copy
import io
import json
import random
from typing import Any

import avro.schema
import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.foundation.common.errors import IncompatibleSchema
from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.compat import differences, require_readable
from qmtl.foundation.wire.registry import MESSAGES
from tests.foundation.test_avro import Every, plain

DECIMAL = {"type": "string", "logicalType": "qmtl-decimal"}
SIDE = {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}


def record(*fields: Any, name: str = "M") -> dict[str, Any]:
    made = [dict(zip(("name", "type", "default"), field, strict=False)) for field in fields]
    return {"type": "record", "name": name, "namespace": "qmtl", "fields": made}


def inner(*fields: Any, name: str = "Inner") -> dict[str, Any]:
    return {key: value for key, value in record(*fields, name=name).items() if key != "namespace"}


BEFORE = record(("a", "long"), ("b", "string"))
TABLE: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("nothing", BEFORE, BEFORE, True),
    ("another order", record(("b", "string"), ("a", "long")), BEFORE, True),
    ("a new field with a default", record(("a", "long"), ("b", "string"), ("c", "long", 0)), BEFORE, True),
    ("a new field without one", record(("a", "long"), ("b", "string"), ("c", "long")), BEFORE, False),
    ("a field gone", record(("a", "long")), BEFORE, True),
    ("a field renamed", record(("a", "long"), ("bb", "string")), BEFORE, False),
    ("a field of another type", record(("a", "string"), ("b", "string")), BEFORE, False),
    ("a message renamed", record(("a", "long"), ("b", "string"), name="N"), BEFORE, False),
    ("a field made optional", record(("a", ["null", "long"], None), ("b", "string")), BEFORE, True),
    ("an optional field made required", BEFORE, record(("a", ["null", "long"], None), ("b", "string")), False),
    ("a default gone", BEFORE, record(("a", "long", 1), ("b", "string")), True),
    ("a symbol more", record(("s", {**SIDE, "symbols": ["BUY", "SELL", "NONE"]})), record(("s", SIDE)), True),
    ("symbols in another order", record(("s", {**SIDE, "symbols": ["SELL", "BUY"]})), record(("s", SIDE)), True),
    ("a symbol less", record(("s", {**SIDE, "symbols": ["BUY"]})), record(("s", SIDE)), False),
    ("an enum renamed", record(("s", {**SIDE, "name": "Way"})), record(("s", SIDE)), False),
    ("text for an enum", record(("s", "string")), record(("s", SIDE)), False),
    ("an inner field more", record(("i", inner(("x", "long"), ("y", "long", 0)))), record(("i", inner(("x", "long")))), True),
    ("an inner field without default", record(("i", inner(("x", "long"), ("y", "long")))), record(("i", inner(("x", "long")))), False),
    ("an inner record renamed", record(("i", inner(("x", "long"), name="J"))), record(("i", inner(("x", "long")))), False),
    ("another item", record(("l", {"type": "array", "items": "string"})), record(("l", {"type": "array", "items": "long"})), False),
    ("another value", record(("m", {"type": "map", "values": "string"})), record(("m", {"type": "map", "values": "long"})), False),
    ("an array for a map", record(("m", {"type": "array", "items": "long"})), record(("m", {"type": "map", "values": "long"})), False),
    ("an item made optional", record(("l", {"type": "array", "items": ["null", "long"]})), record(("l", {"type": "array", "items": "long"})), True),
    (
        "a type named twice that changes",
        record(("i", inner(("x", "long"), ("y", "long"))), ("j", "Inner")),
        record(("i", inner(("x", "long"))), ("j", "Inner")),
        False,
    ),
    ("a type first named elsewhere", record(("j", SIDE), ("i", "Side")), record(("i", SIDE), ("j", "Side")), True),
]  # fmt: skip
# Where Avro would promote, and lose digits or read bytes as text; and where it doesn't look at logical types.
NARROWER: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a long read as a double", record(("a", "double")), record(("a", "long"))),
    ("bytes read as text", record(("a", "string")), record(("a", "bytes"))),
    ("text read as bytes", record(("a", "bytes")), record(("a", "string"))),
    ("text read as a decimal", record(("a", DECIMAL)), record(("a", "string"))),
    ("a decimal read as text", record(("a", "string")), record(("a", DECIMAL))),
]


def ours(reader: dict[str, Any], writer: dict[str, Any]) -> bool:
    return not any(differences(reader, writer))


def apache(reader: dict[str, Any], writer: dict[str, Any]) -> bool:
    parsed = [avro.schema.parse(json.dumps(plain(schema))) for schema in (reader, writer)]
    checker: Any = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # the package leaves it so
    return bool(checker.get_compatibility(*parsed).compatibility is SchemaCompatibilityType.compatible)


@pytest.mark.parametrize("reader,writer,verdict", [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_our_verdict_is_the_table_s_and_apache_s(
    reader: dict[str, Any], writer: dict[str, Any], verdict: bool
) -> None:
    assert ours(reader, writer) == verdict
    assert apache(reader, writer) == verdict


@pytest.mark.parametrize("reader,writer", [row[1:] for row in NARROWER], ids=[row[0] for row in NARROWER])
def test_we_refuse_where_avro_would_promote(reader: dict[str, Any], writer: dict[str, Any]) -> None:
    assert apache(reader, writer)
    assert not ours(reader, writer)


@pytest.mark.parametrize("message", [*MESSAGES, Every], ids=lambda message: message.__name__)
def test_a_schema_reads_what_it_has_written(message: type) -> None:
    assert ours(avro_schema(message), avro_schema(message))


PRIMITIVES = ["string", "long", "boolean"]
LEAF = st.sampled_from(PRIMITIVES)
TYPES: st.SearchStrategy[Any] = st.recursive(
    LEAF,
    lambda item: (
        st.builds(lambda i: {"type": "array", "items": i}, item)
        | st.builds(lambda v: {"type": "map", "values": v}, item)
        | st.builds(lambda t: t if isinstance(t, list) else ["null", t], item)
    ),
    max_leaves=3,
)
DEFAULTS: dict[str, Any] = {"string": "x", "long": 1, "boolean": True}


def _schema(
    drawn: list[tuple[str, Any, bool]], symbols: list[str], nested: list[tuple[str, Any, bool]]
) -> dict[str, Any]:
    def fields(items: list[tuple[str, Any, bool]]) -> list[Any]:
        return [(n, t, DEFAULTS[t]) if d and isinstance(t, str) else (n, t) for n, t, d in items]

    enum = {"type": "enum", "name": "E", "symbols": symbols}
    return copy.deepcopy(record(*fields(drawn), ("e", enum), ("i", inner(*fields(nested))), ("again", "E")))


FIELDS = st.lists(
    st.tuples(st.sampled_from("xyz"), TYPES, st.booleans()), max_size=3, unique_by=lambda f: f[0]
)
SCHEMAS = st.builds(_schema, FIELDS, st.lists(st.sampled_from("PQR"), min_size=1, unique=True), FIELDS)


@settings(max_examples=300)
@given(SCHEMAS, SCHEMAS)
def test_our_verdict_is_apache_s_on_any_pair(reader: dict[str, Any], writer: dict[str, Any]) -> None:
    assert ours(reader, writer) == apache(reader, writer)


@settings(max_examples=150)
@given(SCHEMAS, SCHEMAS, st.integers(0, 1 << 30))
def test_what_we_call_readable_is_read(reader: dict[str, Any], writer: dict[str, Any], seed: int) -> None:
    if not ours(reader, writer):
        return
    chance = random.Random(seed)
    out = io.BytesIO()
    fastavro.schemaless_writer(out, writer, _value(writer, chance))
    fastavro.schemaless_reader(io.BytesIO(out.getvalue()), writer, reader)


def _value(schema: Any, chance: random.Random) -> Any:
    if isinstance(schema, list):
        return _value(chance.choice(schema), chance)
    if isinstance(schema, str):
        return {"null": None, "string": "t", "long": 7, "boolean": True, "E": None}[schema]
    if schema["type"] == "array":
        return [_value(schema["items"], chance)]
    if schema["type"] == "map":
        return {"k": _value(schema["values"], chance)}
    if schema["type"] == "enum":
        return chance.choice(schema["symbols"])
    made = {field["name"]: _value(field["type"], chance) for field in schema["fields"]}
    return {**made, "again": made["e"]} if "again" in made else made


def test_a_field_that_went_and_came_back_as_another_is_refused_over_all_versions() -> None:
    first, second = record(("a", "long"), ("b", "string")), record(("b", "string"))
    third = record(("b", "string"), ("a", "string", ""))
    require_readable(second, [(1, first)])
    require_readable(third, [(2, second)])
    with pytest.raises(
        IncompatibleSchema, match=r"M\.a is string and was long, so it can't read what version 1 of M"
    ):
        require_readable(third, [(1, first), (2, second)])
