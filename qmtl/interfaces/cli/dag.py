"""`qmtl dag`: publish strategies as DAG messages and look at what is deployed."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.graph import show
from qmtl.interfaces.cli.options import context_options, format_option, log_option, looking, wait_option
from qmtl.interfaces.cli.publishing import publish_message, weight_option


@click.group()
def dag() -> None:
    """Publish and inspect strategy graphs."""


@dag.command("publish")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--world", "world_id", required=True, help="The world to deploy in.")
@context_options
@weight_option
@log_option
@wait_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(
    file: Path,
    world_id: str,
    execution_domain: str,
    as_of: str,
    partition: str,
    dataset_fingerprint: str,
    weight_bp: int,
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Publish the DAG message in FILE to a world, and wait until its nodes run.

    The message is checked here first: nothing is published that the DAG Manager would refuse. The first version of a strategy has all of
    its traffic, whatever its --weight. What is deployed first on a log says the context in which all of it computes: --domain, and for a
    backtest or dry run --as-of. A message for another context, or one that lacks any of this, is taken in safe mode: nothing is deployed.
    """
    from qmtl.interfaces.cli.dag_file import read_dag

    context = (execution_domain, as_of, partition, dataset_fingerprint)
    publish_message(read_dag(file), world_id, context, weight_bp, log_address, wait_s, as_json)


@dag.command("list")
@log_option
@format_option
def list_strategies(log_address: str, as_json: bool) -> None:
    """List the deployed strategies of all worlds, with their nodes in error (`qmtl dag show` says why); with --format json each is one line."""
    from qmtl.engine.view import TableView
    from qmtl.foundation.contracts.node import NodeStatus
    from qmtl.foundation.wire.registry import codec

    with looking(log_address) as opened:
        found = TableView(opened, "dag.strategies", codec).refresh().rows()
        states = TableView(opened, "node.state", codec).refresh().rows()
    broken = {one.node_id for one in states if one.status is NodeStatus.ERROR}
    heads = ("world", "strategy", "version", "status", "nodes", "sentinel", "errors")
    rows = [
        (
            row.world_id,
            row.strategy_id,
            row.version,
            row.status.value,
            len(row.nodes),
            row.sentinel_id,
            [node.name for node in row.nodes if node.node_id in broken],
        )
        for row in found
    ]
    if as_json:
        for row in rows:
            render.json_line(dict(zip(heads, row, strict=True)))
        return
    shown = [(*row[:-1], ", ".join(row[-1]) or "-") for row in rows]
    render.table(heads, shown, title="strategies")


dag.add_command(show)
