"""Writes the schema files out of the message classes: `python -m qmtl.foundation.wire.generate [--check]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from qmtl.foundation.common.errors import IncompatibleSchema, QmtlError, UnknownSchema
from qmtl.foundation.wire.avro import avro_schema
from qmtl.foundation.wire.compat import require_readable
from qmtl.foundation.wire.json_schema import json_schema
from qmtl.foundation.wire.registry import MESSAGES
from qmtl.foundation.wire.versions import schema_dir, stored_versions


def planned(folder: Path, messages: Iterable[type]) -> dict[Path, str | None]:
    """What has to change in a schema folder: the new text of each stale file, None for one that has to go.

    An Avro schema that differs from the newest version, defaults and logical types included, becomes the next version; a file of
    an older version is never changed. JSON Schemas have no versions.

    Raises:
        IncompatibleSchema: a message can't read what one of its versions has written, or a stored message is gone.
    """
    out: dict[Path, str | None] = {}
    messages = tuple(messages)
    for message in messages:
        name, current = message.__name__, avro_schema(message)
        versions = stored_versions(folder, name)
        require_readable(current, versions)
        if not versions or versions[-1][1] != current:
            version = versions[-1][0] + 1 if versions else 1
            out[folder / "avro" / f"{name}.v{version}.avsc"] = _text(current)
        view, text = folder / "json" / f"{name}.json", _text(json_schema(message))
        if not view.exists() or view.read_text(encoding="utf-8") != text:
            out[view] = text
    names = {message.__name__ for message in messages}
    for path in sorted((folder / "avro").glob("*.avsc")):
        if path.name.split(".")[0] not in names:
            raise IncompatibleSchema(
                f"{path.name} is the schema of no message, so what it has written can't be read any more.",
                "Bring the message back; delete the file only if no log holds such a record.",
            )
    out.update({path: None for path in sorted((folder / "json").glob("*.json")) if path.stem not in names})
    return out


def write(changes: dict[Path, str | None]) -> None:
    """Carries out what `planned` says."""
    for path, text in changes.items():
        if text is None:
            path.unlink()
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes what is stale, or with `--check` only says it; 0 if nothing is wrong (or no longer is), else 1."""
    parser = argparse.ArgumentParser(prog="qmtl.foundation.wire.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything is stale")
    parser.add_argument("--folder", type=Path, help="the schema folder (the one of this repository)")
    options = parser.parse_args(arguments)
    try:
        changes = planned(options.folder or _folder(), MESSAGES)
    except QmtlError as error:
        print(error, file=sys.stderr)
        return 1
    for path in changes:
        print(f"{'stale' if options.check else 'wrote'}: {path.parent.name}/{path.name}")
    if not options.check:
        write(changes)
        return 0
    if changes:
        print("Run `python -m qmtl.foundation.wire.generate` and review the difference.", file=sys.stderr)
    return 1 if changes else 0


def _folder() -> Path:
    try:
        return schema_dir()
    except UnknownSchema:  # the first run in a repository makes it
        return Path(str(files("qmtl"))).parent / "schemas"


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
