"""`qmtl project`: new projects out of layers of templates, and the sample configuration alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option

CONFIG: Final = "qmtl.yml"


@click.group()
def project() -> None:
    """Make projects, and set up directories for QMTL."""


@project.command("init")
@click.argument("name", required=False)
@click.option(
    "--template",
    "layers",
    metavar="LAYER",
    multiple=True,
    help="A layer of the project, with all that it needs; say it once for each. Without any, all of them. `qmtl project layers` lists them.",
)
@click.option(
    "--into",
    "place",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    default=".",
    help="Where it is made; by default here.",
)
@format_option
def init(name: str | None, layers: tuple[str, ...], place: Path, as_json: bool) -> None:
    """Make the project NAME: a strategy that runs, its tests, its configuration, its README with the commands.

    It is a new directory NAME with a package of that name in it. Nothing is written over, and nothing is half done. The same name and
    layers give the same bytes.

    Without NAME, install the sample configuration as qmtl.yml alone: every key is in it with what it means, and none is said, so everything
    runs in one process without a broker. That is safe to repeat at any time.
    """
    if name is None:
        if layers:
            raise UsageError(
                "--template was said without NAME; layers are those of a project.",
                "Say its name, or leave --template out for qmtl.yml alone.",
            )
        _configure(place, as_json)
    else:
        _make(name, layers, place, as_json)


@project.command("layers")
@format_option
def list_layers(as_json: bool) -> None:
    """List the layers of new projects: what each brings, and what it needs."""
    from qmtl.interfaces.project.layers import LAYERS, paths_of

    if as_json:
        for one in LAYERS:
            facts = {"layer": one.name, "about": one.about, "needs": one.needs, "files": paths_of(one)}
            render.json_line(facts)
        return
    rows = [(one.name, one.about, ", ".join(one.needs), ", ".join(paths_of(one))) for one in LAYERS]
    render.table(("layer", "about", "needs", "files"), rows, title="layers of projects")


def _make(name: str, layers: tuple[str, ...], place: Path, as_json: bool) -> None:
    from qmtl.interfaces.project.layers import chosen, contents
    from qmtl.interfaces.project.making import make_project
    from qmtl.interfaces.project.naming import require_project_name

    require_project_name(name)
    laid = chosen(layers)
    made = contents(laid, name)
    make_project(place / name, made)
    if as_json:
        facts = {"directory": str(place / name), "layers": [one.name for one in laid], "files": list(made)}
        render.json_line(facts)
        return
    render.line(f"{place / name} is made of {', '.join(one.name for one in laid)}:")
    for path in made:
        render.line(f"  {path}")
    render.line(f"next: cd {place / name}, and the commands of README.md")


def _configure(directory: Path, as_json: bool) -> None:
    from importlib.resources import files

    sample = files("qmtl.examples").joinpath(CONFIG).read_bytes()
    file = directory / CONFIG
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
