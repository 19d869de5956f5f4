"""`qmtl worker accept`: an operator's decision that a task goes on from what the log is now."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import log_option

if TYPE_CHECKING:
    from qmtl.engine.incarnation import Finding

TOPIC = "ops.acceptances"


@click.command("accept")
@click.argument("name")
@click.option("--task", "number", type=click.IntRange(0), required=True, help="Which task of the processor.")
@log_option
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="The state directory of the worker that refuses; it may run, as the refused task is closed there.",
)
@click.option("--reason", required=True, help="Why; it is written to the log.")
@click.option("--by", default=None, help="Who decides; by default the user of this machine.")
def accept(name: str, number: int, log_address: str, state_dir: Path, reason: str, by: str | None) -> None:
    """Let a task of the processor NAME go on from what the log is now.

    A task stays closed when its log is shorter than it was, was made anew, has lost records that were still to be read, or
    when somebody moved the group's positions. This rebuilds its state from what is there, writes down who decided and why
    (topic ops.acceptances), and lets the worker with this state directory begin there: one that runs within 30 seconds. If the
    log changes again before that, the decision is void.
    """
    from qmtl.bootstrap import open_log, prepare
    from qmtl.engine.task import Task, TaskSettings
    from qmtl.foundation.contracts.control import Acceptance
    from qmtl.foundation.wire.keys import encode_key
    from qmtl.foundation.wire.registry import codec
    from qmtl.foundation.wire.topics import topic
    from qmtl.interfaces.cli.restoring import on_stderr
    from qmtl.topology import NOWHERE, stage

    if not reason.strip():
        raise UsageError("--reason was empty; it says why.", "Say it in a few words.")
    who = by or getpass.getuser()
    chosen = stage(name)
    log = open_log(log_address)
    try:
        prepare(log)
        processor = chosen.make(NOWHERE)
        described = log.describe(processor.anchor)
        if described is not None and number >= described.partitions:
            raise UsageError(
                f"--task was {number}; {name} has {described.partitions} tasks, from 0 on.",
                "Name one of them.",
            )
        # A writer of the slot would fence a worker that runs; this one only adds a record.
        writer = log.writer(f"qmtl.accept.{name}.{number}")

        def record(findings: Sequence[Finding]) -> None:
            message = Acceptance(name, number, who, reason, log.now_ms(), tuple(map(str, findings)))
            writer.begin()
            writer.append(TOPIC, 0, encode_key(topic(TOPIC).key_of(message)), codec.encode(message))
            writer.commit({}, "", None)

        task = None
        try:
            settings = TaskSettings(state_dir / "tasks", on_restore=on_stderr())
            task = Task(log, processor, number, codec, settings)
            found = task.accept(who, reason, record)
        finally:
            if task is not None:
                task.close()
            writer.close()
    finally:
        log.close()
    if not found:
        render.line(f"{name}[{number}]: the log is the one that the task knows; there is nothing to accept.")
        return
    for one in found:
        render.line(f"accepted: {one}")
    render.line(
        f"{name}[{number}] goes on from there with `qmtl worker run {name}`, by itself where that runs."
    )
