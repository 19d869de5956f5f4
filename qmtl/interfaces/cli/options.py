"""What the verbs have in common: which log, which form of output, and how instants are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from qmtl.engine.log.port import Log

DEFAULT_STATE: Final = ".qmtl/demo"
DEFAULT_LOG: Final = f"embedded:{DEFAULT_STATE}/log"
"""Where `qmtl demo` puts its log."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_MS: Final = 2**63 - 1

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
    """`--format table|json` and its short form `--json`, given to the command as `as_json`.

    The two write to one parameter, so the last of them on the line counts.
    """
    long = click.option(
        "--format",
        "as_json",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        callback=lambda context, parameter, value: value == "json" if isinstance(value, str) else value,
        help="For people, or one JSON value per line.",
    )
    short = click.option("--json", "as_json", flag_value="json", help="The same as --format json.")
    return long(short(command))


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


class Instant(click.ParamType):
    """An instant as epoch milliseconds or as ISO 8601; without an offset it is UTC."""

    name = "instant"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "ISO|MS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip()
        if text.isascii() and text.isdecimal() and len(text) < 20 and int(text) <= _MAX_MS:
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(
                f"{text[:60]!r} is neither epoch milliseconds nor ISO 8601, such as 2018-04-04T00:01:00Z.",
                param,
                ctx,
            )
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        whole, rest = divmod(moment - _EPOCH, timedelta(milliseconds=1))
        if rest or whole < 0:
            self.fail(f"{text[:60]!r} is no whole number of milliseconds since 1970.", param, ctx)
        return whole


@contextmanager
def reading(log_address: str) -> Iterator[Log]:
    """The log, open for looking; another process may be writing it.

    Raises:
        UsageError: the address has another form.
        LogUnreachable: there is no such log, or no broker answered.
    """
    from qmtl.bootstrap import open_log

    log = open_log(log_address, read_only=True)
    try:
        yield log
    finally:
        log.close()
