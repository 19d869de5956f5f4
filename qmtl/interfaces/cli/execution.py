"""`qmtl execution`: many runs of strategies, each a process of its own, kept going by one manager."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import F, format_option

if TYPE_CHECKING:
    from qmtl.interfaces.execution.events import ManagerEvent
    from qmtl.interfaces.execution.plan import RunSpec
    from qmtl.interfaces.execution.state_dir import Asked, RunStatus

DEFAULT_STATE_DIR: Final = Path(".qmtl/execution")
LOOPBACK: Final = "127.0.0.1"
_LOOK_S: Final = 0.05


@click.group()
def execution() -> None:
    """Keep many runs of strategies going, each a process of its own. It decides nothing about trading."""


def _state_dir_option(command: F) -> F:
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_STATE_DIR,
        show_default=True,
        help="Where the manager says how its runs stand; one manager has it at a time.",
    )(command)


@execution.command("run")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@_state_dir_option
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Write what each run says to NAME.log there; without it, it is printed behind the run's name.",
)
@click.option(
    "--output-bytes",
    type=click.IntRange(1_000, 1_000_000_000),
    default=10_000_000,
    show_default=True,
    help="Of such a file, before another one is begun.",
)
@click.option(
    "--output-files",
    type=click.IntRange(0, 1_000),
    default=5,
    show_default=True,
    help="Older ones that are kept of each run.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=None,
    help="Serve /metrics and /healthz on this port, 0 for any that is free; without it nothing is served.",
)
@click.option("--metrics-host", default=LOOPBACK, show_default=True, help="Where they listen.")
@format_option
def run_all(
    file: Path,
    state_dir: Path,
    output_dir: Path | None,
    output_bytes: int,
    output_files: int,
    metrics_port: int | None,
    metrics_host: str,
    as_json: bool,
) -> None:
    """Start the runs of FILE and keep them going until all are over, or until SIGTERM or Ctrl-C, which stop them.

    Each run is a process `qmtl strategy run`, with FILE's directory as its own. SIGHUP reads FILE again. Ends with QMTL-873 where a run was
    given up, failed or had to be killed. With --format json every event, and every line that a run says, is one line.
    """
    from qmtl.foundation.common.errors import RunsFailed
    from qmtl.interfaces.cli.signals import stopped
    from qmtl.interfaces.execution import state_dir as place
    from qmtl.interfaces.execution.manager import Manager
    from qmtl.interfaces.execution.output import OutputFiles
    from qmtl.interfaces.execution.plan import read_runs
    from qmtl.interfaces.execution.policy import BAD_ENDS

    runs = read_runs(file)
    with ExitStack() as open_now:
        open_now.enter_context(place.held(state_dir))
        told = _Told(as_json)
        said = told.line
        if output_dir is not None:
            files = OutputFiles(output_dir, told.event, output_bytes, output_files)
            open_now.callback(files.close)
            said = files.write
        manager = Manager(file, runs, _command, state_dir, told.event, said)
        open_now.callback(manager.close)
        if metrics_port is not None:
            from qmtl.interfaces.metrics.runs import showing

            where = open_now.enter_context(showing(manager.look, metrics_host, metrics_port))
            render.note(f"metrics on {where}/metrics, health on {where}/healthz")
        reread = _Heard(signal.SIGHUP)
        open_now.callback(reread.forget)
        asked = open_now.enter_context(stopped())
        manager.keep(asked, reread.was)
    badly = [one for one in manager.look() if one.phase in BAD_ENDS]
    if badly:
        names = ", ".join(f"{one.run} ({one.phase.value})" for one in badly[:20])
        raise RunsFailed(
            f"{len(badly)} of {len(manager.look())} runs did not end as they should have: {names}.",
            "What they said last tells why; `qmtl execution status` has their exit codes.",
        )


@execution.command("check")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@format_option
def check(file: Path, as_json: bool) -> None:
    """Say which runs FILE has, and hold every value to its rule; nothing is started, and no log is asked."""
    from qmtl.interfaces.execution.plan import read_runs

    runs = read_runs(file)
    if as_json:
        for one in runs:
            render.json_line(_facts(one))
        return
    rows = [(one.name, one.strategy, one.world, one.log, one.terms.restart.value) for one in runs]
    render.table(("RUN", "STRATEGY", "WORLD", "LOG", "RESTART"), rows)


@execution.command("status")
@_state_dir_option
@format_option
def status(state_dir: Path, as_json: bool) -> None:
    """Say how the runs of a manager on this machine stand, or stood when it ended; with --format json each is one line."""
    from qmtl.interfaces.execution import state_dir as place

    found = place.read(state_dir)
    is_held = place.is_held(state_dir)
    _show(found.runs, as_json, managed=is_held)
    if not is_held:
        render.note(f"No manager runs; so it was at {render.instant(found.written_ms)}.")


def _asking(name: str, about: str) -> None:
    """Make the verb that asks something of one run."""

    @click.argument("run")
    @_state_dir_option
    @click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(0.1, 3600),
        default=60.0,
        show_default=True,
        help="Seconds to wait until it is done.",
    )
    @format_option
    def verb(run: str, state_dir: Path, wait_s: float, as_json: bool) -> None:
        from qmtl.interfaces.execution.state_dir import Asked

        _show([_ask(state_dir, run, Asked(name), wait_s)], as_json, managed=True)

    verb.__doc__ = about
    execution.command(name)(verb)


_asking(
    "start",
    "Start RUN, which was stopped, has ended, or waits for its restart; it has all its restarts again.",
)
_asking("stop", "Stop RUN; its manager goes on and starts it no more until somebody says so.")
_asking("restart", "Stop RUN, if it runs, and start it in a new process; it has all its restarts again.")


def _ask(state_dir: Path, run: str, what: Asked, wait_s: float) -> RunStatus:
    from qmtl.foundation.common.errors import NoAnswer, UnknownId
    from qmtl.interfaces.execution import state_dir as place

    def now() -> RunStatus:
        runs = {one.run: one for one in place.read(state_dir).runs}
        if run not in runs:
            raise UnknownId(
                f"RUN was {run[:80]!a}, which is none of the manager's.", f"There are {', '.join(runs)}."
            )
        return runs[run]

    before = now()
    deadline = time.monotonic() + wait_s
    if place.is_held(state_dir):
        place.ask(state_dir, run, what)
    while not place.is_done(what, before, found := now()):
        if time.monotonic() > deadline or not place.is_held(state_dir):
            raise NoAnswer(
                f"{run} was to {what.value}, and is {found.phase.value}; "
                + (f"so it was for {wait_s:g} s." if place.is_held(state_dir) else "no manager runs."),
                "See `qmtl execution status`, and what its manager says.",
            )
        time.sleep(_LOOK_S)
    return found


def _command(spec: RunSpec) -> Sequence[str]:
    return (sys.executable, "-m", "qmtl", *spec.words)


class _Told:
    """Prints what a manager tells, and what its runs say."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def event(self, event: ManagerEvent) -> None:
        from qmtl.interfaces.execution.events import as_json, told

        if self._as_json:
            render.json_line(as_json(event))
            sys.stdout.flush()
        else:
            render.note(told(event))

    def line(self, run: str, line: bytes) -> None:
        text = line.decode(errors="backslashreplace")
        if self._as_json:
            render.json_line({"event": "said", "run": run, "line": text})
        else:
            render.line(f"{run} | {text}")
        sys.stdout.flush()


