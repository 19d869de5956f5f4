"""`retention`: how long rows stay that nobody needs any more, and what of the DAG Manager's tables lies on the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from qmtl.interfaces.cli import render, session
from qmtl.interfaces.cli.options import format_option, log_option, looking, wait_option

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log
    from qmtl.foundation.contracts.retention import Retention


@click.group()
def retention() -> None:
    """How long rows stay that nobody needs any more: of nodes and artifacts, and what was decided on submissions and commands."""


@retention.command("set")
@click.option(
    "--days", type=int, required=True, help="Of the log's clock, 2 to 3650; 30 where nobody has said it."
)
@log_option
@wait_option
@format_option
def set_retention(days: int, log_address: str, wait_s: float, as_json: bool) -> None:
    """Keep such rows for so many days from now on, those too whose time runs already."""
    from qmtl.foundation.contracts.retention import SetRetention

    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("retention", days)
        outcome = client.dag_command(SetRetention(wish, days, session.now_ms()))
    if as_json:
        render.json_line({"command_id": outcome.command_id, "detail": outcome.detail})
    else:
        render.line(outcome.detail)


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table of the DAG Manager.

    Attributes:
        rows: what is there.
        unneeded: of these, what goes by itself once its time is over; None where nothing does.
        offsets: of its topic, from the first that is kept to the end: what the cleaner has not taken yet is in the difference to the rows.
    """

    table: str
    rows: int
    unneeded: int | None
    offsets: int


@retention.command("show")
@log_option
@format_option
def show(log_address: str, as_json: bool) -> None:
    """How long they stay, and of each table how many rows there are, how many go by themselves, and how much of it lies on the log.

    OFFSETS counts what the topic of a table spans, deleted rows and older versions of rows included: Kafka's cleaner takes them, and an
    embedded log when it is opened.
    """
    from qmtl.engine.view import TableView
    from qmtl.foundation.wire.registry import codec
    from qmtl.foundation.wire.topics import DAY_MS
    from qmtl.services.dagmanager.expiry import KEEP_DAYS, RETENTION

    with looking(log_address) as log:
        row: Retention | None = TableView(log, "dag.pace", codec).refresh().get(RETENTION)
        sizes = list(_sizes(log))
    days = KEEP_DAYS if row is None else row.keep_ms // DAY_MS
    until_ms = row.forgotten_until_ms if row is not None else 0
    if as_json:
        render.json_line(
            {
                "keep_days": days,
                "forgotten_until_ms": until_ms or None,
                "tables": [asdict(one) for one in sizes],
            }
        )
        return
    render.line(f"Rows that nobody needs stay for {days} days of the log's clock.")
    if until_ms:
        render.line(f"What was decided until {render.instant(until_ms)} is forgotten.")
    cells = [
        (one.table, one.rows, "-" if one.unneeded is None else one.unneeded, one.offsets) for one in sizes
    ]
    render.table(("TABLE", "ROWS", "UNNEEDED", "OFFSETS"), cells)


def _sizes(log: Log) -> Iterator[TableSize]:
    from qmtl.engine.view import TableView, all_partitions
    from qmtl.foundation.wire.registry import codec
    from qmtl.interfaces.dag_survey import EXPIRING
    from qmtl.services.dagmanager.outcomes import TABLES
    from qmtl.services.dagmanager.processor import DagManager

    for table in sorted(DagManager.tables):
        partitions = all_partitions(log, table)
        first, end = log.begin_offsets(partitions), log.end_offsets(partitions)
        rows = TableView(log, table, codec).refresh().rows()
        unneeded = None
        if table in TABLES:
            unneeded = len(rows)
        elif table in EXPIRING:
            unneeded = sum(_is_unneeded(row) for row in rows)
        yield TableSize(table, len(rows), unneeded, sum(end.values()) - sum(first.values()))


def _is_unneeded(row: object) -> bool:
    from qmtl.foundation.contracts.dag import Artifact, ComputeNode
    from qmtl.foundation.contracts.node import DagReader

    match row:
        case ComputeNode() | Artifact():
            return row.unneeded_since_ms is not None
        case DagReader():
            return not (row.sentinels or row.behind or row.found)
        case _:
            return False
