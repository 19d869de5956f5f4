"""`server`: the DAG Manager, the topic admin beside it and a clock in one process, by a configuration file or with nothing at all."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from qmtl.interfaces.cli import render, session

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log

NAMES: Final = ("dagmanager", "topicadmin")


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="A YAML file; its section `dagmanager`, or all of it where it has no sections, says all there is to say.",
)
def server(file: Path | None) -> None:
    """Run the DAG Manager, the topic admin and a clock until SIGTERM or Ctrl-C.

    Without a kafka_dsn they run on an embedded log: in the state_dir, or else in a temporary directory that is gone with the server. While it
    runs no other process can write to such a log: it is for looking and for tests. `qmtl project init` installs a sample with every key.
    """
    from qmtl.bootstrap import broker_load_of
    from qmtl.engine.log.kafka_settings import DEFAULTS
    from qmtl.engine.task import TaskSettings
    from qmtl.interfaces.cli.restoring import on_stderr
    from qmtl.interfaces.cli.worker import Ticking, run_processors
    from qmtl.interfaces.server_config import ServerConfig, read_config

    config = ServerConfig() if file is None else read_config(file)
    if config.unused:
        render.note(
            f"{', '.join(config.unused)}: not used, there is no graph database; the graph lies on the log"
        )
    load = broker_load_of(config.broker_load_url, config.broker_capacity_per_s)
    with ExitStack() as open_now:
        if config.state_dir is None:
            state_dir = Path(open_now.enter_context(tempfile.TemporaryDirectory(prefix="qmtl-server-")))
            render.note(f"stores lie in {state_dir} and go with this server")
        else:
            state_dir = Path(config.state_dir)
        metrics = None if config.metrics_port is None else (config.metrics_host, config.metrics_port)
        settings = TaskSettings(state_dir / "tasks", on_restore=on_stderr())
        days = config.keep_days
        run_processors(
            NAMES,
            config.address(state_dir),
            DEFAULTS,
            settings,
            config.slot,
            metrics,
            load,
            config.archive,
            None if days is None else partial(say_retention, days=days),
            Ticking(config.tick_s, f"server-{config.slot}", is_needed=False) if config.tick_s else None,
        )


def say_retention(log: Log, days: int) -> None:
    """Say on a log how long rows stay that nobody needs any more, unless it was said, or lies there to be heard."""
    from qmtl.foundation.contracts.retention import SetRetention
    from qmtl.foundation.wire.topics import DAY_MS
    from qmtl.interfaces.client import Client
    from qmtl.services.dagmanager.expiry import KEEP_DAYS, RETENTION

    client = Client(log, [])
    row = client.view("dag.pace").get(RETENTION)
    if days == (KEEP_DAYS if row is None else row.keep_ms // DAY_MS):
        return
    client.send_dag_command(SetRetention(client.next_command_id("retention", days), days, session.now_ms()))
