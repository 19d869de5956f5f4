"""`qmtl nodeset`: the recipes that are known, what one says of itself, and the beginning of a new one."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import format_option


@click.group()
def nodeset() -> None:
    """Look at node sets: what is hung behind a signal, so that it is executed."""


@nodeset.command("list")
@format_option
def list_recipes(as_json: bool) -> None:
    """List the recipes: those of QMTL, and those of installed packages, which are not loaded for it."""
    from qmtl.runtime.nodesets.recipes import RECIPES
    from qmtl.runtime.nodesets.registry import recipe_names

    rows: list[tuple[str, str, list[str], list[str]]] = []
    for name in recipe_names():
        found = RECIPES.get(name)
        if found is None:
            rows.append((name, "Of an installed package.", [], []))
        else:
            rows.append((name, found.about, list(found.modes), [one.name for one in found.params]))
    if as_json:
        for name, about, modes, params in rows:
            render.json_line({"name": name, "about": about, "modes": modes, "params": params})
        return
    shown = [
        (name, about, " ".join(modes) or "-", " ".join(params) or "-") for name, about, modes, params in rows
    ]
    render.table(("NAME", "ABOUT", "MODES", "PARAMETERS"), shown, title="node sets")


@nodeset.command("describe")
@click.argument("name")
@click.option(
    "--param",
    "params",
    multiple=True,
    metavar="NAME=TEXT",
    help="A parameter of the recipe. May be given again; one of QMTL's own that is left out has its example.",
)
@format_option
def describe(name: str, params: tuple[str, ...], as_json: bool) -> None:
    """Show what the node set NAME says of itself: its steps in order, ports, modes and the scope of its portfolio."""
    from qmtl.runtime.nodesets.recipes import RECIPES
    from qmtl.runtime.nodesets.registry import make
    from qmtl.runtime.sdk.builtins import builtin
    from qmtl.runtime.sdk.nodes import StreamInput

    known = RECIPES.get(name)
    given: dict[str, object] = {} if known is None else {one.name: one.example for one in known.params}
    for one in params:
        key, sign, value = one.partition("=")
        if not sign or not key:
            raise UsageError(f"--param was {one!r}; NAME=TEXT is required.", "Such as exchange_id=kraken.")
        given[key] = value
    price = StreamInput(symbols=["BTC-USD"], interval=60, name="price")
    signal = builtin("position_target", price, name="target", long_percent=0.5, short_percent=0)
    made = make(name, signal, "describe", **given)
    told, can, settings = made.describe(), made.capabilities(), made.settings()
    if as_json:
        render.json_line({**told, **can, "venue": settings.venue})
        return
    rows = [
        ("steps", " > ".join(told["nodes"])),
        ("entry, exit", f"{told['entry']}, {told['exit']}"),
        ("takes", " ".join(f"{one['name']}:{one['kind']}" for one in told["ports"]["inputs"])),
        ("gives", " ".join(f"{one['name']}:{one['kind']}" for one in told["ports"]["outputs"])),
        ("modes", " ".join(can["modes"])),
        ("portfolio_scope", can["portfolio_scope"]),
        ("venue", settings.venue or "-"),
    ]
    render.table(("", ""), rows, title=f"node set {told['name']}")


@nodeset.command("new")
@click.argument("name")
@click.option(
    "--into",
    "place",
    metavar="DIRECTORY",
    type=click.Path(path_type=Path),
    default=".",
    help="Where it is made; by default here.",
)
@format_option
def new(name: str, place: Path, as_json: bool) -> None:
    """Begin the node set NAME of a new exchange: recipe, brokerage profile, example strategy and contract test, as a package.

    It is a new directory NAME whose tests pass as they are. Nothing is written over, and nothing is half done.
    """
    from qmtl.foundation.common.errors import RecipeTaken
    from qmtl.interfaces.project.making import make_project
    from qmtl.interfaces.project.naming import require_project_name
    from qmtl.interfaces.project.node_set import files_of
    from qmtl.runtime.nodesets.registry import recipe_names

    require_project_name(name)
    if name in recipe_names():
        raise RecipeTaken(f"NAME was {name!r}, which is a recipe already.", "Choose another name.")
    made = files_of(name)
    make_project(place / name, made)
    if as_json:
        render.json_line({"directory": str(place / name), "files": list(made)})
        return
    render.line(f"{place / name} is made:")
    for path in made:
        render.line(f"  {path}")
    render.line(f"next: cd {place / name}, and the commands of README.md")
