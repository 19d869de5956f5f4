"""`qmtl project`: what a directory needs before QMTL runs in it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option

NAME: Final = "qmtl.yml"


@click.group()
def project() -> None:
    """Set up a directory for QMTL."""


@project.command("init")
@click.argument("directory", type=click.Path(path_type=Path), default=".")
@format_option
def init(directory: Path, as_json: bool) -> None:
    """Install the sample configuration as qmtl.yml in DIRECTORY, by default this one; safe to repeat at any time.

    Every key is in it with what it means, none is said: as it is, everything runs in one process without a broker. A file that is
    there is never written over.
    """
    from importlib.resources import files

    sample = files("qmtl.examples").joinpath(NAME).read_bytes()
    file = directory / NAME
    try:
        state = _install(file, sample)
    except OSError as error:
        raise UsageError(f"{file} can't be written: {error.strerror}.", "Name another directory.") from None
    if as_json:
        render.json_line({"file": str(file), "state": state})
        return
    match state:
        case "made":
            render.line(f"{file} is made; `qmtl service dagmanager server --config {file}` reads it")
        case "there":
            render.line(f"{file} is there already")
        case _:
            render.line(f"{file} is not the sample of this version, and stays as it is")


def _install(file: Path, sample: bytes) -> str:
    """`made`, `there`, or `changed` where something else lies at the place.

    Raises:
        OSError: it can be neither made nor read.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with file.open("xb") as out:
            out.write(sample)
    except FileExistsError:
        return "there" if file.read_bytes() == sample else "changed"
    return "made"
