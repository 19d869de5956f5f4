"""`import` and `repair`: bars come in from files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qmtl.foundation.common.errors import QmtlError, UsageError
from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.data.options import catalogue_option, length_option
from qmtl.interfaces.cli.data.rows import end, named, show_rows
from qmtl.interfaces.cli.options import format_option


@click.command(name="import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--symbol", required=True, help="What the bars are of, such as BTC-USD.")
@length_option("The length of a bar.", required=True)
@catalogue_option
@click.option(
    "--columns",
    default="",
    metavar="OURS=THEIRS,...",
    help="Names in the file of open_time_ms, open, high, low, close, volume where they differ; further columns are then left out.",
)
@click.option(
    "--times",
    type=click.Choice(["ms", "s", "iso"]),
    default="ms",
    show_default=True,
    help="Open times are epoch milliseconds, epoch seconds, or ISO 8601 with an offset from UTC.",
)
@click.option(
    "--floats",
    is_flag=True,
    help="Take the doubles of a Parquet file, each as the shortest decimal that reads back as it.",
)
@format_option
def import_(
    files: tuple[Path, ...],
    symbol: str,
    interval: int,
    directory: Path,
    columns: str,
    times: str,
    floats: bool,
    as_json: bool,
) -> None:
    """Import files of bars, CSV (also gzip) or Parquet, known by their first bytes. Each file is one commit, whole or not at all.

    A file that can't be used is told with its line, and the others are imported. Bars that are there already are left out and counted;
    one that is there with other numbers refuses its file.
    """
    from qmtl.runtime.data.catalogue import writing
    from qmtl.runtime.data.conformance import Conformance
    from qmtl.runtime.data.csv_file import FileForm, Times
    from qmtl.runtime.data.provider import digest_of, read_file

    form = FileForm(_mapping(columns), Times(times), floats)
    rows: list[dict[str, Any]] = []
    problems: list[QmtlError] = []
    with writing(directory) as writer, render.progress() as advance:
        for done, path in enumerate(files):
            advance("files", done, len(files))
            try:
                held = Conformance(symbol, interval)
                source = {"kind": "file", "file": path.name, "digest": digest_of(path)}
                added = writer.add(symbol, interval, read_file(path, symbol, interval, form, held), source)
            except QmtlError as problem:
                problems.append(problem)
                rows.append(
                    {"file": str(path), "imported": False, "code": problem.code, "problem": str(problem)}
                )
                continue
            rows.append(
                {
                    "file": str(path),
                    "imported": True,
                    "bars": added.bars,
                    "known": added.known,
                    "duplicates": held.findings().duplicates,
                    **named(added.commit),
                }
            )
        advance("files", len(files), len(files))
    show_rows(
        rows,
        as_json,
        ("FILE", "BARS", "KNOWN", "DUPLICATES", "COMMIT", "AS_OF", "PROBLEM"),
        ("file", "bars", "known", "duplicates", "commit", "as_of", "code"),
    )
    end(problems)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--symbol", required=True, help="Of which gaps are filled.")
@length_option("The length of a bar.", required=True)
@catalogue_option
@format_option
def repair(file: Path, symbol: str, interval: int, directory: Path, as_json: bool) -> None:
    """Fill the gaps of a series with the bars that a file has there. Nothing is made up: what the file lacks, too, stays absent."""
    from qmtl.runtime.data.backfill import repair as fill
    from qmtl.runtime.data.catalogue import writing
    from qmtl.runtime.data.provider import FileProvider

    with writing(directory) as writer:
        done = fill(writer, FileProvider({symbol: file}), symbol, interval)
    row = {
        "symbol": symbol,
        "interval": interval,
        "bars": done.bars,
        "gaps_left": len(done.left),
        **named(done.commit),
    }
    show_rows(
        [row],
        as_json,
        ("SYMBOL", "INTERVAL", "BARS", "GAPS_LEFT", "COMMIT", "AS_OF"),
        ("symbol", "interval", "bars", "gaps_left", "commit", "as_of"),
    )


def _mapping(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        ours, sign, theirs = pair.partition("=")
        if not sign or not theirs or ours in found:
            raise UsageError(
                f"--columns had {pair[:60]!r}; each of ours is said once, as open_time_ms=timestamp.",
                "Separate them by commas.",
            )
        found[ours] = theirs
    return found
