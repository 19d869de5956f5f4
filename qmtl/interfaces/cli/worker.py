"""`qmtl worker`: run one processor as a process of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from qmtl.engine.log.kafka_settings import DEFAULTS, GROUP_PROTOCOLS, GroupProtocol, KafkaSettings
from qmtl.engine.log.port import GroupState, Log, TopicPartition
from qmtl.foundation.common.errors import NoArchive
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.accept import accept
from qmtl.interfaces.cli.options import format_option, log_option, reading

if TYPE_CHECKING:
    from qmtl.engine.task import TaskSettings
    from qmtl.services.dagmanager.topic_admin import BrokerLoad
    from qmtl.topology import Outside

DEFAULT_STATE_DIR = Path(".qmtl/worker")
LOOPBACK: Final = "127.0.0.1"
REMOVES: Final = "topicadmin"
"""The processor that removes topics."""
_SHOWN_POSITIONS: Final = 4


@click.group()
def worker() -> None:
    """Run processors, and see who runs them."""


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
@click.option(
    "--commit-records",
    type=click.IntRange(1, 1_000_000),
    default=None,
    help="Records per transaction at most; without it, one batch. Changes no result.",
)
@click.option(
    "--commit-interval",
    "commit_interval_ms",
    type=click.FloatRange(0, 5000),
    default=None,
    help="Milliseconds in which a transaction takes in records; it ends earlier when nothing waits, or with a bucket.",
)
@click.option(
    "--group-protocol",
    type=click.Choice(GROUP_PROTOCOLS),
    default=DEFAULTS.group_protocol,
    show_default=True,
    help="On Kafka, how workers share tasks; the same for all workers of a processor.",
)
@click.option(
    "--config-epoch",
    type=click.IntRange(1, 1_000_000),
    default=1,
    show_default=True,
    help="Count it up when another processor or task than before writes a topic, so that readers take the new writer.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Serve /metrics and /healthz on this port, 0 for any that is free; without it nothing is served.",
)
@click.option("--metrics-host", default=LOOPBACK, show_default=True, help="Where they listen.")
def run_worker(
    name: str,
    log_address: str,
    state_dir: Path,
    slot: str,
    poll_records: int | None,
    commit_records: int | None,
    commit_interval_ms: float | None,
    group_protocol: GroupProtocol,
    config_epoch: int,
    metrics_port: int | None,
    metrics_host: str,
) -> None:
    """Run the processor NAME until SIGTERM or Ctrl-C; what is in flight is finished first, a restore is left for the next start."""
    from qmtl.engine.task import COMMIT_INTERVAL_MS, POLL_RECORDS, TaskSettings
    from qmtl.interfaces.cli.restoring import on_stderr
    from qmtl.topology import stage

    stage(name)  # a wrong name is told before a broker is asked for
    settings = TaskSettings(
        state_dir / "tasks",
        poll_records or POLL_RECORDS,
        commit_records,
        COMMIT_INTERVAL_MS if commit_interval_ms is None else commit_interval_ms,
        config_epoch=config_epoch,
        on_restore=on_stderr(),
    )
    metrics = None if metrics_port is None else (metrics_host, metrics_port)
    run_processors([name], log_address, KafkaSettings(group_protocol=group_protocol), settings, slot, metrics)


def run_processors(
    names: Sequence[str],
    address: str,
    kafka: KafkaSettings,
    settings: TaskSettings,
    slot: str,
    metrics: tuple[str, int] | None,
    load: BrokerLoad | None = None,
    archive: str | None = None,
    before: Callable[[Log], None] | None = None,
) -> None:
    """Open the log, join the groups and step until a signal comes.

    Args:
        metrics: the host and port on which /metrics and /healthz are served; None for nowhere.
        load: how busy the brokers are; None for what the environment says.
        archive: URL of the store of topics that go; None for what the environment says.
        before: what is to be done on the log before anything runs.
    """
    from qmtl.bootstrap import ARCHIVE, make_workers, open_log, outside_of, prepare
    from qmtl.engine.worker import collect_seldom, run

    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log = open_log(address, settings=kafka)
    try:
        outside = outside_of(log, load, archive)
        if lacks_archive(names, outside):
            render.note(
                f"warning: no store of archives is given ({ARCHIVE}, or `archive` in a server's file): "
                f"no topic that has to be archived first is ever removed [{NoArchive.code}]"
            )
        prepare(log)
        if before is not None:
            before(log)
        with ExitStack() as open_now:
            if metrics is not None:
                from qmtl.interfaces.metrics.serve import Metrics

                shown = Metrics(names, outside)
                settings = replace(settings, observer=shown.watch)
                where = open_now.enter_context(shown.serving(log, settings.state_dir, *metrics))
                render.note(f"metrics on {where}/metrics, health on {where}/healthz")
            workers = make_workers(log, settings, names, slot, outside)
            for one in workers:
                open_now.callback(one.close)
            for name in names:
                render.note(f"worker {name} slot {slot} runs on {address}")
            collect_seldom()
            run(workers, lambda: stopping)
    finally:
        log.close()
    render.note(f"worker {name} slot {slot} drained")


def lacks_archive(names: Sequence[str], outside: Outside) -> bool:
    """Whether these processors remove topics and have nowhere to archive them before."""
    return REMOVES in names and outside.archive is None


worker.add_command(accept)


@worker.command("list")
@log_option
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Of workers on this machine: tell also which tasks they keep closed, and why.",
)
@format_option
def list_workers(log_address: str, state_dir: Path | None, as_json: bool) -> None:
    """Who runs which tasks now: the slots of every processor, their tasks, and how far those have come.

    Read from the members of the processors' groups. On an embedded log one process runs everything and tells nobody: then
    positions are shown, and STATE is unknown. POSITIONS are topic[partition]@offset, as committed. A worker that has ended stays
    listed until its session ends. With --format json every slot is one line, as is every processor that nobody runs, whose slot
    is null. That a task is refused is not on the log: a worker leaves it in its state directory, for the time that it lasts.
    """
    from qmtl.engine.refusal import noted_refusals
    from qmtl.foundation.wire.registry import codec
    from qmtl.interfaces.standing import slots
    from qmtl.topology import PROTOTYPES

    with reading(log_address) as log:
        found = slots(log, PROTOTYPES, codec)
    refused = {} if state_dir is None else noted_refusals(state_dir / "tasks")
    if as_json:
        for one in found:
            render.json_line(
                {
                    "processor": one.processor,
                    "slot": one.slot,
                    "state": one.state.value,
                    "host": one.host,
                    "tasks": {
                        str(number): {
                            f"{where.topic}[{where.partition}]": offset
                            for where, offset in sorted(positions.items())
                        }
                        for number, positions in one.tasks.items()
                    },
                    "refused": {
                        str(task.number): why
                        for task, why in refused.items()
                        if task.processor == one.processor and task.number in one.tasks
                    },
                }
            )
        return
    rows: list[tuple[object, ...]] = []
    for one in found:
        who = (one.processor, "-" if one.slot is None else one.slot, one.state.value, one.host or "-")
        rows += [(*who, number, _positions(positions)) for number, positions in one.tasks.items()]
        if not one.tasks:
            rows.append((*who, "-", "-"))
    render.table(("PROCESSOR", "SLOT", "STATE", "HOST", "TASK", "POSITIONS"), rows)
    for task, why in refused.items():
        render.note(f"{task.processor}[{task.number}] is kept closed by its worker: {why}")
    if any(one.state is GroupState.UNKNOWN for one in found):
        render.note(
            "This log does not know who runs its processors; TASK and POSITIONS are those of whoever ran last."
        )


def _positions(positions: Mapping[TopicPartition, int]) -> str:
    shown = [f"{where.topic}[{where.partition}]@{offset}" for where, offset in sorted(positions.items())]
    more = len(shown) - _SHOWN_POSITIONS
    return " ".join(shown[:_SHOWN_POSITIONS]) + (f" and {more} more" if more > 0 else "") or "-"


@worker.command("names")
@format_option
def list_names(as_json: bool) -> None:
    """List the processors that can be run; with --format json each is one line."""
    from qmtl.topology import PROTOTYPES, TOPOLOGY

    for stage, one in zip(TOPOLOGY, PROTOTYPES, strict=True):
        if as_json:
            render.json_line({"processor": one.name, "about": stage.about})
        else:
            render.columns((one.name, stage.about), (14,))
