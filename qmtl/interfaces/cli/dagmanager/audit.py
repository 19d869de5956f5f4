"""`audit` and `history`: what the DAG Manager did, and which topics there were at an instant, out of its admin log."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import click

from qmtl.foundation.common.errors import LogUnreachable, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, instant, log_option, looking, rows_options
from qmtl.interfaces.cli.signals import stopped

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log, Record
    from qmtl.foundation.contracts.dag import AdminEntry
    from qmtl.interfaces.audit_traces import Diff, Following

ADMIN_LOG: Final = "dag.admin.log"

_LOOK_S: Final = 0.2


@click.command()
@click.option("--subject", help="Only what was done to this topic, version, command, … .")
@click.option(
    "--otlp", is_flag=True, help="Show the diffs as OpenTelemetry spans, one OTLP request in JSON per line."
)
@click.option(
    "--follow",
    is_flag=True,
    help="With --otlp: the diffs from now on, each as it comes, until Ctrl-C or SIGTERM; --limit is not for them.",
)
@click.option(
    "--from",
    "start",
    type=click.IntRange(min=0),
    metavar="OFFSET",
    help="With --otlp: the diffs from this offset of the admin log on.",
)
@rows_options
@log_option
@format_option
def audit(
    subject: str | None,
    otlp: bool,
    follow: bool,
    start: int | None,
    limit: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The newest lines of the admin log, oldest of them first.

    AT is by the record that a line came from, WRITTEN when it came onto the log. With --otlp there is a line per diff, for a collector of
    traces; a trace's id follows from the id of the request, so what is sent there twice is one span. A span begins when the request came
    onto the log. Its attribute qmtl.audit.offset is the place of its last line: go on with --from and the number after it, or with the one that is
    told on stderr when --follow ends.
    """
    if (follow or start is not None) and not otlp:
        raise UsageError(
            f"{'--follow' if follow else '--from'} was given without --otlp.",
            "Give both; `qmtl topic read dag.admin.log` reads the lines from an offset on.",
        )
    newest: deque[tuple[Record, AdminEntry]] = deque(maxlen=limit)
    count = 0
    with looking(log_address) as log:
        if follow:
            _follow(log, start, subject)
            return
        if otlp:
            _show_spans(log, start or 0, subject, limit)
            return
        for record, entry in _entries(log):
            if subject in (None, entry.subject):
                newest.append((record, entry))
                count += 1
    if as_json:
        for record, entry in newest:
            render.json_line(
                {
                    "offset": record.offset,
                    "timestamp_ms": record.timestamp_ms,
                    "at_ms": entry.at_ms,
                    "act": entry.act,
                    "subject": entry.subject,
                    "node_id": entry.node_id,
                    "cause": entry.cause,
                    "detail": entry.detail,
                    "digest": entry.digest,
                }
            )
    else:
        render.table(
            ("OFFSET", "WRITTEN", "AT", "ACT", "SUBJECT", "CAUSE", "DETAIL"),
            [
                (
                    record.offset,
                    render.instant(record.timestamp_ms),
                    render.instant(entry.at_ms),
                    entry.act.value,
                    entry.subject,
                    entry.cause,
                    entry.detail,
                )
                for record, entry in newest
            ],
            numbers=("OFFSET",),
        )
    render.left_off(len(newest), count, "lines", as_json=as_json, newest=True)


def _show_spans(log: Log, start: int, subject: str | None, limit: int | None) -> None:
    from qmtl.interfaces.audit_traces import Arrivals, diffs, export

    mine = (
        (record, entry)
        for record, entry in _entries(log)
        if record.offset >= start and subject in (None, entry.subject)
    )
    newest: deque[Diff] = deque(maxlen=limit)
    count = 0
    for one in diffs(mine):
        newest.append(one)
        count += 1
    if newest:
        arrivals = Arrivals(log, newest[0].asked[0].timestamp_ms)
        try:
            arrivals.look()
        finally:
            arrivals.close()
        for one in newest:
            render.json_line(export(one, arrivals.of(one)))
    render.left_off(len(newest), count, "diffs", as_json=True, newest=True)


def _follow(log: Log, start: int | None, subject: str | None) -> None:
    from qmtl.interfaces.audit_traces import Following

    with stopped() as enough:
        following = Following(log, start, subject)
        try:
            render.note(f"diffs from offset {following.next_offset} on")
            follow_on(following, enough)
        finally:
            following.close()
            render.note(f"go on with --from {following.next_offset}")


def follow_on(following: Following, enough: Callable[[], bool]) -> None:
    """A line per diff as it comes, until it is enough; a log that does not answer for a while is asked again."""
    while True:
        try:
            for one in following.poll():
                render.json_line(one)
            sys.stdout.flush()
        except LogUnreachable as error:
            render.note(error)
        if enough():
            return
        time.sleep(_LOOK_S)


@click.command()
@click.option(
    "--at", "at_ms", metavar="ISO|MS", callback=instant, help="The instant; now where none is given."
)
@rows_options
@log_option
@format_option
def history(at_ms: int | None, limit: int | None, log_address: str, as_json: bool) -> None:
    """The topics of nodes that existed at an instant, in the order of their names, by the admin log.

    Instants are those at which lines came onto the log, as with `qmtl state --until-time`. A topic is there from the line that says it was
    created until the one that says it was removed.
    """
    until_ms = int(time.time() * 1000) if at_ms is None else at_ms
    with looking(log_address) as log:
        there = topics_at(log, until_ms)
    shown = sorted(there.items())[:limit]
    if as_json:
        for topic, (since_ms, entry) in shown:
            render.json_line({"topic": topic, "node_id": entry.node_id, "since_ms": since_ms})
    else:
        render.table(
            ("TOPIC", "SINCE", "NODE"),
            [(topic, render.instant(since_ms), entry.node_id) for topic, (since_ms, entry) in shown],
        )
    render.left_off(len(shown), len(there), "topics", as_json=as_json)


def topics_at(log: Log, until_ms: int) -> dict[str, tuple[int, AdminEntry]]:
    """The topics that existed before anything that was written at or after an instant: since when, and the line that says so."""
    from qmtl.foundation.contracts.dag import AdminAct

    there: dict[str, tuple[int, AdminEntry]] = {}
    for record, entry in _entries(log, until_ms):
        if entry.act is AdminAct.CREATED:
            there[entry.subject] = (record.timestamp_ms, entry)
        elif entry.act is AdminAct.REMOVED:
            there.pop(entry.subject, None)
    return there


def _entries(log: Log, until_ms: int | None = None) -> Iterator[tuple[Record, AdminEntry]]:
    """The lines of the admin log in order, those before the first that was written at or after an instant."""
    from qmtl.engine.view import all_partitions
    from qmtl.foundation.wire.keys import is_reserved
    from qmtl.foundation.wire.registry import codec
    from qmtl.replay.span import read_spans, spans_of

    wheres = all_partitions(log, ADMIN_LOG)
    spans = spans_of(log, wheres)
    if until_ms is not None:
        cut = log.offsets_at_time(wheres, until_ms)
        spans = {where: (begin, min(end, cut[where])) for where, (begin, end) in spans.items()}
    for record in read_spans(log, spans):
        if record.value is not None and not is_reserved(record.key):
            yield record, codec.decode(record.value)
