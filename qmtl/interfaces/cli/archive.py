"""`qmtl topic archive`: stores a topic whole in an object store, and checks what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qmtl.foundation.common.errors import ArchiveError, StoreMissing, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option, reading

if TYPE_CHECKING:
    from qmtl.engine.archive.manifest import ArchiveManifest
    from qmtl.engine.archive.port import ObjectStore


@click.command()
@click.argument("name", metavar="TOPIC", required=False)
@click.option(
    "--to",
    "target",
    metavar="URL",
    envvar="QMTL_ARCHIVE",
    show_envvar=True,
    help="s3://BUCKET[/PREFIX][?region=REGION&endpoint=URL], file:///DIR or file:DIR.",
)
@click.option(
    "--verify",
    "stored",
    metavar="URL",
    help="Check what is stored instead: one manifest, or every archive of a store.",
)
@log_option
@format_option
def archive(
    name: str | None, target: str | None, stored: str | None, log_address: str, as_json: bool
) -> None:
    """Store a topic that nobody writes in an object store, read it back, and write a manifest that says so.

    Nothing is deleted. A topic that grows meanwhile, or on which a transaction is open, gets no manifest. What is stored are Avro
    container files of at most 8 MiB before compression, with partition, offset, timestamp_ms, key and value of each record as it
    lies on the log; said again after whatever stopped it, the command writes the same files over themselves.

    With --verify everything that the manifests name is read and compared; no log is needed for that. Credentials come from the
    environment (AWS_ACCESS_KEY_ID and its like) or from the file that AWS_SHARED_CREDENTIALS_FILE names.
    """
    if stored is not None:
        if name is not None:
            raise UsageError("a topic and --verify were given.", "Give one: a manifest names its topic.")
        _verify(stored, as_json)
    elif name is None:
        raise UsageError("neither a topic nor --verify was given.", "Give one of them.")
    elif not target:
        raise UsageError("a topic was given without --to.", "Say where to: --to URL, or QMTL_ARCHIVE.")
    else:
        _archive(name, target, log_address, as_json)


def _archive(name: str, target: str, log_address: str, as_json: bool) -> None:
    from qmtl.bootstrap import open_store
    from qmtl.engine.archive.address import parse
    from qmtl.engine.archive.writing import archive_topic

    store = open_store(parse(target))
    with reading(log_address) as log, render.progress() as advance:
        manifest = archive_topic(log, name, store, progress=advance).manifest
    shown = _told(store, manifest)
    if as_json:
        render.json_object(
            {
                **shown,
                "partitions": [
                    {"partition": one.partition, "begin": one.begin, "end": one.end, "records": one.records}
                    for one in manifest.partitions
                ],
            }
        )
        return
    render.table(("FACT", "VALUE"), sorted(shown.items()))
    render.line()
    render.table(
        ("PARTITION", "BEGIN", "END", "RECORDS"),
        [(one.partition, one.begin, one.end, one.records) for one in manifest.partitions],
        numbers=("PARTITION", "BEGIN", "END", "RECORDS"),
    )


def _verify(stored: str, as_json: bool) -> None:
    from qmtl.bootstrap import open_store
    from qmtl.engine.archive.address import parse_manifest
    from qmtl.engine.archive.reading import load, manifests, verify

    address, only = parse_manifest(stored)
    store = open_store(address)
    names = [only] if only else manifests(store)
    if not names:
        raise StoreMissing(
            f"{store.url()} has no manifest of an archive.", "Give the URL that was given with --to."
        )
    rows: list[dict[str, Any]] = []
    problems: list[ArchiveError] = []
    with render.progress() as advance:
        for name in names:
            try:
                manifest = load(store, name)
                verify(store, manifest, advance)
                rows.append({**_told(store, manifest), "whole": True})
            except ArchiveError as problem:
                problems.append(problem)
                rows.append({"manifest": store.url(name), "whole": False, "problem": str(problem)})
    if as_json:
        for row in rows:
            render.json_line(row)
    else:
        render.table(
            ("MANIFEST", "TOPIC", "RECORDS", "OBJECTS", "BYTES", "WHOLE"),
            [
                (
                    row["manifest"],
                    *(row.get(key, "-") for key in ("topic", "records", "objects", "size_bytes")),
                    "yes" if row["whole"] else "NO",
                )
                for row in rows
            ],
            numbers=("RECORDS", "OBJECTS", "BYTES"),
        )
    if problems:
        raise problems[0]


def _told(store: ObjectStore, manifest: ArchiveManifest) -> dict[str, Any]:
    return {
        "manifest": store.url(manifest.name),
        "topic": manifest.topic,
        "topic_id": manifest.topic_id,
        "records": manifest.records,
        "objects": len(manifest.objects),
        "size_bytes": manifest.size_bytes,
    }
