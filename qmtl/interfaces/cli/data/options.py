"""What the verbs of market data have in common: which catalogue, as of which commit, which series, which range."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from qmtl.interfaces.cli.options import instant, interval_s

DEFAULT_CATALOGUE: Final = ".qmtl/data"

F = TypeVar("F", bound=Callable[..., Any])


def catalogue_option(command: F) -> F:
    """`--catalogue DIR`, given to the command as `directory`."""
    return click.option(
        "--catalogue",
        "directory",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        envvar="QMTL_CATALOGUE",
        default=DEFAULT_CATALOGUE,
        show_default=True,
        show_envvar=True,
        help="The directory of the catalogue.",
    )(command)


def as_of_option(command: F) -> F:
    """`--as-of COMMIT`, given to the command as `as_of`; None for the newest."""
    return click.option(
        "--as-of", metavar="COMMIT", default=None, help="A commit's number or digest; by default the newest."
    )(command)


def series_options(command: F) -> F:
    """`--symbol` and `--interval`, given as `symbol` and `interval`; None where nothing was said."""
    symbol = click.option("--symbol", default=None, help="Of this symbol only.")
    return symbol(length_option("Of bars of this length only.", required=False)(command))


def length_option(help_text: str, *, required: bool) -> Callable[[F], F]:
    return click.option(
        "--interval",
        metavar="LENGTH",
        required=required,
        default=None,
        callback=interval_s,
        help=f"{help_text} Seconds, or as 1m, 1h, 1d.",
    )


def range_options(command: F) -> F:
    """`--from` and `--to`, given as `from_ms` and `to_ms`; None where nothing was said."""
    begin = click.option(
        "--from", "from_ms", metavar="INSTANT", default=None, callback=instant, help="From this open time on."
    )
    end = click.option(
        "--to", "to_ms", metavar="INSTANT", default=None, callback=instant, help="Before this open time."
    )
    return begin(end(command))
