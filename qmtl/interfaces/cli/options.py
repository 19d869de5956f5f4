"""What the verbs have in common: which log, which form of output, and how instants are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from qmtl.foundation.common.errors import InvalidValue
from qmtl.foundation.common.instants import epoch_ms

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log

DEFAULT_STATE: Final = ".qmtl/demo"
DEFAULT_LOG: Final = f"embedded:{DEFAULT_STATE}/log"
"""Where `qmtl demo` puts its log."""

_JSON: Final = "qmtl.json"
_ALL: Final = "qmtl.all"
_INTERVAL: Final = re.compile(r"([0-9]{1,9})([smhd]?)")
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}

ROWS: Final = 100
"""So many rows are shown where nobody says how many."""

F = TypeVar("F", bound=Callable[..., Any])


def log_option(command: F) -> F:
    """`--log ADDRESS`, given to the command as `log_address`."""
    return click.option(
        "--log",
        "log_address",
        metavar="ADDRESS",
        envvar="QMTL_LOG",
        default=DEFAULT_LOG,
        show_default=True,
        show_envvar=True,
        help="embedded:DIR or kafka://HOST:PORT[/NAMESPACE].",
    )(command)


def format_option(command: F) -> F:
    """`--format table|json`, and `--json` for short, given to the command as `as_json`."""
    long = click.option(
        "--format",
        "as_json",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        callback=lambda context, parameter, value: value == "json" or _JSON in context.meta,
        help="For people, or JSON for programs.",
    )
    return long(_json_flag(command))


def _json_flag(command: F) -> F:
    return click.option(
        "--json",
        is_flag=True,
        is_eager=True,  # before --format, which asks whether it was said
        expose_value=False,
        callback=lambda context, parameter, value: context.meta.update({_JSON: True}) if value else None,
        help="Short for --format json.",
    )(command)


def wait_option(command: F) -> F:
    """`--wait SECONDS`, given to the command as `wait_s`."""
    return click.option(
        "--wait",
        "wait_s",
        type=click.FloatRange(0.1, 3600),
        default=30.0,
        show_default=True,
        help="Seconds to wait for answers.",
    )(command)


def context_options(command: F) -> F:
    """`--domain`, `--as-of`, `--partition` and `--fingerprint`, given to the command as `execution_domain`, `as_of`, `partition` and
    `dataset_fingerprint`; empty texts where nothing was said."""
    for name, target, meaning in reversed(
        (
            (
                "--domain",
                "execution_domain",
                "backtest, dryrun, live or shadow, or a mode that stands for one; without any of these options, the log's context.",
            ),
            ("--as-of", "as_of", "The state of the dataset to which a backtest or dry run is bound."),
            ("--partition", "partition", "A tenant, strategy or portfolio within the world."),
            ("--fingerprint", "dataset_fingerprint", "Of the very data behind --as-of."),
        )
    ):
        command = click.option(name, target, default="", help=meaning)(command)
    return command


def interval_s(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """The callback of an option that takes a length of time: `90s`, `15m`, `1h`, `2d`, or seconds alone.

    Raises:
        click.BadParameter: none of them, or nothing at all.
    """
    if value is None:
        return None
    found = _INTERVAL.fullmatch(value.strip())
    seconds = 0 if found is None else int(found[1]) * _SECONDS[found[2]]
    if not seconds:
        raise click.BadParameter(
            f"{value[:60]!r} is no whole number of seconds, such as 60, 60s, 15m, 1h or 2d."
        )
    return seconds


def rows_options(command: F) -> F:
    """`--limit N` and `--all`, given to the command as `limit`, which is None for all."""
    every = click.option(
        "--all", "everything", is_flag=True, is_eager=True, expose_value=False, callback=_all
    )
    return click.option(
        "--limit",
        "-n",
        type=click.IntRange(min=1),
        metavar="N",
        default=ROWS,
        show_default=True,
        callback=lambda context, parameter, value: None if _ALL in context.meta else value,
        help="At most so many rows.",
    )(every(command))


def _all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[_ALL] = True


def state_dir_option(command: F) -> F:
    """`--state-dir DIR`, given to the command as `state_dir`: a Path, or None where nothing was said."""
    return click.option(
        "--state-dir",
        type=click.Path(path_type=Path, file_okay=False),
        default=None,
        help=f"The directory that holds the stores in tasks/; by default the one with the embedded log, else {DEFAULT_STATE}.",
    )(command)


def state_dir_of(log_address: str, state_dir: Path | None) -> Path:
    """The state directory that is meant: the one said, else the one in which the embedded log lies."""
    if state_dir is not None:
        return state_dir
    scheme, _, rest = log_address.partition(":")
    return Path(rest).parent if scheme == "embedded" and rest else Path(DEFAULT_STATE)


def instant(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """The callback of an option that takes an instant: epoch milliseconds or ISO 8601, in UTC where it has no offset.

    Raises:
        click.BadParameter: neither of them, or before 1970.
    """
    if value is None:
        return None
    try:
        return epoch_ms(value)
    except InvalidValue as error:
        raise click.BadParameter(error.what) from None


@contextmanager
def reading(log_address: str) -> Iterator[Log]:
    """The log, open for looking; another process may be writing it.

    Raises:
        UsageError: the address has another form.
        LogUnreachable: there is no such log, or no broker answered.
    """
    from qmtl.bootstrap import learn_schemas, open_log

    log = open_log(log_address, read_only=True)
    try:
        learn_schemas(log)
        yield log
    finally:
        log.close()


@contextmanager
def looking(log_address: str) -> Iterator[Log]:
    """As `reading`, of a log on which the topics of the catalogue were made: a wrong address is told as one.

    Raises:
        NoCatalogue: none of them is there.
    """
    from qmtl.bootstrap import require_topics

    with reading(log_address) as log:
        require_topics(log)
        yield log
