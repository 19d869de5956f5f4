"""`qmtl topic`: which topics a log has, what they carry, and what is in them; `archive` and `compact` are in files of their own."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

import click

from qmtl.engine.log.port import Log, Record, TopicPartition, partitions_of
from qmtl.engine.view import all_partitions
from qmtl.foundation.common.errors import UsageError
from qmtl.foundation.common.wording import counted
from qmtl.foundation.wire.codec import Codec
from qmtl.foundation.wire.keys import is_reserved
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.topics import CATALOGUE, TopicSpec
from qmtl.interfaces.cli import records, render, schema
from qmtl.interfaces.cli.archive import archive
from qmtl.interfaces.cli.compact import compact
from qmtl.interfaces.cli.options import format_option, instant, log_option, reading, rows_options
from qmtl.interfaces.cli.signals import stopped
from qmtl.interfaces.replicas import has_replicas
from qmtl.replay.span import Spans, known_topics, last_marker, read_spans, spans_of

BATCH: Final = 1000
WAIT_S: Final = 0.2
_WIDTHS: Final = (4, 8, 24, 16)
_SHOWN_PARTITIONS: Final = 4


@click.group()
def topic() -> None:
    """List, describe, read, archive and compact the topics of a log.

    A log may be read while it is written: only what is committed is shown. Whoever compacts an embedded one holds it alone.
    """


topic.add_command(archive)
topic.add_command(compact)


# ---- list -----------------------------------------------------------------------------------------------------


@topic.command("list")
@rows_options
@log_option
@format_option
def list_topics(limit: int | None, log_address: str, as_json: bool) -> None:
    """The topics of the log in the order of their names: the size of each, its writer, and what it carries.

    SPAN is the first offset that is kept and the one after the last that is committed, per partition. Offsets have gaps, so
    there are at most as many records. REPLICAS, on Kafka, with a ! behind them are fewer than the topic is to have.
    """
    with reading(log_address) as log:
        known = known_topics(log, codec)
        names = log.topics()
        rows = list(_topic_rows(log, names[:limit], known))
    if as_json:
        for row in rows:
            render.json_line(row)
        render.left_off(len(rows), len(names), "topics", as_json=True)
        return
    render.table(
        ("TOPIC", "PARTITIONS", "REPLICAS", "CLEANUP", "OFFSETS", "SPAN", "OWNER", "ABOUT"),
        [
            (
                row["topic"],
                row["partitions"],
                _replicas(row),
                row["cleanup"],
                row["offsets"],
                _span(row),
                row["owner"],
                row["about"],
            )
            for row in rows
        ],
        numbers=("PARTITIONS", "REPLICAS", "OFFSETS"),
    )
    render.left_off(len(rows), len(names), "topics", as_json=False)
    present = set(names)
    missing = [spec.name for spec in CATALOGUE if spec.name not in present]
    if missing:
        render.note(
            f"{counted(len(missing), 'topic')} of the catalogue {'is' if len(missing) == 1 else 'are'} not on this log: {', '.join(missing)}"
        )


def _topic_rows(log: Log, names: Sequence[str], known: Mapping[str, TopicSpec]) -> Iterator[dict[str, Any]]:
    """A row per topic that is there, in their order; the log is asked about all of them at once."""
    counts = has_replicas(log)
    there = {name: one.found for name, one in log.look_up(names).items() if one.found is not None}
    spans = spans_of(log, [where for name in there for where in partitions_of(name, there[name].partitions)])
    for name in names:
        if (found := there.get(name)) is None:
            continue  # it went meanwhile
        spec = known.get(name)
        mine = [spans[where] for where in partitions_of(name, found.partitions)]
        yield {
            "topic": name,
            "partitions": found.partitions,
            "replicas": found.replication if counts else None,
            "replicas_wanted": spec.replication if spec is not None else None,
            "cleanup": found.config.get("cleanup.policy", ""),
            "offsets": sum(end - start for start, end in mine),
            "spans": [list(span) for span in mine],
            "owner": spec.owner if spec is not None else None,
            "about": schema.about(spec) if spec is not None else None,
        }


def _replicas(row: dict[str, Any]) -> str:
    has, wanted = row["replicas"], row["replicas_wanted"]
    return "-" if has is None else f"{has}!" if wanted is not None and has < wanted else str(has)


def _span(row: dict[str, Any]) -> str:
    spans = row["spans"]
    shown = " ".join(f"{start}..{end}" for start, end in spans[:_SHOWN_PARTITIONS])
    return shown + (" …" if len(spans) > _SHOWN_PARTITIONS else "")


# ---- describe -------------------------------------------------------------------------------------------------


@topic.command()
@click.argument("name")
@log_option
@format_option
def describe(name: str, log_address: str, as_json: bool) -> None:
    """What a topic carries, how it is kept, and how far each partition is."""
    with reading(log_address) as log:
        wheres = all_partitions(log, name)
        spec = known_topics(log, codec).get(name)
        found = log.describe(name)
        config = dict(found.config) if found is not None else {}
        ends = log.end_offsets(wheres)
        partitions = [
            _partition_row(log, where, span, ends[where]) for where, span in spans_of(log, wheres).items()
        ]
    wanted = sorted(spec.config()) if spec is not None else ["cleanup.policy"]
    configuration = {key: config[key] for key in wanted if key in config}
    shown: dict[str, Any] = {"topic": name, "configuration": configuration, "partitions": partitions}
    if spec is not None:
        shown |= {
            "owner": spec.owner,
            "about": schema.about(spec),
            "table": spec.is_table,
            "marked": spec.marked,
            "key": list(spec.key),
            "task_key": list(spec.task_key),
            "messages": [schema.fields_of(message) for message in schema.messages_of(spec)],
        }
    if as_json:
        render.json_object(shown)
        return
    _describe(name, spec, configuration, partitions)


def _partition_row(log: Log, where: TopicPartition, span: tuple[int, int], end: int) -> dict[str, Any]:
    marker = last_marker(log, where, span)
    bucket_ms = None if marker is None else marker.bucket_ms
    start, stable = span
    return {
        "partition": where.partition,
        "start": start,
        "stable": stable,
        "high_watermark": end,
        "last_marker_ms": bucket_ms,
        "last_marker": None if bucket_ms is None else render.instant(bucket_ms),
        "last_marker_offset": None if marker is None else marker.offset,
    }


def _describe(
    name: str, spec: TopicSpec | None, configuration: dict[str, str], partitions: list[dict[str, Any]]
) -> None:
    facts: list[tuple[str, object]] = [("topic", name)]
    if spec is None:
        facts.append(("about", "neither in the catalogue nor a node's topic"))
    else:
        facts += [
            ("about", schema.about(spec)),
            ("kind", "table: the last value per key" if spec.is_table else "stream: every value"),
            ("owner", spec.owner),
            ("key", " ".join(spec.key) or "(empty)"),
            (
                "task key",
                "(none: each writing task has a partition)"
                if spec.by_writer
                else " ".join(spec.task_key) or "(empty: all in one partition)",
            ),
            ("close markers", "yes: readable bucket by bucket" if spec.marked else "no"),
        ]
    facts += sorted(configuration.items())
    render.table(("FACT", "VALUE"), facts)
    for message in schema.messages_of(spec) if spec is not None else ():
        described = schema.fields_of(message)
        render.line()
        rows = [(field["field"], field["type"]) for field in described["fields"]]
        render.table(("FIELD", "TYPE"), rows, title=f"message {described['message']}")
    render.line()
    render.table(
        ("PARTITION", "START", "STABLE", "HIGH WATERMARK", "LAST CLOSED BUCKET", "MS"),
        [
            (
                row["partition"],
                row["start"],
                row["stable"],
                row["high_watermark"],
                row["last_marker"] or "-",
                "-" if row["last_marker_ms"] is None else row["last_marker_ms"],
            )
            for row in partitions
        ],
        numbers=("PARTITION", "START", "STABLE", "HIGH WATERMARK", "MS"),
    )


# ---- read -----------------------------------------------------------------------------------------------------


@topic.command()
@click.argument("name")
@click.option(
    "--from-offset", type=int, metavar="N", help="From this offset; below 0, as many offsets before the end."
)
@click.option(
    "--from-time",
    metavar="ISO|MS",
    callback=instant,
    help="From the first record that was written at or after this time.",
)
@click.option(
    "--from-bucket",
    metavar="ISO|MS",
    callback=instant,
    help="The records of this bucket, named by its close, and all later ones.",
)
@click.option("--partition", "-p", type=click.IntRange(min=0), metavar="P", help="This partition alone.")
@click.option("--limit", "-n", type=click.IntRange(min=1), metavar="N", help="At most so many records.")
@click.option("--follow", "-f", is_flag=True, help="Go on as records are committed, until Ctrl-C or SIGTERM.")
@click.option("--markers", is_flag=True, help="Show close markers and position stamps too.")
@log_option
@format_option
def read(
    name: str,
    from_offset: int | None,
    from_time: int | None,
    from_bucket: int | None,
    partition: int | None,
    limit: int | None,
    follow: bool,
    markers: bool,
    log_address: str,
    as_json: bool,
) -> None:
    """The records of a topic, from the beginning if nothing else is said.

    Partitions come one after the other, each in the order of its offsets; with --follow they interleave as they come. With
    --format json every record is one line: topic, partition, offset, timestamp_ms, kind, key, type, value; a tombstone has no
    type and no value, and bytes that don't decode are base64 beside the error's code.
    """
    if sum(one is not None for one in (from_offset, from_time, from_bucket)) > 1:
        raise UsageError(
            "more than one of --from-offset, --from-time and --from-bucket was given.", "Give one."
        )
    with reading(log_address) as log:
        wheres = _wanted(log, name, partition)
        spans = spans_of(log, wheres)
        if from_offset is not None:
            starts = {
                where: from_offset if from_offset >= 0 else spans[where][1] + from_offset for where in wheres
            }
        elif from_time is not None:
            starts = dict(log.offsets_at_time(wheres, from_time))
        elif from_bucket is not None:
            starts = _bucket_starts(log, name, spans, from_bucket)
        else:
            starts = {where: span[0] for where, span in spans.items()}
        source = follow_from(log, spans, starts) if follow else _stretch(log, spans, starts)
        _show(source, starts, limit=limit, markers=markers, as_json=as_json, flush=follow)


def _wanted(log: Log, name: str, partition: int | None) -> list[TopicPartition]:
    wheres = all_partitions(log, name)
    if partition is None:
        return wheres
    if partition >= len(wheres):
        raise UsageError(
            f"--partition was {partition}; {name} has {len(wheres)} partitions, counted from 0.",
            "Give one of them.",
        )
    return [wheres[partition]]


def _bucket_starts(log: Log, name: str, spans: Spans, bucket_ms: int) -> dict[TopicPartition, int]:
    """Right after the marker that precedes the bucket, per partition."""
    spec = known_topics(log, codec).get(name)
    if spec is not None and not spec.marked:
        raise UsageError(
            f"--from-bucket was given, but {name} carries no close markers.",
            "Use --from-time or --from-offset.",
        )
    out = {}
    for where, span in spans.items():
        before = last_marker(log, where, span, bucket_ms)
        if before is not None:
            out[where] = before.offset + 1
            continue
        out[where] = span[0]
        if span[0] > 0 or (spec is not None and spec.compacted):
            render.note(
                f"{where.topic}[{where.partition}]: the marker before bucket {bucket_ms} is not on the log any more,"
                " so older records may come first."
            )
    return out


def _stretch(log: Log, spans: Spans, starts: dict[TopicPartition, int]) -> Iterator[Record]:
    return read_spans(log, {where: (max(start, starts[where]), end) for where, (start, end) in spans.items()})


def follow_from(
    log: Log, spans: Spans, starts: Mapping[TopicPartition, int]
) -> Generator[Record, None, None]:
    """From the starts on, as far as the log has come, again and again until a signal says that it is enough."""
    reader = log.reader()
    try:
        reader.assign({where: min(max(start, starts[where]), end) for where, (start, end) in spans.items()})
        with stopped() as enough:
            while not enough():
                for record in reader.poll(BATCH, WAIT_S):
                    if record.offset >= starts[TopicPartition(record.topic, record.partition)]:
                        yield record
                sys.stdout.flush()
    finally:
        reader.close()


def _show(
    source: Iterator[Record],
    starts: dict[TopicPartition, int],
    *,
    limit: int | None,
    markers: bool,
    as_json: bool,
    flush: bool,
) -> None:
    position = dict(starts)
    shown = 0
    for record in source:
        position[TopicPartition(record.topic, record.partition)] = record.offset + 1
        if is_reserved(record.key) and not markers:
            continue
        if shown == 0 and not as_json:
            render.columns(("PART", "OFFSET", "TIME", "TYPE", "KEY", "VALUE"), _WIDTHS)
        _show_record(record, codec, as_json)
        shown += 1
        if shown == limit:
            break
    if flush:
        sys.stdout.flush()
    if not as_json:
        render.note(f"{shown} records; next is {records.position_text(position)}")


def _show_record(record: Record, read_by: Codec, as_json: bool) -> None:
    one = records.record_json(record, read_by)
    if as_json:
        render.json_line(one)
        return
    render.columns(
        (
            record.partition,
            record.offset,
            render.instant(record.timestamp_ms),
            records.type_text(one),
            records.key_text(one["key"]),
            records.value_text(one),
        ),
        _WIDTHS,
    )
