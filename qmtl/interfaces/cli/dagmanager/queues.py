"""`queue-stats`: the topics of nodes, what becomes of them, and how full they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, interval_s, log_option, looking, rows_options

if TYPE_CHECKING:
    from qmtl.interfaces.dag_queues import QueueStats


@click.command("queue-stats")
@click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    help="Only queues with this tag or of this class; may be repeated.",
)
@click.option(
    "--interval",
    callback=interval_s,
    metavar="TIME",
    help="Only queues of this interval: 60, 60s, 15m, 1h, 1d.",
)
@click.option(
    "--within",
    "within_ms",
    type=click.FloatRange(1, 600_000),
    metavar="MS",
    help="Give up after so many milliseconds, counted from when the log is open.  [default: as long as it takes]",
)
@rows_options
@log_option
@format_option
def queue_stats(
    tags: tuple[str, ...],
    interval: int | None,
    within_ms: float | None,
    limit: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The queues in the order of their names, those with all of the tags: state, references, offsets, readers' lag.

    STATE is making, ready, orphaned (with the tick that found it so) or removing. REFS counts the versions that are pending or
    active and have the node. BEGIN and END are offsets, of all partitions together; they have gaps. RECORDS and BYTES (of keys
    and values, before compression) are counted for queues of at most 1,000 offsets; of others RECORDS is the most that there can
    be, and BYTES, with a ~ before it, is estimated from the newest 300. OLDER are those, of a node that is buffering, that were
    there when its schema was changed, of larger queues about so many (~). REPLICAS are those of the partition that has the fewest, on Kafka; with a ! behind it, the
    topic is to have more. LAG is that of the reader that is farthest behind, in offsets; with a ! behind it, it
    is more than BOUND, the topic's own or that of its class.
    """
    from qmtl.interfaces.dag_queues import queue_stats as measure
    from qmtl.interfaces.query_limits import Budget

    with looking(log_address) as log:
        budget = None if within_ms is None else Budget(within_ms / 1000)
        found, count = measure(log, tags, interval, limit, budget)
    if as_json:
        for one in found:
            render.json_line(as_row(one))
    else:
        render.table(
            (
                "TOPIC",
                "CLASS",
                "TAGS",
                "SECONDS",
                "STATE",
                "REFS",
                "REPLICAS",
                "BEGIN",
                "END",
                "RECORDS",
                "OLDER",
                "BYTES",
                "LAG",
                "BOUND",
            ),
            [cells(one) for one in found],
            numbers=(
                "SECONDS",
                "REFS",
                "REPLICAS",
                "BEGIN",
                "END",
                "RECORDS",
                "OLDER",
                "BYTES",
                "LAG",
                "BOUND",
            ),
        )
    render.left_off(len(found), count, "queues", as_json=as_json)
    if any(one.is_estimate for one in found):
        render.note(
            "BYTES of what has more than 1,000 offsets are estimated; on Kafka `kafka-log-dirs.sh --describe` tells what lies on disk."
        )


def as_row(one: QueueStats) -> dict[str, Any]:
    """One line of JSON; what is not known is null."""
    return {
        "topic": one.queue.topic,
        "class": one.queue.topic_class,
        "node_id": one.queue.node_id,
        "tags": one.queue.tags,
        "interval": one.queue.interval,
        "partitions": one.queue.partitions,
        "state": one.state,
        "orphaned_at_ms": one.queue.orphaned_at_ms,
        "references": one.references,
        "replicas": one.replicas,
        "replicas_wanted": one.replicas_wanted,
        "under_replicated": one.is_thin,
        "begin": one.begin,
        "end": one.end,
        "records": one.records,
        "bytes": one.bytes,
        "bytes_estimated": one.is_estimate,
        "lag": one.lag,
        "lag_alert_threshold": one.lag_bound,
        "lags": one.lags,
        "role": one.queue.role,
        "buffering_since_ms": one.buffering_since_ms,
        "older": one.older,
        "older_estimated": one.older is not None and one.is_estimate,
    }


def cells(one: QueueStats) -> tuple[object, ...]:
    """One line for people; what is not known is `-`."""
    since_ms = one.queue.orphaned_at_ms
    since = "" if since_ms is None or one.queue.removing else f" since {render.instant(since_ms)}"
    most = "-" if one.end is None or one.begin is None else f"≤{one.end - one.begin}"
    return (
        one.queue.topic,
        one.queue.topic_class.value,
        " ".join(one.queue.tags),
        one.queue.interval,
        f"{one.state.value}{since}",
        one.references,
        "-" if one.replicas is None else f"{one.replicas}!" if one.is_thin else one.replicas,
        "-" if one.begin is None else one.begin,
        "-" if one.end is None else one.end,
        most if one.records is None else one.records,
        "-" if one.older is None else f"~{one.older}" if one.is_estimate else one.older,
        "-" if one.bytes is None else f"~{one.bytes}" if one.is_estimate else one.bytes,
        "-" if one.lag is None else f"{one.lag}!" if one.lags else one.lag,
        one.lag_bound,
    )
