"""Whether a schema can read what an older one has written: Avro's schema resolution over the schemas that `avro` makes.

Narrower than Avro in what could lose or misread a value: no promotions (a long read as a double loses digits, bytes read as text
may not be text), and a logical type can neither come nor go (free text is no decimal).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from qmtl.foundation.common.errors import IncompatibleSchema
from qmtl.foundation.wire.avro import NAMESPACE, Schema

NEWER: Final = "Run the version that writes it or a newer one, or give this one a log of its own."
"""What to do with code that can't read what lies on its log."""


def require_readable(reader: Schema, writers: Iterable[tuple[int, Schema]]) -> None:
    """Nothing, if the reader reads what every one of the numbered writers wrote.

    All versions are asked, not the last alone: a field that went in version 2 and came back with another type in version 3 is
    compatible step by step and misreads version 1.

    Raises:
        IncompatibleSchema: names the version, the place and the rule.
    """
    for version, writer in writers:
        for difference in differences(reader, writer):
            raise IncompatibleSchema(
                f"{difference}, so it can't read what version {version} of {writer['name']} has written.",
                "Give a new field a default, keep the others as they were, or make a new message.",
            )


def require_resolvable(reader: Schema, writer: Schema) -> None:
    """Nothing, if the reader reads what other code writes with a schema of the same name.

    Raises:
        IncompatibleSchema: names the message, the place and the rule.
    """
    for difference in differences(reader, writer):
        raise IncompatibleSchema(
            f"{difference}, so this version of the code can't read the {writer['name']} of another version on this log.",
            NEWER,
        )


def major(versions: Iterable[Schema]) -> int:
    """How many majors a message format has had: the versions of one read each other's values, whichever is the older.

    What runs under an id writes into one topic, which new code reads back and old code reads on: so either direction counts.

    Args:
        versions: oldest first.

    Returns:
        1 for a format that was never broken; 0 for none.
    """
    count, alike = 0, list[Schema]()
    for version in versions:
        if not alike or any(
            difference
            for other in alike
            for difference in (*differences(version, other), *differences(other, version))
        ):
            count, alike = count + 1, []
        alike.append(version)
    return count


def differences(reader: Schema, writer: Schema) -> Iterator[str]:
    """Why the reader can't read everything that the writer may write; nothing if it can."""
    return _differ(reader, writer, reader["name"], dict(_named(reader)), dict(_named(writer)))


def _differ(
    reader: Any, writer: Any, path: str, r_names: dict[str, Any], w_names: dict[str, Any]
) -> Iterator[str]:
    reader, writer = _resolved(reader, r_names), _resolved(writer, w_names)
    if isinstance(writer, list):
        for branch in writer:
            yield from _differ(reader, branch, path, r_names, w_names)
    elif isinstance(reader, list):
        if all(any(_differ(branch, writer, path, r_names, w_names)) for branch in reader):
            yield f"{path} takes no {_kind(writer)}"
    elif _kind(reader) != _kind(writer):
        yield f"{path} is {_kind(reader)} and was {_kind(writer)}"
    elif isinstance(reader, dict):
        yield from _differ_inside(reader, writer, path, r_names, w_names)


def _differ_inside(
    reader: dict[str, Any],
    writer: dict[str, Any],
    path: str,
    r_names: dict[str, Any],
    w_names: dict[str, Any],
) -> Iterator[str]:
    match reader["type"]:
        case "array":
            yield from _differ(reader["items"], writer["items"], f"{path}[]", r_names, w_names)
        case "map":
            yield from _differ(reader["values"], writer["values"], f"{path}{{}}", r_names, w_names)
        case "enum":
            for symbol in writer["symbols"]:
                if symbol not in reader["symbols"]:
                    yield f"{path} has lost the symbol {symbol}"
        case "record":
            written = {field["name"]: field for field in writer["fields"]}
            for field in reader["fields"]:
                here = f"{path}.{field['name']}"
                if field["name"] in written:
                    yield from _differ(field["type"], written[field["name"]]["type"], here, r_names, w_names)
                elif "default" not in field:
                    yield f"{here} is new and has no default"
        case _:
            pass  # a logical type over a primitive: `_kind` has compared all there is


def _resolved(schema: Any, names: dict[str, Any]) -> Any:
    return names.get(_short(schema), schema) if isinstance(schema, str) else schema


def _kind(schema: Any) -> str:
    """A type's name with all that has to be equal: the name of a named type, the logical type of another."""
    if isinstance(schema, str):
        return schema
    kind = schema["type"]
    if kind in ("record", "enum"):
        return f"{kind} {_short(schema['name'])}"
    return f"{kind} ({schema['logicalType']})" if "logicalType" in schema else str(kind)


def _short(name: str) -> str:
    return name.removeprefix(f"{NAMESPACE}.")


def _named(schema: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(schema, list):
        for branch in schema:
            yield from _named(branch)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum"):
            yield _short(schema["name"]), schema
        for inner in (
            schema.get("items"),
            schema.get("values"),
            *(field["type"] for field in schema.get("fields", ())),
        ):
            yield from _named(inner)
