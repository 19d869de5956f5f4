"""`list`, `log` and `gaps`: what is there, where it came from, and what is missing."""

from __future__ import annotations

from pathlib import Path

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.data.options import as_of_option, catalogue_option, range_options, series_options
from qmtl.interfaces.cli.data.rows import chosen, named, opened, show_rows, told
from qmtl.interfaces.cli.options import format_option, rows_options


@click.command(name="list")
@catalogue_option
@as_of_option
@click.option(
    "--fingerprint", "with_fingerprint", is_flag=True, help="Read all bars, and show what they are."
)
@format_option
def list_(directory: Path, as_of: str | None, with_fingerprint: bool, as_json: bool) -> None:
    """List the series of a catalogue as of a commit, with the commit's digest, to which a backtest is bound."""
    catalogue = opened(directory)
    commit = catalogue.commit(as_of)
    rows = []
    for one in catalogue.series(commit.number):
        row = told(one, commit)
        if with_fingerprint:
            row["dataset_fingerprint"] = catalogue.fingerprint(
                [one.symbol], one.interval, as_of=commit.number
            )
        rows.append(row)
    heads = ["SYMBOL", "INTERVAL", "BARS", "FROM", "TO", "PARTS", "AS_OF"]
    keys = ["symbol", "interval", "bars", "from", "to", "parts", "as_of"]
    if with_fingerprint:
        heads.append("FINGERPRINT")
        keys.append("dataset_fingerprint")
    show_rows(rows, as_json, heads, keys)


@click.command()
@catalogue_option
@rows_options
@format_option
def log(directory: Path, limit: int | None, as_json: bool) -> None:
    """Show the commits of a catalogue, the newest last: what each has brought, and from where."""
    commits = opened(directory).commits()
    shown = commits if limit is None else commits[-limit:]
    rows = [
        {
            **named(commit),
            "symbols": sorted({part.symbol for part in commit.parts}),
            "bars": sum(part.bars for part in commit.parts),
            "source": dict(commit.source),
            "importer": commit.importer,
        }
        for commit in shown
    ]
    for row in rows:
        if not as_json:
            row["symbols"] = " ".join(row["symbols"])
            row["source"] = " ".join(f"{key}={value}" for key, value in sorted(row["source"].items()))
    show_rows(
        rows,
        as_json,
        ("COMMIT", "AS_OF", "SYMBOLS", "BARS", "SOURCE"),
        ("commit", "as_of", "symbols", "bars", "source"),
    )
    render.left_off(len(shown), len(commits), "commits", as_json=as_json, newest=True)


@click.command()
@catalogue_option
@as_of_option
@series_options
@range_options
@rows_options
@format_option
def gaps(
    directory: Path,
    as_of: str | None,
    symbol: str | None,
    interval: int | None,
    from_ms: int | None,
    to_ms: int | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the buckets without a bar, as ranges of open times. A gap may be the market's: nobody traded."""
    from qmtl.runtime.data.conformance import gaps_of

    catalogue = opened(directory)
    commit = catalogue.commit(as_of)
    rows = [
        {
            "symbol": one.symbol,
            "interval": one.interval,
            "from": render.instant(gap.from_ms),
            "to": render.instant(gap.to_ms),
            "from_ms": gap.from_ms,
            "to_ms": gap.to_ms,
            "bars": (gap.to_ms - gap.from_ms) // (one.interval * 1000),
        }
        for one in chosen(catalogue, commit, symbol, interval)
        for gap in gaps_of(
            catalogue.times(one.symbol, one.interval, from_ms, to_ms, commit.number),
            one.interval,
            from_ms,
            to_ms,
        )
    ]
    shown = rows if limit is None else rows[:limit]
    show_rows(
        shown,
        as_json,
        ("SYMBOL", "INTERVAL", "FROM", "TO", "BARS"),
        ("symbol", "interval", "from", "to", "bars"),
    )
    render.left_off(len(shown), len(rows), "gaps", as_json=as_json)
