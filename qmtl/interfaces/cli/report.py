"""`qmtl report`: what a run was worth, as one HTML file and as tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qmtl.interfaces.cli import render
from qmtl.interfaces.cli.conventions import convention_options
from qmtl.interfaces.cli.options import format_option, log_option, looking

if TYPE_CHECKING:
    from qmtl.runtime.performance.kpi import Convention, Performance


@click.command()
@log_option
@click.option("--world", "world_id", default="demo", show_default=True, help="The world in which it ran.")
@click.option(
    "--strategy", "strategy_id", default=None, help="Its id; may be left out where the world has one."
)
@click.option(
    "--data",
    "data",
    multiple=True,
    metavar="SYMBOL=FILE",
    help="The bars that it ran on, CSV, plain or gzip; repeatable. By default those that come with QMTL.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
    show_default=True,
    help="Where the page is written.",
)
@click.option(
    "--tables",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Where trades.csv, fills.csv and equity.csv are written; by default a directory beside the page.",
)
@click.option("--parquet", is_flag=True, help="Write the tables as Parquet, too; needs pyarrow.")
@convention_options
@format_option
def report(
    log_address: str,
    world_id: str,
    strategy_id: str | None,
    data: tuple[str, ...],
    out: Path,
    tables: Path | None,
    parquet: bool,
    convention: Convention,
    as_json: bool,
) -> None:
    """Write the report of a strategy's run: figures, charts and trades.

    The page needs no network and no script. It is computed from the fills on the log and the bars, which have to be those of the run.
    """
    from qmtl.interfaces.cli.out_file import not_written
    from qmtl.interfaces.report.export import require_parquet, tables_of, write_csv, write_parquet
    from qmtl.interfaces.report.from_log import result_from_log
    from qmtl.interfaces.report.page import page
    from qmtl.runtime.data.bars import default_sources, source_of
    from qmtl.runtime.performance.kpi import performance_of

    if parquet:
        require_parquet()
    sources = tuple(source_of(one) for one in data) or default_sources()
    with looking(log_address) as log:
        result = result_from_log(log, world_id, strategy_id, sources)
    found = performance_of(result, convention)
    written = [out]
    directory = tables or out.with_name(f"{out.stem}-tables")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page(result, found), encoding="utf-8")
        directory.mkdir(parents=True, exist_ok=True)
        for table in tables_of(result, found.trades):
            written.append(directory / f"{table.name}.csv")
            write_csv(table, written[-1])
            if parquet:
                written.append(directory / f"{table.name}.parquet")
                write_parquet(table, written[-1])
    except OSError as error:
        raise not_written(written[-1], error) from None
    if as_json:
        render.json_line(
            {**_plain(found), "strategy": result.strategy_id, "files": [str(one) for one in written]}
        )
        return
    _show(found, written)


def _plain(found: Performance) -> dict[str, Any]:
    return {
        "figures": {one.name: one.value for one in found.figures},
        "months": [{"year": one.year, "month": one.month, "return": one.value} for one in found.months],
    }


def _show(found: Performance, written: list[Path]) -> None:
    from qmtl.interfaces.report import words

    rows = [(one.title, words.figure(one)) for one in found.figures]
    render.table(("FIGURE", "VALUE"), rows)
    render.line()
    for one in written:
        render.line(f"Written: {one}")
