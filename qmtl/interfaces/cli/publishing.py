"""What `qmtl dag publish` and `qmtl strategy publish` have in common: a message becomes a version that runs, and what came of it is shown."""

from __future__ import annotations

from collections.abc import Sequence

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import F

ROW = ("name", "type", "node_id", "topic", "origin")


def weight_option(command: F) -> F:
    """`--weight PERCENT`, given to the command as `weight_bp`: basis points."""
    return click.option(
        "--weight",
        "weight_bp",
        metavar="PERCENT",
        default="100",
        show_default=True,
        callback=_share,
        help="Its share of the strategy's traffic, 0.01 to 100: less than all makes it a canary beside the version that there is.",
    )(command)


def _share(context: click.Context, parameter: click.Parameter, value: str) -> int:
    from qmtl.interfaces.cli.dagmanager.commands import basis_points

    return basis_points(value, "--weight", least=1)


def publish_message(
    message: bytes,
    world_id: str,
    context: tuple[str, str, str, str],
    weight_bp: int,
    log_address: str,
    wait_s: float,
    as_json: bool,
    code: Sequence[str] = (),
) -> None:
    """Publish a message, wait until its nodes run, and show which of them are new.

    Args:
        context: domain, as_of, partition and fingerprint; empty texts for the log's.
        weight_bp: its share of the strategy's traffic.
        code: as in `session.client`.

    Raises:
        InvalidDag, UnknownWorld, CommandRefused, NoAnswer: as `Client.submit` and `Client.deployed`.
    """
    from qmtl.foundation.contracts.dag import FULL_WEIGHT, DagSubmission
    from qmtl.interfaces.cli import session
    from qmtl.runtime.indicators.registry import TAG_QUERY
    from qmtl.services.dagmanager.admission import admit

    graph = admit(message, 0)
    with session.client(log_address, wait_s, code=code) as client:
        said = client.in_log(DagSubmission("", world_id, message, session.now_ms(), weight_bp, *context))
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
    for node in strategy.nodes:
        if node.node_type == TAG_QUERY and node.node_id in known and not node.dependencies:
            render.note(
                f"nobody answers the tag query {node.name!r} yet: it and what reads it are silent until a node has its tags at its interval"
            )
    if as_json:
        facts = {
            "submission_id": outcome.submission_id,
            "world_id": world_id,
            "strategy_id": strategy.strategy_id,
            "sentinel_id": mine.sentinel_id,
            "traffic_weight": weight,
            "status": strategy.status.value,
            "nodes": [dict(zip(ROW, row, strict=True)) for row in rows],
        }
        render.json_line(facts)
        return
    title = f"strategy {strategy.strategy_id} {mine.version} is {strategy.status.value} in world {world_id}"
    render.table(ROW, rows, title=title)
    render.line(f"version {mine.sentinel_id}")
    if is_canary:
        render.line(f"it is a canary with {weight / 100:g} % of the traffic")
        render.line(f"next: qmtl service dagmanager weight --sentinel {mine.sentinel_id} --percent 50")
        return
    render.line(
        f"next: qmtl world activation set {world_id} --strategy {strategy.strategy_id} --side long --active true"
    )
