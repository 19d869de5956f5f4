"""The schema files: where they lie, and which versions of a message's schema have ever been written."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

from qmtl.foundation.common.errors import UnknownSchema
from qmtl.foundation.wire.avro import Schema

_VERSION = re.compile(r"\.v([1-9][0-9]*)\.avsc")


def schema_dir() -> Path:
    """The folder of the schemas: `qmtl/_schemas` in an installed package, else `schemas` beside the package.

    Raises:
        UnknownSchema: neither is there.
    """
    package = Path(str(files("qmtl")))
    for folder in (package / "_schemas", package.parent / "schemas"):
        if (folder / "avro").is_dir():
            return folder
    raise UnknownSchema(
        f"the schema folder was neither {package / '_schemas'} nor {package.parent / 'schemas'}.",
        "Run `python -m qmtl.foundation.wire.generate`, or install the package again.",
    )


def stored_versions(folder: Path, name: str) -> list[tuple[int, Schema]]:
    """The versions of a message's Avro schema in a schema folder, oldest first."""
    out = []
    for path in (folder / "avro").glob(f"{name}.v*.avsc"):
        version = _VERSION.fullmatch(path.name.removeprefix(name))
        if version is not None:
            out.append((int(version[1]), json.loads(path.read_text(encoding="utf-8"))))
    return sorted(out, key=lambda pair: pair[0])
