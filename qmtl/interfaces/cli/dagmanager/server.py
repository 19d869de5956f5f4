"""`server`: the DAG Manager and the topic admin beside it in one process, by a configuration file or with nothing at all."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click

from qmtl.interfaces.cli import render

NAMES: Final = ("dagmanager", "topicadmin")


@click.command()
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="A YAML file; its section `dagmanager`, or all of it where it has no sections, says all there is to say.",
)
def server(file: Path | None) -> None:
    """Run the DAG Manager and the topic admin until SIGTERM or Ctrl-C.

    Without a kafka_dsn they run on an embedded log: in the state_dir, or else in a directory that is gone with the server. `qmtl project init`
    installs a sample with every key.
    """
    from qmtl.bootstrap import broker_load_of
    from qmtl.engine.log.kafka_settings import DEFAULTS
    from qmtl.engine.task import TaskSettings
    from qmtl.interfaces.cli.restoring import on_stderr
    from qmtl.interfaces.cli.worker import run_processors
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
        run_processors(
            NAMES, config.address(state_dir), DEFAULTS, settings, config.slot, metrics, load, config.archive
        )
