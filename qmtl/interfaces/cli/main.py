"""`qmtl`: finds the verb, loads only what that verb needs, and turns every end into an exit code and at most one screen.

Exit codes: 0 done; the code of the error's class (`qmtl.foundation.common.errors`; 2 is a command line that doesn't parse);
70 a bug; 130 interrupted; 141 nobody reads the output any more.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import click

from qmtl.foundation.common.errors import QmtlError, UsageError
from qmtl.interfaces.cli import render

INTERNAL_ERROR: Final = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED: Final = 130  # 128 + SIGINT, as a shell reports it
PIPE_CLOSED: Final = 141  # 128 + SIGPIPE


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a family of verbs is, and its line in `qmtl --help`, which is shown without loading it."""

    place: str
    about: str


VERBS: Final[Mapping[str, Verb]] = {
    "demo": Verb(
        "qmtl.interfaces.cli.demo:demo", "Run a strategy over real bars, in one process, without a broker."
    ),
    "project": Verb(
        "qmtl.interfaces.cli.project:project",
        "Make a project from layers of templates; install the sample configuration.",
    ),
    "backtest": Verb(
        "qmtl.interfaces.cli.backtest:backtest", "Run a strategy over bars, and say what it was worth."
    ),
    "topic": Verb("qmtl.interfaces.cli.topic:topic", "List, describe, read and archive the topics of a log."),
    "state": Verb("qmtl.interfaces.cli.state:state", "Show the latest value per key of a topic."),
    "replay": Verb(
        "qmtl.interfaces.cli.replay:replay",
        "Rebuild tables from the log and compare them with the live ones.",
    ),
    "dlq": Verb(
        "qmtl.interfaces.cli.dlq:dlq", "Look at records that could not be used, and write them back."
    ),
    "strategy": Verb(
        "qmtl.interfaces.cli.strategy:strategy", "Look at a strategy of yours, publish it, and run it."
    ),
    "nodeset": Verb(
        "qmtl.interfaces.cli.nodeset:nodeset",
        "List and describe what is hung behind a signal, and begin one for a new exchange.",
    ),
    "execution": Verb(
        "qmtl.interfaces.cli.execution:execution",
        "Keep many runs of strategies going, each a process of its own.",
    ),
    "dag": Verb("qmtl.interfaces.cli.dag:dag", "Publish strategies and look at the graph of shared nodes."),
    "service": Verb("qmtl.interfaces.cli.service:service", "Operate a service: `qmtl service dagmanager`."),
    "world": Verb("qmtl.interfaces.cli.world:world", "Create worlds, and open and close their order gates."),
    "oms": Verb(
        "qmtl.interfaces.cli.oms:oms", "Look at live orders and at the connections of worlds to their venue."
    ),
    "data": Verb(
        "qmtl.interfaces.cli.data.commands:data", "Import, fetch, list and verify market data in a catalogue."
    ),
    "worker": Verb(
        "qmtl.interfaces.cli.worker:worker", "Run processors against a log, and see who runs them."
    ),
    "lag": Verb("qmtl.interfaces.cli.lag:lag", "Show how far behind the log every processor is, and why."),
    "report": Verb(
        "qmtl.interfaces.cli.report:report",
        "Write what a run was worth: figures, charts, trades, as HTML and tables.",
    ),
    "sweep": Verb(
        "qmtl.interfaces.cli.sweep:sweep", "Try many values of a strategy's parameters over the same bars."
    ),
    "topology": Verb(
        "qmtl.interfaces.cli.topology:topology", "Draw every processor with what it reads, owns and writes."
    ),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, not when they are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        module, _, name = verb.place.partition(":")
        found: Any = getattr(import_module(module), name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.about) for name, verb in VERBS.items()])


def _version() -> str:
    try:
        return version("qmtl")
    except PackageNotFoundError:
        return "0+unpackaged"


def _show_version(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        render.line(f"qmtl {_version()}")
        context.exit()


@click.group(
    cls=LazyGroup,
    name="qmtl",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
@click.pass_context
def cli(context: click.Context) -> None:
    """QMTL: strategies as DAGs over a log of events; every state is a topic.

    A state directory or a cluster is named with --log; every command has --help.
    """
    if context.invoked_subcommand is None:
        render.block(context.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code and raises nothing but SystemExit."""
    try:
        code = _run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        _forget_stdout()
        return PIPE_CLOSED
    except KeyboardInterrupt:
        return INTERRUPTED


def dagmanager() -> int:
    """The program `dagmanager`: `qmtl service dagmanager` in one word."""
    return main(["service", "dagmanager", *sys.argv[1:]])


def _run(argv: list[str]) -> int:
    try:
        with cli.make_context("qmtl", argv) as context:
            cli.invoke(context)
        return 0
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.Abort:
        return INTERRUPTED
    except click.exceptions.NoArgsIsHelpError as asked:
        render.block(asked.format_message())
        return UsageError.exit_code
    except click.UsageError as problem:
        path = problem.ctx.command_path if problem.ctx is not None else "qmtl"
        render.error(UsageError(_sentence(problem.format_message()), f"`{path} --help` shows what there is."))
        return UsageError.exit_code
    except click.ClickException as problem:
        render.error(UsageError(_sentence(problem.format_message())))
        return UsageError.exit_code
    except QmtlError as problem:
        _show_traceback()
        render.error(problem)
        return problem.exit_code
    except (BrokenPipeError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as bug:  # whatever it is: one screen, and a way to see more
        _show_traceback()
        render.failure(
            QmtlError.code,
            f"internal error: {type(bug).__name__}: {bug}",
            "This is a bug in QMTL. Run it again with QMTL_TRACEBACK=1 to see where it comes from.",
        )
        return INTERNAL_ERROR


def _sentence(text: str) -> str:
    return " ".join(text.split())


def _show_traceback() -> None:
    if os.environ.get("QMTL_TRACEBACK") == "1":
        sys.stdout.flush()
        for one in traceback.format_exc().splitlines():
            render.note(one)


def _forget_stdout() -> None:
    """Nobody reads: what is still buffered goes nowhere, instead of failing once more at exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
