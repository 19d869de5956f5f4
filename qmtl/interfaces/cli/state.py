"""`qmtl state`: the latest value per key of a topic, now or as it was, and the position at which that is true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from qmtl.engine.log.port import Log, Record, TopicPartition
from qmtl.engine.view import all_partitions
from qmtl.foundation.common.errors import UsageError
from qmtl.foundation.wire.keys import encode_key, is_reserved, partition_for
from qmtl.foundation.wire.registry import codec
from qmtl.foundation.wire.shape import Record as RecordShape
from qmtl.foundation.wire.shape import Scalar, Shape, shape_of
from qmtl.foundation.wire.topics import TopicSpec
from qmtl.interfaces.cli import records, render
from qmtl.interfaces.cli.options import format_option, instant, log_option, reading
from qmtl.replay.span import Spans, known_topics, read_spans, spans_of

_TEXT: Final = Scalar(str)


@click.command()
@click.argument("name", metavar="TOPIC")
@click.option(
    "--key", "-k", "parts", multiple=True, metavar="PART", help="The first parts of the key, one --key each."
)
@click.option("--tombstones", is_flag=True, help="Show keys too whose newest record is a tombstone.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many keys, the first in key order.",
)
@click.option(
    "--until-time",
    metavar="ISO|MS",
    callback=instant,
    help="As it was before the first record that was written at or after this time.",
)
@click.option(
    "--until-offset",
    type=click.IntRange(min=0),
    metavar="N",
    help="As it was before the record at this offset; of one partition only.",
)
@log_option
@format_option
def state(
    name: str,
    parts: tuple[str, ...],
    tombstones: bool,
    limit: int | None,
    until_time: int | None,
    until_offset: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The latest value per key of a topic, in key order.

    With --until-time or --until-offset the topic is folded from its start up to there, as a fresh table would be. A compacted topic
    keeps every version for its min.compaction.lag.ms only: of an older moment the rows that were written again since may be missing,
    which is said at the end ("exact": false in JSON).

    The last line says for which position that is true: topic[partition]@offset, the offset of the next record. With --format
    json every key is one line, as in `qmtl topic read`, and the last line is {"position": {"topic[partition]": offset}}.
    """
    with reading(log_address) as log:
        wheres = _where(log, name, parts)
        spans = _until(log, spans_of(log, wheres), until_time, until_offset)
        exact = (until_time is None and until_offset is None) or _keeps_every_version(log, name, spans)
        newest: dict[tuple[bytes, int], Record] = {}
        for record in read_spans(log, spans):
            if is_reserved(record.key) or not _begins(record.key, parts):
                continue
            if record.value is None and not tombstones:
                newest.pop((record.key, record.partition), None)
            else:
                newest[record.key, record.partition] = record
        position = {where: end for where, (_, end) in sorted(spans.items())}
    rows = [newest[key] for key in sorted(newest)]
    shown = rows if limit is None else rows[:limit]
    if as_json:
        for row in shown:
            render.json_line(records.record_json(row, codec))
        last: dict[str, object] = {
            "position": {f"{where.topic}[{where.partition}]": end for where, end in position.items()}
        }
        if until_time is not None or until_offset is not None:
            last["exact"] = exact
        render.json_line(last)
        return
    cells = [records.record_json(row, codec) for row in shown]
    render.table(
        ("KEY", "TYPE", "OFFSET", "VALUE"),
        [
            (records.key_text(one["key"]), records.type_text(one), one["offset"], records.value_text(one))
            for one in cells
        ],
        numbers=("OFFSET",),
    )
    render.line()
    render.line(f"{len(shown)} of {len(rows)} keys, true at {records.position_text(position)}")
    if not exact:
        render.line(
            "Rows that were written again since may be missing: the topic no longer keeps every version of then."
        )


def _until(log: Log, spans: Spans, time_ms: int | None, offset: int | None) -> Spans:
    """What lies before a moment.

    Raises:
        UsageError: two moments, or an offset of several partitions.
    """
    if time_ms is not None and offset is not None:
        raise UsageError("both --until-time and --until-offset were given.", "Give one.")
    if offset is not None and len(spans) > 1:
        raise UsageError(
            f"--until-offset was given, and {len(spans)} partitions are meant.",
            "Use --until-time, or choose one partition by --key.",
        )
    if time_ms is not None:
        cut = log.offsets_at_time(list(spans), time_ms)
    elif offset is not None:
        cut = dict.fromkeys(spans, offset)
    else:
        return spans
    return {where: (begin, max(begin, min(end, cut[where]))) for where, (begin, end) in spans.items()}


def _keeps_every_version(log: Log, name: str, spans: Spans) -> bool:
    """Whether nothing that was true at the ends of the spans can have been cleaned away or deleted.

    A version goes only when a later one is older than the topic's compaction lag; the first record behind a span is as old as any.
    """
    described = log.describe(name)
    if described is None or "compact" not in described.config["cleanup.policy"]:
        return all(begin == 0 for begin, _ in spans.values())
    kept_since_ms = log.now_ms() - int(described.config["min.compaction.lag.ms"])
    ends = log.stable_offsets(list(spans))
    behind = {where: (end, ends[where]) for where, (_, end) in spans.items()}
    return all(
        next((record.timestamp_ms for record in read_spans(log, {where: span})), kept_since_ms)
        >= kept_since_ms
        for where, span in behind.items()
    )


def _begins(key: bytes, parts: Sequence[str]) -> bool:
    """Whether the first parts of a key are these, as people write them: 7 means the number and the text. A key that is one text
    begins with the one part."""
    if not parts:
        return True
    decoded = records.key_json(key)
    if isinstance(decoded, str):
        return len(parts) == 1 and decoded.startswith(parts[0])
    return isinstance(decoded, list) and [str(part) for part in decoded[: len(parts)]] == list(parts)


def _where(log: Log, name: str, parts: Sequence[str]) -> list[TopicPartition]:
    """The partitions that can hold the keys: one, where the parts given are enough to choose it."""
    wheres = all_partitions(log, name)
    spec = known_topics(log, codec).get(name) if len(wheres) > 1 and parts else None
    if spec is None or not _chooses(spec, len(parts)):
        return wheres
    return [wheres[partition_for(encode_key(tuple(parts[: len(spec.task_key)])), len(wheres))]]


def _chooses(spec: TopicSpec, given: int) -> bool:
    """Whether so many leading parts of the key are the whole task key, and text, which needs no guess at its type."""
    if spec.by_writer:
        return False
    size = len(spec.task_key)
    return (
        0 < size <= given
        and spec.key[:size] == spec.task_key
        and all(
            _shape_at(message, path) in (_TEXT, None) for message in spec.messages for path in spec.task_key
        )
    )


def _shape_at(message: type, path: str) -> Shape | None:
    """None of what the message does not say itself, but is the same in all of its kind: the end of an input is of no one symbol."""
    shape: Shape | None = shape_of(message)
    for name in path.split("."):
        assert isinstance(shape, RecordShape)
        shape = next((field.shape for field in shape.fields if field.name == name), None)
    return shape
