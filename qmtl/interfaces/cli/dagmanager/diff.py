"""`qmtl service dagmanager diff`: what publishing a strategy would do to the graph, without doing it."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.foundation.common.errors import UsageError
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
@click.option("--world", "world_id", help="The world in which it would be published; required.")
@context_options
@log_option
@format_option
def diff(
    file: Path,
    world_id: str | None,
    execution_domain: str,
    as_of: str,
    partition: str,
    dataset_fingerprint: str,
    log_address: str,
    as_json: bool,
) -> None:
    """Tell which nodes of a DAG message are there, and the topic that each has or would get.

    Nothing of the graph is changed and no topic is made. A message that would be refused is refused here with the same reasons, and one
    that would be in safe mode is told so: it is asked in the context in which `qmtl dag publish` with the same options publishes it.
    """
    from dataclasses import replace

    from qmtl.foundation.contracts.diff import DiffRequest, NodeOrigin
    from qmtl.interfaces.cli import session
    from qmtl.interfaces.cli.dag_file import read_dag
    from qmtl.interfaces.diffs import diff_id
    from qmtl.services.dagmanager.admission import admit

    if not world_id:
        raise UsageError(
            "--world was not given; what a strategy becomes is asked of a world.",
            "Name the one in which it would be published: --world WORLD (`qmtl world list` shows what there is).",
        )
    message = read_dag(file)
    graph = admit(message, 0)
    context = (world_id, execution_domain, as_of, partition, dataset_fingerprint)
    with session.client(log_address) as client:
        request = client.in_log(DiffRequest("", graph.strategy_id, message, session.now_ms(), *context))
        found = client.diff(replace(request, request_id=diff_id(request)))
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
