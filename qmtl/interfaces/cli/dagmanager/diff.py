"""`qmtl service dagmanager diff`: what publishing a strategy would do to the graph, without doing it."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import context_options, format_option, log_option

COLUMNS = ("name", "node_id", "topic", "origin")


@click.command("diff")
@click.option(
    "--file",
    type=click.Path(path_type=Path),
    required=True,
    help="A DAG message, as `qmtl dag publish` takes it.",
)
@click.option(
    "--world",
    "world_id",
    default="",
    help="The world in which it would be published; by default the one of the log's context.",
)
@context_options
@log_option
@format_option
def diff(
    file: Path,
    world_id: str,
    execution_domain: str,
    as_of: str,
    partition: str,
    dataset_fingerprint: str,
    log_address: str,
    as_json: bool,
) -> None:
    """Tell which nodes of a DAG message are there, and the topic that each has or would get.

    It is a question to the DAG Manager, which changes nothing of the graph: no topic is made, and a log without the topics of QMTL is refused.
    A message that would be refused is refused here with the same reasons, and one that would be in safe mode is told so: it is asked in
    the context in which `qmtl dag publish` with the same options publishes it. Without a world, said or the log's, it is in safe mode.

    On an embedded log the DAG Manager runs in this command, and takes what waits for it before the question: submissions that nobody has
    decided on are decided. Their topics are made by whoever runs the topic admin, which this command does not.
    """
    from dataclasses import replace

    from qmtl.foundation.contracts.diff import DiffRequest, NodeOrigin
    from qmtl.interfaces.cli import session
    from qmtl.interfaces.cli.dag_file import read_dag
    from qmtl.interfaces.diffs import diff_id
    from qmtl.services.dagmanager.admission import admit

    message = read_dag(file)
    graph = admit(message, 0)
    with session.asking(log_address) as client:
        world_id = client.world_meant(world_id)
        context = (world_id, execution_domain, as_of, partition, dataset_fingerprint)
        request = client.in_log(DiffRequest("", graph.strategy_id, message, session.now_ms(), *context))
        found = client.diff(replace(request, request_id=diff_id(request)))
    if not world_id:
        render.note(
            "note: no world was named, and the log has no context that names one: --world WORLD (`qmtl world list`)"
        )
    rows = [(one.name, one.node_id, one.topic, one.origin.value) for one in found.nodes]
    if as_json:
        facts = {
            "request_id": found.request_id,
            "world_id": world_id,
            "strategy_id": graph.strategy_id,
            "version": found.version,
            "sentinel_id": found.sentinel_id,
            "safe_mode": found.safe_mode,
            "may_reuse": found.may_reuse,
            "nodes": [dict(zip(COLUMNS, row, strict=True)) for row in rows],
        }
        render.json_line(facts)
        return
    new = sum(one.origin is NodeOrigin.NEW for one in found.nodes)
    render.table(
        COLUMNS,
        rows,
        title=f"strategy {graph.strategy_id} {found.version}: {new} of {len(rows)} nodes get a new topic",
    )
    if found.safe_mode:
        render.line(
            f"safe mode ({found.safe_mode}): no version is named, and nothing computed before may be used"
        )
    else:
        render.line(f"version {found.sentinel_id}")
