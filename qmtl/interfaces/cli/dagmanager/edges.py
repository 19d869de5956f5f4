"""`edges`: the relationships of the graph, from either end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import click

from qmtl.foundation.common.errors import UnknownId, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option, log_option, looking, rows_options

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log
    from qmtl.foundation.contracts.dag import Edge

RELATIONS: Final = ("EMITS", "HAS", "USED_BY")
HOLDERS: Final = ("dag.nodes", "dag.queues", "dag.sentinels", "dag.artifacts")
"""The tables whose keys are the ends of edges."""


@click.command()
@click.option(
    "--from",
    "source",
    metavar="ID",
    help="Those that begin here: at a version (HAS), a node (EMITS) or the checksum of an artifact (USED_BY).",
)
@click.option(
    "--to", "target", metavar="ID", help="Those that end here: at a node (HAS, USED_BY) or a topic (EMITS)."
)
@click.option(
    "--relation",
    "relations",
    multiple=True,
    type=click.Choice(RELATIONS, case_sensitive=False),
    help="Only those of this relation; may be repeated.",
)
@rows_options
@log_option
@format_option
def edges(
    source: str | None,
    target: str | None,
    relations: tuple[str, ...],
    limit: int | None,
    log_address: str,
    as_json: bool,
) -> None:
    """The relationships of one thing in the graph, in the order of their relation and their other end.

    A version HAS the nodes that it brought (`sentinels` counts all that it computes), a node EMITS to its topics, an artifact is
    USED_BY nodes. What exists and has no such relationship gives no line.
    """
    if (source is None) == (target is None):
        raise UsageError(
            f"{'neither' if source is None else 'both'} --from and --to were given; one of them is required.",
            "Give --from ID for the edges that begin there, --to ID for those that end there.",
        )
    end = str(source if target is None else target)
    with looking(log_address) as log:
        touching = ending_at(_rows(log), source, target)
        if not touching and not _is_known(log, end):
            raise UnknownId(
                f"{'--from' if target is None else '--to'} was the text {end!a:.200}; no node, topic, version or artifact has that id.",
                "`sentinels` shows ids of versions, `queue-stats --json` of nodes and topics, `qmtl state dag.artifacts` checksums.",
            )
    found = [one for one in touching if not relations or one.relation.value in relations]
    shown = found[:limit]
    if as_json:
        for one in shown:
            render.json_line({"relation": one.relation, "from": one.source, "to": one.target})
    else:
        cells = [(one.relation.value, one.source, one.target) for one in shown]
        render.table(("RELATION", "FROM", "TO"), cells)
    render.left_off(len(shown), len(found), "edges", as_json=as_json)


def ending_at(rows: Iterable[Edge], source: str | None, target: str | None) -> list[Edge]:
    """The edges between these ends, in their order; None is any end."""
    return [one for one in rows if source in (None, one.source) and target in (None, one.target)]


def _rows(log: Log) -> list[Edge]:
    """All edges in key order."""
    from qmtl.engine.view import TableView
    from qmtl.foundation.wire.registry import codec

    return TableView(log, "dag.edges", codec).refresh().rows()


def _is_known(log: Log, end: str) -> bool:
    """Whether an end that no edge has could have one."""
    from qmtl.engine.view import TableView
    from qmtl.foundation.wire.registry import codec

    return any(TableView(log, name, codec).refresh().get(end) is not None for name in HOLDERS)
