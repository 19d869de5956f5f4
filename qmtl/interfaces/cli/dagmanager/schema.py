"""`init` and `export-schema`: the topics in which all state lies, made on a log, or written down without one."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option

if TYPE_CHECKING:
    from qmtl.foundation.wire.topics import TopicSpec

FORMAT = "qmtl.schema.v1"


@click.command()
@log_option
@click.option("--world", "world_id", default="", help="On a cluster: the world that the log is for alone.")
@click.option("--domain", default="", help="With --world: backtest, dryrun, live or shadow.")
@format_option
def init(log_address: str, world_id: str, domain: str, as_json: bool) -> None:
    """Make the topics of the catalogue that are not on the log yet; safe to repeat at any time.

    What is there is compared and never changed: a topic with another configuration is an error. With a world and a domain the log
    is in a namespace of theirs, and its address is told, which every other verb takes.
    """
    from qmtl.bootstrap import address_of, open_log, prepare
    from qmtl.foundation.common.compute_context import domain_of
    from qmtl.foundation.wire.topics import CATALOGUE

    if world_id or domain:
        found = domain_of(domain)
        if not world_id.strip() or found is None:
            raise UsageError(
                f"--world was {world_id[:80]!a} and --domain {domain[:80]!a}; a namespace is of a world and a domain that there is.",
                "Give both, the domain as backtest, dryrun, live or shadow, or none of them.",
            )
        log_address = address_of(log_address, world_id, found)
    log = open_log(log_address)
    try:
        before = set(log.topics())
        prepare(log)
    finally:
        log.close()
    made = [spec.name for spec in CATALOGUE if spec.name not in before]
    if as_json:
        render.json_object({"topics": len(CATALOGUE), "made": made, "log": log_address})
        return
    render.line(f"{len(CATALOGUE)} topics are there, {len(made)} of them made now")
    if world_id:
        render.line(f"log {log_address}")


@click.command("export-schema")
@click.option(
    "--out",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The file to write, JSON.",
)
def export_schema(out: Path) -> None:
    """Write every topic with its configuration and its keys, the indexes of the graph, and the Avro schema of every message, into one file.

    That is what this version makes and reads, and the same text each time; no log is asked.
    """
    found = exported()
    try:
        out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--out {out} can't be written: {error.strerror}.", "Name another file.") from None
    counts = (
        f"{len(found['topics'])} topics, {len(found['indexes'])} indexes and {len(found['schemas'])} schemas"
    )
    render.line(f"{counts} are in {out}")


def exported() -> dict[str, Any]:
    """The catalogue, the classes of nodes' topics, the indexes, and the schemas, in a form that JSON can hold."""
    from qmtl.foundation.contracts.dag import TopicClass
    from qmtl.foundation.wire.avro import avro_schema
    from qmtl.foundation.wire.registry import MESSAGES
    from qmtl.foundation.wire.topics import CATALOGUE, node_topic
    from qmtl.services.dagmanager.indexes import INDEXES

    return {
        "format": FORMAT,
        "topics": [_topic(spec) for spec in CATALOGUE],
        "node_topics": {kind.value: _topic(node_topic("", kind)) for kind in TopicClass},
        "indexes": [asdict(one) | {"on": list(one.on)} for one in INDEXES],
        "schemas": {message.__name__: avro_schema(message) for message in MESSAGES},
    }


def _topic(spec: TopicSpec) -> dict[str, Any]:
    named = {"name": spec.name} if spec.name else {}
    return named | {
        "owner": spec.owner,
        "table": spec.is_table,
        "marked": spec.marked,
        "key": list(spec.key),
        "task_key": list(spec.task_key),
        "partitions": spec.partitions,
        "replication": spec.replication,
        "config": spec.config(),
        "messages": [message.__name__ for message in spec.messages],
    }
