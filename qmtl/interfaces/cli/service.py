"""`qmtl service`: ask a service, by its name."""

from __future__ import annotations

import click

from qmtl.interfaces.cli.dagmanager_diff import diff


@click.group()
def service() -> None:
    """Ask the services of a log."""


@service.group()
def dagmanager() -> None:
    """Ask the DAG Manager."""


dagmanager.add_command(diff)
