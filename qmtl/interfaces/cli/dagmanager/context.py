"""`context`: in which context all nodes compute, and what was found to be of another one."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render, session
from qmtl.interfaces.cli.options import format_option, log_option, looking, wait_option

if TYPE_CHECKING:
    from qmtl.foundation.contracts.dag import DagCommandOutcome


@click.group()
def context() -> None:
    """In which context all nodes of a log compute: of what data, in which domain, for one world or for all.

    What a node keeps belongs to the context in which it was computed. In another one nothing of it is used: it is dropped, counted, and the
    node begins anew; and no version gets more traffic until somebody has looked at it.
    """


@context.command("show")
@log_option
@format_option
def show(log_address: str, as_json: bool) -> None:
    """The context, since when it holds, and how many nodes had kept something of another one."""
    from qmtl.engine.view import TableView
    from qmtl.foundation.contracts.context import THE_CONTEXT
    from qmtl.foundation.wire.registry import codec

    with looking(log_address) as log:
        row = TableView(log, "dag.context", codec).refresh().get(THE_CONTEXT)
    if as_json:
        render.json_line(None if row is None else asdict(row) | {"uncleared": row.uncleared})
        return
    if row is None:
        render.line("No context was said: what is deployed first (`qmtl dag publish --domain`) says it.")
        return
    said = row.context
    render.table(
        ("WORLD", "SHARED", "DOMAIN", "AS OF", "PARTITION", "FINGERPRINT", "SINCE", "HITS", "UNCLEARED"),
        [
            (
                said.world_id,
                "yes" if said.shared_worlds else "no",
                said.execution_domain.value,
                said.as_of or "-",
                said.partition or "-",
                said.dataset_fingerprint or "-",
                render.instant(row.since_ms),
                sum(row.hits),
                row.uncleared,
            )
        ],
    )


@context.command("set")
@click.option("--world", "world_id", default="", help="The world that has the log for its own.")
@click.option(
    "--shared-worlds",
    is_flag=True,
    help="Strategies of all worlds share what is computed; instead of --world.",
)
@click.option(
    "--domain", required=True, help="backtest, dryrun, live, shadow, or a mode that stands for one."
)
@click.option("--as-of", default="", help="The state of the dataset; a backtest or dry run needs one.")
@click.option("--partition", default="", help="A tenant, strategy or portfolio within the world.")
@click.option("--fingerprint", default="", help="Of the very data behind --as-of.")
@log_option
@wait_option
@format_option
def set_context(
    world_id: str,
    shared_worlds: bool,
    domain: str,
    as_of: str,
    partition: str,
    fingerprint: str,
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Let all nodes compute in this context from now on, for the strategies of one world, or of all."""
    from qmtl.foundation.contracts.context import SetComputeContext

    if bool(world_id) is shared_worlds:
        raise UsageError(
            "one of --world and --shared-worlds is required.",
            "Name the world whose own the log is, or let all of them share what is computed.",
        )
    parts = (world_id, domain, as_of, partition, fingerprint)
    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("context", *parts)
        said = SetComputeContext(
            wish, world_id, domain, session.now_ms(), as_of, partition, fingerprint, shared_worlds
        )
        _tell(client.dag_command(said), as_json)


@context.command("clear")
@click.option("--reason", required=True, help="What the cause was.")
@log_option
@wait_option
@format_option
def clear(reason: str, log_address: str, wait_s: float, as_json: bool) -> None:
    """Say that the cross-context hits until now were looked at: they hold up no promotion any more."""
    from qmtl.foundation.contracts.context import ClearContextHits

    with session.client(log_address, wait_s) as client:
        wish = client.next_command_id("clear-context", reason)
        _tell(client.dag_command(ClearContextHits(wish, reason, session.now_ms())), as_json)


def _tell(outcome: DagCommandOutcome, as_json: bool) -> None:
    if as_json:
        render.json_line({"command_id": outcome.command_id, "detail": outcome.detail})
    else:
        render.line(outcome.detail)
