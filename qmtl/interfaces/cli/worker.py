"""`qmtl worker`: run one processor as a process of its own."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.accept import accept
from qmtl.interfaces.cli.options import log_option

DEFAULT_STATE_DIR = Path(".qmtl/worker")


@click.group()
def worker() -> None:
    """Run processors."""


@worker.command("run")
@click.argument("name")
@log_option
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_STATE_DIR,
    show_default=True,
    help="Where local stores lie; may be deleted at any time.",
)
@click.option(
    "--slot", default="0", show_default=True, help="Names this worker among those of the same processor."
)
@click.option(
    "--poll-records",
    type=click.IntRange(1, 1_000_000),
    default=None,
    help="Records per batch; changes no result.",
)
def run_worker(name: str, log_address: str, state_dir: Path, slot: str, poll_records: int | None) -> None:
    """Run the processor NAME until SIGTERM or Ctrl-C; what is in flight is finished first."""
    run_processor(name, log_address, state_dir, slot, poll_records)


def run_processor(
    name: str, address: str, state_dir: Path, slot: str = "0", poll_records: int | None = None
) -> None:
    """Open the log, join the group and step until a signal comes."""
    from qmtl.bootstrap import make_workers, open_log, prepare
    from qmtl.engine.task import POLL_RECORDS, TaskSettings
    from qmtl.engine.worker import run
    from qmtl.interfaces.cli.restoring import on_stderr
    from qmtl.topology import stage

    stage(name)  # a wrong name is told before a broker is asked for
    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log = open_log(address)
    try:
        prepare(log)
        settings = TaskSettings(state_dir / "tasks", poll_records or POLL_RECORDS, on_restore=on_stderr())
        workers = make_workers(log, settings, [name], slot)
        render.note(f"worker {name} slot {slot} runs on {address}")
        try:
            run(workers, lambda: stopping)
        finally:
            for one in workers:
                one.close()
    finally:
        log.close()
    render.note(f"worker {name} slot {slot} drained")


worker.add_command(accept)


@worker.command("list")
def list_workers() -> None:
    """List the processors that can be run."""
    from qmtl.topology import PROTOTYPES, TOPOLOGY

    for stage, one in zip(TOPOLOGY, PROTOTYPES, strict=True):
        render.columns((one.name, stage.about), (14,))
