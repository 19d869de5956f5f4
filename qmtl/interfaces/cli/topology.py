"""`qmtl topology`: the system as a list, or drawn."""

from __future__ import annotations

from typing import Any

import click

from qmtl.interfaces.cli import render


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "json"]),
    default="text",
    show_default=True,
    help="How to draw.",
)
def topology(form: str) -> None:
    """Draw the whole system: processors, what they read, own and write."""
    from qmtl.topology import EDGES, PROTOTYPES, TOPOLOGY, mermaid

    if form == "mermaid":
        render.block(mermaid())
        return
    rows: list[dict[str, Any]] = [
        {
            "name": one.name,
            "key": stage.key,
            "about": stage.about,
            "anchor": one.anchor,
            "reads": [
                {"topic": read.topic, "by": "bucket" if read.bucketed else "record", "lag": read.lag}
                for read in one.inputs()
            ],
            "owns": list(one.tables),
            "writes": list(one.emits),
        }
        for stage, one in zip(TOPOLOGY, PROTOTYPES, strict=True)
    ]
    rows += [
        {
            "name": one.name,
            "key": "partition",
            "about": one.about,
            "anchor": one.name,
            "reads": [],
            "owns": [],
            "writes": list(one.writes),
        }
        for one in EDGES
    ]
    if form == "json":
        render.json_object(rows)
        return
    for row in rows:
        render.line(f"{row['name']}  (by {row['key']}) {row['about']}")
        for read in row["reads"]:
            late = f", {read['lag']} bucket late" if read["lag"] else ""
            render.line(f"    <- {read['topic']} by {read['by']}{late}")
        for name in row["owns"]:
            render.line(f"    =  {name}")
        for name in row["writes"]:
            render.line(f"    -> {name}")
