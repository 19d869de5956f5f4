"""`qmtl worker`: run one processor as a process of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

import click

from qmtl.engine.log.kafka_settings import DEFAULTS, GROUP_PROTOCOLS, GroupProtocol, KafkaSettings
from qmtl.engine.log.port import GroupState, Log, TopicPartition
from qmtl.foundation.common.errors import ClockTaken, NoArchive, NoVenue, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.accept import accept
from qmtl.interfaces.cli.options import format_option, log_option, reading
from qmtl.services.clock.rule import EVERY_S, LONGEST_S
from qmtl.services.clock.rule import NAME as CLOCK

if TYPE_CHECKING:
    from qmtl.engine.task import TaskSettings
    from qmtl.services.dagmanager.topic_admin import BrokerLoad
    from qmtl.topology import Outside

DEFAULT_STATE_DIR = Path(".qmtl/worker")
LOOPBACK: Final = "127.0.0.1"
REMOVES: Final = "topicadmin"
"""The processor that removes topics."""
COMPUTES: Final = "nodes"
"""The processor that runs functions of authors."""
REACHES: Final = "egress"
"""The processor that reaches the venue of live orders."""
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
@click.option(
    "--every",
    "every_s",
    type=click.IntRange(1, LONGEST_S),
    default=None,
    help=f"Of the clock: seconds from tick to tick, {EVERY_S} by default.",
)
@click.option(
    "--code",
    "packages",
    multiple=True,
    metavar="PACKAGE",
    help="Of nodes: a package whose functions Python nodes may run, beside those in QMTL_CODE. May be given again.",
)
@click.option(
    "--venue",
    metavar="ADDRESS",
    default=None,
    help="Of egress: where live orders go, else what QMTL_VENUE says; keys are in QMTL_VENUE_KEY and QMTL_VENUE_SECRET alone.",
)
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
    every_s: int | None,
    packages: tuple[str, ...],
    venue: str | None,
) -> None:
    """Run the processor NAME, or the clock, until SIGTERM or Ctrl-C; what is in flight is finished first, a restore is left for the
    next start.

    The clock ticks the topic `clock` by this machine's time. On a log that feeds of recorded bars tick it is refused (QMTL-410); --config-epoch
    takes such a log over.
    """
    from qmtl.engine.task import COMMIT_INTERVAL_MS, POLL_RECORDS, TaskSettings
    from qmtl.interfaces.cli.restoring import on_stderr
    from qmtl.topology import stage

    is_clock = name == CLOCK
    if not is_clock:
        stage(name)  # a wrong name is told before a broker is asked for
        if every_s is not None:
            raise UsageError(f"--every was {every_s} for {name}; only the clock has it.", "Leave it out.")
    if packages and name != COMPUTES:
        raise UsageError(
            f"--code was given for {name}; only {COMPUTES} run functions of authors.", "Leave it out."
        )
    if venue is not None and name != REACHES:
        raise UsageError(f"--venue was given for {name}; only {REACHES} reaches one.", "Leave it out.")
    settings = TaskSettings(
        state_dir / "tasks",
        poll_records or POLL_RECORDS,
        commit_records,
        COMMIT_INTERVAL_MS if commit_interval_ms is None else commit_interval_ms,
        config_epoch=config_epoch,
        on_restore=on_stderr(),
    )
    metrics = None if metrics_port is None else (metrics_host, metrics_port)
    ticking = Ticking(every_s or EVERY_S, slot, config_epoch) if is_clock else None
    run_processors(
        [] if is_clock else [name],
        log_address,
        KafkaSettings(group_protocol=group_protocol),
        settings,
        slot,
        metrics,
        ticking=ticking,
        code=packages,
        venue=venue,
    )


@dataclass(frozen=True, slots=True)
class Ticking:
    """How a process ticks the clock.

    Attributes:
        every_s: from tick to tick.
        is_needed: whether the process ends where it may not tick; else it says so and goes on without.
    """

    every_s: int
    slot: str
    config_epoch: int = 1
    is_needed: bool = True


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
    ticking: Ticking | None = None,
    code: Sequence[str] = (),
    venue: str | None = None,
) -> None:
    """Open the log, join the groups and step until a signal comes.

    Args:
        metrics: the host and port on which /metrics and /healthz are served; None for nowhere.
        load: how busy the brokers are; None for what the environment says.
        archive: URL of the store of topics that go; None for what the environment says.
        before: what is to be done on the log before anything runs.
        ticking: how it ticks the clock; None where it does not.
        code: packages whose functions Python nodes may run.
        venue: address of the venue of live orders; None for what the environment says.
    """
    from qmtl.bootstrap import ARCHIVE, VENUE, make_clock, make_workers, open_log, outside_of, prepare
    from qmtl.engine.worker import IDLE_S, collect_seldom
    from qmtl.services.clock.edge import keep_time

    stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log = open_log(address, settings=kafka)
    try:
        outside = outside_of(log, load, archive, code, venue, names)
        if lacks_archive(names, outside):
            render.note(
                f"warning: no store of archives is given ({ARCHIVE}, or `archive` in a server's file): "
                f"no topic that has to be archived first is ever removed [{NoArchive.code}]"
            )
        if lacks_venue(names, outside):
            render.note(
                f"warning: no venue is given (--venue, or {VENUE}): every live order is refused [{NoVenue.code}]"
            )
        prepare(log)
        if before is not None:
            before(log)
        with ExitStack() as open_now:
            if metrics is not None:
                from qmtl.interfaces.metrics.serve import Metrics

                shown = Metrics([*names, *([CLOCK] if ticking and ticking.is_needed else [])], outside)
                settings = replace(settings, observer=shown.watch)
                where = open_now.enter_context(shown.serving(log, settings.state_dir, *metrics))
                render.note(f"metrics on {where}/metrics, health on {where}/healthz")
            workers = make_workers(log, settings, names, slot, outside)
            for one in workers:
                open_now.callback(one.close)
            for name in names:
                render.note(f"worker {name} slot {slot} runs on {address}")
            clock = None
            if ticking is not None:
                # Beside others it is no reason for them not to be ready that another one ticks.
                observer = settings.observer if ticking.is_needed else None
                clock = make_clock(
                    log, ticking.every_s, ticking.slot, ticking.config_epoch, observer=observer
                )
                open_now.callback(clock.close)
                render.note(f"the clock ticks every {ticking.every_s} s on {address}")
            collect_seldom()
            without = None if ticking is None or ticking.is_needed else _goes_without
            keep_time(clock, workers, lambda: stopping, idle_s=IDLE_S, refused=without)
    finally:
        log.close()
    render.note(f"worker {names[-1] if names else CLOCK} slot {slot} drained")


def _goes_without(error: ClockTaken) -> None:
    render.note(f"{error} This process goes on without ticking.")


def lacks_archive(names: Sequence[str], outside: Outside) -> bool:
    """Whether these processors remove topics and have nowhere to archive them before."""
    return REMOVES in names and outside.archive is None


def lacks_venue(names: Sequence[str], outside: Outside) -> bool:
    """Whether these processors let live orders out and have nowhere to send them."""
    return REACHES in names and (outside.desk is None or outside.desk.venue is None)


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
    from qmtl.topology import EDGES, PROTOTYPES, TOPOLOGY

    stages = [(one.name, stage.about) for stage, one in zip(TOPOLOGY, PROTOTYPES, strict=True)]
    for name, about in (*stages, *((one.name, one.about) for one in EDGES)):
        if as_json:
            render.json_line({"processor": name, "about": about})
        else:
            render.columns((name, about), (14,))
