"""`qmtl dag show`: the graph of shared nodes, drawn."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

import click

from qmtl.foundation.common.errors import UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.options import log_option, looking

WIDE: Final = 200
"""Columns of what is no terminal."""


@click.command("show")
@click.option("--strategy", "strategy_id", default="", help="Only the nodes of this strategy.")
@click.option(
    "--file",
    "spec",
    metavar="STRATEGY",
    default=None,
    help="A strategy that may not be published yet, as `qmtl strategy publish` takes it: what it would share, and what is new.",
)
@click.option(
    "--world", "world_id", default="", help="Only of this world; with --file the one in which it would be."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "dot", "svg", "json"]),
    default="text",
    show_default=True,
    help="For the terminal, for other programs that draw, as a picture, or for programs.",
)
@click.option("--json", "as_json", is_flag=True, help="Short for --format json.")
@click.option(
    "--ascii", "ascii_only", is_flag=True, help="Draw the text without characters outside of ASCII."
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Write it into this file."
)
@log_option
def show(
    strategy_id: str,
    spec: str | None,
    world_id: str,
    form: str,
    as_json: bool,
    ascii_only: bool,
    out: Path | None,
    log_address: str,
) -> None:
    """Draw the nodes that are deployed, inputs above what reads them: who shares each, its state, and the task that computes it.

    It only looks at the log: nobody is asked, nothing is written, and it works while no worker runs. A drawing that is wider than the terminal
    becomes a list of its layers. `--format svg --out graph.svg` is a picture for a browser.
    """
    from qmtl.interfaces.cli.out_file import write
    from qmtl.interfaces.graph import forms, svg, terminal
    from qmtl.interfaces.graph.picture import as_json as picture_json
    from qmtl.interfaces.graph.picture import of_log, of_message
    from qmtl.runtime.sdk.loading import load_strategy, message_of

    if spec is not None and strategy_id:
        raise UsageError(
            "--file and --strategy were given together; each names what is drawn.", "Give one of them."
        )
    message = None if spec is None else message_of(load_strategy(spec))
    with looking(log_address) as log:
        picture = (
            of_log(log, world_id, strategy_id) if message is None else of_message(log, message, world_id)
        )
    match "json" if as_json else form:
        case "json":
            text = render.json_text(picture_json(picture)) + "\n"
        case "mermaid":
            text = forms.mermaid(picture)
        case "dot":
            text = forms.dot(picture)
        case "svg":
            text = svg.drawing(picture)
        case _:
            plain = ascii_only or not _can_draw()
            text = terminal.drawing(picture, _width(), ascii_only=plain) + "\n"
    if out is None:
        render.block(text)
        return
    write(out, text.encode())
    render.line(f"Written: {out}")


def _width() -> int:
    return shutil.get_terminal_size((WIDE, 50)).columns if sys.stdout.isatty() else WIDE


def _can_draw() -> bool:
    """Whether the terminal knows the letters of a drawing."""
    try:
        "┌▼·…".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
