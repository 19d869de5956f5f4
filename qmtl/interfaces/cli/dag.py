"""`qmtl dag`: publish strategies as DAG messages and look at what is deployed."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import context_options, format_option, log_option, looking


@click.group()
def dag() -> None:
    """Publish and inspect strategy graphs."""


@dag.command("publish")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--world", "world_id", required=True, help="The world to deploy in.")
@context_options
@click.option(
    "--weight",
    "percent",
    metavar="PERCENT",
    default="100",
    show_default=True,
    help="Its share of the strategy's traffic, 0.01 to 100: less than all makes it a canary beside the version that there is.",
)
@log_option
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0.1, 3600),
    default=30.0,
    show_default=True,
    help="Seconds to wait for answers.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def publish(
    file: Path,
    world_id: str,
    execution_domain: str,
    as_of: str,
    partition: str,
    dataset_fingerprint: str,
    percent: str,
    log_address: str,
    wait_s: float,
    as_json: bool,
) -> None:
    """Publish the DAG message in FILE to a world, and wait until its nodes run.

    The message is checked here first: nothing is published that the DAG Manager would refuse. The first version of a strategy has all of
    its traffic, whatever its --weight. What is deployed first on a log says the context in which all of it computes: --domain, and for a
    backtest or dry run --as-of. A message for another context, or one that lacks any of this, is taken in safe mode: nothing is deployed.
    """
    from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission
    from qmtl.interfaces.cli import session
    from qmtl.interfaces.cli.dag_file import read_dag
    from qmtl.interfaces.cli.dagmanager.commands import basis_points
    from qmtl.services.dagmanager.admission import admit

    share = basis_points(percent, "--weight", least=1)
    message = read_dag(file)
    graph = admit(message, 0)
    with session.client(log_address, wait_s) as client:
        context = (execution_domain, as_of, partition, dataset_fingerprint)
        said = client.in_log(DagSubmission("", world_id, message, session.now_ms(), share, *context))
        outcome = client.submit(client.named(said, graph.strategy_id))
        strategy = client.deployed(outcome)
    is_canary = strategy.sentinel_id != outcome.sentinel_id
    mine = strategy.canary if is_canary and strategy.canary is not None else strategy
    weight = 0 if strategy.canary is None else strategy.canary.traffic_weight
    weight = weight if is_canary else FULL_WEIGHT - weight
    known = (
        dict.fromkeys(outcome.new_nodes, "new")
        | dict.fromkeys(outcome.reused_nodes, "reused")
        | dict.fromkeys(outcome.buffering_nodes, "buffering")
    )
    rows = [
        (node.name, node.node_type, node.node_id, node.topic, known[node.node_id])
        for node in strategy.nodes
        if node.node_id in known
    ]
    if as_json:
        facts = {
            "submission_id": outcome.submission_id,
            "world_id": world_id,
            "strategy_id": strategy.strategy_id,
            "sentinel_id": mine.sentinel_id,
            "traffic_weight": weight,
            "status": strategy.status.value,
            "nodes": [
                dict(zip(("name", "type", "node_id", "topic", "origin"), row, strict=True)) for row in rows
            ],
        }
        render.json_line(facts)
        return
    title = f"strategy {strategy.strategy_id} {mine.version} is {strategy.status.value} in world {world_id}"
    render.table(("name", "type", "node_id", "topic", "origin"), rows, title=title)
    render.line(f"version {mine.sentinel_id}")
    if is_canary:
        render.line(f"it is a canary with {weight / 100:g} % of the traffic")
        render.line(f"next: qmtl service dagmanager weight --sentinel {mine.sentinel_id} --percent 50")
        return
    render.line(
        f"next: qmtl world activation set {world_id} --strategy {strategy.strategy_id} --side long --active true"
    )


@dag.command("list")
@log_option
@format_option
def list_strategies(log_address: str, as_json: bool) -> None:
    """List the deployed strategies of all worlds; with --format json each is one line."""
    from qmtl.engine.view import TableView
    from qmtl.foundation.wire.registry import codec

    with looking(log_address) as opened:
        found = TableView(opened, "dag.strategies", codec).refresh().rows()
    heads = ("world", "strategy", "version", "status", "nodes", "sentinel")
    rows = [
        (row.world_id, row.strategy_id, row.version, row.status.value, len(row.nodes), row.sentinel_id)
        for row in found
    ]
    if as_json:
        for row in rows:
            render.json_line(dict(zip(heads, row, strict=True)))
        return
    render.table(heads, rows, title="strategies")
