"""`qmtl service`: what operators do with a service; of the DAG Manager, each family of verbs is a module of `dagmanager/`."""

from __future__ import annotations

import click

from qmtl.interfaces.cli.dagmanager.audit import audit, history
from qmtl.interfaces.cli.dagmanager.commands import gc, redo_diff, retire, weight
from qmtl.interfaces.cli.dagmanager.context import context
from qmtl.interfaces.cli.dagmanager.diff import diff
from qmtl.interfaces.cli.dagmanager.edges import edges
from qmtl.interfaces.cli.dagmanager.ping import ping
from qmtl.interfaces.cli.dagmanager.queues import queue_stats
from qmtl.interfaces.cli.dagmanager.ready import queues
from qmtl.interfaces.cli.dagmanager.release import release
from qmtl.interfaces.cli.dagmanager.retention import retention
from qmtl.interfaces.cli.dagmanager.schema import export_schema, init
from qmtl.interfaces.cli.dagmanager.server import server
from qmtl.interfaces.cli.dagmanager.versions import sentinels


@click.group()
def service() -> None:
    """Operate a service."""


@service.group()
def dagmanager() -> None:
    """Look at the graph of shared nodes, and command its versions and topics. The program `dagmanager` is the same."""


for one in (
    ping,
    diff,
    queue_stats,
    queues,
    sentinels,
    edges,
    history,
    audit,
    redo_diff,
    weight,
    retire,
    gc,
    release,
    context,
    retention,
    init,
    export_schema,
    server,
):
    dagmanager.add_command(one)