class _Heard:
    """A signal that does not end this process, and whether it came since it was asked after."""

    def __init__(self, number: signal.Signals) -> None:
        self._number = number
        self._came = False
        self._before: Any = None
        with suppress(ValueError):  # not in the main thread: nobody can be heard there
            self._before = signal.signal(number, self._take)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came = True

    def was(self) -> bool:
        came, self._came = self._came, False
        return came

    def forget(self) -> None:
        if self._before is not None:
            signal.signal(self._number, self._before)


def _facts(spec: RunSpec) -> dict[str, Any]:
    terms = spec.terms
    return {
        "run": spec.name,
        "strategy": spec.strategy,
        "world": spec.world,
        "log": spec.log,
        "command": ["qmtl", *spec.words],
        "directory": str(spec.directory),
        "restart": terms.restart.value,
        "backoff_ms": terms.backoff_ms,
        "backoff_max_ms": terms.backoff_max_ms,
        "max_restarts": terms.max_restarts,
        "window_ms": terms.window_ms,
        "grace_ms": terms.grace_ms,
    }


def _show(runs: Sequence[RunStatus], as_json: bool, *, managed: bool) -> None:
    from dataclasses import asdict

    if as_json:
        for one in runs:
            render.json_line({**asdict(one), "phase": one.phase.value, "managed": managed})
        return
    rows = [
        (
            one.run,
            one.phase.value,
            _or_dash(one.pid),
            "-" if one.started_ms is None else render.instant(one.started_ms),
            one.restarts,
            _or_dash(one.last_exit),
            "-" if one.due_ms is None else render.instant(one.due_ms),
        )
        for one in runs
    ]
    heads = ("RUN", "STATE", "PID", "STARTED", "RESTARTS", "LAST EXIT", "DUE")
    render.table(heads, rows, numbers=("PID", "RESTARTS", "LAST EXIT"))


def _or_dash(value: int | None) -> object:
    return "-" if value is None else value
