"""`qmtl topic compact`: takes from an embedded log, now, what newer records of the same keys have replaced."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option

if TYPE_CHECKING:
    from qmtl.engine.log.embedded import EmbeddedLog


class Size(NamedTuple):
    """What lies in a topic: its records, and the bytes of their keys and values."""

    records: int
    size_bytes: int


@click.command()
@click.argument("names", metavar="[TOPIC]...", nargs=-1)
@log_option
@format_option
def compact(names: tuple[str, ...], log_address: str, as_json: bool) -> None:
    """Compact topics of an embedded log that no process holds: these, or all that are compacted.

    What another record of the same key has replaced goes, and a tombstone when it has been there for `delete.retention.ms`; nothing that is
    younger than `min.compaction.lag.ms`, and the last record of no key. So what is found by key is the same before and after. It is what an
    embedded log does by itself when it is opened, at most once an hour. Kafka's cleaner does it on Kafka.
    """
    from qmtl.bootstrap import hold_embedded

    if log_address.startswith("kafka:"):
        raise _for_the_cleaner(names, log_address)
    log = hold_embedded(log_address)
    try:
        chosen = _chosen(log, names)
        rows = []
        with render.progress() as advance:
            for place, name in enumerate(chosen):
                advance("topics", place, len(chosen))
                before = _size(log, name)
                log.clean([name])
                rows.append((name, before, _size(log, name)))
    finally:
        log.close()
    _show(rows, as_json)


def _chosen(log: EmbeddedLog, names: tuple[str, ...]) -> list[str]:
    """The topics that are meant, all of them before anything is done.

    Raises:
        UnknownTopic: there is none of that name.
        UsageError: one that is kept by age.
    """
    from qmtl.engine.view import all_partitions
    from qmtl.foundation.wire.topics import Cleanup

    for name in names:
        all_partitions(log, name)
    found = log.look_up(names or log.topics())
    policies = {
        name: one.found.config["cleanup.policy"] for name, one in found.items() if one.found is not None
    }
    kept = [name for name in names if policies[name] != Cleanup.COMPACT.value]
    if kept:
        raise UsageError(
            f"topic {kept[0]!a:.200} was given, whose records go by age ({policies[kept[0]]}); only topics with cleanup.policy=compact are compacted.",
            "Leave it out: `qmtl topic list` shows how each is kept.",
        )
    return sorted(name for name, policy in policies.items() if policy == Cleanup.COMPACT.value)


def _size(log: EmbeddedLog, name: str) -> Size:
    from qmtl.engine.view import all_partitions

    records = size_bytes = 0
    for where in all_partitions(log, name):
        for one in log.read(where, 0):
            records += 1
            size_bytes += len(one.key) + len(one.value or b"")
    return Size(records, size_bytes)


def _show(rows: list[tuple[str, Size, Size]], as_json: bool) -> None:
    if as_json:
        for name, before, after in rows:
            render.json_line(
                {
                    "topic": name,
                    "records_before": before.records,
                    "records": after.records,
                    "bytes_before": before.size_bytes,
                    "bytes": after.size_bytes,
                }
            )
        return
    heads = ("TOPIC", "RECORDS BEFORE", "RECORDS", "BYTES BEFORE", "BYTES")
    render.table(
        heads,
        [
            (name, before.records, after.records, before.size_bytes, after.size_bytes)
            for name, before, after in rows
        ],
        numbers=heads[1:],
    )
    gone = sum(before.records - after.records for _, before, after in rows)
    render.note(f"{gone} records of {len(rows)} topics went")


def _for_the_cleaner(names: tuple[str, ...], address: str) -> UsageError:
    parts = urlsplit(address)
    prefix = f"{parts.path.strip('/')}." if parts.path.strip("/") else ""
    name = shlex.quote(f"{prefix}{names[0] if names else 'TOPIC'}")
    line = f"kafka-configs.sh --bootstrap-server {parts.netloc} --alter --entity-type topics --entity-name {name}"
    return UsageError(
        f"--log was {address!r:.200}; on Kafka the brokers' cleaner compacts, and only closed segments.",
        f"To have them closed sooner: {line} --add-config segment.ms=3600000, and afterwards {line} --delete-config segment.ms.",
    )
